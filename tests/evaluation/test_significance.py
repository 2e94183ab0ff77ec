"""Intervals, paired tests and summaries over seeds."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.errors import DataError
from xdner.evaluation import (
    bootstrap_interval,
    evaluate,
    paired_bootstrap,
    paired_bootstrap_counts,
    paired_bootstrap_seeds,
    seed_summary,
)
from xdner.evaluation.match import sentence_counts
from xdner.evaluation.significance import _resampled, interval_of_counts
from xdner.text import Entity

BOUNDED = settings(max_examples=60, deadline=None)
SPANS = st.tuples(st.integers(0, 9), st.integers(1, 2), st.sampled_from("AB"))
SENTENCE = st.lists(SPANS.map(lambda s: Entity(s[0], s[0] + s[1], s[2])), max_size=5)
CORPUS = st.lists(st.tuples(SENTENCE, SENTENCE), max_size=12).map(
    lambda pairs: tuple(map(list, zip(*pairs, strict=True)))
)


def noisy(gold: list[list[Entity]], right: float, seed: int) -> list[list[Entity]]:
    """Predictions that find each entity with a given probability, and sometimes at the wrong place."""
    draw = np.random.default_rng(seed)
    return [
        [e if draw.random() < right else Entity(e.start, e.end + 1, e.label) for e in entities if draw.random() < 0.9]
        for entities in gold
    ]


def corpus(sentences: int) -> list[list[Entity]]:
    draw = np.random.default_rng(0)
    return [[Entity(4 * i, 4 * i + 2, "AB"[i % 2]) for i in range(draw.integers(0, 7))] for _ in range(sentences)]


@BOUNDED
@given(CORPUS.filter(bool), st.integers(1, 50), st.integers(0, 3))
def test_intervals_hold_the_estimate_and_can_be_drawn_again(sides, samples, seed):
    gold, predicted = sides
    found = bootstrap_interval(gold, predicted, samples=samples, seed=seed)
    report = evaluate(gold, predicted, samples=samples, seed=seed)
    assert 0.0 <= found.low <= report.micro.f1 <= found.high <= 1.0
    assert report.interval == found == bootstrap_interval(gold, predicted, samples=samples, seed=seed)
    order = np.random.default_rng(seed).permutation(len(gold))  # which sentence came first does not matter
    shuffled = ([side[i] for i in order] for side in (gold, predicted))
    assert bootstrap_interval(*shuffled, samples=samples, seed=seed) == found


def test_another_seed_draws_another_interval():
    gold = corpus(50)
    predicted = noisy(gold, 0.6, 1)
    first, second = (bootstrap_interval(gold, predicted, seed=seed) for seed in (0, 1))
    assert (first.low, first.high) != (second.low, second.high)


def test_drawing_counts_is_drawing_sentences():
    """The interval from multiplicities of distinct rows agrees with a plain bootstrap over sentences."""
    gold = corpus(200)
    predicted = noisy(gold, 0.6, 1)
    counts = sentence_counts(gold, predicted)
    draw = np.random.default_rng(7)
    plain = []
    for _ in range(4000):
        hits, found, wanted = counts[draw.integers(0, len(counts), len(counts))].sum(axis=0)
        plain.append(2 * hits / (found + wanted))
    found = interval_of_counts(counts, samples=20_000)
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.004)
    assert 0.03 < found.high - found.low < 0.2


def test_the_draw_does_not_depend_on_how_much_is_held_in_memory(monkeypatch):
    counts = sentence_counts(corpus(40), noisy(corpus(40), 0.5, 2))
    whole = interval_of_counts(counts, samples=300)
    monkeypatch.setattr("xdner.evaluation.significance._CELLS", 64)
    assert interval_of_counts(counts, samples=300) == whole


def test_sentences_that_are_all_alike_leave_nothing_to_chance():
    gold, predicted = [[Entity(0, 1, "A"), Entity(2, 3, "A")]] * 9, [[Entity(0, 1, "A")]] * 9
    found = bootstrap_interval(gold, predicted)
    assert found.low == found.high == evaluate(gold, predicted).micro.f1 == pytest.approx(2 / 3)


@BOUNDED
@given(CORPUS.filter(bool))
def test_a_system_against_itself_differs_by_nothing(sides):
    gold, predicted = sides
    found = paired_bootstrap(gold, predicted, predicted, samples=100)
    assert (found.delta, found.interval.low, found.interval.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert found.a == found.b == evaluate(gold, predicted, samples=0).micro.f1


@BOUNDED
@given(CORPUS.filter(bool), st.data())
def test_exchanging_the_systems_turns_the_sign(sides, data):
    gold, a = sides
    b = data.draw(st.lists(SENTENCE, min_size=len(gold), max_size=len(gold)))
    found, back = paired_bootstrap(gold, a, b, samples=50), paired_bootstrap(gold, b, a, samples=50)
    assert (back.a, back.b, back.delta) == (found.b, found.a, -found.delta)
    assert found.interval.low <= found.delta <= found.interval.high
    assert 0 < found.p_value <= 1


def test_a_clear_difference_is_significant_and_noise_is_not():
    gold = corpus(300)
    good, bad, other = noisy(gold, 0.8, 1), noisy(gold, 0.5, 2), noisy(gold, 0.8, 3)
    clear = paired_bootstrap(gold, good, bad, samples=2000)
    assert clear.delta > 0.2
    assert clear.interval.low > 0.1
    assert clear.p_value == 1 / 2001  # none of the shifted resamples is as far out
    unclear = paired_bootstrap(gold, good, other, samples=2000)
    assert unclear.interval.low < 0 < unclear.interval.high
    assert unclear.p_value > 0.05


@pytest.mark.parametrize(("size", "only_a", "only_b"), [(100, 9, 5), (300, 21, 12)])
def test_ties_count_as_far_out(size: int, only_a: int, only_b: int) -> None:
    """With one entity a sentence, F1 is a whole number of hits: what is as far out is told in whole numbers, too."""
    hit, miss = np.array([1, 1, 1]), np.array([0, 1, 1])
    a = np.array([hit] * only_a + [miss] * only_b + [hit] * (size - only_a - only_b))
    b = np.array([miss] * only_a + [hit] * only_b + [hit] * (size - only_a - only_b))
    found = paired_bootstrap_counts([a], [b], samples=4000, seed=3)
    drawn = _resampled(np.concatenate([a, b], axis=1), 4000, 3)
    hits = drawn[:, 0] - drawn[:, 3]
    apart = only_a - only_b
    assert found.p_value == (1 + np.count_nonzero(abs(hits - apart) >= apart)) / 4001


def test_p_values_of_equal_systems_are_spread_evenly():
    """Under the null hypothesis about a tenth of the p values lie below 0.1."""
    gold = corpus(60)
    values = [
        paired_bootstrap(gold, noisy(gold, 0.7, 2 * n), noisy(gold, 0.7, 2 * n + 1), samples=199).p_value
        for n in range(200)
    ]
    assert 0.04 < np.mean(np.array(values) <= 0.1) < 0.18
    assert 0.4 < statistics.median(values) < 0.6


def test_ten_thousand_resamples_of_three_thousand_sentences_are_quick():
    gold = corpus(3000)
    a, b = noisy(gold, 0.7, 1), noisy(gold, 0.68, 2)
    began = time.process_time()
    found = paired_bootstrap(gold, a, b)
    assert time.process_time() - began < 5  # about half a second on an idle core
    assert (found.interval.samples, found.sentences) == (10_000, 3000)


def test_one_run_a_system_is_the_ordinary_test_and_equal_runs_change_nothing():
    gold = corpus(40)
    a, b = noisy(gold, 0.8, 1), noisy(gold, 0.6, 2)
    single = paired_bootstrap(gold, a, b, samples=200)
    assert paired_bootstrap_seeds(gold, [a], [b], samples=200) == single
    many = paired_bootstrap_seeds(gold, [a, a, a], [b, b], samples=200)
    assert (many.seeds_a, many.seeds_b) == (3, 2)
    assert (many.delta, many.p_value) == (pytest.approx(single.delta), pytest.approx(single.p_value, abs=0.02))
    assert (many.interval.low, many.interval.high) == pytest.approx((single.interval.low, single.interval.high))


def test_runs_are_averaged_over_their_counts():
    gold = [[Entity(0, 1, "A"), Entity(2, 3, "A")]]
    perfect, empty, half = gold, [[]], [[Entity(0, 1, "A")]]
    found = paired_bootstrap_seeds(gold, [perfect, empty], [half, half], samples=10)
    # On average one entity is predicted, and it is right: precision 1, recall 1/2, for both.
    assert (found.a, found.b, found.delta) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 0.0)


def test_comparing_nothing_and_wrong_arguments():
    found = paired_bootstrap([], [], [], samples=10)
    assert (found.delta, found.p_value, found.sentences) == (0.0, 1.0, 0)
    with pytest.raises(DataError, match="a bootstrap needs at least 1 sample, not 0"):
        paired_bootstrap([[]], [[]], [[]], samples=0)
    with pytest.raises(DataError, match="system a has 1 runs, system b has 0"):
        paired_bootstrap_seeds([[]], [[[]]], [])
    with pytest.raises(DataError, match="2 sentences have gold entities, 1 have predicted ones"):
        paired_bootstrap([[], []], [[], []], [[]])


def test_a_paired_bootstrap_is_plain_values():
    data = paired_bootstrap([[Entity(0, 1, "A")]], [[Entity(0, 1, "A")]], [[]], samples=4, seed=2).to_dict()
    assert data["interval"] == {"low": 1.0, "high": 1.0, "samples": 4, "seed": 2}
    assert (data["a"], data["b"], data["delta"], data["p_value"]) == (1.0, 0.0, 1.0, 0.2)


def test_seed_summary_by_hand():
    found = seed_summary([0.40, 0.44, 0.48])
    assert found.mean == pytest.approx(0.44)
    assert found.standard_deviation == pytest.approx(0.04)
    half = 4.302653 * 0.04 / 3**0.5  # Student's t with two degrees of freedom
    assert found.interval == pytest.approx((0.44 - half, 0.44 + half), abs=1e-7)
    assert found.to_dict()["values"] == (0.40, 0.44, 0.48)


def test_one_value_has_no_spread():
    found = seed_summary([0.4])
    assert (found.mean, found.standard_deviation, found.interval) == (0.4, None, None)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_values_that_cannot_be_summarized(values):
    with pytest.raises(DataError, match="a summary over seeds needs finite values, not"):
        seed_summary(values)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [
        (1, 12.706204736),
        (2, 4.302652730),
        (3, 3.182446305),
        (4, 2.776445105),
        (9, 2.262157163),
        (30, 2.042272456),
        (999, 1.962341461),
    ],
)
def test_t_quantiles_are_those_of_the_tables(freedom, quantile):
    values = [float(n % 2) for n in range(freedom + 1)]
    found = seed_summary(values)
    half = (found.interval[1] - found.interval[0]) / 2
    assert half * len(values) ** 0.5 / found.standard_deviation == pytest.approx(quantile, abs=1e-8)


def test_counts_that_were_kept_compare_as_the_entities_themselves():
    gold = corpus(60)
    a, b = ([noisy(gold, right, seed) for seed in range(2)] for right in (0.9, 0.7))
    kept_a, kept_b = ([sentence_counts(gold, run) for run in runs] for runs in (a, b))
    found = paired_bootstrap_counts(kept_a, kept_b, samples=300, seed=5)
    assert found == paired_bootstrap_seeds(gold, a, b, samples=300, seed=5)
    with pytest.raises(DataError, match="scored on different sentences: their gold entities differ"):
        paired_bootstrap_counts(kept_a, [counts[:-1] for counts in kept_b])
