"""Examples of a domain in and out of its index, and what they would be found by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

from xdner.backbone.encoder import load_encoder
from xdner.corpora.io import read_corpus
from xdner.domain import Domain, Label
from xdner.errors import DataError, DomainError, RetrievalError, SettingsError
from xdner.files import storage_errors, write_atomically
from xdner.library.examples_entry import EXAMPLES_MANIFEST, ExamplesEntry
from xdner.library.leftovers import is_domain
from xdner.library.parts import INDEX
from xdner.library.store import Library
from xdner.retrieval.base import Example, Hit, Retriever
from xdner.retrieval.build import build_retriever, own_settings, settings_with
from xdner.retrieval.examples import checked
from xdner.retrieval.milvus import shown
from xdner.retrieval.pool import Change, Pool, Told, has_pool, open_pool
from xdner.retrieval.settings import EMBEDDED, IndexSettings, RetrievalSettings
from xdner.retrieval.words import WordEmbedder
from xdner.text import Sentence
from xdner.workflows.material import domain_of

__all__ = ["Explanation", "Indexed", "explain_text", "index_examples"]


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
class Explanation:
    """Which examples a text would be shown with, and why.

    Attributes:
        sentence: the text in words.
        method, aggregation: how they were chosen.
        k: how many at most.
        hits: best first.
    """

    sentence: Sentence
    method: str
    aggregation: str
    k: int
    hits: tuple[Hit, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "text": self.sentence.text,
            "method": self.method,
            "aggregation": self.aggregation,
            "examples": [self._hit(hit) for hit in self.hits],
        }

    def _hit(self, hit: Hit) -> dict[str, Any]:
        found = hit.example.sentence
        matches = [
            {"word": self.sentence.words[m.query].text, "example_word": found.words[m.example].text,
             "query_index": m.query, "example_index": m.example, "similarity": round(m.similarity, 4)}
            for m in hit.matches
        ]  # fmt: skip
        entities = [{"start": e.start, "end": e.end, "label": e.label, "text": e.text} for e in found.entities]
        return {
            "id": hit.example.id, "text": found.text, "entities": entities, "score": round(hit.score, 4),
            "matches": matches,
        }  # fmt: skip


def index_examples(
    name: str,
    file: str | Path,
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
        file: labelled sentences; those that are there already change nothing.
        library: folder of domains.
        uri: of a Milvus server for a new index; otherwise it is a file in the domain's folder.
        encoder: alias, hub id or folder; by default that of the index, or the embedded one.
        remove: the sentences with these texts leave the index.
        replace: the index is made anew, with these sentences only.
        skip_empty: leave sentences without entities out; they are refused otherwise.
        format: of the file; by content if ``None``.
        config, overrides: settings (:class:`~xdner.retrieval.settings.IndexSettings`).
        device: ``cpu``, ``cuda``, …
        progress: told what is done, and how many of how many words.

    Raises:
        XdnerError: see the tree in ``errors.py``; nothing has changed then.
    """
    began = time.monotonic()
    if remove and replace:
        raise SettingsError(["--remove and --replace exclude each other"], hint="Give one of them.")
    store = Library(library)
    folder = store.path(name)
    index = folder / INDEX
    entry = _entry(folder)
    old = _there(index, replace)
    if old is not None and entry is not None and not replace:
        _check_shared(old, entry)
    before = _types(old) if old is not None else None if has_pool(index) else set()
    settings = _settings(old if not replace else None, entry, config, overrides)
    corpus = read_corpus(file, format=format)
    sentences = [s for s in corpus if s.entities] if skip_empty else list(corpus)
    skipped = len(corpus) - len(sentences)
    if remove:
        pool = _known(old, name)
        change = pool.remove(s.text for s in corpus)
    else:
        if old is None and entry is not None and not replace:  # what the domain has already
            sentences = [*(s for s in entry.examples if s.entities), *sentences]
        checked(sentences)  # mistakes in the file, before weights are loaded
        _check_types(name, folder, sentences, str(file))
        embedder = _embedder(old if not replace else None, encoder, settings, device)
        where = old.manifest.uri if old is not None and uri is None else uri or ""
        if old is not None and not replace and where != old.manifest.uri:
            raise RetrievalError(
                f"the index of {name} is in {old.title}, not in {shown(where)}",
                hint="Leave --index out, or make the index anew there: --replace.",
            )
        if old is None or replace:
            pool = Pool.create(index, embedder.embedding, uri=where, settings=settings)
        else:
            pool = old
        pool.timeout = settings.timeout
        act = pool.replace if replace else pool.add
        change = act(sentences, embedder, progress or (lambda what, done, of: None))
    told = [f"{file}: {what} ({n})" for what, n in corpus.warnings.items()]
    ways = {(s.text, tuple(e.key for e in s.entities)) for s in sentences}
    if conflicts := len(ways) - len({text for text, _ in ways}):
        told.append(f"{file}: sentences that recur with other entities: the last counts ({conflicts})")
    told += _write_types(name, folder, before, pool)
    if entry is not None:
        told += _follow(entry, pool, store)
    manifest = pool.manifest
    return Indexed(
        name, index, change, len(pool), manifest.words, pool.title, manifest.kind, str(manifest.embedding),
        time.monotonic() - began, skipped, tuple(told),
    )  # fmt: skip


