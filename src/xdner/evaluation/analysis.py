"""What kinds of errors were made, which types were taken for each other, and which sentences went worst.

Gold and predicted entities of a sentence are paired one to one, so that every entity is counted exactly once:

1. ``correct``: span and type agree;
2. ``type``: the span agrees, the type does not;
3. ``boundary``: the type agrees, the spans overlap;
4. ``both``: the spans overlap, the types differ;
5. what is left over is ``missed`` (gold) or ``spurious`` (predicted).

Within 3 and 4 the pair that shares the most characters comes first, then the one with the nearest ends, then the one
furthest left. So ``correct + type + boundary + both`` plus ``missed`` is the number of gold entities, plus
``spurious`` that of predicted ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from xdner.errors import DataError
from xdner.evaluation.match import align, overlaps
from xdner.text import Entity

__all__ = ["KINDS", "Analysis", "Case", "Confusion", "ErrorCounts", "Kind", "SentenceErrors", "analyze", "pair"]

Kind = Literal["correct", "type", "boundary", "both", "missed", "spurious"]
KINDS: tuple[Kind, ...] = ("correct", "type", "boundary", "both", "missed", "spurious")


@dataclass(frozen=True, slots=True)
class Case:
    """A gold entity and the predicted one that it was paired with; one of them is ``None`` if missed or spurious."""

    kind: Kind
    gold: Entity | None
    predicted: Entity | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"kind": self.kind, "gold": _plain(self.gold), "predicted": _plain(self.predicted)}


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """How many pairs there are of each kind (see the top of this file)."""

    correct: int = 0
    type: int = 0
    boundary: int = 0
    both: int = 0
    missed: int = 0
    spurious: int = 0


@dataclass(frozen=True, slots=True)
class Confusion:
    """Which types were taken for which.

    Attributes:
        labels: the types, in alphabetical order.
        counts: one row a gold type, one column a predicted type, both in the order of ``labels``; the last row holds
            predictions without a gold partner, the last column gold entities without a prediction. So a row's sum is
            the number of gold entities of its type, a column's that of predicted ones.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def pairs(self) -> list[tuple[str, str, int]]:
        """Two different types that were confused, as (gold, predicted, count), most often first."""
        found = [
            (gold, predicted, count)
            for gold, row in zip(self.labels, self.counts, strict=False)
            for predicted, count in zip(self.labels, row, strict=False)
            if gold != predicted and count
        ]
        return sorted(found, key=lambda pair: -pair[2])


@dataclass(frozen=True, slots=True)
class SentenceErrors:
    """The errors of one sentence.

    Attributes:
        index: which sentence, from zero.
        id: its name, or the empty text if it has none.
        cases: its errors, in the order of their positions; nothing that is correct.
    """

    index: int
    id: str
    cases: tuple[Case, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"index": self.index, "id": self.id, "errors": [case.to_dict() for case in self.cases]}


@dataclass(frozen=True, slots=True)
class Analysis:
    """Errors by kind, overall and per type, confusion between types, and the worst sentences.

    Attributes:
        errors: over all types.
        per_type: by the gold entity's type; spurious entities by their own.
        confusion: between types.
        worst: sentences with the most errors first, then in their order.
    """

    errors: ErrorCounts
    per_type: dict[str, ErrorCounts]
    confusion: Confusion
    worst: tuple[SentenceErrors, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "errors": asdict(self.errors),
            "errors_per_type": {label: asdict(counts) for label, counts in self.per_type.items()},
            "confusion": asdict(self.confusion),
            "worst": [sentence.to_dict() for sentence in self.worst],
        }


