"""What every recognizer takes and gives, whatever its method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from xdner.errors import DataError, EndpointError, UnknownDomainError
from xdner.evaluation.report import Report, evaluate
from xdner.library.kinds import Entry
from xdner.text import Entity, Sentence

__all__ = [
    "Joining",
    "Recognizer",
    "Request",
    "Result",
    "Unread",
    "as_sentence",
    "report_on",
    "requests_of",
    "unknown_domain",
]

_UNREAD = 5  # answers that a report shows

#: What a method keeps of a domain.
E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Request:
    """A text and the domain to read it in.

    Attributes:
        text: running text, or a sentence whose words are already known.
        domain: a domain that the recognizer has.
    """

    text: str | Sentence
    domain: str


class Joining(Protocol):
    """A line of texts that may join those that are being read; both methods are called by whoever reads, on one thread."""

    def peek(self) -> Request | None:
        """The text that is next; ``None`` where nobody waits, or nobody may join."""
        ...

    def take(self) -> None:
        """Take what :meth:`peek` gave last. Its result will have the next place."""
        ...


@dataclass(frozen=True, slots=True)
class Unread:
    """An answer of a language model in which nothing could be read.

    Attributes:
        answer: as it was written; empty where there was none.
        why: in words.
    """

    answer: str
    why: str


@dataclass(frozen=True, slots=True)
class Result:
    """The entities of one text, and how they came about.

    Attributes:
        text: the text as it was given.
        entities: sorted, with exact character offsets and scores.
        domain: the domain it was read in.
        windows: into how many windows the text was split.
        diagnostics: counts of what could not be read as it stood (``capped_words``, ``incomplete``; of IF-WRANER those of
            ``codec/dictionary.py``, and ``dropped_demonstrations``; of an endpoint also ``refused_questions``,
            ``too_long_prompts``, ``without_temperature`` and ``refused_max_tokens``), empty if all went well.
        unread: answers in which nothing could be read (IF-WRANER).
    """

    text: str
    entities: tuple[Entity, ...]
    domain: str
    windows: int = 1
    diagnostics: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = [
            {"start": e.start, "end": e.end, "label": e.label, "text": e.text}
            | ({} if e.score is None else {"score": round(e.score, 4)})
            for e in self.entities
        ]
        made: dict[str, Any] = {"text": self.text, "domain": self.domain, "entities": found, "windows": self.windows}
        made |= {"diagnostics": dict(self.diagnostics)} if self.diagnostics else {}
        return made | ({"unread": [asdict(u) for u in self.unread]} if self.unread else {})


def as_sentence(text: str | Sentence) -> Sentence:
    """Running text split into words, or the sentence itself.

    Raises:
        DataError: neither a text nor a sentence.
    """
    if isinstance(text, Sentence):
        return text
    if not isinstance(text, str):
        raise DataError(
            f"a text is a string or a Sentence, not {type(text).__name__}",
            hint="Pass predict a list of strings; for words that are already split, use Sentence.from_words.",
        )
    return Sentence.from_text(text)


def requests_of(
    texts: str | Sentence | Sequence[str | Sentence],
    domain: str | Sequence[str] | None,
    ready: Callable[[], Sequence[str]],
) -> list[Request]:
    """One request a text.

    Args:
        texts: one or several.
        domain: one name for all texts or one a text; may be left out if only one domain is ready.
        ready: gives the names of the recognizer's domains, which may be thousands in folders; asked only where none is named.

    Raises:
        UnknownDomainError: no domain was named, and not exactly one is ready.
        DataError: as many domains as texts are needed.
    """
    items = [texts] if isinstance(texts, str | Sentence) else list(texts)
    if domain is None:
        names = ready()
        if len(names) != 1:
            raise UnknownDomainError(
                f"which domain? {len(names)} are ready: {_some(names) or 'none'}", hint="Pass domain='name'."
            )
        domain = names[0]
    domains = [domain] * len(items) if isinstance(domain, str) else list(domain)
    if len(domains) != len(items):
        raise DataError(f"{len(items)} texts came with {len(domains)} domains", hint="Give one domain, or one a text.")
    return [Request(t, d) for t, d in zip(items, domains, strict=True)]


def report_on(sentences: Sequence[Sentence], results: Sequence[Result | None]) -> Report:
    """Score results against the sentences' own entities (exact spans; see ``evaluation/report.py``). Sentences without a
    result are not scored; the notes say how many (``sentences_not_read``)."""
    pairs = zip(sentences, results, strict=True)
    read = [(s.id or f"#{i}", s, result) for i, (s, result) in enumerate(pairs) if result is not None]
    report = evaluate([s.entities for _, s, _ in read], [r.entities for _, _, r in read], ids=[i for i, _, _ in read])
    notes: Counter[str] = Counter()
    for _, _, result in read:
        notes.update(result.diagnostics)
    if missing := len(sentences) - len(read):
        notes["sentences_not_read"] = missing
    unread = [{"id": i, **asdict(u)} for i, _, result in read for u in result.unread]
    return replace(report, notes=dict(notes), unread=tuple(unread[:_UNREAD]))


def unknown_domain(name: str, ready: Sequence[str]) -> UnknownDomainError:
    """What to raise for a domain that a recognizer does not have."""
    return UnknownDomainError(
        f"there is no domain {name!r} here", hint=f"Train or load it first. Ready: {_some(ready) or 'none yet'}."
    )


def _some(names: Sequence[str]) -> str:
    """Names in a line, not thousands of them."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


