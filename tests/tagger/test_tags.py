"""Tags and entities say the same, and only legal tags follow each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.tagger.tags import bio_entities, bio_tags, lost_entities, tags_for, transitions
from xdner.text import Sentence

ANN = Sentence.from_words(["Ann", "Lee", "in", "Rome"], [(0, 2, "person"), (3, 4, "place")])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_entities_come_back_from_their_tags(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    borders = sorted(data.draw(st.sets(st.integers(0, count))))
    spans = [(a, b, data.draw(st.sampled_from("xy"))) for a, b in pairwise(borders)]
    kept = [span for span in spans if data.draw(st.booleans())]
    sentence = Sentence.from_words(["w"] * count, kept)
    assert bio_entities(sentence, bio_tags(sentence)) == sentence.entities


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("I-x I-x O O", [("Ann Lee", "x")]),  # goes on with nothing
        ("B-x B-x O O", [("Ann", "x"), ("Lee", "x")]),
        ("B-x I-y I-y O", [("Ann", "x"), ("Lee in", "y")]),
        ("O O O B-x", [("Rome", "x")]),
    ],
)
def test_tags_that_were_predicted(tags: str, found: list[tuple[str, str]]) -> None:
    assert [(e.text, e.label) for e in bio_entities(ANN, tags.split())] == found

    assert [(e.text, e.label) for e in bio_entities(ANN, tags.split())] == found


def test_a_span_inside_a_word_and_an_overlapping_one_have_no_tags() -> None:
    inside = Sentence.from_text("Annabel left", [(0, 3, "person")])
    assert bio_tags(inside) == ["O", "O"]
    nested = Sentence.from_words(["New", "York"], [(0, 2, "place"), (1, 2, "place")])
    assert bio_tags(nested) == ["B-place", "I-place"]


def test_entities_without_tags_are_counted() -> None:
    inside = Sentence.from_text("Annabel left", [(0, 3, "person")])
    nested = Sentence.from_words(["New", "York"], [(0, 2, "place"), (1, 2, "place")])
    assert lost_entities([inside, nested, ANN]) == {"begins or ends inside a word": 1, "overlaps another": 1}


def test_a_score_is_the_product_of_its_words() -> None:
    found = bio_entities(ANN, ["B-x", "I-x", "O", "B-y"], [0.5, 0.5, 0.1, 0.75])
    assert [e.score for e in found] == [0.25, 0.75]


def test_which_tag_may_follow_which() -> None:
    tags = tags_for(["y", "x"])
    assert tags == ("O", "B-x", "I-x", "B-y", "I-y")
    legal = transitions(tags)
    after = {(*tags, "start", "window")[row]: {tags[c] for c in legal[row].nonzero()[:, 0]} for row in range(7)}
    outside = {"O", "B-x", "B-y"}
    assert after["O"] == after["start"] == outside
    assert after["B-x"] == after["I-x"] == outside | {"I-x"}
    assert after["B-y"] == after["I-y"] == outside | {"I-y"}
    assert after["window"] == set(tags)  # the words before a window are not seen
