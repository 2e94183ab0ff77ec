"""Forced lengths: every arm writes exactly the gold targets, and does all the work of choosing them itself.

Random weights write random targets, whose lengths say nothing about a user's. Here each decision is scored as always, and
then the gold token is taken. For our engine the states of the grammar know the target (:class:`ForcedGrammar`), and
:func:`choose_gold` puts the gold token in the place of the best one; for ``generate`` it is a logits processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from xdner.backbone.base import Backbone, Ids
from xdner.codec.grammar import Grammar, GrammarState
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.generation.engine import score_legal
from xdner.settings import CodecSettings

__all__ = ["ForcedGrammar", "ForcedTokens", "choose_gold"]

Words = tuple[tuple[int, ...], ...]


class Legal(tuple[int, ...]):
    """Legal tokens that know the gold one; ``None`` off the target's path (a draft that went wrong)."""

    gold: int | None = None


class ForcedState(GrammarState):
    """A state that knows the target it is on."""

    __slots__ = ("_gold", "_on")
    _gold: Ids
    _on: bool

    @classmethod
    def follow(cls, state: GrammarState, gold: Ids, *, on: bool = True) -> ForcedState:
        """A copy of a state that is still on its target, unless ``on`` says otherwise."""
        made = object.__new__(cls)
        copied = state.copy() if type(state) is GrammarState else state
        for name in GrammarState.__slots__:
            setattr(made, name, getattr(copied, name))
        made._gold, made._on = gold, on
        return made

    def copy(self) -> ForcedState:
        """An independent copy."""
        return ForcedState.follow(self, self._gold, on=self._on)

    def legal(self) -> tuple[int, ...]:
        """The legal next ids, with the gold one."""
        made = Legal(super().legal())
        made.gold = self._gold[self.tokens] if self._on and self.tokens < len(self._gold) else None
        return made

    def advance(self, token: int) -> None:
        """Consume one id; from the first wrong one on, there is no gold any more."""
        super().advance(token)
        self._on = self._on and self.tokens <= len(self._gold) and self._gold[self.tokens - 1] == token


class ForcedGrammar(Grammar):
    """A domain's grammar whose states know the targets of some sentences.

    Args:
        encoder, domain, settings: as :class:`~xdner.codec.grammar.Grammar` takes them.
        targets: gold ids by the words' ids.
    """

    def __init__(
        self, encoder: WordEncoder, domain: Domain, settings: CodecSettings, targets: Mapping[Words, Ids]
    ) -> None:
        super().__init__(encoder, domain, settings)
        self._targets = targets

    def start(self, words: Sequence[tuple[int, ...]]) -> GrammarState:
        """The start state for one of these sentences."""
        return ForcedState.follow(super().start(words), self._targets[tuple(words)])


def choose_gold(backbone: Backbone, states: Tensor, legal: Sequence[Ids]) -> list[tuple[int, float]]:
    """Decisions of an engine that takes gold tokens where its states know them; the scoring is done as always."""
    chosen = score_legal(backbone, states, legal)
    golds = [getattr(ids, "gold", None) for ids in legal]
    return [made if gold is None else (gold, made[1]) for made, gold in zip(chosen, golds, strict=True)]


class ForcedTokens(LogitsProcessor):
    """``generate`` writes these targets; a row that is done writes its last token again, which is cut off.

    Args:
        targets: gold ids of each row.
        start: tokens that stand before the first one.
    """

    def __init__(self, targets: Sequence[Ids], start: int) -> None:
        self._targets, self._start = targets, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, vocabulary] with the gold tokens above all others."""
        at = input_ids.shape[1] - self._start
        gold = torch.tensor([ids[min(at, len(ids) - 1)] for ids in self._targets], device=scores.device)
        return scores.scatter(1, gold[:, None], torch.finfo(scores.dtype).max)
