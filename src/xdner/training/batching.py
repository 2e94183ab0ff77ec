"""Batches of near-equal lengths, so that little of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

__all__ = ["bucketed_batches", "padding_share"]


def bucketed_batches(
    lengths: Sequence[int], batch_size: int, rng: random.Random, groups: Sequence[Hashable] | None = None
) -> list[list[int]]:
    """Every item once, neighbours in length together, in an order drawn from ``rng``.

    Lengths are jittered by 5 % before sorting, so that batches differ from epoch to epoch.

    Args:
        lengths: tokens of each item.
        batch_size: items in a batch, at most.
        rng: decides everything random.
        groups: if given, a batch holds items of one group only (of one domain, whose context is then read once).

    Returns:
        Lists of item indices.
    """
    members: dict[Hashable, list[int]] = {}
    for item in range(len(lengths)):
        members.setdefault(groups[item] if groups is not None else None, []).append(item)
    batches: list[list[int]] = []
    for items in members.values():
        jittered = {i: lengths[i] * (1 + 0.05 * (2 * rng.random() - 1)) for i in items}
        ordered = sorted(items, key=lambda i: jittered[i])
        # The one short batch is not always the one of the longest items.
        first = rng.choice([0, len(ordered) % batch_size]) or batch_size
        cuts = [0, *range(first, len(ordered), batch_size), len(ordered)]
        batches += [ordered[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if a < b]
    rng.shuffle(batches)
    return batches


def padding_share(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Which share of the tokens is padding, if each batch is padded to its longest item."""
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    real = sum(lengths[i] for batch in batches for i in batch)
    return 1 - real / padded if padded else 0.0
