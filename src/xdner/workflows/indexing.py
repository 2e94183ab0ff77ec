"""Examples of a domain in and out of its index."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

from xdner.backbone.encoder import load_encoder
from xdner.corpora.io import read_corpus
from xdner.errors import IndexMismatchError, LibraryError, RetrievalError, SettingsError
from xdner.library.examples_entry import EXAMPLES_MANIFEST, ExamplesEntry
from xdner.library.parts import INDEX, read_text
from xdner.library.store import Library
from xdner.retrieval.build import own_settings
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.examples import checked
from xdner.retrieval.milvus import shown
from xdner.retrieval.pool import Change, Pool, Told, has_pool, open_pool
from xdner.retrieval.settings import INDEXING, REMOVING, IndexSettings, RetrievalSettings
from xdner.text import Sentence
from xdner.workflows.index_types import check_types, types_of, write_types
from xdner.workflows.material import SAMPLE

__all__ = ["Indexed", "embedder_for", "entry_in", "index_examples", "known", "pool_in"]


@dataclass(frozen=True)
class Indexed:
    """What :func:`index_examples` did.

    Attributes:
        domain: its name.
        folder: of the index.
        change: examples added, updated, unchanged, removed.
        examples, words: in the index now.
        place: of the rows.
        kind: of the vectors' index in Milvus.
        embedding: that made them, in words.
        seconds: it took.
        skipped: sentences without entities that were left out.
        warnings: of the reader.
    """

    domain: str
    folder: Path
    change: Change
    examples: int
    words: int
    place: str
    kind: str
    embedding: str
    seconds: float
    skipped: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"folder": str(self.folder), "seconds": round(self.seconds, 1)}


@dataclass(frozen=True)
class _Job:
    """What is asked of an index.

    Attributes:
        name, folder: of the domain.
        source: of the sentences, in words.
        sentences: to add, to remove, or to have and no others.
        settings: how they are embedded, and how long to wait.
        uri: of a Milvus server, if one was asked for; empty: a file in the domain's folder.
        encoder, device: of the embedding.
        progress: told what is done.
        told: what is to be told of the sentences.
    """

    name: str
    folder: Path
    source: str
    sentences: Sequence[Sentence]
    settings: RetrievalSettings
    uri: str | None
    encoder: str | Path | None
    device: str
    progress: Told | None
    told: list[str] = field(default_factory=list)

    def wanted(self, sentences: Sequence[Sentence]) -> None:
        """Mistakes in sentences that are to be in the index, before weights are loaded."""
        checked(sentences)
        check_types(self.name, self.folder, sentences, self.source)
        ways = {(s.text, tuple(e.key for e in s.entities)) for s in sentences}
        if conflicts := len(ways) - len({text for text, _ in ways}):
            self.told.append(f"{self.source}: sentences that recur with other entities: the last counts ({conflicts})")

    def embedder(self) -> WordEmbedder:
        return embedder_for(self.encoder, self.settings, self.device)

    def tell(self, what: str, done: int, of: int) -> None:
        if self.progress is not None:
            self.progress(what, done, of)


def index_examples(
    name: str,
    file: str | Path | None = None,
    *,
    library: str | Path | None = None,
    uri: str | None = None,
    encoder: str | Path | None = None,
    remove: bool = False,
    replace: bool = False,
    skip_empty: bool = False,
    format: str | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    device: str = "cpu",
    progress: Told | None = None,
) -> Indexed:
    """Add labelled sentences to a domain's index, remove them from it, or have them and no others.

    Args:
        name: of the domain. One that the library does not know is begun: a folder with ``domain.toml`` and the index.
        file: labelled sentences; those that are there already change nothing. ``None``: what the domain has, with entities.
        library: folder of domains.
        uri: of a Milvus server for a new index; otherwise it is a file in the domain's folder.
        encoder: alias, hub id or folder; by default that of the index, or the embedded one.
        remove: the sentences with these texts leave the index.
        replace: the index is made anew, with these sentences only.
        skip_empty: leave sentences without entities out; they are refused otherwise.
        format: of the file; by content if ``None``.
        config, overrides: settings (:class:`~xdner.retrieval.settings.IndexSettings`, of which
            :data:`~xdner.retrieval.settings.INDEXING` have an effect); by default those of the index.
        device: ``cpu``, ``cuda``, …
        progress: told what is done, and how many of how many words.

    Raises:
        XdnerError: see the tree in ``errors.py``; nothing has changed then.
    """
    began = time.monotonic()
    _check_options(file, remove, replace, {"--index": uri, "--encoder": encoder}, skip_empty, format)
    store = Library(library)
    folder = store.path(name)
    entry, old = entry_in(folder), _there(folder, replace)
    before = types_of(old) if old is not None else None if has_pool(folder / INDEX) else set()
    settings = IndexSettings.build(
        config, overrides, _base(old, entry, replace), use=REMOVING if remove else INDEXING
    ).retrieval
    sentences, skipped, told = _given(name, file, format, skip_empty, entry, old)
    if old is not None and entry is not None and not replace:
        _check_shared(old, entry, sentences)
    source = f"domain {name!r}" if file is None else str(file)
    job = _Job(name, folder, source, sentences, settings, uri, encoder, device, progress, told)
    if old is not None:
        old.timeout = settings.timeout
    pool, change = _remove(old, job) if remove else _replace(old, job) if replace else _add(old, entry, job)
    told += write_types(name, folder, before, pool)
    if entry is not None:
        told += _follow(entry, pool, store)
    manifest = pool.manifest
    return Indexed(
        name, folder / INDEX, change, len(pool), manifest.words, pool.title, manifest.kind, str(manifest.embedding),
        time.monotonic() - began, skipped, tuple(told),
    )  # fmt: skip


def _add(old: Pool | None, entry: ExamplesEntry | None, job: _Job) -> tuple[Pool, Change]:
    """The sentences come into the index; into a new one after what the domain has already."""
    if old is None:
        sentences = [*_own(entry, None), *job.sentences]
        job.wanted(sentences)
        embedder = job.embedder()
        pool = Pool.create(job.folder / INDEX, embedder.embedding, uri=job.uri or "", settings=job.settings)
        return pool, pool.add(sentences, embedder, job.tell)
    job.wanted(job.sentences)
    if job.uri is not None and job.uri != old.manifest.uri:
        raise RetrievalError(
            f"the index of {job.name} is in {old.title}, not in {shown(job.uri)}",
            hint="Leave --index out, or make the index anew there: --replace.",
        )
    if job.settings.stop_words != old.manifest.stop_words:
        raise IndexMismatchError(
            f"the index of {job.name} was made with stop_words = {old.manifest.stop_words}, not {job.settings.stop_words}",
            hint="Leave the setting out to use the index's own, or make it again with --replace.",
        )
    return old, old.add(job.sentences, job.embedder(), job.tell)


def _replace(old: Pool | None, job: _Job) -> tuple[Pool, Change]:
    """The sentences, and no others, are in a new index, where the old one was or where it is wanted."""
    job.wanted(job.sentences)
    where = job.uri if job.uri is not None else old.manifest.uri if old is not None else ""
    embedder = job.embedder()
    pool = Pool.create(job.folder / INDEX, embedder.embedding, uri=where, settings=job.settings)
    return pool, pool.replace(job.sentences, embedder, job.tell)


def _remove(old: Pool | None, job: _Job) -> tuple[Pool, Change]:
    """The sentences leave the index."""
    pool = known(old, job.name)
    return pool, pool.remove(s.text for s in job.sentences)


def _check_options(
    file: str | Path | None, remove: bool, replace: bool, new: dict[str, Any], skip_empty: bool, format: str | None
) -> None:
    """Refuse what excludes each other, and what would have no effect.

    Args:
        new: what only new rows are made with, by option.
    """
    problems = []
    if remove and replace:
        problems.append("--remove and --replace exclude each other")
    if remove and file is None:
        problems.append("--remove removes the sentences of a file: --examples FILE")
    idle = [option for option, value in new.items() if remove and value is not None]
    idle += ["--skip-empty"] if skip_empty and (remove or file is None) else []
    if idle:
        problems.append(
            f"{'--remove' if remove else 'xdner index without --examples'} makes no use of {', '.join(idle)}"
        )
    if format is not None and file is None:
        problems.append("--format is that of a file: --examples FILE")
    if problems:
        raise SettingsError(
            problems, hint="Give one of those that exclude each other, and leave out what has no effect."
        )


def _given(
    name: str,
    file: str | Path | None,
    format: str | None,
    skip_empty: bool,
    entry: ExamplesEntry | None,
    old: Pool | None,
) -> tuple[list[Sentence], int, list[str]]:
    """The sentences, how many were left out, and what the reader has to say."""
    if file is not None:
        corpus = read_corpus(file, format=format)
        sentences = [s for s in corpus if s.entities or not skip_empty]
        return sentences, len(corpus) - len(sentences), corpus.remarks
    if not (own := _own(entry, old)):
        raise RetrievalError(
            f"domain {name!r} has no examples with entities", hint=f"Give it some: xdner index {name} --examples FILE."
        )
    return own, 0, []


def _own(entry: ExamplesEntry | None, old: Pool | None) -> list[Sentence]:
    """What a domain has to be indexed, or an index that none was made of yet."""
    if entry is not None:
        return [s for s in entry.examples if s.entities]
    return [] if old is None else [e.sentence for _, e in sorted(old.examples.items())]


def _follow(before: ExamplesEntry, pool: Pool, store: Library) -> list[str]:
    """A domain has its index's examples, and asks for the embedding that they are found by; what is to be told of it."""
    name = before.domain.name
    folder = store.path(name)
    entry = entry_in(folder)
    if entry is None or (entry.examples != before.examples and not pool.holds(entry.examples)):
        # Embedding takes minutes: what somebody has stored since then is not ours to replace.
        return [
            f"domain {name} was made again meanwhile; its index is not used until it is, too: xdner index {name} --replace"
        ]
    told, also = [], {}
    retrieval = replaced(entry.settings.retrieval, **own_settings(pool))
    if same := pool.holds(entry.examples):
        examples = entry.examples
        if sampled := read_text(folder / SAMPLE, LibraryError, "Restore the file, or remove it."):
            also[SAMPLE] = sampled  # as they were drawn, so they are
    else:
        examples = tuple(e.sentence for e in pool.examples.values())
        if empty := sum(not s.entities for s in entry.examples):
            what = "1 example without entities is" if empty == 1 else f"{empty} examples without entities are"
            told.append(f"{what} no longer the domain's: an index has none")
    if not same or retrieval != entry.settings.retrieval:
        made = replaced(entry, examples=examples, settings=replaced(entry.settings, retrieval=retrieval))
        store.add(made, also=also)
    return told


