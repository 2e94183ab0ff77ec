"""Leaks, conflicts, and what makes two texts the same."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.corpora import Conflict, Corpus, Leak, find_conflicts, find_leaks
from xdner.corpora.checks import normalize_text
from xdner.text import Sentence

BOUNDED = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Hello , World", "hello, world", True),
        ("caf\u00e9", "CAFE\u0301", True),
        ("①", "1", True),
        ("Straße", "STRASSE", True),
        ("a\u00a0b\u3000c", "abc", True),
        ("ﬁn", "fin", True),
        ("Ada.", "Ada", False),
        ("cafe", "café", False),
        ("xe\u0323\u0302y", "xê\u0323y", True),  # the marks of one letter in two orders
    ],
)
def test_what_is_the_same(left, right, same):
    assert (normalize_text(left) == normalize_text(right)) is same


@BOUNDED
@given(st.text(), st.text())
def test_normalizing_goes_piece_by_piece_and_forgets_form_case_and_space(left, right):
    assert len(normalize_text(left)) + len(normalize_text(right)) == len(normalize_text(left + right))
    assert normalize_text(normalize_text(left)) == normalize_text(left)
    assert normalize_text(" \t".join(left)) == normalize_text(left)
    form = unicodedata.normalize("NFC", left)
    assert normalize_text(form) == normalize_text(unicodedata.normalize("NFD", left))


def text(content, *spans, id):
    return Sentence.from_text(content, spans, id=id)


def test_leaks_are_found_across_spacing_and_told_apart_by_labels():
    train = Corpus(
        [
            text("Ada, London", (0, 3, "person"), id="t1"),
            text("only here", id="t2"),
            text("ADA , LONDON", (0, 3, "person"), id="t3"),
            text("go home", (3, 7, "place"), id="t4"),
        ]
    )
    test = Corpus(
        [text("Go  home", (4, 8, "place"), id="e1"), text("ada , london", (6, 12, "city"), id="e2"), text("x", id="e3")]
    )
    assert find_leaks(train, test) == (
        Leak("Ada, London", ("t1", "t3"), ("e2",), differs=True),
        Leak("go home", ("t4",), ("e1",), differs=False),
    )
    assert find_leaks(test, Corpus([])) == ()


def test_conflicts_are_found_within_and_between_corpora():
    one = Corpus([text("Ada went", (0, 3, "person"), id="a"), text("ada  went", (0, 3, "person"), id="b")])
    two = Corpus([text("Ada went", id="c"), text("Ada went", (0, 3, "city"), id="d"), text("Ada went", id="e")])
    assert find_conflicts(one) == ()
    assert find_conflicts(two) == (Conflict("Ada went", (("c", "e"), ("d",))),)
    assert find_conflicts(one, two) == (Conflict("Ada went", (("a", "b"), ("c", "e"), ("d",))),)
    assert find_conflicts() == ()


@BOUNDED
@given(st.lists(st.sampled_from(["Straße", "ﬁn", "e\u0301", "①②", "a"]), min_size=2, max_size=6), st.data())
def test_the_same_mention_in_another_dress_is_no_conflict(words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    plain = Sentence.from_words(words, [(first, last, "x")], id="1")
    other = Sentence.from_words([unicodedata.normalize("NFKC", w).upper() for w in words], [(first, last, "x")], id="2")
    assert len(find_leaks(Corpus([plain]), Corpus([other]))) == 1
    assert find_conflicts([plain, other]) == ()
    assert len(find_conflicts([plain, other.with_entities([])])) == 1


def test_long_documents_are_compared_in_linear_time():
    words = ["word"] * 100_000
    spans = [(i, i + 1, "x") for i in range(0, 100_000, 2)]
    begin = time.process_time()
    found = find_conflicts([Sentence.from_words(words, spans, id="a"), Sentence.from_words(words, spans[1:], id="b")])
    assert len(found) == 1
    assert time.process_time() - begin < 10
