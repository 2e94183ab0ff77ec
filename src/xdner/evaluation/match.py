"""Comparing the gold and the predicted entities of one sentence, and counting what agrees.

An entity is its :attr:`~xdner.text.Entity.key`, ``(start, end, label)``: an entity given twice counts once, and neither
the order of the entities nor their scores matter. Division by zero gives 0.0 everywhere in this package: precision
without predictions, recall without gold entities, and F1 where both are zero. (``seqeval`` calls this
``zero_division=0``.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xdner.errors import DataError
from xdner.text import Entity

__all__ = [
    "SCHEMES",
    "Aligned",
    "SchemeCounts",
    "Score",
    "align",
    "count_schemes",
    "exact_counts",
    "overlaps",
    "sentence_counts",
    "string_counts",
]

_key = attrgetter("key")


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1, with the counts that they come from.

    >>> Score.of(2, 3, 4)
    Score(precision=0.6666666666666666, recall=0.5, f1=0.5714285714285715, true_positives=2, predicted=3, gold=4)
    >>> Score.of(0, 0, 4).f1
    0.0
    """

    precision: float
    recall: float
    f1: float
    true_positives: int
    predicted: int
    gold: int

    @classmethod
    def of(cls, true_positives: int, predicted: int, gold: int) -> Score:
        """The score of these counts; division by zero gives 0.0."""
        precision, recall, f1 = _ratios(true_positives, predicted, gold)
        return cls(precision, recall, f1, true_positives, predicted, gold)


@dataclass(frozen=True, slots=True)
class SchemeCounts:
    """What one of the four :data:`SCHEMES` counts.

    Attributes:
        correct, incorrect, partial: pairs of a gold and a predicted entity.
        missed: gold entities without a partner.
        spurious: predicted entities without a partner.

    >>> counts = SchemeCounts(correct=1, partial=1, spurious=2)
    >>> counts.actual, counts.possible, counts.precision, counts.recall, counts.f1
    (4, 2, 0.375, 0.75, 0.5)
    """

    correct: int = 0
    incorrect: int = 0
    partial: int = 0
    missed: int = 0
    spurious: int = 0

    def __add__(self, other: SchemeCounts) -> SchemeCounts:
        return SchemeCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def actual(self) -> int:
        """Predicted entities."""
        return self.correct + self.incorrect + self.partial + self.spurious

    @property
    def possible(self) -> int:
        """Gold entities."""
        return self.correct + self.incorrect + self.partial + self.missed

    @property
    def precision(self) -> float:
        """A partial match counts one half."""
        return _ratios(self.correct + 0.5 * self.partial, self.actual, self.possible)[0]

    @property
    def recall(self) -> float:
        """A partial match counts one half."""
        return _ratios(self.correct + 0.5 * self.partial, self.actual, self.possible)[1]

    @property
    def f1(self) -> float:
        """The harmonic mean of the two."""
        return _ratios(self.correct + 0.5 * self.partial, self.actual, self.possible)[2]

    def to_dict(self) -> dict[str, Any]:
        """The counts and what follows from them."""
        names = [f.name for f in fields(self)] + ["possible", "actual", "precision", "recall", "f1"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Aligned:
    """Gold and predicted entities, sentence by sentence, sorted and without repetition.

    Attributes:
        gold, predicted: of the same length, one entry a sentence.
        left_out: entities that do not count, and why: ``gold_repeated``, ``predicted_repeated``, ``gold_other_types``,
            ``predicted_other_types``.
    """

    gold: tuple[tuple[Entity, ...], ...]
    predicted: tuple[tuple[Entity, ...], ...]
    left_out: dict[str, int]


def align(
    gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]], labels: Iterable[str] | None = None
) -> Aligned:
    """Check that both sides belong together, and put their entities into order.

    Args:
        gold, predicted: the entities of each sentence, in the same order of sentences.
        labels: if given, entities of other types are left out on both sides.

    Raises:
        DataError: a different number of sentences, what is not an :class:`~xdner.text.Entity`, an impossible span, or
            labels that are one text.
    """
    if len(gold) != len(predicted):
        raise DataError(
            f"{len(gold)} sentences have gold entities, {len(predicted)} have predicted ones",
            hint="Give one list of entities for every sentence on both sides; an empty list where there are none.",
        )
    if isinstance(labels, str):
        raise DataError(
            f"labels are a list of names, not the text {labels!r}", hint=f"Pass [{labels!r}] for a single label."
        )
    wanted = None if labels is None else set(labels)
    left_out: dict[str, int] = {}
    sides = []
    for side, sentences in (("gold", gold), ("predicted", predicted)):
        made = []
        for index, entities in enumerate(sentences):
            by_key = _by_key(entities, side, index)
            kept = [by_key[key] for key in sorted(by_key) if wanted is None or key[2] in wanted]
            for reason, count in (
                ("repeated", len(entities) - len(by_key)),
                ("other_types", len(by_key) - len(kept)),
            ):
                left_out[f"{side}_{reason}"] = left_out.get(f"{side}_{reason}", 0) + count
            made.append(tuple(kept))
        sides.append(tuple(made))
    return Aligned(sides[0], sides[1], {reason: count for reason, count in left_out.items() if count})


