"""Every item once, little padding, another order every epoch."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.training.batching import bucketed_batches, padding_share


def lognormal(items: int, seed: int, spread: float = 0.5) -> list[int]:
    rng = random.Random(seed)
    return [min(200, max(20, round(rng.lognormvariate(4.1, spread)))) for _ in range(items)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 3000), max_size=150),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 99),
    grouped=st.booleans(),
)
def test_any_lengths_every_item_once_and_the_limit_holds(lengths, batch_size, seed, grouped):
    groups = [i % 3 for i in range(len(lengths))] if grouped else None
    batches = bucketed_batches(lengths, batch_size, random.Random(seed), groups)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert padding_share(batches, lengths) < 0.15
    if groups is not None:
        assert all(len({groups[i] for i in batch}) == 1 for batch in batches)


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(64, 400),
    spread=st.sampled_from([0.3, 0.5, 0.7]),
    batch_size=st.sampled_from([4, 8, 16, 32]),
    seed=st.integers(0, 999),
)
def test_sentences_of_real_lengths_keep_padding_low_in_every_epoch(items, spread, batch_size, seed):
    lengths = lognormal(items, seed, spread)
    epochs = [bucketed_batches(lengths, batch_size, random.Random(e)) for e in range(4)]
    assert all(padding_share(batches, lengths) < 0.15 for batches in epochs)
    # The plan of the learning rate needs as many steps in every epoch.
    assert len({len(batches) for batches in epochs}) == 1


def test_full_batches_where_they_hold_little_padding_anyway():
    lengths = lognormal(200, 1)
    batches = bucketed_batches(lengths, 8, random.Random(1))
    assert [len(b) for b in batches] == [8] * 25
    # Unsorted, these batches would be a third padding.
    order = list(range(200))
    assert padding_share([order[i : i + 8] for i in range(0, 200, 8)], lengths) > 0.3


def test_one_very_long_item_stands_alone():
    batches = bucketed_batches([20] * 63 + [2000], 16, random.Random(1))
    assert [63] in batches
    assert sorted(map(len, batches)) == [1, 15, 16, 16, 16]


def test_the_same_generator_gives_the_same_batches_and_another_one_others():
    lengths = lognormal(100, 2)
    drawn = [bucketed_batches(lengths, 8, random.Random(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    first, other = ({frozenset(batch) for batch in batches} for batches in drawn[1:])
    assert len(first & other) < len(first) / 2


@pytest.mark.parametrize("length", [0, 30])
def test_items_of_equal_length_meet_others_each_epoch(length):
    epochs = [bucketed_batches([length] * 32, 4, random.Random(e)) for e in range(2)]
    first, other = ({frozenset(batch) for batch in batches} for batches in epochs)
    assert first != other


def test_the_short_batch_is_not_always_that_of_the_shortest_items():
    lengths = [100 + i for i in range(10)]
    alone = set()
    for seed in range(20):
        short = min(bucketed_batches(lengths, 4, random.Random(seed)), key=len)
        assert len(short) == 2
        alone.add(sum(short) > 9)
    assert alone == {True, False}


def test_padding_share():
    assert padding_share([[0, 1], [2]], [10, 5, 7]) == pytest.approx(5 / 27)
    assert padding_share([], []) == 0.0
    assert bucketed_batches([], 4, random.Random(0)) == []
