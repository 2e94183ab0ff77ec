"""From words to examples: each rule does what its line says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdner.retrieval.aggregate import Brought, choose

RULES = ["sum", "max", "count", "idf", "rank", "cover", "types"]

#: Two words of a query, 0 and 1, and three examples.
FOUND = [
    Brought(0, 1, 0, "x", 0.9),
    Brought(0, 1, 1, "", 0.5),
    Brought(0, 2, 0, "x", 0.8),
    Brought(1, 2, 3, "", 0.4),
    Brought(0, 3, 1, "y", 0.7),
    Brought(1, 3, 0, "", 0.45),
]


def order(rule: str, k: int = 3, **more: object) -> list[int]:
    return [c.example for c in choose(FOUND, k, rule, **more)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "wanted", "best"),
    [
        ("sum", [2, 3, 1], 0.8 + 0.4),
        ("max", [1, 2, 3], 0.9),
        ("count", [2, 3, 1], 2),
        ("rank", [3, 2, 1], 1 / 63 + 1 / 61),
        ("cover", [2, 1, 3], 1.2),
        # The readings x, y and O of the first word count apart, so 3 is worth having before what 1 adds to x.
        ("types", [1, 3, 2], 0.9 + 0.5),
    ],
)
def test_rules(rule: str, wanted: list[int], best: float) -> None:
    assert order(rule) == wanted
    assert choose(FOUND, 3, rule)[0].score == pytest.approx(best)


def test_idf_weighs_the_words_of_the_query() -> None:
    assert order("idf", idf={0: 1.0, 1: 0.0}) == [1, 2, 3]
    assert order("idf", idf={0: 0.0, 1: 1.0}) == [3, 2, 1]


def test_matches_say_which_words_brought_an_example() -> None:
    (first, *_) = choose(FOUND, 1, "types")
    assert [(m.query, m.example, m.similarity) for m in first.matches] == [(0, 0, 0.9)]
    found = {c.example: c.matches for c in choose(FOUND, 3, "sum")}
    assert [(m.query, m.example) for m in found[3]] == [(0, 1), (1, 0)]


@pytest.mark.parametrize("rule", RULES)
def test_nothing_brought_nothing_chosen(rule: str) -> None:
    assert choose([], 5, rule) == []
    assert choose([Brought(0, 1, 0, "", -0.2)], 5, rule) == []
    assert choose(FOUND, 0, rule) == []


BROUGHT = st.lists(
    st.builds(Brought, st.integers(0, 3), st.integers(0, 5), st.integers(0, 4), st.sampled_from(["", "x", "y"]),
              st.floats(-1, 1, width=32)),
    max_size=30,
)  # fmt: skip


@given(BROUGHT, st.integers(0, 7), st.sampled_from(RULES))
def test_at_most_k_each_once_best_first_whatever_the_order(brought: list[Brought], k: int, rule: str) -> None:
    found = choose(brought, k, rule)
    examples = [c.example for c in found]
    assert len(examples) == len(set(examples)) == min(k, len({b.example for b in brought if b.similarity > 0}))
    scores = [c.score for c in found]
    assert all(a >= b - 1e-4 for a, b in itertools.pairwise(scores))
    assert [c.example for c in choose(brought[::-1], k, rule)] == examples


@given(BROUGHT)
def test_covering_is_within_1_less_1_over_e_of_the_best(brought: list[Brought]) -> None:
    def value(examples: tuple[int, ...]) -> float:
        best: dict[int, float] = {}
        for b in brought:
            if b.example in examples:
                best[b.query] = max(best.get(b.query, 0.0), b.similarity)
        return sum(best.values())

    found = choose(brought, 2, "cover")
    most = max((value(pair) for pair in itertools.combinations(range(6), 2)), default=0.0)
    assert value(tuple(c.example for c in found)) >= (1 - 1 / 2.72) * most - 1e-6
