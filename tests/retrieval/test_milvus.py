"""The rows of a pool in Milvus: which index they get, and a server instead of a file."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xdner.errors import RetrievalError
from xdner.retrieval import milvus
from xdner.retrieval.by_words import WordRetriever
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.manifest import CACHE
from xdner.retrieval.milvus import MilvusRows
from xdner.retrieval.pool import Pool, open_pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.testing.pools import SENTENCES, stored, texts
from xdner.text import Sentence

Make = Callable[..., WordEmbedder]


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
def test_a_server_that_is_silent_or_talks_nonsense(
    tmp_path: Path, embedder: Make, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, waits, bounded = threading.Event(), list[float](), milvus._bounded

    def noted(connect: Callable[[], Any], seconds: float) -> Any:
        waits.append(seconds)
        return bounded(connect, seconds)

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
        monkeypatch.setattr(milvus, "_bounded", noted)
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
    # One wait to make the collection and one to drop what there is of it, each with the client's own time and some grace.
    assert waits == [1.0 + milvus._GRACE] * 2
    assert not (tmp_path / "i").exists()


def test_a_client_that_keeps_no_time_is_left_and_closed_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    may_come, closed = threading.Event(), threading.Event()

    def slow(uri: str, *, token: str, timeout: float) -> SimpleNamespace:
        assert timeout == 0.1
        may_come.wait(600)
        return SimpleNamespace(close=closed.set)

    monkeypatch.setattr("pymilvus.MilvusClient", slow)
    monkeypatch.setattr("xdner.retrieval.milvus._GRACE", 0.1)
    with pytest.raises(RetrievalError, match=r"http://host:1 cannot be opened: no answer within 0\.2 s"):
        MilvusRows("http://host:1", "c", 4, timeout=0.1)
    assert not closed.is_set()
    may_come.set()
    assert closed.wait(600)


@pytest.mark.parametrize("comes", [True, False])
def test_a_client_that_ends_the_moment_it_is_given_up_counts(monkeypatch: pytest.MonkeyPatch, comes: bool) -> None:
    class Late(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            with contextlib.suppress(OSError):
                super().result(600)  # it has ended …
            if timeout is not None:
                raise TimeoutError  # … after the last look
            return super().result()

    def connect() -> str:
        if comes:
            return "the client"
        raise OSError("the client's own words")

    monkeypatch.setattr(milvus, "Future", Late)
    if comes:
        assert milvus._bounded(connect, 0.1) == "the client"
    else:
        with pytest.raises(OSError, match="the client's own words"):
            milvus._bounded(connect, 0.1)


def test_a_timeout_of_the_client_itself_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TimeoutError("the client's own words")

    monkeypatch.setattr("pymilvus.MilvusClient", refuse)
    with pytest.raises(RetrievalError, match=r"http://host:1 cannot be opened: the client's own words"):
        MilvusRows("http://host:1", "c", 4)


def test_no_address(tmp_path: Path, embedder: Make) -> None:
    with pytest.raises(RetrievalError, match="is not the address of a Milvus server"):
        Pool.create(tmp_path, embedder().embedding, uri="localhost:19530")


def test_a_password_is_not_stored(tmp_path: Path, embedder: Make) -> None:
    with pytest.raises(RetrievalError, match="http://host:19530 was given with a password") as caught:
        Pool.create(tmp_path, embedder().embedding, uri="http://me:secret@host:19530")
    assert "secret" not in str(caught.value)
    assert "MILVUS_TOKEN" in (caught.value.hint or "")