class Recognizer(ABC, Generic[E]):
    """A method that reads texts in domains; a batch may mix domains."""

    def __init__(self) -> None:
        self._entries: dict[str, E] = {}

    @abstractmethod
    def add(self, entry: E) -> None:
        """Make a trained domain ready."""

    @abstractmethod
    def load(self, folder: str | Path) -> str:
        """Read a domain's folder and make it ready; gives the domain's name."""

    @abstractmethod
    def recognize(self, requests: Sequence[Request], *, done: Callable[[int], None] | None = None) -> list[Result]:
        """Read texts, each in its own domain; results come in the order of the requests."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains that are ready."""
        return tuple(self._entries)

    def labels(self, name: str) -> tuple[str, ...]:
        """The label names of a domain that is ready."""
        return self._entry(name).domain.label_names

    def save(self, name: str, folder: str | Path) -> Path:
        """Write a domain's folder: the domain, its settings, and what was trained.

        Returns:
            The folder.

        Raises:
            UnknownDomainError: no such domain here.
            StorageError: the folder cannot be written.
        """
        self._entry(name).save(folder)
        return Path(folder)

    def predict(
        self,
        texts: str | Sentence | Sequence[str | Sentence],
        *,
        domain: str | Sequence[str] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """Recognize the entities of texts.

        Args:
            texts: one or several texts.
            domain: one name for all texts or one a text; may be left out if only one domain is ready.
            done: called with the number of windows read so far.

        Raises:
            UnknownDomainError: no such domain here.
            DataError: as many domains as texts are needed, or a text is not one.
        """
        return self.recognize(requests_of(texts, domain, lambda: self.domains), done=done)

    def evaluate(
        self, corpus: Sequence[Sentence], *, domain: str | None = None, done: Callable[[int], None] | None = None
    ) -> Report:
        """Score the domain's predictions against a corpus's entities (exact spans; see ``evaluation/report.py``).

        Raises:
            EndpointError: as :meth:`predict`; ``report`` has the scores of what was read until then.
        """
        sentences = list(corpus)
        try:
            results = self.predict(sentences, domain=domain, done=done)
        except EndpointError as error:  # what was answered before is paid for
            if any(result is not None for result in error.finished):
                error.report = report_on(sentences, error.finished)
            raise
        return report_on(sentences, results)

    def _entry(self, name: str) -> E:
        if name not in self._entries:
            raise unknown_domain(name, self.domains)
        return self._entries[name]
