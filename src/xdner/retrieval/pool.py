"""A pool: the labelled examples of a domain, each word of which can be found by its meaning in context.

It lives in a folder (``manifest.py``) and knows nothing of libraries. Writers take turns; readers need no lock.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xdner.errors import IndexMismatchError, RetrievalError, StorageError
from xdner.files import discard
from xdner.retrieval.base import Example
from xdner.retrieval.embedder import Embedding, Vectors, WordEmbedder
from xdner.retrieval.examples import checked, keys_of, rows_of, unique
from xdner.retrieval.manifest import CACHE, MANIFEST, Manifest, read_again, read_examples, tidy, write_examples
from xdner.retrieval.matrix import Matrix
from xdner.retrieval.milvus import SHIFT, MilvusRows, require_client, shown
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import stop_words
from xdner.retrieval.writers import writing
from xdner.text import Sentence

__all__ = ["Change", "Pool", "Told", "has_pool", "open_pool"]

_GROWN = 4  # times as many rows as its clusters were made for: the index is built anew
_LOOKS = 5  # at a folder whose manifest changes while its examples are read


#: Told what is being done, and how many of how many words are.
Told = Callable[[str, int, int], None]


def _silent(what: str, done: int, of: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Change:
    """What a writer did: examples that were added, that took the place of one with the same text and other labels, that
    were there already, that were removed."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0


def has_pool(folder: str | Path) -> bool:
    """Is there an index in this folder?"""
    return (Path(folder) / MANIFEST).is_file()


def open_pool(folder: str | Path) -> Pool:
    """The pool in a folder with ``index.json``.

    Raises:
        RetrievalError: there is none, or it is damaged.
    """
    folder = Path(folder)
    for look in range(_LOOKS):
        manifest = Manifest.read(folder)
        if manifest is None:
            break
        try:
            return Pool(folder, manifest)
        except RetrievalError:
            # A writer may have replaced what the manifest named.
            if look == _LOOKS - 1 or Manifest.read(folder) == manifest:
                raise
    raise RetrievalError(
        f"there is no index of examples in {folder}", hint="Make it with `xdner index NAME --examples FILE`."
    )


