"""Kinds of errors, confusion between types, and the worst sentences."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.errors import DataError
from xdner.evaluation import ErrorCounts, analyze
from xdner.evaluation.analysis import pair
from xdner.text import Entity

SPANS = st.tuples(st.integers(0, 15), st.integers(1, 5), st.sampled_from("ABC"))
SENTENCE = st.lists(SPANS.map(lambda s: Entity(s[0], s[0] + s[1], s[2])), max_size=7)


def test_every_kind_of_error_is_found(example):
    found = analyze(*example, ids=["one", "two", "three"])
    assert found.errors == ErrorCounts(correct=1, type=1, boundary=1, both=1, missed=2, spurious=2)
    assert found.per_type == {
        "city": ErrorCounts(type=1, boundary=1, missed=1, spurious=1),
        "person": ErrorCounts(correct=1, missed=1, spurious=1),
        "team": ErrorCounts(both=1),
    }
    assert found.confusion.labels == ("city", "person", "team")
    assert found.confusion.counts == ((1, 0, 1, 1), (0, 1, 0, 1), (1, 0, 0, 0), (1, 1, 0, 0))
    assert found.confusion.pairs() == [("city", "team", 1), ("team", "city", 1)]
    kinds = [(s.index, s.id, [case.kind for case in s.cases]) for s in found.worst]
    assert kinds == [
        (1, "two", ["boundary", "both", "missed"]),
        (2, "three", ["missed", "spurious", "spurious"]),
        (0, "one", ["type"]),
    ]
    assert found.to_dict()["worst"][2]["errors"] == [
        {
            "kind": "type",
            "gold": {"start": 11, "end": 20, "label": "city", "text": "Baltimore"},
            "predicted": {"start": 11, "end": 20, "label": "team", "text": "Baltimore"},
        }
    ]


def test_the_pair_with_the_larger_overlap_comes_first():
    gold = [Entity(0, 4, "a"), Entity(4, 20, "a")]
    cases = pair(gold, [Entity(2, 19, "a")])
    assert [(case.kind, case.gold) for case in cases] == [("missed", gold[0]), ("boundary", gold[1])]


def test_a_wrong_type_at_the_same_span_comes_before_a_right_type_beside_it():
    gold = [Entity(0, 4, "a"), Entity(3, 9, "b")]
    assert [case.kind for case in pair(gold, [Entity(0, 4, "b")])] == ["type", "missed"]


def test_what_was_found_rightly_excuses_no_second_prediction():
    gold = [Entity(0, 4, "a")]
    assert [case.kind for case in pair(gold, [Entity(0, 4, "a"), Entity(1, 3, "a")])] == ["correct", "spurious"]


@settings(max_examples=100, deadline=None)
@given(SENTENCE, SENTENCE, st.randoms())
def test_every_entity_is_counted_once_whatever_the_order(gold, predicted, random):
    found = analyze([gold], [predicted])
    keys = {e.key for e in gold}, {e.key for e in predicted}
    counts = asdict(found.errors)
    paired = counts["correct"] + counts["type"] + counts["boundary"] + counts["both"]
    assert (paired + counts["missed"], paired + counts["spurious"]) == (len(keys[0]), len(keys[1]))
    assert counts["correct"] == len(keys[0] & keys[1])
    for kind, count in counts.items():
        assert sum(getattr(of_type, kind) for of_type in found.per_type.values()) == count
    table = found.confusion.counts
    for at, label in enumerate(found.confusion.labels):
        assert sum(table[at]) == sum(key[2] == label for key in keys[0])
        assert sum(row[at] for row in table) == sum(key[2] == label for key in keys[1])
    random.shuffle(gold)
    random.shuffle(predicted)
    assert analyze([gold], [predicted]) == found


@settings(max_examples=100, deadline=None)
@given(SENTENCE, SENTENCE)
def test_pairs_are_what_their_kind_says_and_nothing_pairable_is_left(gold, predicted):
    cases = pair(gold, predicted)
    for case in cases:
        if case.gold is None or case.predicted is None:
            continue
        same_span = (case.gold.start, case.gold.end) == (case.predicted.start, case.predicted.end)
        same_type = case.gold.label == case.predicted.label
        assert min(case.gold.end, case.predicted.end) > max(case.gold.start, case.predicted.start)
        kinds = {(True, True): "correct", (True, False): "type", (False, True): "boundary", (False, False): "both"}
        assert case.kind == kinds[same_span, same_type]
    for missed in (case.gold for case in cases if case.kind == "missed"):
        for spurious in (case.predicted for case in cases if case.kind == "spurious"):
            assert missed.end <= spurious.start or spurious.end <= missed.start


def test_only_so_many_examples_are_kept(example):
    assert [s.index for s in analyze(*example, examples=2).worst] == [1, 2]
    assert analyze(*example, examples=0).worst == ()


def test_nothing_gives_nothing():
    found = analyze([], [])
    assert (found.errors, found.per_type, found.worst) == (ErrorCounts(), {}, ())
    assert (found.confusion.labels, found.confusion.counts, found.confusion.pairs()) == ((), ((0,),), [])


def test_ids_that_do_not_fit_and_negative_examples_are_refused(example):
    with pytest.raises(DataError, match="3 sentences came with 1 ids"):
        analyze(*example, ids=["one"])
    with pytest.raises(DataError, match="examples must not be negative, not -1"):
        analyze(*example, examples=-1)
