"""Writers of a pool that fail, are stopped or killed, or find it gone: it is as it was, or as it was to be."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from xdner.errors import RetrievalError
from xdner.retrieval import pool as pool_module
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.manifest import CACHE, MANIFEST, Manifest
from xdner.retrieval.milvus import MilvusRows
from xdner.retrieval.pool import Pool, open_pool
from xdner.testing.pools import SENTENCES, stored, texts
from xdner.text import Sentence

Make = Callable[..., WordEmbedder]


@pytest.mark.parametrize("kind", [RetrievalError, KeyboardInterrupt])
def test_a_failed_insert_leaves_the_pool_as_it_was(
    pool: Pool, embedder: Make, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    rows, shown = stored(pool), texts(pool)
    whole = MilvusRows.insert

    def breaks(self: MilvusRows, rows: object) -> Iterator[int]:
        yield from whole(self, list(rows)[:3])  # type: ignore[call-overload]
        raise kind("the disk is full")

    more = [Sentence.from_words(["north", "wind", "sails", "in"], [(1, 2, "wind")])]
    with monkeypatch.context() as patch:
        patch.setattr(MilvusRows, "insert", breaks)
        with pytest.raises(kind):
            pool.add(more, embedder())
        with pytest.raises(kind):
            open_pool(pool.folder).replace(more, embedder())
    assert (texts(pool), stored(open_pool(pool.folder))) == (shown, rows)
    assert len(list(pool.folder.glob("*.db"))) == 1
    assert pool.add(more, embedder()).added == 1
    assert stored(pool) == set(pool.keys().tolist())


def test_rows_that_a_killed_writer_left_are_swept_and_never_shown(
    pool: Pool, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    more = [Sentence.from_words(["north", "wind"], [(1, 2, "wind")])]
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "_commit", lambda *_: (_ for _ in ()).throw(Killed()))
        patch.setattr(MilvusRows, "delete_from", lambda *_: (_ for _ in ()).throw(RetrievalError("dead")))
        with pytest.raises(Killed):
            pool.add(more, embedder())
    again = open_pool(pool.folder)
    assert again.manifest.pending
    assert len(stored(again)) == again.manifest.words + 2
    assert again.add(SENTENCES[:1], embedder()).unchanged == 1
    again.add([Sentence.from_words(["a"], [(0, 1, "x")])], embedder())
    assert stored(again) == set(again.keys().tolist())
    assert not again.manifest.pending


def test_a_writer_that_is_stopped_after_it_was_done_loses_nothing(
    pool: Pool, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, more = pool_module.write_examples, [Sentence.from_words(["north", "wind"], [(1, 2, "wind")])]

    def stopped(*arguments: Any) -> Any:
        whole(*arguments)
        raise KeyboardInterrupt

    for change in (lambda: pool.add(more, embedder()), lambda: pool.replace([*SENTENCES[:2], *more], embedder())):
        with monkeypatch.context() as patch:
            patch.setattr(pool_module, "write_examples", stopped)
            with pytest.raises(KeyboardInterrupt):
                change()
        again = open_pool(pool.folder)
        assert "north wind" in texts(again)
        assert stored(again) == set(again.keys().tolist())


@pytest.mark.parametrize("change", ["add", "replace", "remove"])
def test_a_pool_whose_writer_was_stopped_has_what_its_folder_has(
    pool: Pool, embedder: Make, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    write, one = Manifest.write, Sentence.from_words(["north", "wind"], [(1, 2, "wind")])

    def stopped(manifest: Manifest, folder: Path) -> None:
        write(manifest, folder)
        if not manifest.pending:
            raise KeyboardInterrupt

    changes = {
        "add": lambda: pool.add([one], embedder()),
        "replace": lambda: pool.replace([one], embedder()),
        "remove": lambda: pool.remove([SENTENCES[1].text]),
    }
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            changes[change]()
    again = open_pool(pool.folder)
    assert texts(again) != [s.text for s in SENTENCES]
    assert texts(pool) == texts(again)
    assert (pool.manifest.revision, len(pool.matrix())) == (again.manifest.revision, again.manifest.words)


def test_what_killed_writers_left_is_swept(pool: Pool, embedder: Make) -> None:
    (pool.folder / "xdner_0123456789abcdef.db").mkdir()
    (pool.folder / "xdner_0123456789abcdef.db" / "rows").write_bytes(b"x")
    for name in ("examples.77.jsonl", ".index.json.0123456789ab.part", "mine.txt"):
        (pool.folder / name).write_text("x")
    pool.add([Sentence.from_words(["a"], [(0, 1, "x")])], embedder())
    left = {p.name for p in pool.folder.iterdir()}
    assert left == {MANIFEST, CACHE, ".lock", "mine.txt", pool.manifest.database, pool.manifest.file}
    assert len(texts(open_pool(pool.folder))) == 5


def test_a_first_writer_that_fails_leaves_nothing(
    tmp_path: Path, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> object:
        raise KeyboardInterrupt

    pool = Pool.create(tmp_path / "new" / "index", embedder().embedding)
    monkeypatch.setattr("xdner.retrieval.milvus.MilvusRows.insert", fails)
    with pytest.raises(KeyboardInterrupt):
        pool.add(SENTENCES, embedder())
    assert list(tmp_path.iterdir()) == []
    # What was there before stays.
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt):
        Pool.create(tmp_path / "old" / "index", embedder().embedding).add(SENTENCES, embedder())
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    assert list((tmp_path / "old").iterdir()) == []
    monkeypatch.undo()
    pool.add(SENTENCES, embedder())
    assert len(open_pool(pool.folder)) == 4


@pytest.mark.parametrize("waits", [False, True])
def test_an_index_that_was_removed_meanwhile_is_not_made_anew(
    pool: Pool, embedder: Make, tmp_path: Path, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have the examples that come, and none of those that were there."""
    folder = Path(shutil.copytree(pool.folder, tmp_path / "sea" / "index"))
    pool, one, told = open_pool(folder), Sentence.from_text("a new sea", [(6, 9, "sea")]), list[str]()
    changes = (lambda: pool.add([one], embedder()), lambda: pool.remove(["wind of the sea"]))
    for change in changes:
        if not folder.exists():
            shutil.copytree(tmp_path / "index", folder)
        if waits:  # for whoever removes it
            looked = waited_for(monkeypatch)
            with FileLock(folder / ".lock"):
                writer = threading.Thread(target=lambda change=change: told.append(failing(change)))
                writer.start()
                assert looked.wait(60)
                shutil.rmtree(folder.parent.rename(tmp_path / "gone"))
            writer.join()
        else:
            shutil.rmtree(folder.parent)
            told.append(failing(change))
        assert not folder.parent.exists()
    assert all("removed meanwhile" in error for error in told)
    assert len(told) == 2
    # All that is wanted, whatever was there, is whole.
    assert pool.replace([one], embedder()).added == 1


def waited_for(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a writer has found the lock taken."""
    seen = threading.Event()

    class Watched(FileLock):
        def acquire(self, timeout: float | None = None, **more: Any) -> Any:
            with contextlib.suppress(Timeout):
                return super().acquire(timeout=0)
            seen.set()
            return super().acquire(timeout=timeout, **more)

    monkeypatch.setattr("xdner.files.FileLock", Watched)
    return seen


def failing(change: Callable[[], object]) -> str:
    try:
        return str(change())
    except RetrievalError as error:
        return error.message
