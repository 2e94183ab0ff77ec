"""The domain-related instructor: what the model reads (Eq. 1), instruction s; options o; sentence x.

The templates are versioned; a prefix remembers the version that it was trained with. Version 1::

    Find the named entities in the sentence and give the type of each.
    Types: person, location, organization
    Sentence: Johnson , who played eight seasons in Baltimore …
    Sentence: Johnson , who played eight seasons in Baltimore …
    Entities:

A causal model reads the sentence twice (``codec.repeats``): at the second time, every word has seen what follows it.
T5's tokenizer turns the line ends into spaces.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.settings import CodecSettings

__all__ = ["Instructor"]

INSTRUCTION = "{instruction}\n"
OPTIONS = "Types: {options}\n"
SENTENCE = "Sentence:"
CUE = "\nEntities:\n"
JOIN = "\n"


class Instructor:
    """Builds prompts.

    Args:
        encoder: of the backbone's tokenizer.
        settings: how often the sentence is repeated, and whether the options are listed.
    """

    def __init__(self, encoder: WordEncoder, settings: CodecSettings) -> None:
        self._encoder, self._options = encoder, settings.options
        parts = [encoder.text(SENTENCE)] + [encoder.text(JOIN + SENTENCE)] * (settings.repeats - 1)
        self._leads, self._cue = parts, encoder.text(CUE)

    def context(self, domain: Domain) -> tuple[int, ...]:
        """Instruction and options: the same for all sentences of a domain."""
        text = INSTRUCTION.format(instruction=domain.instruction.strip())
        if self._options:
            text += OPTIONS.format(options=", ".join(domain.options))
        return self._encoder.text(text)

    def source(self, words: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The sentence and the cue after which the target begins.

        Args:
            words: ids of each word, as :meth:`WordEncoder.words` gives them.
        """
        body = [i for ids in words for i in ids]
        return tuple(i for lead in self._leads for i in (*lead, *body)) + self._cue
