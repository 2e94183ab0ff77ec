"""Words, offsets and spans, over any Unicode."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.errors import DataError
from xdner.text import Entity, Sentence, split_words

# Half surrogates are among the characters; the second strategy makes the interesting neighbors frequent.
ANY = st.text(st.characters(exclude_categories=())) | st.text(
    st.sampled_from(
        list("aB7_-.,'’&/ \t\n\x1c\x1f\x85\u00a0\u200b\u200c\u200d\u3000\u0301é中々ーカｰกาิ①👩\u2028\ufeff\0\ud800")
    )
)
BOUNDED = settings(max_examples=100, deadline=None)


def texts(text: str) -> list[str]:
    return [word.text for word in split_words(text)]


@BOUNDED
@given(ANY)
def test_every_character_but_white_space_is_in_exactly_one_word(text):
    words = split_words(text)
    covered = [i for word in words for i in range(word.start, word.end)]
    assert covered == [i for i, character in enumerate(text) if not character.isspace()]


@BOUNDED
@given(ANY)
def test_offsets_are_exact_and_words_hold_no_white_space(text):
    end = 0
    for word in split_words(text):
        assert word.start >= end
        assert word.text == text[word.start : word.end] != ""
        assert not any(character.isspace() for character in word.text)
        end = word.end


@BOUNDED
@given(ANY)
def test_words_of_a_text_make_a_sentence(text):
    words = split_words(text)
    assert [w.text for w in Sentence.from_words([w.text for w in words]).words] == [w.text for w in words]


def test_every_code_point_alone_is_a_word_unless_it_is_white_space():
    wrong = [c for c in map(chr, range(sys.maxunicode + 1)) if texts(c) != ([] if c.isspace() else [c])]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("opinion-based O'Brien 3.5 AT&T and/or", ["opinion-based", "O'Brien", "3.5", "AT&T", "and/or"]),
        (
            "Google's BERT, AT&T's, Bell’s; IBM'S",
            ["Google", "'s", "BERT", ",", "AT&T", "'s", ",", "Bell", "’s", ";", "IBM", "'S"],
        ),
        ("O'Shea's 's rock'sy x's-y don't", ["O'Shea", "'s", "'", "s", "rock'sy", "x", "'s", "-", "y", "don't"]),
        ("3,000 but a,b", ["3,000", "but", "a", ",", "b"]),
        ("a--b 'quoted'", ["a", "-", "-", "b", "'", "quoted", "'"]),
        ("The U.S. and É.U. (e\u0301.u.)", ["The", "U.S.", "and", "É.U.", "(", "e\u0301.u.", ")"]),
        ("in the U.S.A", ["in", "the", "U.S.A"]),
        ("End. x_1", ["End", ".", "x_1"]),
        ("北京市", ["北", "京", "市"]),
        ("スーパーman", ["ス", "ー", "パ", "ー", "man"]),
        ("中.国.", ["中", ".", "国", "."]),
        ("กำ", ["ก", "ำ"]),
        ("กิน", ["กิ", "น"]),
        ("!\u0301 \u0301", ["!\u0301", "\u0301"]),
        ("a\x1cb", ["a", "b"]),
        ("", []),
        (" \n\u3000", []),
    ],
)
def test_the_rule(text, words):
    assert texts(text) == words


@pytest.mark.parametrize("unit", ["a.", "a-", "a.b", ".", "e\u0301.", "word ", "1,", "\u200d", "中"])
def test_splitting_takes_linear_time(unit):
    begin = time.process_time()
    split_words(unit * 100_000)
    split_words(unit * 100_000 + "a")
    assert time.process_time() - begin < 5


@BOUNDED
@given(ANY, st.data())
def test_entities_keep_their_characters(text, data):
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    sentence = Sentence.from_text(text, [(start, end, "x")], id="7")
    assert sentence.text == text
    assert sentence.entities == (Entity(start, end, "x", text[start:end]),)


@BOUNDED
@given(st.lists(st.sampled_from(["Ada", "U.S.", ",", "中", "a b"]), min_size=1, max_size=8), st.data())
def test_word_spans_and_entities_are_inverse(words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    sentence = Sentence.from_words(words, [(first, last, "x")])
    assert sentence.entities[0].text == " ".join(words[first:last])
    assert sentence.word_span(sentence.entities[0]) == (first, last)
    assert sentence.entity(first, last, "x") == sentence.entities[0]


def test_an_entity_inside_a_word_has_no_word_span():
    sentence = Sentence.from_text("New York-based firm")
    assert sentence.word_span(Entity(0, 8, "x")) is None  # ends inside York-based
    assert sentence.word_span(Entity(1, 14, "x")) is None
    assert sentence.word_span(Entity(3, 14, "x")) is None  # begins with the space
    assert sentence.word_span(Entity(15, 40, "x")) is None
    assert sentence.word_span(Entity(0, 14, "x")) == (0, 2)


def test_word_spans_of_a_long_document_are_found_fast():
    sentence = Sentence.from_words(["w"] * 100_000, [(i, i + 1, "x") for i in range(0, 100_000, 5)])
    begin = time.process_time()
    assert [sentence.word_span(e) for e in sentence.entities] == [(i, i + 1) for i in range(0, 100_000, 5)]
    assert time.process_time() - begin < 5


def test_entities_are_sorted():
    sentence = Sentence.from_text("a b c", [(4, 5, "x"), (0, 1, "y"), (0, 1, "x")])
    assert [e.key for e in sentence.entities] == [(0, 1, "x"), (0, 1, "y"), (4, 5, "x")]
    assert sentence.with_entities(reversed(sentence.entities)) == sentence


@pytest.mark.parametrize("span", [(0, 0), (2, 1), (-1, 2), (0, 4)])
def test_a_span_outside_the_text_is_refused(span):
    with pytest.raises(DataError, match="does not fit a text of 3 characters in sentence 's'") as caught:
        Sentence.from_text("Ada", [(*span, "person")], id="s")
    assert "half-open" in caught.value.hint


def test_a_span_outside_the_words_is_refused():
    with pytest.raises(DataError, match="does not fit a sentence of 1 words"):
        Sentence.from_words(["Ada"], [(0, 2, "person")])


@pytest.mark.parametrize("word", ["", " ", "\x1c", "\u3000"])
def test_an_empty_word_is_refused(word):
    with pytest.raises(DataError, match="word 1 of the sentence is empty"):
        Sentence.from_words(["Ada", word])
