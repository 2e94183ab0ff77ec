"""Which examples of a domain a text would be shown with, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xdner.errors import DataError, RetrievalError, SettingsError
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.leftovers import inside
from xdner.library.store import Library
from xdner.retrieval.base import Example, Hit, Retriever, let_go
from xdner.retrieval.build import build_retriever, settings_with
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.settings import EMBEDDED, IndexSettings, RetrievalSettings
from xdner.text import Sentence
from xdner.workflows.indexing import embedder_for, entry_in, known, pool_in

__all__ = ["Explanation", "explain_text"]


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
    # Never look outside of the library.
    pool, entry = (pool_in(folder), entry_in(folder)) if inside(name) else (None, None)
    if entry is not None and (pool is None or not pool.holds(entry.examples)):
        return _explain_examples(text, entry, k=k, encoder=encoder, config=config, overrides=overrides, device=device)
    pool = known(pool, name)
    # What a domain asks for is what its prompts ask for, and is refused alike where the index cannot give it.
    own = settings_with(pool, RetrievalSettings() if entry is None else entry.settings.retrieval)
    settings = IndexSettings.build(config, overrides, base={"retrieval": asdict(own)}).retrieval
    sentence = _sentence(text)
    pool.timeout = settings.timeout
    pool.require_examples()
    embedder = _embedder(encoder, settings, device)
    if embedder is not None:
        pool.require(embedder.embedding)
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
    embedder = _embedder(encoder, settings, device)
    found = build_retriever([Example.of(s) for s in entry.examples], settings, embedder)
    return _explained(found, sentence, settings, k)


def _embedder(encoder: str | Path | None, settings: RetrievalSettings, device: str) -> WordEmbedder | None:
    """The encoder, for a method that embeds.

    Raises:
        SettingsError: one was asked for, and the method embeds nothing.
    """
    if settings.method in EMBEDDED:
        return embedder_for(encoder, settings, device)
    if encoder is not None:
        raise SettingsError([f"retrieval.method={settings.method} makes no use of --encoder"], hint="Leave it out.")
    return None


def _explained(retriever: Retriever, sentence: Sentence, settings: RetrievalSettings, k: int | None) -> Explanation:
    k = settings.k if k is None else k
    try:
        (hits,) = retriever.retrieve([sentence], k)
    finally:
        let_go(retriever)
    return Explanation(sentence, settings.method, settings.aggregation if settings.method == "word" else "", k, hits)


def _sentence(text: str) -> Sentence:
    sentence = Sentence.from_text(text)
    if not sentence.words:
        raise DataError("there is no text to explain", hint="Give a text in quotes.")
    return sentence
