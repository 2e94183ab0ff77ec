"""The rows of an index in Milvus: one word of one example each. A local file (Milvus Lite) and a server go the same way.

A row's key is ``example number · 2²⁰ + word index``, so a search need not fetch any field. The fields are there for
people, and for filters:

========== ==============================================================
``id``      the key, int64
``example`` the example's id
``word``    index of the word
``label``   ``B-type``, ``I-type`` or ``O``
``content`` whether it is no stop word and no punctuation
``vector``  of length one; metric cosine
========== ==============================================================
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xdner.errors import RetrievalError, install_hint
from xdner.retrieval.advice import without_advice
from xdner.retrieval.embedder import Vectors

__all__ = ["SHIFT", "MilvusRows", "Row", "is_server", "require_client", "shown"]

#: A key's lower bits count words.
SHIFT = 20
_BATCH = 1000  # rows of an insert or of an answer, or examples of a delete
_KINDS = ("IVF_FLAT", "FLAT", "AUTOINDEX")
_PATIENCE = 600.0  # seconds for a call to a local file; building an index of many rows takes some
_GRACE = 1.0  # seconds that a client has to say itself that nobody answered
_LABEL = 512
_OPEN: Counter[str] = Counter()  # local files that this process has open
_NOISY = ("pymilvus", "milvus_lite", "grpc")


@dataclass(frozen=True, slots=True)
class Row:
    """A word of an example."""

    key: int
    example: str
    word: int
    label: str
    content: bool


def is_server(uri: str) -> bool:
    """Is it the address of a server, and no local file?"""
    return "://" in uri


def require_client(*, local: bool) -> None:
    """Refuse to go on without the packages that an index needs.

    Raises:
        RetrievalError: one is not installed.
    """
    try:
        import pymilvus  # noqa: F401

        if local:
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise RetrievalError(f"an index needs the package {error.name}", hint=install_hint("retrieval")) from None


class MilvusRows:
    """A collection of rows.

    Args:
        uri: a local file ending with ``.db``, or ``http://host:19530`` (or ``https://``; a token, or
            ``user:password``, may stand in ``$MILVUS_TOKEN``, and is never stored).
        collection: its name.
        dimension: of the vectors.
        timeout: seconds for one call to a server.

    Raises:
        RetrievalError: pymilvus is missing; the file is in use or damaged; the server is down, slow or no Milvus.
    """

    def __init__(self, uri: str, collection: str, dimension: int, *, timeout: float = 20.0) -> None:
        self.uri, self.collection, self.dimension = uri, collection, dimension
        # A file answers as fast as this machine can: only a server can be waited for in vain.
        self.timeout = timeout if is_server(uri) else max(timeout, _PATIENCE)
        self._path = None if is_server(uri) else os.path.abspath(uri)
        self._client = self._connect()

    def _connect(self) -> Any:
        require_client(local=self._path is not None)
        from pymilvus import MilvusClient

        # They print every error, tracebacks and all, before they raise it.
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with self._told("cannot be opened", clusters=True):
            if self._path is not None:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            token = os.environ.get("MILVUS_TOKEN", "")
            connect = partial(MilvusClient, self.uri, token=token, timeout=self.timeout)
            client = _bounded(connect, self.timeout + _GRACE) if is_server(self.uri) else connect()
        if self._path is not None:
            _OPEN[self._path] += 1
        return client

    def close(self) -> None:
        """Let go of the server, or of the file, which only one process can have open."""
        if self._client is None:
            return
        client, self._client = self._client, None
        with contextlib.suppress(Exception):
            client.close()
        if self._path is None:
            return
        _OPEN[self._path] -= 1
        if _OPEN[self._path] <= 0:
            from milvus_lite.server_manager import server_manager_instance

            del _OPEN[self._path]
            server_manager_instance.release_server(self._path)

    def __enter__(self) -> MilvusRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Is the collection there? If so, it can be asked from now on."""
        with self._told("does not answer", clusters=True):
            there = bool(self._client.has_collection(self.collection, timeout=self.timeout))
            if there:
                self._client.load_collection(self.collection, timeout=self.timeout)
            return there

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self._client.has_collection(self.collection, timeout=self.timeout))
        return False

    def search(self, vectors: Vectors, limit: int, *, rows: str, nprobe: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The nearest rows of each vector.

        Args:
            vectors: [n, d].
            limit: rows for each.
            rows: ``all``, ``content`` or ``entities``.
            nprobe: clusters to look into, of an IVF index.

        Returns:
            Keys [n, limit], -1 where there are no more, and cosines [n, limit].
        """
        keys = np.full((len(vectors), limit), -1, dtype=np.int64)
        cosines = np.zeros((len(vectors), limit), dtype=np.float32)
        kept = {"all": "", "content": "content == true", "entities": 'label != "O"'}[rows]
        with self._told("does not answer a search"):
            found = self._client.search(
                self.collection, data=list(vectors), limit=limit, filter=kept, anns_field="vector", output_fields=[],
                search_params={"metric_type": "COSINE", "params": {"nprobe": nprobe}}, timeout=self.timeout,
            )  # fmt: skip
            for row, hits in enumerate(found):
                for place, hit in enumerate(hits):
                    keys[row, place], cosines[row, place] = hit["id"], hit["distance"]
        return keys, cosines

    def vectors(self, keys: Sequence[int]) -> Vectors:
        """The vectors of these rows, [n, d], in this order.

        Raises:
            RetrievalError: a row is missing.
        """
        made = np.empty((len(keys), self.dimension), dtype=np.float32)
        for at in range(0, len(keys), _BATCH):
            some = [int(k) for k in keys[at : at + _BATCH]]
            with self._told("does not give its rows"):
                got = self._client.get(self.collection, ids=some, output_fields=["vector"], timeout=self.timeout)
                found = {row["id"]: row["vector"] for row in got}
            if missing := [k for k in some if k not in found]:
                raise RetrievalError(
                    f"{self.title} lacks {len(missing)} rows or more of the index",
                    hint="Make the index again: xdner index NAME --examples FILE --replace.",
                )
            made[at : at + len(some)] = [found[k] for k in some]
        return made

    # -- writing ---------------------------------------------------------------------------------------------------

    def create(self, rows: int) -> tuple[str, int]:
        """Make the collection anew, with an index for about so many rows.

        Returns:
            The kind of the index, and its clusters: IVF_FLAT where the backend has it, else FLAT, else its own choice.
        """
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("example", DataType.VARCHAR, max_length=32)
        schema.add_field("word", DataType.INT32)
        schema.add_field("label", DataType.VARCHAR, max_length=_LABEL)
        schema.add_field("content", DataType.BOOL)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
        with self._told("cannot make a collection"):
            if self._client.has_collection(self.collection, timeout=self.timeout):
                self._client.drop_collection(self.collection, timeout=self.timeout)
            self._client.create_collection(self.collection, schema=schema, timeout=self.timeout)
        return self.build_index(rows)

    def build_index(self, rows: int) -> tuple[str, int]:
        """Build the vectors' index anew; see :meth:`create`."""
        from pymilvus import MilvusClient

        # Faiss asks for 39 rows a cluster; with less than that there is nothing to cluster.
        clusters = min(int(rows**0.5), rows // 39, 65536)
        kinds = _KINDS if clusters else _KINDS[1:]
        for kind in kinds:
            params = MilvusClient.prepare_index_params()
            # Servers read nlist here and by itself, Milvus Lite only here.
            inner = {"params": {"nlist": clusters}} if kind == "IVF_FLAT" else {}
            params.add_index("vector", index_type=kind, metric_type="COSINE", params=inner)
            try:
                with self._told("cannot build an index", clusters=True):
                    self._client.release_collection(self.collection, timeout=self.timeout)
                    if "vector" in self._client.list_indexes(self.collection, timeout=self.timeout):
                        self._client.drop_index(self.collection, "vector", timeout=self.timeout)
                    self._client.create_index(self.collection, params, timeout=self.timeout)
                    self._client.load_collection(self.collection, timeout=self.timeout)
                return kind, clusters if kind == "IVF_FLAT" else 0
            except RetrievalError:
                # One that is not known is refused by a backend that is there.
                if kind == kinds[-1] or not self._answers():
                    raise
        raise AssertionError("the last kind returns or raises")

    def insert(self, rows: Iterable[tuple[Row, NDArray[Any]]]) -> Iterator[int]:
        """Write rows; gives the number written so far, batch by batch. The keys must be new."""
        waiting: list[dict[str, Any]] = []
        written = 0

        def write() -> None:
            with self._told("does not take rows", clusters=True):
                self._client.insert(self.collection, data=waiting, timeout=self.timeout)

        for row, vector in rows:
            waiting.append(
                {"id": row.key, "example": row.example, "word": row.word, "label": _fitting(row.label),
                 "content": row.content, "vector": vector}
            )  # fmt: skip
            if len(waiting) == _BATCH:
                write()
                written += len(waiting)
                waiting = []
                yield written
        if waiting:
            write()
            yield written + len(waiting)
        with self._told("does not write its rows to disk", clusters=True):
            self._client.flush(self.collection, timeout=self.timeout)

    def delete_examples(self, ids: Sequence[str]) -> None:
        """Remove the rows of examples; what is not there is no error."""
        for at in range(0, len(ids), _BATCH):
            listed = ", ".join(f'"{i}"' for i in ids[at : at + _BATCH])
            self._delete(f"example in [{listed}]")

    def delete_from(self, key: int) -> None:
        """Remove all rows with this key or a greater one."""
        self._delete(f"id >= {key}")

    def _delete(self, which: str) -> None:
        with self._told("does not remove rows", clusters=True):
            self._client.delete(self.collection, filter=which, timeout=self.timeout)
            self._client.flush(self.collection, timeout=self.timeout)

    def drop(self) -> None:
        """Remove the collection."""
        with self._told("does not remove a collection"):
            if self._client.has_collection(self.collection, timeout=self.timeout):
                self._client.drop_collection(self.collection, timeout=self.timeout)

    def _settle(self, path: str) -> None:
        """Wait for the background work of Milvus Lite, which gives its advice whenever it comes to it. No call of its own waits;
        with a version that works otherwise, the advice is seen and nothing else changes."""
        from milvus_lite.server_manager import server_manager_instance

        with contextlib.suppress(Exception):
            _, files, _ = server_manager_instance._servers[path]
            files.get_collection(self.collection)._wait_for_bg(self.timeout)

    # -- errors ----------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """For messages; without a password."""
        return f"the Milvus server {shown(self.uri)}" if self._path is None else f"the index file {self.uri}"

    @contextlib.contextmanager
    def _told(self, what: str, *, clusters: bool = False) -> Iterator[None]:
        """Whatever the client throws becomes one error that says which backend did what. What ``clusters`` gives no advice."""
        try:
            with without_advice() if clusters and self._path is not None else contextlib.nullcontext():
                yield
                if clusters and self._path is not None:
                    self._settle(self._path)
        except RetrievalError:
            raise
        except Exception as error:
            details = getattr(error, "details", None)  # of gRPC
            told = str(details() if callable(details) else error).strip()
            reason = (told.splitlines() or [type(error).__name__])[0]
            reason = reason.replace(self.uri, shown(self.uri))
            hint = (
                f"Is a Milvus server running there, and reachable? It had {self.timeout:g} s (--set timeout=60). "
                "Without --index, the index is a local file."
                if self._path is None
                else "One process at a time can have it open: wait for the other, or keep the index in a Milvus server "
                "(--index http://host:19530). If it is damaged: xdner index NAME --examples FILE --replace."
            )
            made = RetrievalError(f"{self.title} {what}: {reason[:300]}", hint=hint)
            raise made from error


def _bounded(connect: Callable[[], Any], seconds: float) -> Any:
    """The client, or a ``TimeoutError``: gRPC was seen to sit out its own 20 s of a silent server's handshake."""
    client: Future[Any] = Future()

    def work() -> None:
        try:
            client.set_result(connect())
        except BaseException as error:  # told to who waits
            client.set_exception(error)

    threading.Thread(target=work, name="xdner-milvus", daemon=True).start()
    try:
        return client.result(seconds)
    except TimeoutError:
        if client.done():  # it was the client that said so; or it came, or failed, the moment it was given up
            return client.result()
        client.add_done_callback(_closed)
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def _closed(late: Future[Any]) -> None:
    """Nobody waits for this client any more."""
    if late.exception() is None:
        late.result().close()


def _fitting(label: str) -> str:
    """Milvus counts bytes."""
    return label.encode("utf-8", "replace")[:_LABEL].decode("utf-8", "ignore")


def shown(uri: str) -> str:
    """An address without its password."""
    scheme, separator, rest = uri.rpartition("://")
    host = rest.rpartition("@")[2]
    return f"{scheme}{separator}{host}"
