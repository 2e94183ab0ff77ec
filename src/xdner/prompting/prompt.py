"""Prompts: task, types with descriptions, format, k demonstrations, and the query.

For a local model a prompt is ids, and a sentence stands in it word by word, so that a mention in the answer is a slice of
what was read (``codec/words.py``). For an endpoint it is a text. Demonstrations stand worst first: the best one is next to
the query. Where a prompt would be too long, those that do not fit are left out, from the best one on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from xdner.codec.dictionary import write
from xdner.codec.dictionary_grammar import DictionaryGrammar
from xdner.codec.windows import Window
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.prompting.template import Template
from xdner.text import Sentence, Word

__all__ = ["Order", "PromptWriter", "demonstration_text", "fitting", "ordered", "prompt_text", "sub_sentence"]

Order = Literal["best-last", "best-first"]


def ordered(demonstrations: Sequence[Sentence], order: Order) -> list[Sentence]:
    """From best-first, as a retriever gives them, to the order in the prompt."""
    return list(demonstrations) if order == "best-first" else list(reversed(demonstrations))


def fitting(sizes: Sequence[int], room: float) -> list[int]:
    """Which demonstrations are shown, of those that came best first: each for which there is room beside those before it.

    One that is too long takes nobody else's place.
    """
    kept = []
    for index, size in enumerate(sizes):
        if size <= room:
            room -= size
            kept.append(index)
    return kept


def _head(template: Template, domain: Domain) -> str:
    lines = [
        template.fill("type", type=label.verbalization, description=" ".join(label.description.split()))
        if label.description.strip()
        else template.fill("bare_type", type=label.verbalization)
        for label in domain.labels
    ]
    # A part's own line end closes the last type's line.
    return template.fill("head", instruction=domain.instruction.strip(), types="".join(lines).removesuffix("\n"))


def prompt_text(template: Template, domain: Domain, demonstrations: Sequence[Sentence], sentence: Sentence) -> str:
    """A prompt as text, demonstrations in the order given; what they hold of other types is left out of their answers."""
    parts = [_head(template, domain)]
    parts += [demonstration_text(template, domain, shown) for shown in demonstrations]
    return "".join([*parts, template.fill("query", sentence=_line(sentence))])


def demonstration_text(template: Template, domain: Domain, shown: Sentence) -> str:
    """One labelled sentence of a prompt, with its answer."""
    return template.fill("demonstration", sentence=_line(shown), answer=write(shown, domain).text)


def _line(sentence: Sentence) -> str:
    """The text on one line: a line end in it must not look like ours."""
    return " ".join(sentence.text.split())


class PromptWriter:
    """Writes prompts of one domain as ids.

    Args:
        encoder: of the model's tokenizer.
        template: the words around.
        grammar: of the domain's answers.
    """

    def __init__(self, encoder: WordEncoder, template: Template, grammar: DictionaryGrammar) -> None:
        self.encoder, self.template, self.grammar = encoder, template, grammar
        self.context = encoder.text(_head(template, grammar.domain))

    def query(self, sentence: Sentence) -> tuple[int, ...]:
        """The sentence that is asked about, and the cue for its answer."""
        return self._part("query", sentence=lambda: self._words(sentence))

    def demonstration(self, shown: Sentence) -> tuple[int, ...]:
        """A labelled sentence with its answer, without the answer's end."""
        # Entities of types that the domain does not list (they were left out) are left out here too.
        return self._part(
            "demonstration",
            sentence=lambda: self._words(shown),
            answer=lambda: self.grammar.encode(shown).ids[:-1],
        )

    def source(
        self, demonstrations: Sequence[Sentence], sentence: Sentence, *, room: int, order: Order = "best-last"
    ) -> tuple[tuple[int, ...], int]:
        """Demonstrations and query, in at most ``room`` tokens; the query itself is never shortened.

        Args:
            demonstrations: best first.
            sentence: that is asked about.
            room: tokens that both may have.
            order: of the demonstrations in the prompt.

        Returns:
            The ids, and how many demonstrations are in them.
        """
        query = self.query(sentence)
        written = [self.demonstration(shown) for shown in demonstrations]
        kept = [written[i] for i in fitting([len(ids) for ids in written], room - len(query))]
        parts = kept if order == "best-first" else kept[::-1]
        return (*(i for ids in parts for i in ids), *query), len(kept)

    def _words(self, sentence: Sentence) -> tuple[int, ...]:
        return tuple(i for ids in self.encoder.words(sentence) for i in ids)

    def _part(self, part: str, **values: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        pieces = self.template.pieces(part)
        ids: list[int] = []
        for index, (piece, named) in enumerate(pieces):
            if named:
                ids += values[piece]()
                continue
            # Words and answers bring their own leading space.
            before = index + 1 < len(pieces) or part == "query"
            ids += self.encoder.text(piece.removesuffix(" ") if before else piece)
        return tuple(ids)


def sub_sentence(sentence: Sentence, window: Window) -> Sentence:
    """The words of a window as a sentence of its own, with the entities inside it; offsets count from its first word.

    Add ``sentence.words[window.first].start`` to an offset to come back.
    """
    if (window.first, window.last) == (0, len(sentence.words)) and sentence.words:
        return sentence
    words = sentence.words[window.first : window.last]
    start, end = words[0].start, words[-1].end
    made = Sentence(
        sentence.text[start:end],
        tuple(Word(w.text, w.start - start, w.end - start) for w in words),
        id=f"{sentence.id}[{window.first}:{window.last}]",
    )
    inside = [e for e in sentence.entities if start <= e.start and e.end <= end]
    return made.with_entities(type(e)(e.start - start, e.end - start, e.label, e.text, e.score) for e in inside)