def pair(gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[Case]:
    """Pair the entities of one sentence by the rule at the top of this file.

    >>> gold = [Entity(0, 12, "person"), Entity(20, 26, "city"), Entity(30, 35, "city")]
    >>> [case.kind for case in pair(gold, [Entity(4, 12, "person"), Entity(20, 26, "river"), Entity(40, 44, "city")])]
    ['boundary', 'type', 'missed', 'spurious']
    """
    wanted, found = ({e.key: e for e in side} for side in (gold, predicted))
    cases = [Case("correct", wanted[key], found[key]) for key in wanted.keys() & found.keys()]
    left = [wanted[key] for key in sorted(wanted.keys() - found.keys())]
    extra = [found[key] for key in sorted(found.keys() - wanted.keys())]
    candidates = []
    for p, indices in enumerate(overlaps(left, extra)):
        for g in indices:
            one, other = left[g], extra[p]
            kind: Kind = "boundary" if one.label == other.label else "both"
            if (one.start, one.end) == (other.start, other.end):
                kind = "type"
            shared = min(one.end, other.end) - max(one.start, other.start)
            distance = abs(one.start - other.start) + abs(one.end - other.end)
            candidates.append((KINDS.index(kind), -shared, distance, g, p))
    paired_gold: set[int] = set()
    paired_extra: set[int] = set()
    for rank, _, _, g, p in sorted(candidates):
        if g not in paired_gold and p not in paired_extra:
            paired_gold.add(g)
            paired_extra.add(p)
            cases.append(Case(KINDS[rank], left[g], extra[p]))
    cases += [Case("missed", entity, None) for g, entity in enumerate(left) if g not in paired_gold]
    cases += [Case("spurious", None, entity) for p, entity in enumerate(extra) if p not in paired_extra]
    return sorted(cases, key=_position)


def analyze(
    gold: Sequence[Sequence[Entity]],
    predicted: Sequence[Sequence[Entity]],
    *,
    ids: Sequence[str] | None = None,
    examples: int = 10,
) -> Analysis:
    """Find out what went wrong.

    Args:
        gold, predicted: the entities of each sentence.
        ids: the sentences' names.
        examples: at most so many of the worst sentences are kept.

    Raises:
        DataError: different numbers of sentences, or what :func:`~xdner.evaluation.match.align` refuses.
    """
    if ids is not None and len(ids) != len(gold):
        raise DataError(f"{len(gold)} sentences came with {len(ids)} ids", hint="Give every sentence's id, in order.")
    if examples < 0:
        raise DataError(f"examples must not be negative, not {examples}", hint="Use 0 for no examples.")
    aligned = align(gold, predicted)
    kinds: Counter[tuple[str, str]] = Counter()
    cells: Counter[tuple[str | None, str | None]] = Counter()
    wrong = []
    for index, sides in enumerate(zip(aligned.gold, aligned.predicted, strict=True)):
        cases = pair(*sides)
        for case in cases:
            row, column = (None if e is None else e.label for e in (case.gold, case.predicted))
            cells[row, column] += 1
            kinds[str(column if row is None else row), case.kind] += 1
        errors = tuple(case for case in cases if case.kind != "correct")
        if errors:
            wrong.append(SentenceErrors(index, ids[index] if ids is not None else "", errors))
    labels = tuple(sorted({label for cell in cells for label in cell if label is not None}))
    every: tuple[str | None, ...] = (*labels, None)
    return Analysis(
        ErrorCounts(*(sum(kinds[label, kind] for label in labels) for kind in KINDS)),
        {label: ErrorCounts(*(kinds[label, kind] for kind in KINDS)) for label in labels},
        Confusion(labels, tuple(tuple(cells[row, column] for column in every) for row in every)),
        tuple(sorted(wrong, key=lambda sentence: -len(sentence.cases))[:examples]),
    )


def _position(case: Case) -> tuple[tuple[int, int, str], bool]:
    entity = case.gold or case.predicted
    assert entity is not None  # a case has at least one side
    return entity.key, case.gold is None


def _plain(entity: Entity | None) -> dict[str, Any] | None:
    if entity is None:
        return None
    return {"start": entity.start, "end": entity.end, "label": entity.label, "text": entity.text}