class Pool:
    """Examples and their words' vectors. Made by :meth:`create` or :func:`open_pool`.

    Attributes:
        folder, manifest: see ``manifest.py``.
        timeout: seconds that a Milvus server may take for one call, and that a writer waits for another.
        examples: by number.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, timeout: float = 20.0) -> None:
        self.folder, self.manifest, self.timeout = folder, manifest, timeout
        self.examples = read_examples(folder, manifest)
        self._matrix: Matrix | None = None

    @classmethod
    def create(
        cls, folder: str | Path, embedding: Embedding, *, uri: str = "", settings: RetrievalSettings | None = None
    ) -> Pool:
        """An empty pool; nothing is written before examples come. One that is in the folder stays until then.

        Args:
            folder: of the pool.
            embedding: of its rows.
            uri: of a Milvus server; empty: a file in the folder.
            settings: ``stop_words`` and ``timeout``.

        Raises:
            RetrievalError: the address is none, or holds a password, which would be stored.
        """
        settings = settings or RetrievalSettings()
        if uri and not uri.startswith(("http://", "https://")):
            raise RetrievalError(
                f"{uri!r} is not the address of a Milvus server",
                hint="Write --index http://host:19530, or leave it out.",
            )
        if shown(uri) != uri:
            raise RetrievalError(
                f"the address {shown(uri)} was given with a password, which the index would store",
                hint="Put it into the environment instead: MILVUS_TOKEN=user:password.",
            )
        manifest = Manifest(embedding, uri, _collection(), stop_words=settings.stop_words)
        return cls(Path(folder), manifest, timeout=settings.timeout)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def title(self) -> str:
        """Where the rows are, for messages."""
        return shown(self.manifest.uri) if self.manifest.uri else str(self.folder / self.manifest.database)

    def require(self, embedding: Embedding) -> None:
        """Refuse an embedding whose vectors do not compare with the rows.

        Raises:
            IndexMismatchError: it is another one.
        """
        own = self.manifest.embedding
        if not own.same(embedding):
            raise IndexMismatchError(
                f"the index in {self.folder} was made with {own}, but it is asked with {embedding}",
                hint="Leave --encoder, layer and pooling out to use the index's own, or make it again with --replace.",
            )

    def require_examples(self) -> None:
        """Refuse to find examples where there are none.

        Raises:
            RetrievalError: the pool is empty.
        """
        if not self.examples:
            raise RetrievalError(
                f"the index in {self.folder} is empty", hint="Add examples: xdner index NAME --examples FILE."
            )

    def holds(self, sentences: Iterable[Sentence], beside: Container[str] = ()) -> bool:
        """Are its examples these sentences, each text once, and no others, whatever it has of the texts ``beside`` them?"""
        own = {e.id for e in self.examples.values() if e.sentence.text not in beside}
        return own == {e.id for e in unique(map(Example.of, sentences))}

    # -- reading -----------------------------------------------------------------------------------------------------

    def keys(self) -> NDArray[np.int64]:
        """Of all rows, ascending: example number · 2²⁰ + index of the word."""
        return keys_of(self.examples)

    def matrix(self) -> Matrix:
        """All rows in memory: from the cache, or else from Milvus; the cache is then made again.

        Raises:
            RetrievalError: Milvus cannot be asked, or lacks rows.
        """
        if self._matrix is None:
            self._matrix = self._cached()
        if self._matrix is None:
            keys = self.keys()
            with self.rows() as rows:
                self._matrix = Matrix(keys, rows.vectors(keys.tolist()))
            self._keep(self._matrix)
        return self._matrix

    def rows(self) -> MilvusRows:
        """The rows in Milvus, ready to be asked; to be closed by the caller.

        Raises:
            RetrievalError: they cannot be opened, or are not there.
        """
        rows = self._open(self.manifest)
        try:
            if not rows.exists():
                raise RetrievalError(
                    f"{rows.title} has no collection {self.manifest.collection}, the rows of the index in {self.folder}",
                    hint="Make the index again: xdner index NAME --examples FILE --replace.",
                )
        except BaseException:
            rows.close()
            raise
        return rows

    def _open(self, of: Manifest) -> MilvusRows:
        uri = of.uri or str(self.folder / of.database)
        return MilvusRows(uri, of.collection, of.embedding.dimension, timeout=self.timeout)

    def _cached(self) -> Matrix | None:
        of = self.manifest
        return Matrix.read(self.folder / CACHE, of.rows, of.words, of.embedding.dimension)

    def _keep(self, matrix: Matrix) -> None:
        self._matrix = matrix
        with contextlib.suppress(StorageError):  # a full or read-only disk costs time, not results
            matrix.write(self.folder / CACHE, self.manifest.rows)

    # -- writing -----------------------------------------------------------------------------------------------------

    def add(self, sentences: Iterable[Sentence], embedder: WordEmbedder, progress: Told = _silent) -> Change:
        """Add labelled sentences. What is there already stays; one with the same text and other labels is replaced,
        and of two such sentences the last counts.

        Either all of them are in the pool afterwards or, after an error, none.

        Args:
            sentences: with entities.
            embedder: the pool's own.
            progress: told what is done, and how many of how many words.

        Raises:
            DataError: one has no entities, no words or too many.
            IndexMismatchError: another embedder.
            RetrievalError, StorageError: the rows or files cannot be written.
        """
        self.require(embedder.embedding)
        wanted = checked(sentences)
        self._require_packages()
        with self._writing():
            self.require(embedder.embedding)
            by_text = {e.sentence.text: n for n, e in self.examples.items()}
            there = {e.id for e in self.examples.values()}
            fresh = [e for e in wanted if e.id not in there]
            gone = [by_text[e.sentence.text] for e in fresh if e.sentence.text in by_text]
            if fresh and self.examples:
                self._extend(fresh, _embedded(fresh, embedder, progress), gone, progress)
            elif fresh:
                self._fill(fresh, _embedded(fresh, embedder, progress), self.manifest, progress)
        return Change(len(fresh) - len(gone), len(gone), len(wanted) - len(fresh))

    def replace(self, sentences: Iterable[Sentence], embedder: WordEmbedder, progress: Told = _silent) -> Change:
        """Have these sentences and no others, in a new collection with this embedder, whatever was there; see :meth:`add`."""
        wanted = checked(sentences)
        self._require_packages()
        vectors = _embedded(wanted, embedder, progress)
        like = self.manifest.with_(embedding=embedder.embedding)
        with self._writing(anew=True):
            known = {e.id for e in self.examples.values()}
            self._fill(wanted, vectors, like, progress)
        kept = sum(e.id in known for e in wanted)
        return Change(len(wanted) - kept, 0, kept, len(known) - kept)

    def remove(self, texts: Iterable[str]) -> Change:
        """Remove the examples with these texts.

        Raises:
            RetrievalError, StorageError: the files cannot be written. Rows that cannot be removed now are never shown again
                and go with the next change.
        """
        gone = set(texts)
        with self._writing():
            numbers = [n for n, e in self.examples.items() if e.sentence.text in gone]
            if numbers:
                old = self._cached()
                try:
                    self._commit({n: e for n, e in self.examples.items() if e.sentence.text not in gone}, numbers)
                except BaseException:
                    with contextlib.suppress(RetrievalError):
                        self._look()  # it may have been stopped after it was done
                    raise
                if old is not None:
                    self._keep(old.pick(~np.isin(old.keys >> SHIFT, numbers)))
                with contextlib.suppress(RetrievalError), self.rows() as rows:
                    self._sweep(rows)
        return Change(removed=len(numbers))

    def drop(self) -> None:
        """Remove the rows from their server; those in a file go with the folder.

        Raises:
            RetrievalError: the server cannot be reached, or refuses.
        """
        if self.manifest.uri:
            with self._open(self.manifest) as rows:
                rows.drop()

    def _require_packages(self) -> None:
        """Before minutes of embedding."""
        require_client(local=not self.manifest.uri)
        stop_words(self.manifest.stop_words)

    def _fill(self, fresh: Sequence[Example], vectors: Sequence[Vectors], like: Manifest, progress: Told) -> None:
        """A new collection with these examples takes the place of what is there."""
        old, after = self.manifest, dict(enumerate(fresh))
        new = like.with_(
            collection=_collection(),
            next=len(fresh),
            removed=(),
            pending=False,
            revision=old.revision,
            sha256=old.sha256,
        )
        try:
            with self._open(new) as rows:
                kind, clusters = rows.create(sum(map(len, vectors)))
                self._insert(rows, after, vectors, new.stop_words, progress)
            total = sum(map(len, vectors))
            made = write_examples(self.folder, new.with_(kind=kind, clusters=clusters, indexed=total), after)
        except BaseException:
            with contextlib.suppress(RetrievalError):
                self._look()
            if self.manifest.collection != new.collection:  # else it was stopped after it was done
                self._discard(new)
            raise
        self.manifest, self.examples = made, after
        self._keep(Matrix(self.keys(), np.concatenate(vectors)))
        if old.sha256:
            self._discard(old)

    def _extend(
        self, fresh: Sequence[Example], vectors: Sequence[Vectors], gone: Sequence[int], progress: Told
    ) -> None:
        """More examples in the same collection."""
        first = self.manifest.next
        new = dict(enumerate(fresh, start=first))
        after = {n: e for n, e in self.examples.items() if n not in gone} | new
        total = sum(len(e.sentence.words) for e in after.values())
        old = self._cached()
        with self.rows() as rows:
            self._sweep(rows)
            self.manifest = self.manifest.with_(pending=True)
            self.manifest.write(self.folder)
            try:
                self._insert(rows, new, vectors, self.manifest.stop_words, progress)
                if total > _GROWN * self.manifest.indexed:
                    kind, clusters = rows.build_index(total)
                    self.manifest = self.manifest.with_(kind=kind, clusters=clusters, indexed=total)
                self._commit(after, gone, first + len(fresh))
            except BaseException:
                with contextlib.suppress(RetrievalError, StorageError):  # else the next writer does it
                    self._look()  # it may have been stopped after it was done
                    self._sweep(rows)
                raise
            self._sweep(rows)
        if old is not None:
            kept = ~np.isin(old.keys >> SHIFT, gone)
            self._keep(Matrix(self.keys(), np.concatenate([old.vectors[kept], *vectors])))

    def _insert(
        self,
        rows: MilvusRows,
        examples: Mapping[int, Example],
        vectors: Sequence[Vectors],
        language: str,
        progress: Told,
    ) -> None:
        total = sum(map(len, vectors))
        progress("storing words", 0, total)
        for written in rows.insert(rows_of(examples, vectors, language)):
            progress("storing words", written, total)

    def _commit(self, after: dict[int, Example], gone: Sequence[int], next: int | None = None) -> None:
        removed = (*self.manifest.removed, *(self.examples[n].id for n in gone))
        manifest = self.manifest.with_(
            removed=removed, pending=False, next=self.manifest.next if next is None else next
        )
        self.manifest = write_examples(self.folder, manifest, after)
        self.examples, self._matrix = after, None

    def _sweep(self, rows: MilvusRows) -> None:
        """Delete the rows that the manifest does not count."""
        if not (self.manifest.pending or self.manifest.removed):
            return
        if self.manifest.pending:
            rows.delete_from(self.manifest.next << SHIFT)
        rows.delete_examples(self.manifest.removed)
        self.manifest = self.manifest.with_(pending=False, removed=())
        self.manifest.write(self.folder)

    def _discard(self, manifest: Manifest) -> None:
        """A collection that is not, or no longer, the pool's. Where it cannot be reached, it only costs room."""
        if manifest.uri:
            with contextlib.suppress(RetrievalError), self._open(manifest) as rows:
                rows.drop()
        else:
            discard(self.folder / manifest.database)

    def _look(self) -> None:
        """Take up what the folder says now."""
        now = read_again(self.folder, self.manifest)
        if now != self.manifest:
            self.manifest, self.examples, self._matrix = now, read_examples(self.folder, now), None

    @contextlib.contextmanager
    def _writing(self, *, anew: bool = False) -> Iterator[None]:
        """Hold the lock, and know what the writer before left; what is damaged or gone is no obstacle to a pool made ``anew``."""
        with writing(self.folder, self.timeout):
            try:
                self._look()
                tidy(self.folder, self.manifest)
            except RetrievalError:
                if not anew:
                    raise
            yield


def _embedded(examples: Sequence[Example], embedder: WordEmbedder, progress: Told) -> list[Vectors]:
    total = sum(len(e.sentence.words) for e in examples)
    progress("embedding words", 0, total)
    return embedder.embed([e.sentence for e in examples], lambda words: progress("embedding words", words, total))


def _collection() -> str:
    return f"xdner_{secrets.token_hex(8)}"
