from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from xdner.text import Entity, Sentence
from xdner.training.augmentation import mention_pool, with_other_mentions

LISZT = Sentence.from_text(
    "Liszt met Clara Schumann in Weimar .", [(0, 5, "person"), (10, 24, "person"), (28, 34, "place")], id="s"
)
CHOPIN = Sentence.from_text("Frédéric Chopin left", [(0, 15, "person")])


def test_the_pool_holds_each_mention_once() -> None:
    pool = mention_pool([LISZT, CHOPIN, LISZT])
    assert pool == {
        "person": (("Liszt",), ("Clara", "Schumann"), ("Frédéric", "Chopin")),
        "place": (("Weimar",),),
    }


def test_mentions_are_replaced_by_their_like_and_the_rest_stays() -> None:
    pool = {"person": [("Ada", "von", "Baden")]}
    made = with_other_mentions(LISZT, pool, 1.0, random.Random(0))
    assert made.text == "Ada von Baden met Ada von Baden in Weimar ."
    assert [(e.text, e.label) for e in made.entities] == [
        ("Ada von Baden", "person"), ("Ada von Baden", "person"), ("Weimar", "place"),
    ]  # fmt: skip
    assert made.id == "s"


def test_no_share_or_no_choice_changes_nothing() -> None:
    assert with_other_mentions(LISZT, {"person": [("X",)]}, 0.0, random.Random(0)) is LISZT
    assert with_other_mentions(LISZT, {}, 1.0, random.Random(0)) is LISZT
    assert with_other_mentions(LISZT, {"place": [("Weimar",)]}, 1.0, random.Random(0)) is LISZT


def test_mentions_that_overlap_or_cut_a_word_keep_their_sentence_as_it_is() -> None:
    pool = {"a": [("new",)]}
    overlapping = Sentence.from_words(["x", "y", "z"], [(0, 2, "a"), (1, 3, "a")])
    assert with_other_mentions(overlapping, pool, 1.0, random.Random(0)) is overlapping
    inside = Sentence.from_text("Romeward", [(0, 4, "a")])
    assert with_other_mentions(inside, pool, 1.0, random.Random(0)) is inside


@given(st.data())
def test_types_and_their_order_survive(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["a", "bb", "C", "日本", "é"]), min_size=1, max_size=8))
    cuts = data.draw(st.lists(st.integers(0, len(words)), min_size=2, max_size=6, unique=True).map(sorted))
    spans = [(f, last, data.draw(st.sampled_from(["x", "y"]))) for f, last in zip(cuts[::2], cuts[1::2], strict=False)]
    sentence = Sentence.from_words(words, spans)
    pool = {"x": [("n1", "n2"), ("n3",)], "y": [("m",)]}
    made = with_other_mentions(
        sentence, pool, data.draw(st.sampled_from([0.3, 1.0])), random.Random(data.draw(st.integers()))
    )
    assert [e.label for e in made.entities] == [e.label for e in sentence.entities]
    outside = [w.text for w in made.words if not any(e.start <= w.start and w.end <= e.end for e in made.entities)]
    before = [
        w.text for w in sentence.words if not any(e.start <= w.start and w.end <= e.end for e in sentence.entities)
    ]
    assert outside == before
    assert all(isinstance(e, Entity) and made.text[e.start : e.end] == e.text for e in made.entities)
