from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from xdner.recognizers.base import Result
from xdner.recognizers.vote import elect, vote
from xdner.text import Entity

TEXT = "Ada of London met Bob"


def entity(start: int, end: int, label: str, score: float = 1.0) -> Entity:
    return Entity(start, end, label, TEXT[start:end], score)


def test_more_than_half_of_the_members_elect_an_entity() -> None:
    ada, london = entity(0, 3, "person", 0.9), entity(7, 13, "place", 0.6)
    assert elect([[ada], [ada, london], []]) == (Entity(0, 3, "person", "Ada", 0.6),)
    assert elect([[ada], []]) == (), "half is not more than half"
    assert [e.text for e in elect([[ada, london]] * 4)] == ["Ada", "London"]


def test_another_type_or_another_span_is_another_entity() -> None:
    ballots = [[entity(0, 3, "person")], [entity(0, 3, "place")], [entity(0, 13, "person")]]
    assert elect(ballots) == ()


def test_of_overlapping_ones_votes_decide_then_scores() -> None:
    long, short = entity(0, 13, "person", 0.5), entity(0, 3, "person", 0.9)
    # One member may name both only if it is no sequence reader; the rule must still give one of them.
    assert elect([[long, short], [long, short], [long]]) == (entity(0, 13, "person", 0.5),)
    assert elect([[long, short]] * 3) == (entity(0, 3, "person", 0.9),)


def test_a_members_double_counts_once() -> None:
    assert elect([[entity(0, 3, "a"), entity(0, 3, "a")], [], []]) == ()


def test_a_result_keeps_text_domain_and_the_largest_counts() -> None:
    readings = [
        Result(TEXT, (entity(0, 3, "person"),), "people", 1, {"incomplete": 1}),
        Result(TEXT, (entity(0, 3, "person"),), "people", 2, {"incomplete": 3, "capped_words": 1}),
    ]
    made = vote(readings)
    assert (made.text, made.domain, made.windows) == (TEXT, "people", 2)
    assert made.diagnostics == {"capped_words": 1, "incomplete": 3}
    assert [e.text for e in made.entities] == ["Ada"]


SPANS = st.tuples(st.integers(0, 9), st.integers(1, 4), st.sampled_from("ab"), st.floats(0, 1)).map(
    lambda s: Entity(s[0], s[0] + s[1], s[2], TEXT[s[0] : s[0] + s[1]], s[3])
)


@given(st.lists(st.lists(SPANS, max_size=5), min_size=1, max_size=5))
def test_what_is_elected_has_a_majority_and_never_overlaps(ballots: list[list[Entity]]) -> None:
    chosen = elect(ballots)
    keys = [{(e.start, e.end, e.label) for e in ballot} for ballot in ballots]
    for e in chosen:
        assert 2 * sum((e.start, e.end, e.label) in k for k in keys) > len(ballots)
        assert TEXT[e.start : e.end] == e.text
        assert 0 <= e.score <= 1
    assert all(a.end <= b.start for a, b in pairwise(chosen))
