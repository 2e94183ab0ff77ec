"""Batches of near-equal lengths, so that little of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

__all__ = ["bucketed_batches", "padding_share"]

LIMIT = 0.15  # of the tokens of an epoch; never exceeded
PLANNED = 0.11  # of a group's tokens, before jitter adds its part
TOLERATED = (1.0, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, PLANNED)  # within one batch, from "anything" to "what is planned"
JITTER = (0.05, 0.025, 0.0)


def bucketed_batches(
    lengths: Sequence[int], batch_size: int, rng: random.Random, groups: Sequence[Hashable] | None = None
) -> list[list[int]]:
    """Every item once, neighbors in length together, in an order drawn from ``rng``.

    Lengths are jittered by up to 5 % before sorting, so that batches differ from epoch to epoch. Less than 15 % of the
    tokens are padding, always: where full batches would hold more, as with few items or a few very long ones, batches
    are smaller and there are more of them. How many there are depends on the lengths only, not on ``rng``, so every
    epoch has as many steps.

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
    sizes = {group: _sizes([lengths[i] for i in items], batch_size) for group, items in members.items()}
    batches: list[list[int]] = []
    for jitter in JITTER:  # at the last one the batches are those of the plan: the limit holds
        batches = []
        for group, items in members.items():
            drawn = {i: (lengths[i] * (1 + jitter * rng.uniform(-1, 1)), rng.random()) for i in items}
            ordered = iter(sorted(items, key=drawn.__getitem__, reverse=True))
            cuts = sizes[group]
            if jitter and set(cuts[:-1]) <= {batch_size} and rng.random() < 0.5:
                cuts = cuts[::-1]  # the one short batch is not always that of the shortest items
            batches += [[next(ordered) for _ in range(size)] for size in cuts]
        if padding_share(batches, lengths) < LIMIT:
            break
    rng.shuffle(batches)
    return batches


def padding_share(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Which share of the tokens is padding, if each batch is padded to its longest item."""
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    real = sum(lengths[i] for batch in batches for i in batch)
    return 1 - real / padded if padded else 0.0


def _sizes(lengths: Sequence[int], batch_size: int) -> list[int]:
    """Sizes of the batches, from the longest items to the shortest: the fullest ones with little enough padding."""
    ordered = sorted(lengths, reverse=True)
    sizes: list[int] = []
    for tolerated in TOLERATED:
        sizes, padded = _cut(ordered, batch_size, tolerated)
        if padded * (1 - PLANNED) <= sum(ordered):
            break
    return sizes


def _cut(ordered: Sequence[int], batch_size: int, tolerated: float) -> tuple[list[int], int]:
    """Sizes of batches of which no more than ``tolerated`` is padding, and their tokens with padding."""
    sizes: list[int] = []
    padded, longest, real = 0, 0, 0
    for length in ordered:
        full = longest * (sizes[-1] + 1) if sizes else 0
        if not sizes or sizes[-1] == batch_size or full - real - length > tolerated * full:
            sizes.append(0)
            longest, real = length, 0
        sizes[-1] += 1
        real += length
        padded += longest
    return sizes, padded
