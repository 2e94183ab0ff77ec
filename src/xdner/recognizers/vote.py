"""A vote between several readings of one text: the strategy ``ensemble``.

Spans are compared by their exact offsets, so what is elected has exact offsets too.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdner.recognizers.base import Result
from xdner.text import Entity

__all__ = ["elect", "vote"]


def vote(readings: Sequence[Result]) -> Result:
    """One result from the members' results on one text; counts of what could not be read are the largest of any member."""
    first = readings[0]
    kinds = sorted({kind for r in readings for kind in r.diagnostics})
    diagnostics = {kind: max(r.diagnostics.get(kind, 0) for r in readings) for kind in kinds}
    entities = elect([r.entities for r in readings])
    return Result(first.text, entities, first.domain, max(r.windows for r in readings), diagnostics)


def elect(ballots: Sequence[Sequence[Entity]]) -> tuple[Entity, ...]:
    """The entities that more than half of the members found.

    Args:
        ballots: each member's entities.

    Returns:
        Sorted entities without overlap; of those that overlap, the one with more votes wins, then with the higher score,
        then the earlier, then the longer one. A score is the mean over all members; one that did not find it counts 0.
    """
    votes: dict[tuple[int, int, str], list[Entity]] = {}
    for ballot in ballots:
        for key, entity in {(e.start, e.end, e.label): e for e in ballot}.items():
            votes.setdefault(key, []).append(entity)
    candidates = []
    for (start, end, label), found in votes.items():
        if 2 * len(found) > len(ballots):
            score = sum(1.0 if e.score is None else e.score for e in found) / len(ballots)
            candidates.append(
                (-len(found), -score, start, -end, label, Entity(start, end, label, found[0].text, score))
            )
    chosen: list[Entity] = []
    for *_, entity in sorted(candidates, key=lambda c: c[:5]):
        if all(entity.end <= other.start or other.end <= entity.start for other in chosen):
            chosen.append(entity)
    return tuple(sorted(chosen, key=lambda e: (e.start, e.end)))
