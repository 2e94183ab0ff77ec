"""What every recognizer takes and gives, whatever its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from xdner.errors import DataError
from xdner.text import Entity, Sentence

__all__ = ["Recognizer", "Request", "Result", "as_sentence"]


@dataclass(frozen=True, slots=True)
class Request:
    """A text and the domain to read it in.

    Attributes:
        text: running text, or a sentence whose words are already known.
        domain: a domain that the recognizer has.
    """

    text: str | Sentence
    domain: str


@dataclass(frozen=True, slots=True)
class Result:
    """The entities of one text, and how they came about.

    Attributes:
        text: the text as it was given.
        entities: sorted, with exact character offsets and scores.
        domain: the domain it was read in.
        windows: into how many windows the text was split.
        diagnostics: counts of what could not be read as it stood (``capped_words``, ``incomplete``), empty if all went
            well.
    """

    text: str
    entities: tuple[Entity, ...]
    domain: str
    windows: int = 1
    diagnostics: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = [
            {"start": e.start, "end": e.end, "label": e.label, "text": e.text}
            | ({} if e.score is None else {"score": round(e.score, 4)})
            for e in self.entities
        ]
        made: dict[str, Any] = {"text": self.text, "domain": self.domain, "entities": found, "windows": self.windows}
        return made | ({"diagnostics": dict(self.diagnostics)} if self.diagnostics else {})


class Recognizer(Protocol):
    """A method that reads texts in domains; a batch may mix domains."""

    def recognize(self, requests: Sequence[Request]) -> list[Result]:
        """One result a request, in order."""
        ...


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
