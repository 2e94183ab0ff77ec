"""What IF-WRANER asks of a language model, wherever that runs: questions in, entities out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from xdner.codec.windows import Window
from xdner.domain import Domain
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template
from xdner.text import Entity, Sentence

__all__ = ["DROPPED", "Answer", "Asked", "Generator", "Question"]

#: Note of an answer whose prompt had to do without some demonstrations, and how many.
DROPPED = "dropped_demonstrations"


@dataclass(frozen=True)
class Asked:
    """How a domain is asked about.

    Attributes:
        domain: its types.
        template: the words around.
        settings: how prompts of this domain are cut and put together: the group ``prompt``, the windows of ``decoding``, and
            ``llm.answer_tokens``. ``None``: as the model's own settings say.
    """

    domain: Domain
    template: Template
    settings: WranerSettings | None = None

    def how(self, own: WranerSettings) -> WranerSettings:
        """The domain's settings, or a model's own."""
        return own if self.settings is None else self.settings


@dataclass(frozen=True)
class Question:
    """One prompt.

    Attributes:
        sentence: or a window of one.
        asked: in which domain.
        demonstrations: labelled sentences, best first.
    """

    sentence: Sentence
    asked: Asked
    demonstrations: tuple[Sentence, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        text: the answer as it was written.
        entities: read in it; characters of the question's sentence.
        notes: counts of what could not be read (``codec/dictionary.py``), and of demonstrations that were left out.
        flaw: why nothing in it could be read, in words; empty if something could.
    """

    text: str
    entities: tuple[Entity, ...]
    notes: Mapping[str, int] = field(default_factory=dict)
    flaw: str = ""


class Generator(Protocol):
    """A language model that answers questions."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What says which model this is, as plain values: ``kind``, ``name``, and what a domain must remember to find it
        again. No secrets."""
        ...

    def split(self, sentence: Sentence, asked: Asked) -> list[Window]:
        """The windows in which a sentence is asked about; none if there is nothing to ask."""
        ...

    def capped(self, sentence: Sentence) -> int:
        """How many of its words are so long that the model reads only their beginnings."""
        ...

    def answer(self, questions: Sequence[Question], *, done: Callable[[int], None] | None = None) -> list[Answer]:
        """One answer a question, in the same order.

        Args:
            questions: in any mix of domains.
            done: called with the number of answers so far.

        Raises:
            EndpointError: the model cannot be asked; ``finished`` has the answers until then, ``None`` for the others.
            EndpointInterrupted: the same after Ctrl-C.
        """
        ...