def explain_text(
    text: str,
    name: str,
    *,
    k: int | None = None,
    library: str | Path | None = None,
    encoder: str | Path | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    device: str = "cpu",
) -> Explanation:
    """The examples that a domain's index gives for a text, and the words that brought them.

    Raises:
        RetrievalError: the domain has no index, or it is empty or cannot be asked.
        IndexMismatchError: it was made with another encoder, layer or pooling.
    """
    folder = Library(library).path(name)
    pool, entry = _pool(folder), _entry(folder)
    if entry is not None and (pool is None or not pool.holds(entry.examples)):
        return _explain_examples(text, entry, k=k, encoder=encoder, config=config, overrides=overrides, device=device)
    pool = _known(pool, name)
    # What a domain asks for is what its prompts ask for, and is refused alike where the index cannot give it.
    own = settings_with(pool, RetrievalSettings() if entry is None else entry.settings.retrieval)
    settings = IndexSettings.build(config, overrides, base={"retrieval": asdict(own)}).retrieval
    sentence = _sentence(text)
    pool.timeout = settings.timeout
    pool.require_examples()
    needed = settings.method in EMBEDDED
    embedder = _embedder(pool, encoder, settings, device) if needed else None
    return _explained(build_retriever(pool, settings, embedder), sentence, settings, k)


def _explain_examples(
    text: str,
    entry: ExamplesEntry,
    *,
    k: int | None,
    encoder: str | Path | None,
    config: str | Path | None,
    overrides: Iterable[str],
    device: str,
) -> Explanation:
    """Of an IF-WRANER domain without an index: its examples are embedded now."""
    sentence, own = _sentence(text), {"retrieval": asdict(entry.settings.retrieval)}
    settings = IndexSettings.build(config, overrides, base=own).retrieval
    if not entry.examples:
        raise RetrievalError(
            f"domain {entry.domain.name!r} has no examples",
            hint=f"Give it some: xdner index {entry.domain.name} --examples FILE.",
        )
    needed = settings.method in EMBEDDED
    embedder = WordEmbedder(load_encoder(encoder or settings.encoder, device=device), settings) if needed else None
    found = build_retriever([Example.of(s) for s in entry.examples], settings, embedder)
    return _explained(found, sentence, settings, k)


def _explained(retriever: Retriever, sentence: Sentence, settings: RetrievalSettings, k: int | None) -> Explanation:
    k = settings.k if k is None else k
    (hits,) = retriever.retrieve([sentence], k)
    return Explanation(sentence, settings.method, settings.aggregation if settings.method == "word" else "", k, hits)


def _follow(entry: ExamplesEntry, pool: Pool, store: Library) -> list[str]:
    """A domain has its index's examples, and asks for the embedding that they are found by; what is to be told of it."""
    told = []
    retrieval = replaced(entry.settings.retrieval, **own_settings(pool))
    if same := pool.holds(entry.examples):
        examples = entry.examples
    else:
        examples = tuple(e.sentence for e in pool.examples.values())
        if empty := sum(not s.entities for s in entry.examples):
            what = "1 example without entities is" if empty == 1 else f"{empty} examples without entities are"
            told.append(f"{what} no longer the domain's: an index has none")
    if not same or retrieval != entry.settings.retrieval:
        store.add(replaced(entry, examples=examples, settings=replaced(entry.settings, retrieval=retrieval)))
    return told


