"""A pool whose files were damaged is told, and can be made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from xdner.errors import RetrievalError
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.manifest import CACHE, MANIFEST
from xdner.retrieval.pool import Pool, has_pool, open_pool
from xdner.testing.pools import SENTENCES, texts

Make = Callable[..., WordEmbedder]


def test_damage_is_told(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="there is no index of examples"):
        open_pool(tmp_path)
    assert has_pool(pool.folder)
    copy = tmp_path / "copy"
    for file, damage, message in (
        (MANIFEST, b"{", "is not the manifest of an index"),
        (MANIFEST, b'{"format": 7}', "has format 7"),
        (pool.manifest.file, b"", "was altered"),
    ):
        shutil.copytree(pool.folder, copy)
        (copy / file).write_bytes(damage)
        with pytest.raises(RetrievalError, match=message):
            open_pool(copy)
        shutil.rmtree(copy)
    shutil.copytree(pool.folder, copy)
    (copy / CACHE).unlink()
    shutil.rmtree(copy / pool.manifest.database)
    with pytest.raises(RetrievalError, match="has no collection") as caught:
        open_pool(copy).matrix()
    assert "--replace" in (caught.value.hint or "")


@pytest.mark.parametrize("file", [MANIFEST, "examples"])
def test_what_is_damaged_can_be_made_again(pool: Pool, embedder: Make, file: str) -> None:
    (pool.folder / (pool.manifest.file if file == "examples" else file)).write_bytes(b"{")
    again = Pool.create(pool.folder, embedder().embedding)
    with pytest.raises(RetrievalError, match="--replace"):
        again.add(SENTENCES, embedder())
    assert again.replace(SENTENCES[:2], embedder()).added == 2
    assert texts(open_pool(pool.folder)) == [s.text for s in SENTENCES[:2]]
    again.add(SENTENCES[2:], embedder())  # and the rest of the damaged one is swept
    assert len(list(pool.folder.glob("*.db"))) == len(list(pool.folder.glob("examples.*"))) == 1


def test_a_collection_is_named_as_we_name_them(pool: Pool) -> None:
    """A file's name is made of it, and that file is deleted with the pool."""
    pool.manifest.with_(collection="../../xdner_0123456789abcdef").write(pool.folder)
    with pytest.raises(RetrievalError, match="another name"):
        open_pool(pool.folder)