def exact_counts(gold: Sequence[Entity], predicted: Sequence[Entity]) -> tuple[int, int, int]:
    """True positives, predicted and gold entities of one sentence: span and type must both be exact.

    >>> gold = [Entity(0, 7, "person"), Entity(11, 20, "city")]
    >>> exact_counts(gold, [Entity(0, 7, "person"), Entity(0, 7, "person"), Entity(11, 20, "country")])
    (1, 2, 2)
    """
    wanted, found = {e.key for e in gold}, {e.key for e in predicted}
    return len(wanted & found), len(found), len(wanted)


def string_counts(gold: Sequence[Entity], predicted: Sequence[Entity]) -> tuple[int, int, int]:
    """The same for the mentions' characters and types as a set, wherever in the sentence they stand.

    A mention that occurs twice counts once, and a prediction at the wrong one of two equal mentions counts as right:
    these scores tend to be the higher ones.

    >>> gold = [Entity(0, 4, "city", "Rome"), Entity(9, 13, "city", "Rome"), Entity(20, 25, "city", "Paris")]
    >>> string_counts(gold, [Entity(9, 13, "city", "Rome")])
    (1, 1, 2)
    """
    wanted, found = {(e.text, e.label) for e in gold}, {(e.text, e.label) for e in predicted}
    return len(wanted & found), len(found), len(wanted)