def entry_in(folder: Path) -> ExamplesEntry | None:
    """The domain of examples in a folder, if there is one."""
    return ExamplesEntry.load(folder) if (folder / EXAMPLES_MANIFEST).is_file() else None


def pool_in(folder: Path) -> Pool | None:
    """The index in a domain's folder, if there is one."""
    return open_pool(folder / INDEX) if has_pool(folder / INDEX) else None


def _there(folder: Path, replace: bool) -> Pool | None:
    """The index so far; one that is damaged may be replaced."""
    try:
        return pool_in(folder)
    except RetrievalError:
        if not replace:
            raise
        return None


def known(pool: Pool | None, name: str) -> Pool:
    """The index, which must be there.

    Raises:
        RetrievalError: it is not.
    """
    if pool is None:
        raise RetrievalError(
            f"domain {name!r} has no index of examples",
            hint=f"Make it: xdner index {name} --examples FILE, or choose another --library.",
        )
    return pool


def _check_shared(pool: Pool, entry: ExamplesEntry, sentences: Sequence[Sentence]) -> None:
    """A domain that was made again from other examples goes before its index: to change the index would take them from it.

    Of the texts that a command is about, both have the same afterwards, so only the others are compared. A command that was
    stopped after it had changed the index, and before the domain followed, is finished by the same command.

    Args:
        sentences: that come or leave.

    Raises:
        RetrievalError: the index has other examples than the domain.
    """
    about = {s.text for s in sentences}
    rest = [s for s in entry.examples if s.entities and s.text not in about]
    if not pool.holds(rest, beside=about):
        name = entry.domain.name
        raise RetrievalError(
            f"the index of {name} has other examples than the domain, which would lose its own",
            hint=f"Make the index again of what the domain has: xdner index {name} --replace. "
            "With --examples FILE both have these instead. If `xdner index` was stopped: the same command finishes its work.",
        )


def _base(pool: Pool | None, entry: ExamplesEntry | None, replace: bool) -> dict[str, dict[str, Any]]:
    """Settings that nobody has to ask for. Those of an index count while it stays, others are refused; one that is made anew has
    those that its domain asks for."""
    domains: dict[str, Any] = {} if entry is None else asdict(entry.settings.retrieval)
    own = {} if pool is None else own_settings(pool)
    return {"retrieval": own | domains if replace else domains | own}


def embedder_for(encoder: str | Path | None, settings: RetrievalSettings, device: str) -> WordEmbedder:
    """The encoder that was asked for, or that of the settings, as they say that it is used.

    Raises:
        BackboneError: it cannot be loaded.
    """
    return WordEmbedder(load_encoder(encoder or settings.encoder, device=device), settings)
