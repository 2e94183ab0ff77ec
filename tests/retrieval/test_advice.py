"""Advice of native code is held back where it is given, and nowhere else."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from xdner.retrieval import milvus
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.testing.pools import SENTENCES


def test_only_what_clusters_is_held_back(
    pool: Pool, embedder: Callable[..., WordEmbedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process wrote before it crashed is wanted."""
    held = []

    @contextlib.contextmanager
    def holding() -> Iterator[None]:
        held.append("")
        yield

    with pool.rows() as rows:
        monkeypatch.setattr(milvus, "without_advice", holding)
        (vectors,) = embedder().embed(SENTENCES[:1])
        keys, _ = rows.search(vectors, 1, rows="all", nprobe=16)
        rows.vectors(keys[:, 0].tolist())
        assert held == []
        rows.delete_examples(["none"])
    assert held


def test_a_disk_that_is_full_for_messages_costs_no_result() -> None:
    code = """
        import os
        from xdner.retrieval.advice import without_advice
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        with without_advice():
            os.write(2, b"some line")
        print("went on")
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "went on\n")