def sentence_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> NDArray[np.int64]:
    """:func:`exact_counts` of every sentence: int64 of shape (sentences, 3).

    Raises:
        DataError: see :func:`align`.
    """
    aligned = align(gold, predicted)
    rows = [exact_counts(*pair) for pair in zip(aligned.gold, aligned.predicted, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def overlaps(gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[list[int]]:
    """For each predicted entity, the gold entities (as ascending indices) that share a character with it.

    Args:
        gold: sorted by start.
        predicted: in any order.
    """
    starts = [e.start for e in gold]
    # Entities may nest, so ends are not sorted; how far the first i of them reach is.
    reach = list(accumulate((e.end for e in gold), max))
    return [
        [i for i in range(bisect_right(reach, p.start), bisect_left(starts, p.end)) if gold[i].end > p.start]
        for p in predicted
    ]


# When a gold and a predicted entity agree; what overlaps without agreeing is incorrect, or partial in "partial".
SCHEMES: dict[str, Callable[[Entity, Entity], bool]] = {
    "strict": lambda g, p: g.key == p.key,
    "exact": lambda g, p: (g.start, g.end) == (p.start, p.end),
    "partial": lambda g, p: (g.start, g.end) == (p.start, p.end),
    "ent_type": lambda g, p: g.label == p.label,
}


def count_schemes(gold: Sequence[Entity], predicted: Sequence[Entity]) -> dict[str, SchemeCounts]:
    """The four schemes of the ``nervaluate`` package (SemEval 2013, task 9.1) for one sentence.

    Predicted entities, from left to right, each take one gold entity that is still free: the one that agrees (of
    several, the one with the nearest ends), otherwise the first that overlaps. As there, an overlap of less than one
    percent of the gold entity is none.

    - ``strict``: span and type agree; an overlap is incorrect.
    - ``exact``: the span agrees, whatever the type; an overlap is incorrect.
    - ``partial``: the span agrees, whatever the type; an overlap is partial and counts one half.
    - ``ent_type``: the spans overlap and the type agrees; an overlap of another type is incorrect.

    >>> gold = [Entity(0, 12, "person"), Entity(20, 26, "city")]
    >>> counts = count_schemes(gold, [Entity(4, 12, "person"), Entity(20, 26, "country")])
    >>> counts["strict"], counts["partial"].f1
    (SchemeCounts(correct=0, incorrect=2, partial=0, missed=0, spurious=0), 0.75)
    """
    wanted, found = (sorted({e.key: e for e in side}.values(), key=_key) for side in (gold, predicted))
    near = [
        [i for i in indices if 100 * _shared(wanted[i], p) >= wanted[i].end - wanted[i].start]
        for p, indices in zip(found, overlaps(wanted, found), strict=True)
    ]
    return {scheme: _count(scheme, wanted, found, near) for scheme in SCHEMES}


def _count(scheme: str, gold: list[Entity], predicted: list[Entity], near: list[list[int]]) -> SchemeCounts:
    agrees = SCHEMES[scheme]
    taken: set[int] = set()
    correct = overlapping = 0
    for entity, indices in zip(predicted, near, strict=True):
        free = [i for i in indices if i not in taken]
        right = [i for i in free if agrees(gold[i], entity)]
        if right:
            correct += 1
            taken.add(min(right, key=lambda i: abs(gold[i].start - entity.start) + abs(gold[i].end - entity.end)))
        elif free:
            overlapping += 1
            taken.add(free[0])
    missed, spurious = len(gold) - len(taken), len(predicted) - len(taken)
    incorrect, partial = (0, overlapping) if scheme == "partial" else (overlapping, 0)
    return SchemeCounts(correct, incorrect, partial, missed, spurious)


def _shared(first: Entity, second: Entity) -> int:
    return min(first.end, second.end) - max(first.start, second.start)


def _ratios(hits: float, predicted: int, gold: int) -> tuple[float, float, float]:
    """Precision, recall and F1, in the order of operations that seqeval and nervaluate share, to the last digit."""
    precision = hits / predicted if predicted else 0.0
    recall = hits / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return precision, recall, f1


def _by_key(entities: Sequence[Entity], side: str, index: int) -> dict[tuple[int, int, str], Entity]:
    hint = "Pass a list of Entity for each sentence, such as [sentence.entities for sentence in corpus]."
    if isinstance(entities, str) or not isinstance(entities, Sequence):
        raise DataError(
            f"sentence {index} of the {side} side is {type(entities).__name__}, not a list of entities", hint=hint
        )
    made: dict[tuple[int, int, str], Entity] = {}
    for entity in entities:
        if not isinstance(entity, Entity):
            raise DataError(f"sentence {index} of the {side} side holds {entity!r}, which is no Entity", hint=hint)
        if not 0 <= entity.start < entity.end:
            raise DataError(
                f"sentence {index} of the {side} side holds the impossible span {entity.key}",
                hint="Spans count characters, half-open, and are never empty: 0 <= start < end.",
            )
        made.setdefault(entity.key, entity)
    return made
