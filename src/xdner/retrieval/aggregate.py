"""From words to examples: each word of a query brings the most similar words of examples; which examples are shown?

The paper (IF-WRANER, §3.6) does not say. With s(q, e) the greatest similarity of query word q to a word that example e
brought, and 0 where e brought none:

========= ==================================================================================================================
``sum``   Σ_q s(q, e): the plain reading of the paper, and of the design. The default: a tuned model answered better with its
          examples than with those of ``types``, by 8 points of F1 (``docs/LOG.md``)
``max``   max_q s(q, e), then ``sum``
``count`` how many words of the query e answers, then ``sum``
``idf``   Σ_q idf(q) s(q, e), with BM25's idf of the word among the examples
``rank``  Σ_q 1 / (60 + rank of e for q): reciprocal rank fusion (Cormack et al. 2009)
``cover`` examples chosen one after another so that together they answer every word: the one that raises
          Σ_q max_chosen s(q, e) most (Set-BSR: Gupta et al., Coverage-based Example Selection, EMNLP 2023)
``types`` ``cover`` over pairs of a query word and the type (or O) of the words it brought: an ambiguous word is answered once
          in each of its readings. It shows most of the types that a query has, and less of what is most like it
========= ==================================================================================================================

``cover`` and ``types`` maximize a submodular function greedily, so an example's score, what it added, falls from one to the
next; each is within 1 - 1/e of the best choice. Where nothing more can be added, ``sum`` decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xdner.retrieval.base import Match

__all__ = ["Brought", "Chosen", "choose"]

_FUSION = 60  # of reciprocal rank fusion
_TIE = 1e-6  # of the next rule, where the first says the same


class Brought(NamedTuple):
    """A word of an example that a word of the query brought.

    Attributes:
        query: index of the query's word.
        example: number of the example.
        word: index of its word.
        label: its type; empty outside of mentions.
        similarity: cosine.
    """

    query: int
    example: int
    word: int
    label: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """An example with its score, and the words that brought it, best first."""

    example: int
    score: float
    matches: tuple[Match, ...]


def choose(brought: Sequence[Brought], k: int, rule: str, idf: Mapping[int, float] | None = None) -> list[Chosen]:
    """At most ``k`` examples, best first; equally good ones in the order of their numbers.

    Args:
        brought: of all words of one query.
        k: how many.
        rule: see above.
        idf: of the query's words by index, for ``idf``.
    """
    # A similarity below zero says no more than none at all.
    useful = [b for b in brought if b.similarity > 0]
    examples = sorted({b.example for b in useful})
    if not examples or k <= 0:
        return []
    column = {number: i for i, number in enumerate(examples)}
    answered = [(b.query, b.label if rule == "types" else "") for b in useful]
    units = sorted(set(answered))
    row = {unit: i for i, unit in enumerate(units)}
    table = np.zeros((len(units), len(examples)))
    at = [row[unit] for unit in answered], [column[b.example] for b in useful]
    np.maximum.at(table, at, [b.similarity for b in useful])
    if rule in ("cover", "types"):
        order, scores = _cover(table, k)
    else:
        values = _scores(table, rule, [1.0 if idf is None else idf[q] for q, _ in units])
        order = np.argsort(-(values + _TIE * table.sum(0)), kind="stable")[:k]
        scores = values[order]
    kept = {examples[i] for i in order.tolist()}
    words = _matches([b for b in useful if b.example in kept])
    return [
        Chosen(examples[i], float(score), words[examples[i]]) for i, score in zip(order.tolist(), scores, strict=True)
    ]


def _scores(table: NDArray[Any], rule: str, idf: Sequence[float]) -> NDArray[Any]:
    if rule == "sum":
        return table.sum(0)
    if rule == "max":
        return table.max(0)
    if rule == "count":
        return (table > 0).sum(0).astype(float)
    if rule == "idf":
        return np.asarray(idf) @ table
    if rule == "rank":
        places = (-table).argsort(1, kind="stable").argsort(1, kind="stable") + 1
        return np.where(table > 0, 1.0 / (_FUSION + places), 0.0).sum(0)
    raise ValueError(f"unknown rule {rule!r}")


def _cover(table: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    covered = np.zeros((len(table), 1))
    free = np.ones(table.shape[1], dtype=bool)
    order, scores, total = [], [], table.sum(0)
    for _ in range(min(k, table.shape[1])):
        gain = np.maximum(table - covered, 0).sum(0)
        best = int(np.where(free, gain + _TIE * total, -1.0).argmax())
        order.append(best)
        scores.append(gain[best])
        free[best] = False
        covered = np.maximum(covered, table[:, best : best + 1])
    return np.array(order), np.array(scores)


def _matches(brought: Sequence[Brought]) -> dict[int, tuple[Match, ...]]:
    """By example, for each word of the query its most similar word."""
    best: dict[tuple[int, int], Brought] = {}
    for b in brought:
        known = best.get((b.example, b.query))
        if known is None or b.similarity > known.similarity:
            best[b.example, b.query] = b
    found: dict[int, list[Match]] = {}
    for b in best.values():
        found.setdefault(b.example, []).append(Match(b.query, b.word, b.similarity))
    return {e: tuple(sorted(m, key=lambda x: (-x.similarity, x.query))) for e, m in found.items()}
