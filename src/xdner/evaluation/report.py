"""Scoring predictions against gold entities: one report with everything, as plain values, JSON or rows for a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from xdner.errors import DataError
from xdner.evaluation.analysis import Confusion, ErrorCounts, SentenceErrors, analyze
from xdner.evaluation.match import (
    SCHEMES,
    Aligned,
    SchemeCounts,
    Score,
    align,
    count_schemes,
    exact_counts,
    string_counts,
)
from xdner.evaluation.significance import Interval, interval_of_counts
from xdner.text import Entity

__all__ = ["RULE", "Averages", "Report", "evaluate"]

RULE = (
    "Micro-F1 over entities: a predicted entity is right if its first character, its last character and its type are "
    "those of a gold entity of the same sentence; an entity given twice counts once. String-level scores compare "
    "mentions' characters and types as a set per sentence, wherever they stand. The 95 % interval is a percentile "
    "bootstrap over sentences. Division by zero gives 0."
)


@dataclass(frozen=True, slots=True)
class Averages:
    """Unweighted means over the types that occur in gold or predicted entities (``types`` of them)."""

    precision: float
    recall: float
    f1: float
    types: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one system's predictions.

    Attributes:
        micro: exact-span score over all entities: the headline.
        interval: 95 % bootstrap interval of ``micro.f1``; ``None`` if it was not asked for.
        macro: means over types.
        per_type: exact-span score of each type, in alphabetical order or that of the given labels.
        string_level: the same as ``micro`` for mentions as a set of strings; ``None`` if an entity came without text.
        schemes: the counts of ``strict``, ``exact``, ``partial`` and ``ent_type``
            (:func:`~xdner.evaluation.match.count_schemes`).
        errors: boundary, type and other errors (:mod:`xdner.evaluation.analysis`).
        errors_per_type: the same for each type that occurs.
        confusion: which types were taken for which.
        worst: the sentences with the most errors.
        sentences: how many were scored.
        left_out: entities that were not scored, and why; empty if all were.
        rule: what counts as right.
        notes: what the recognizer counted while it read (``malformed_answers``, ``dropped_demonstrations``, …), where it
            is known.
        unread: the first answers of a language model that could not be read: ``id`` of the sentence, ``answer`` and ``why``.
    """

    micro: Score
    interval: Interval | None
    macro: Averages
    per_type: dict[str, Score]
    string_level: Score | None
    schemes: dict[str, SchemeCounts]
    errors: ErrorCounts
    errors_per_type: dict[str, ErrorCounts]
    confusion: Confusion
    worst: tuple[SentenceErrors, ...]
    sentences: int
    left_out: dict[str, int]
    rule: str = RULE
    notes: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[Mapping[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; nothing is rounded."""
        return {
            "rule": self.rule,
            "sentences": self.sentences,
            "left_out": dict(self.left_out),
            "micro": asdict(self.micro),
            "interval": None if self.interval is None else asdict(self.interval),
            "macro": asdict(self.macro),
            "string_level": None if self.string_level is None else asdict(self.string_level),
            "per_type": {label: asdict(score) for label, score in self.per_type.items()},
            "schemes": {scheme: counts.to_dict() for scheme, counts in self.schemes.items()},
            "errors": asdict(self.errors),
            "errors_per_type": {label: asdict(counts) for label, counts in self.errors_per_type.items()},
            "confusion": asdict(self.confusion),
            "worst": [sentence.to_dict() for sentence in self.worst],
        } | {
            key: value
            for key, value in (("notes", dict(self.notes)), ("unread", list(map(dict, self.unread))))
            if value
        }

    def to_json(self) -> str:
        """The same as JSON; characters outside ASCII are escaped, so that any text can be written anywhere."""
        return json.dumps(self.to_dict(), indent=2)

    def rows(self) -> list[dict[str, Any]]:
        """One row a score, for a table: ``group`` (``overall`` or ``type``), ``name``, scores and counts.

        Counts are ``None`` for the macro average, which has none.
        """
        counts = dict.fromkeys(("true_positives", "predicted", "gold"))
        macro = {name: value for name, value in asdict(self.macro).items() if name != "types"}
        rows = [{"group": "overall", "name": "micro", **asdict(self.micro)}]
        rows.append({"group": "overall", "name": "macro", **macro, **counts})
        if self.string_level is not None:
            rows.append({"group": "overall", "name": "string-level", **asdict(self.string_level)})
        rows += [{"group": "type", "name": label, **asdict(score)} for label, score in self.per_type.items()]
        return rows


def evaluate(
    gold: Sequence[Sequence[Entity]],
    predicted: Sequence[Sequence[Entity]],
    *,
    labels: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    samples: int = 1000,
    seed: int = 0,
    examples: int = 10,
) -> Report:
    """Score predictions; the report's ``rule`` says how.

    Micro, per-type and macro scores are those of ``seqeval`` (strict, IOB2), ``schemes`` those of ``nervaluate``.

    Args:
        gold: the entities of each sentence, from the corpus.
        predicted: those that were found, in the same order of sentences.
        labels: score these types only, and list them in this order; those that do not occur are listed with zeros and
            do not enter the macro average.
        ids: the sentences' names, for the worst sentences.
        samples: resamples for the interval; 0 for none.
        seed: of the resampling.
        examples: at most so many of the worst sentences are kept.

    Raises:
        DataError: different numbers of sentences, what is no entity, an impossible span, or a negative number.

    >>> johnson, baltimore = Entity(0, 7, "person", "Johnson"), Entity(11, 20, "city", "Baltimore")
    >>> gold = [[johnson, baltimore], [Entity(0, 4, "city", "Rome")]]
    >>> predicted = [[johnson, Entity(11, 20, "team", "Baltimore")], []]
    >>> report = evaluate(gold, predicted)
    >>> report.micro.precision, report.micro.recall, report.micro.f1, report.macro.f1
    (0.5, 0.3333333333333333, 0.4, 0.3333333333333333)
    >>> report.errors
    ErrorCounts(correct=1, type=1, boundary=0, both=0, missed=1, spurious=0)
    """
    if samples < 0:
        raise DataError(f"samples must not be negative, not {samples}", hint="Use 0 for no interval.")
    aligned = align(gold, predicted, labels)
    pairs = list(zip(aligned.gold, aligned.predicted, strict=True))
    counts = np.array([exact_counts(*pair) for pair in pairs], dtype=np.int64).reshape(-1, 3)
    per_type = _per_type(aligned, labels)
    totals: dict[str, SchemeCounts] = dict.fromkeys(SCHEMES, SchemeCounts())
    for pair in pairs:
        totals = {scheme: totals[scheme] + found for scheme, found in count_schemes(*pair).items()}
    analysis = analyze(aligned.gold, aligned.predicted, ids=ids, examples=examples)
    return Report(
        micro=Score.of(*counts.sum(axis=0).tolist()),
        interval=interval_of_counts(counts, samples=samples, seed=seed) if samples else None,
        macro=_macro(per_type),
        per_type=per_type,
        string_level=_string_level(aligned),
        schemes=totals,
        errors=analysis.errors,
        errors_per_type=analysis.per_type,
        confusion=analysis.confusion,
        worst=analysis.worst,
        sentences=len(pairs),
        left_out=aligned.left_out,
    )


def _per_type(aligned: Aligned, labels: Sequence[str] | None) -> dict[str, Score]:
    hits: Counter[str] = Counter()
    for gold, predicted in zip(aligned.gold, aligned.predicted, strict=True):
        right = {entity.key for entity in gold}
        hits.update(entity.label for entity in predicted if entity.key in right)
    found = Counter(entity.label for entities in aligned.predicted for entity in entities)
    wanted = Counter(entity.label for entities in aligned.gold for entity in entities)
    names = sorted(found.keys() | wanted.keys()) if labels is None else dict.fromkeys(labels)
    return {name: Score.of(hits[name], found[name], wanted[name]) for name in names}


def _macro(per_type: dict[str, Score]) -> Averages:
    # Alphabetical order, because the last digit of a sum depends on the order, and the labels' order must not matter.
    scores = [per_type[name] for name in sorted(per_type) if per_type[name].gold or per_type[name].predicted]
    if not scores:
        return Averages(0.0, 0.0, 0.0, 0)
    # One by one: NumPy adds the numbers of a table in another order than those of a list.
    means = [float(np.mean([getattr(score, name) for score in scores])) for name in ("precision", "recall", "f1")]
    return Averages(means[0], means[1], means[2], len(scores))


def _string_level(aligned: Aligned) -> Score | None:
    pairs = list(zip(aligned.gold, aligned.predicted, strict=True))
    if not all(entity.text for sides in pairs for entities in sides for entity in entities):
        return None
    counts = np.array([string_counts(*pair) for pair in pairs], dtype=np.int64).reshape(-1, 3)
    return Score.of(*counts.sum(axis=0).tolist())
