"""A pool keeps what was put in, wholly or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from xdner.errors import DataError, IndexMismatchError, RetrievalError
from xdner.retrieval import pool as pool_module
from xdner.retrieval.advice import without_advice
from xdner.retrieval.by_words import WordRetriever
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.manifest import CACHE, MANIFEST
from xdner.retrieval.milvus import SHIFT, MilvusRows
from xdner.retrieval.pool import Change, Pool, has_pool, open_pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import stop_words
from xdner.testing.pools import SENTENCES
from xdner.text import Sentence

Make = Callable[..., WordEmbedder]


def stored(pool: Pool) -> set[int]:
    """The keys of all rows that Milvus really holds."""
    with pool.rows() as rows:
        found = rows._client.query(pool.manifest.collection, filter="id >= 0", output_fields=["id"], limit=16000)
    return {row["id"] for row in found}


def texts(pool: Pool) -> list[str]:
    return [e.sentence.text for _, e in sorted(pool.examples.items())]


def test_every_word_is_a_row_with_its_label(pool: Pool, embedder: Make) -> None:
    with pool.rows() as rows:
        fields = ["example", "word", "label", "content", "vector"]
        found = rows._client.query(pool.manifest.collection, filter="id >= 0", output_fields=fields, limit=100)
    assert len(found) == pool.manifest.words == sum(len(s.words) for s in SENTENCES)
    by_id = {e.id: e.sentence for e in pool.examples.values()}
    told = {(by_id[r["example"]].words[r["word"]].text, r["label"], r["content"]) for r in found}
    assert {("Ann", "B-person", True), ("Lee", "I-person", True), ("in", "O", False), ("sails", "O", True)} <= told
    (vectors,) = embedder().embed(SENTENCES[:1])
    row = next(r for r in found if r["id"] == 3)
    assert np.allclose(row["vector"], vectors[3], atol=1e-5)


def test_a_pool_is_read_without_the_corpus_and_without_milvus(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MilvusRows, "_connect", lambda self: pytest.fail("Milvus was opened"))
    again = open_pool(pool.folder)
    assert [e.sentence for _, e in sorted(again.examples.items())] == SENTENCES
    assert len(again.matrix()) == pool.manifest.words


def test_the_cache_is_made_again_from_milvus(pool: Pool) -> None:
    before = pool.matrix().vectors.copy()
    (pool.folder / CACHE).unlink()
    again = open_pool(pool.folder)
    assert np.allclose(again.matrix().vectors, before, atol=1e-6)
    assert (pool.folder / CACHE).is_file()
    (pool.folder / CACHE).write_bytes(b"nonsense")
    assert np.allclose(open_pool(pool.folder).matrix().vectors, before, atol=1e-6)


def test_adding_again_changes_nothing(pool: Pool, embedder: Make) -> None:
    before, rows = pool.manifest, stored(pool)
    assert pool.add(SENTENCES, embedder()) == Change(unchanged=4)
    assert (pool.manifest, stored(pool)) == (before, rows)


def test_adding_correcting_and_removing(pool: Pool, embedder: Make) -> None:
    more = Sentence.from_words(["north", "wind"], [(1, 2, "wind")])
    other = SENTENCES[1].with_entities([SENTENCES[1].entity(1, 2, "vessel")])
    assert pool.add([more, other, SENTENCES[0]], embedder()) == Change(added=1, updated=1, unchanged=1)
    assert sorted(texts(pool)) == sorted([*(s.text for s in SENTENCES), "north wind"])
    labels = {e.label for x in pool.examples.values() for e in x.sentence.entities}
    assert "vessel" in labels
    assert "ship" not in labels
    assert pool.remove(["north wind", "never seen"]) == Change(removed=1)
    again = open_pool(pool.folder)
    assert sorted(texts(again)) == sorted(s.text for s in SENTENCES)
    # What Milvus holds, what the cache holds and what is counted are the same.
    assert stored(again) == set(again.keys().tolist()) == set(again.matrix().keys.tolist())
    found = dict(zip(again.matrix().keys.tolist(), again.matrix().vectors, strict=True))
    for number, example in again.examples.items():
        (vectors,) = embedder().embed([example.sentence])
        assert np.allclose([found[number << SHIFT | w] for w in range(len(vectors))], vectors, atol=1e-5)


def test_replacing_and_emptying(pool: Pool, embedder: Make) -> None:
    change = pool.replace(SENTENCES[2:], embedder(layer=2))
    assert change == Change(unchanged=2, removed=2)
    assert texts(open_pool(pool.folder)) == [s.text for s in SENTENCES[2:]]
    assert len(list(pool.folder.glob("*.db"))) == 1
    pool.remove([s.text for s in SENTENCES])
    assert len(open_pool(pool.folder)) == 0
    assert pool.add(SENTENCES, embedder(layer=2)) == Change(added=4)


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


def test_another_embedding_is_refused_and_both_are_named(pool: Pool, embedder: Make) -> None:
    before = (pool.folder / MANIFEST).read_bytes()
    for other in (embedder(layer=2), embedder(pooling="max")):
        with pytest.raises(
            IndexMismatchError, match=r"layer 1, mean of sub-words.*but it is asked with tiny"
        ) as caught:
            pool.add(SENTENCES, other)
        assert "--replace" in (caught.value.hint or "")
    assert (pool.folder / MANIFEST).read_bytes() == before


def test_examples_that_cannot_be_shown(pool: Pool, embedder: Make) -> None:
    bare = Sentence.from_words(["nothing", "here"], id="s9")
    with pytest.raises(DataError, match=r"1 examples have no entities, the first is 's9'"):
        pool.add([*SENTENCES, bare], embedder())
    with pytest.raises(DataError, match="there is no example"):
        pool.replace([], embedder())
    assert len(pool) == 4


def test_of_two_labellings_the_last_counts(tmp_path: Path, embedder: Make) -> None:
    other = SENTENCES[1].with_entities([SENTENCES[1].entity(1, 2, "vessel")])
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    assert pool.add([SENTENCES[1], other], embedder()) == Change(added=1)
    assert [e.label for x in pool.examples.values() for e in x.sentence.entities] == ["vessel"]
    before = pool.manifest
    pool.add([SENTENCES[1], other], embedder())
    assert pool.manifest == before


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


def test_a_server_takes_the_same_way(tmp_path: Path, embedder: Make) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "served.db"))
    try:
        uri = f"http://127.0.0.1:{port}"
        pool = Pool.create(tmp_path / "index", embedder().embedding, uri=uri)
        pool.add(SENTENCES, embedder())
        assert not list((tmp_path / "index").glob("*.db"))
        pool.replace(SENTENCES[:3], embedder())
        pool.remove([SENTENCES[0].text])
        (pool.folder / CACHE).unlink()
        again = open_pool(pool.folder)
        assert stored(again) == set(again.keys().tolist()) == set(again.matrix().keys.tolist())
        with again.rows() as rows:
            assert rows._client.list_collections() == [again.manifest.collection]
        # Where the rows are on a server, it is the server that is asked; it finds what a matrix of the rows finds.
        queries = [*SENTENCES, Sentence.from_text("Eve sails the sea")]
        asked = []
        for search in ("auto", "memory"):
            chosen = RetrievalSettings(layer=1, search=search, candidates=4)  # type: ignore[arg-type]
            retriever = WordRetriever(again, embedder(), chosen)
            assert (retriever._rows is None) == (search == "memory")
            asked.append(retriever.retrieve(queries, 3))
            retriever.close()
        assert [[h.example.id for h in hits] for hits in asked[0]] == [
            [h.example.id for h in hits] for hits in asked[1]
        ]
        assert [h.score for hits in asked[0] for h in hits] == pytest.approx(
            [h.score for hits in asked[1] for h in hits], abs=1e-4
        )
        assert all(asked[0])
    finally:
        server.stop(grace=0)
        database.close()
    with pytest.raises(RetrievalError, match=f"the Milvus server {uri} (cannot be opened|does not answer)") as caught:
        Pool(again.folder, again.manifest, timeout=1).add([Sentence.from_words(["a"], [(0, 1, "x")])], embedder())
    assert "Is a Milvus server running there" in (caught.value.hint or "")
    assert texts(open_pool(pool.folder)) == [s.text for s in SENTENCES[1:3]]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"])
def test_a_server_that_is_silent_or_talks_nonsense(tmp_path: Path, embedder: Make, answer: bytes) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def serve() -> None:
            kept = []
            while not stop.is_set():
                try:
                    kept.append(listening.accept()[0])
                    if answer:
                        kept[-1].sendall(answer)
                except OSError:
                    continue
            for one in kept:
                one.close()

        thread = threading.Thread(target=serve)
        thread.start()
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        began = time.monotonic()
        try:
            pool = Pool.create(tmp_path / "i", embedder().embedding, uri=uri, settings=RetrievalSettings(timeout=1.0))
            with pytest.raises(RetrievalError, match=r"the Milvus server http://127") as caught:
                pool.add(SENTENCES, embedder())
        finally:
            stop.set()
            thread.join()
    assert "Is a Milvus server running there" in (caught.value.hint or "")
    assert time.monotonic() - began < 20
    assert not (tmp_path / "i").exists()


def test_no_address(tmp_path: Path, embedder: Make) -> None:
    with pytest.raises(RetrievalError, match="is not the address of a Milvus server"):
        Pool.create(tmp_path, embedder().embedding, uri="localhost:19530")


def test_the_manifest_is_plain(pool: Pool) -> None:
    told = json.loads((pool.folder / MANIFEST).read_text())
    assert told["embedding"]["dimension"] == 32
    assert (told["examples"], told["words"], told["kind"]) == (4, 17, "FLAT")


def test_the_index_is_an_ivf_with_as_many_clusters_as_fit_and_grows(tmp_path: Path, embedder: Make) -> None:
    many = [Sentence.from_words([*"abcdef", f"x{n}"], [(0, 1, "x")]) for n in range(80)]
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    pool.add(many[:12], embedder())
    assert (pool.manifest.kind, pool.manifest.clusters, pool.manifest.indexed) == ("IVF_FLAT", 2, 84)
    pool.add(many, embedder())
    assert (pool.manifest.kind, pool.manifest.clusters, pool.manifest.indexed) == ("IVF_FLAT", 14, 560)
    with pool.rows() as rows:
        told = rows._client.describe_index(pool.manifest.collection, "vector")
        assert (told["index_type"], told["metric_type"]) == ("IVF_FLAT", "COSINE")
        assert int(told["params"]["nlist"] if "params" in told else told["nlist"]) == 14


def test_a_backend_without_ivf(tmp_path: Path, embedder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from pymilvus import MilvusClient

    whole = MilvusClient.create_index

    def limited(self: MilvusClient, collection: str, index_params: object, **more: object) -> None:
        if "IVF_FLAT" in str([p.to_dict() for p in index_params]):  # type: ignore[attr-defined]
            raise ValueError("index type IVF_FLAT is not known")
        whole(self, collection, index_params, **more)

    monkeypatch.setattr(MilvusClient, "create_index", limited)
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    pool.add([Sentence.from_words([*"abcdefgh" * 5, f"x{n}"], [(0, 1, "x")]) for n in range(4)], embedder())
    assert (pool.manifest.kind, pool.manifest.clusters) == ("FLAT", 0)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\ud800", "\r"])
def test_characters_that_look_like_line_ends_are_kept(pool: Pool, embedder: Make, character: str) -> None:
    odd = Sentence.from_text(f"Oslo{character} sea", [(0, 4, "city")], id=f"odd{character}")
    pool.add([odd], embedder())
    assert odd in [e.sentence for e in open_pool(pool.folder).examples.values()]


def test_rows_are_marked_with_the_stop_words_of_the_index_that_is_made(pool: Pool, embedder: Make) -> None:
    other = Pool.create(pool.folder, embedder().embedding, settings=RetrievalSettings(stop_words="none"))
    other.replace(SENTENCES, embedder())
    assert open_pool(pool.folder).manifest.stop_words == "none"
    with other.rows() as rows:
        found = rows._client.query(other.manifest.collection, filter="content == false", output_fields=["id"])
    assert found == []  # "the" and "of" are content now


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


def test_what_killed_writers_left_is_swept(pool: Pool, embedder: Make) -> None:
    (pool.folder / "xdner_0123456789abcdef.db").mkdir()
    (pool.folder / "xdner_0123456789abcdef.db" / "rows").write_bytes(b"x")
    for name in ("examples.77.jsonl", ".index.json.0123456789ab.part", "mine.txt"):
        (pool.folder / name).write_text("x")
    pool.add([Sentence.from_words(["a"], [(0, 1, "x")])], embedder())
    left = {p.name for p in pool.folder.iterdir()}
    assert left == {MANIFEST, CACHE, ".lock", "mine.txt", pool.manifest.database, pool.manifest.file}
    assert len(texts(open_pool(pool.folder))) == 5


def test_a_package_that_is_missing_is_told_before_anything_is_embedded(
    tmp_path: Path, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordEmbedder, "embed", lambda *_: pytest.fail("embedded in vain"))
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    for package in ("pymilvus", "milvus_lite", "bm25s"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            stop_words.cache_clear()
            for act in (pool.add, pool.replace):
                with pytest.raises(RetrievalError, match=f"the package {package}") as caught:
                    act(SENTENCES, embedder())
                assert "xdner[retrieval]" in (caught.value.hint or "")
    assert not (tmp_path / "i").exists()


def test_a_password_is_not_stored(tmp_path: Path, embedder: Make) -> None:
    with pytest.raises(RetrievalError, match="http://host:19530 was given with a password") as caught:
        Pool.create(tmp_path, embedder().embedding, uri="http://me:secret@host:19530")
    assert "secret" not in str(caught.value)
    assert "MILVUS_TOKEN" in (caught.value.hint or "")


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
    pool: Pool, embedder: Make, tmp_path: Path, waits: bool
) -> None:
    """It would have the examples that come, and none of those that were there."""
    folder = Path(shutil.copytree(pool.folder, tmp_path / "sea" / "index"))
    pool, one, told = open_pool(folder), Sentence.from_text("a new sea", [(6, 9, "sea")]), list[str]()
    changes = (lambda: pool.add([one], embedder()), lambda: pool.remove(["wind of the sea"]))
    for change in changes:
        if not folder.exists():
            shutil.copytree(tmp_path / "index", folder)
        if waits:  # for whoever removes it
            with FileLock(folder / ".lock"):
                writer = threading.Thread(target=lambda change=change: told.append(failing(change)))
                writer.start()
                time.sleep(0.3)
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


def failing(change: Callable[[], object]) -> str:
    try:
        return str(change())
    except RetrievalError as error:
        return error.message


def test_a_collection_is_named_as_we_name_them(pool: Pool) -> None:
    """A file's name is made of it, and that file is deleted with the pool."""
    pool.manifest.with_(collection="../../xdner_0123456789abcdef").write(pool.folder)
    with pytest.raises(RetrievalError, match="another name"):
        open_pool(pool.folder)


def test_clusters_of_few_rows_are_nobodys_worry(
    tmp_path: Path, embedder: Make, capfd: pytest.CaptureFixture[str]
) -> None:
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
