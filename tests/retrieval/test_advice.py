"""Advice of native code is held back where it is given, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from milvus_lite.index.faiss_ivf_flat import FaissIvfFlatIndex

from xdner.retrieval import milvus
from xdner.retrieval.advice import without_advice
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.testing.pools import SENTENCES
from xdner.text import Sentence

Make = Callable[..., WordEmbedder]


def test_only_what_clusters_is_held_back(pool: Pool, embedder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_clusters_of_few_rows_are_nobodys_worry(
    tmp_path: Path, embedder: Make, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when a busy machine comes to them late."""
    build = FaissIvfFlatIndex.build

    def late(*given: Any) -> Any:
        time.sleep(0.2)
        return build(*given)

    monkeypatch.setattr(FaissIvfFlatIndex, "build", late)
    rng = random.Random(0)
    many = [
        Sentence.from_words(["".join(rng.choices("abcdef", k=3)) for _ in range(8)], [(0, 1, "x")]) for _ in range(50)
    ]
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    pool.add(many[:49], embedder())
    assert pool.manifest.kind == "IVF_FLAT"
    capfd.readouterr()
    pool.add(many[49:], embedder())
    assert "clustering" not in capfd.readouterr().err
    # Whatever else is written meanwhile comes out afterwards.
    with without_advice():
        os.write(2, b"one\nWARNING clustering 8 points\ntwo")
        with without_advice():
            os.write(2, b" three\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "one\ntwo three\n"
