"""Matching one sentence's entities, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.errors import DataError
from xdner.evaluation.match import SchemeCounts, Score, align, count_schemes, exact_counts, overlaps, string_counts
from xdner.text import Entity, Sentence


def test_scores_divide_by_zero_to_zero():
    assert Score.of(0, 0, 0) == Score(0.0, 0.0, 0.0, 0, 0, 0)
    assert Score.of(0, 5, 0) == Score(0.0, 0.0, 0.0, 0, 5, 0)
    assert Score.of(3, 4, 6) == Score(0.75, 0.5, 0.6, 3, 4, 6)
    empty = SchemeCounts()
    assert (empty.precision, empty.recall, empty.f1) == (0.0, 0.0, 0.0)


def test_scores_and_text_do_not_matter_for_exact_matches():
    assert exact_counts([Entity(0, 2, "a", "xy")], [Entity(0, 2, "a", "", 0.3)]) == (1, 1, 1)


def test_string_level_ignores_positions_and_repetition():
    gold = [Entity(0, 4, "city", "Rome"), Entity(9, 13, "city", "Rome")]
    assert exact_counts(gold, [Entity(0, 4, "city", "Rome")]) == (1, 1, 2)
    assert string_counts(gold, [Entity(0, 4, "city", "Rome")]) == (1, 1, 1)
    assert string_counts(gold, [Entity(20, 24, "city", "Rome"), Entity(9, 13, "person", "Rome")]) == (1, 2, 1)


def test_the_nearest_of_several_entities_of_the_type_is_taken():
    gold = [Entity(0, 10, "a"), Entity(6, 12, "a"), Entity(11, 30, "b")]
    counts = count_schemes(gold, [Entity(5, 6, "a"), Entity(4, 12, "a")])
    assert counts["ent_type"] == SchemeCounts(correct=2, missed=1)
    assert counts["strict"] == SchemeCounts(incorrect=1, missed=2, spurious=1)  # the first took the only candidate


@settings(max_examples=100, deadline=None)
@given(*[st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=8)] * 2)
def test_overlaps_are_those_of_the_definition(gold, predicted):
    first, second = (sorted(Entity(s, s + n, "a") for s, n in side) for side in (gold, predicted))
    for found, entity in zip(overlaps(first, second), second, strict=True):
        covered = set(range(entity.start, entity.end))
        assert found == [i for i, g in enumerate(first) if covered & set(range(g.start, g.end))]


def test_align_sorts_and_counts_what_it_leaves_out():
    entities = [Entity(5, 6, "b"), Entity(0, 2, "a", "xy", 0.5), Entity(0, 2, "a", "xy", 0.4), Entity(7, 8, "c")]
    aligned = align([[], entities], [entities[:1], []], labels=["a", "b"])
    assert aligned.gold == ((), (Entity(0, 2, "a", "xy", 0.5), Entity(5, 6, "b")))
    assert aligned.predicted == ((Entity(5, 6, "b"),), ())
    assert aligned.left_out == {"gold_repeated": 1, "gold_other_types": 1}


def test_lengths_that_differ_are_named():
    with pytest.raises(DataError, match="3 sentences have gold entities, 2 have predicted ones") as caught:
        align([[], [], []], [[], []])
    assert caught.value.hint is not None
    assert "an empty list where there are none" in caught.value.hint


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ([Sentence.from_text("a")], "sentence 0 of the predicted side is Sentence, not a list of entities"),
        (["text"], "sentence 0 of the predicted side is str, not a list of entities"),
        ([[(0, 1, "a")]], r"sentence 0 of the predicted side holds \(0, 1, 'a'\), which is no Entity"),
        ([[Entity(3, 3, "a")]], r"sentence 0 of the predicted side holds the impossible span \(3, 3, 'a'\)"),
        ([[Entity(-1, 3, "a")]], r"impossible span \(-1, 3, 'a'\)"),
    ],
)
def test_what_is_no_list_of_entities_is_refused(predicted, message):
    with pytest.raises(DataError, match=message):
        align([[]], predicted)


def test_labels_as_one_text_are_refused():
    with pytest.raises(DataError, match="labels are a list of names, not the text 'city'"):
        align([[]], [[]], labels="city")