def _sentence(text: str) -> Sentence:
    sentence = Sentence.from_text(text)
    if not sentence.words:
        raise DataError("there is no text to explain", hint="Give a text in quotes.")
    return sentence


def _entry(folder: Path) -> ExamplesEntry | None:
    return ExamplesEntry.load(folder) if (folder / EXAMPLES_MANIFEST).is_file() else None


def _pool(folder: Path) -> Pool | None:
    return open_pool(folder / INDEX) if has_pool(folder / INDEX) else None


def _there(index: Path, replace: bool) -> Pool | None:
    """The index so far; one that is damaged may be replaced."""
    try:
        return open_pool(index) if has_pool(index) else None
    except RetrievalError:
        if not replace:
            raise
        return None


def _known(pool: Pool | None, name: str) -> Pool:
    if pool is None:
        raise RetrievalError(
            f"domain {name!r} has no index of examples",
            hint=f"Make it: xdner index {name} --examples FILE, or choose another --library.",
        )
    return pool


def _check_shared(pool: Pool, entry: ExamplesEntry) -> None:
    """A domain that was made again from other examples goes before its index: to change the index would take them from it.

    Raises:
        RetrievalError: the index has other examples than the domain.
    """
    if not pool.holds(entry.examples):
        name = entry.domain.name
        raise RetrievalError(
            f"the index of {name} has other examples than the domain, which would lose its own",
            hint=f"Make the index again, with these examples and no others: xdner index {name} --examples FILE --replace.",
        )


def _settings(
    pool: Pool | None, entry: ExamplesEntry | None, config: str | Path | None, overrides: Iterable[str]
) -> RetrievalSettings:
    """The domain's; encoder, layer and pooling are the index's own, unless others are asked for (and refused)."""
    own: dict[str, Any] = {} if entry is None else asdict(entry.settings.retrieval)
    own |= {} if pool is None else own_settings(pool)
    return IndexSettings.build(config, overrides, base={"retrieval": own}).retrieval


def _embedder(pool: Pool | None, encoder: str | Path | None, settings: RetrievalSettings, device: str) -> WordEmbedder:
    embedder = WordEmbedder(load_encoder(encoder or settings.encoder, device=device), settings)
    if pool is not None:
        pool.require(embedder.embedding)
    return embedder


def _types(pool: Pool) -> set[str]:
    return {entity.label for example in pool.examples.values() for entity in example.sentence.entities}


def _check_types(name: str, folder: Path, sentences: Sequence[Sentence], file: str) -> None:
    """Before anything is embedded.

    Raises:
        DomainError: the name cannot be one, or a domain that was trained does not know a type.
    """
    found, path = domain_of(name, None, sentences, file), folder / "domain.toml"
    if not is_domain(folder) or not path.exists():
        return
    known = Domain.read(path)
    if new := [label.name for label in found.labels if label.name not in known]:
        raise DomainError(
            f"domain {name!r} does not know the types {', '.join(new)}",
            hint=f"Add them to {path}, or index these examples under another name.",
        )


def _write_types(name: str, folder: Path, before: set[str] | None, pool: Pool) -> list[str]:
    """Give a domain that is nothing but an index the types of its examples, and those that somebody wrote into its file.

    Args:
        before: types of the examples before the change; ``None`` if the index was damaged.

    Returns:
        What is to be told of types without examples.
    """
    path, now = folder / "domain.toml", _types(pool)
    known = Domain.read(path) if path.exists() else None
    made = known or Domain.from_labels(name, sorted(now))
    if known is not None and not is_domain(folder):
        # What has lost its last example was a mistake, or is over; what never had one was written by hand.
        plain = {label.name for label in known.labels if label == Label(label.name)}
        gone = (plain if before is None else before) - now
        labels = [label for label in known.labels if label.name not in gone]
        labels += [Label(label) for label in sorted(now) if label not in known]
        made = Domain(name, tuple(labels) or known.labels, known.instruction)
    if made != known:
        with storage_errors(folder):
            write_atomically(path, made.to_toml())
    idle = [label for label in made.label_names if label not in now]
    return [f"no example has these types of {path}, which every prompt lists: {', '.join(idle)}"] if idle else []
