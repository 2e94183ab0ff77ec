"""Entities to target ids and back.

What the target language cannot say is reported, not hidden: mentions that begin or end inside a word, that have no
tokens, that overlap others, or whose words stand earlier in the sentence, unlabelled, where decoding would find them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdner.codec.grammar import Grammar
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.settings import CodecSettings
from xdner.text import Entity, Sentence

__all__ = ["Target", "TargetCodec"]


@dataclass(frozen=True, slots=True)
class Target:
    """What the model should write for a sentence.

    Attributes:
        ids: token ids, the end included.
        legal: per token the legal ids, if they were asked for.
        lost: gold entities that are not in ``ids``.
        reasons: how many were lost, and why: ``overlap``, ``inside-word``, ``no-tokens``, ``earlier-copy``,
            ``unknown-label``.
    """

    ids: tuple[int, ...]
    legal: tuple[tuple[int, ...], ...] = ()
    lost: tuple[Entity, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)


class TargetCodec:
    """Writes and reads the targets of a domain.

    Args:
        encoder: of the backbone's tokenizer.
        domain: its types.
        settings: form and order.

    Raises:
        CodecError: see :class:`~xdner.codec.grammar.Grammar`.
    """

    def __init__(self, encoder: WordEncoder, domain: Domain, settings: CodecSettings) -> None:
        self.encoder, self.domain, self.settings = encoder, domain, settings
        self.grammar = Grammar(encoder, domain, settings)

    def encode(
        self, sentence: Sentence, *, words: Sequence[tuple[int, ...]] | None = None, with_legal: bool = False
    ) -> Target:
        """The target of a sentence's entities.

        Args:
            sentence: with gold entities.
            words: ids of its words, if they are known already.
            with_legal: also give the legal set of every token.
        """
        words = self.encoder.words(sentence) if words is None else words
        lost: list[Entity] = []
        reasons: dict[str, int] = {}

        def lose(entity: Entity, reason: str) -> None:
            lost.append(entity)
            reasons[reason] = reasons.get(reason, 0) + 1

        spans: list[tuple[int, int, Entity]] = []
        # The longest first: of overlapping mentions the longest stays.
        for entity in sorted(sentence.entities, key=lambda e: (e.start - e.end, e.start, e.label)):
            span = sentence.word_span(entity)
            if entity.label not in self.domain:
                lose(entity, "unknown-label")
            elif span is None:
                lose(entity, "inside-word")
            elif not words[span[0]] or not words[span[1] - 1]:
                lose(entity, "no-tokens")
            elif any(span[0] < last and first < span[1] for first, last, _ in spans):
                lose(entity, "overlap")
            else:
                spans.append((*span, entity))
        spans.sort(key=lambda s: s[:2])
        while True:
            ids = self._write([(first, last, e.label) for first, last, e in spans], words)
            state = self.grammar.start(words)
            legal: list[tuple[int, ...]] = []
            for token in ids:
                if with_legal:
                    legal.append(state.legal())
                state.advance(token)
            found = [(m.first, m.last, m.label) for m in state.mentions()]
            wrong = next(
                (i for i, s in enumerate(spans) if i >= len(found) or found[i] != (s[0], s[1], s[2].label)), None
            )
            if wrong is None:
                return Target(tuple(ids), tuple(legal), tuple(lost), reasons)
            # Decoding would place it at an earlier copy of its words, and those that follow with the same words and type too;
            # rather not teach that.
            said = self._said(spans[wrong], words)
            while wrong < len(spans) and self._said(spans[wrong], words) == said:
                lose(spans.pop(wrong)[2], "earlier-copy")

    @staticmethod
    def _said(span: tuple[int, int, Entity], words: Sequence[tuple[int, ...]]) -> tuple[str, Sequence[tuple[int, ...]]]:
        return span[2].label, words[span[0] : span[1]]

    def decode(
        self,
        ids: Sequence[int],
        sentence: Sentence,
        *,
        words: Sequence[tuple[int, ...]] | None = None,
        scores: Sequence[float] | None = None,
    ) -> list[Entity]:
        """The entities of a target.

        Args:
            ids: token ids; reading stops at the end token.
            sentence: what they were copied from.
            words: ids of its words, if they are known already.
            scores: probability of each token; an entity's score is the product over the tokens that decided it.

        Raises:
            CodecError: an id that is not legal where it stands.
        """
        words = self.encoder.words(sentence) if words is None else words
        state = self.grammar.start(words)
        for token in ids:
            if state.done:
                break
            state.advance(token)
        entities = []
        for mention in state.mentions():
            score = None
            if scores is not None:
                score = 1.0
                for probability in scores[mention.start_token : mention.end_token]:
                    score *= probability
            entities.append(sentence.entity(mention.first, mention.last, mention.label, score))
        return entities

    def _write(self, spans: Sequence[tuple[int, int, str]], words: Sequence[tuple[int, ...]]) -> list[int]:
        literals = self.grammar.literals
        if not spans:
            return [*literals["empty"], *literals["end"]]
        ids = [*literals["opening"]]
        for number, (first, last, label) in enumerate(spans):
            mention = [i for word in words[first:last] for i in word]
            slots = [mention, list(self.grammar.label_ids[label])]
            if not self.grammar.mention_first:
                slots.reverse()
            closing = "closing" if number == len(spans) - 1 else "between"
            ids += [*slots[0], *literals["inner"], *slots[1], *literals[closing]]
        return [*ids, *literals["end"]]
