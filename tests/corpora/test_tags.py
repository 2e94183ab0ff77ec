"""Tags: BIO, IOB1, BIOES, BILOU, and what is forgiven."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from xdner.corpora.tags import decode_tags, encode_tags, is_bioes, parse_tag

LONELY = "I- or E- tags after O or another type (read as the beginning of an entity)"
UNCLOSED = "BIOES entities without their E- or S- tag (read as ending there)"
BOUNDED = settings(max_examples=100, deadline=None)


def decode(text: str, bioes: bool | None = None) -> tuple[list[tuple[int, int, str]], dict[str, int]]:
    tags = [parse_tag(tag) for tag in text.split()]
    assert None not in tags
    warnings: Counter[str] = Counter()
    spans = decode_tags(tags, is_bioes(tags) if bioes is None else bioes, warnings)
    return spans, {key: count for key, count in warnings.items() if count}


@pytest.mark.parametrize("tag", ["X-person", "B", "B-", "b-person", "B_person", "o", "0", "", "-", "I-a b", "B-\u200b"])
def test_what_is_no_tag(tag):
    assert parse_tag(tag) is None


@pytest.mark.parametrize(
    ("tags", "spans", "warnings"),
    [
        ("B-x I-x O B-y", [(0, 2, "x"), (3, 4, "y")], {}),
        ("B-x B-x I-x", [(0, 1, "x"), (1, 3, "x")], {}),
        ("O I-x I-x", [(1, 3, "x")], {LONELY: 1}),
        ("B-x I-y I-y", [(0, 1, "x"), (1, 3, "y")], {LONELY: 1}),
        ("I-x O I-x", [(0, 1, "x"), (2, 3, "x")], {LONELY: 2}),
        ("B-x-y I-x-y", [(0, 2, "x-y")], {}),
        ("B-x E-x S-y O B-x I-x E-x", [(0, 2, "x"), (2, 3, "y"), (4, 7, "x")], {}),
        ("B-x L-x U-y", [(0, 2, "x"), (2, 3, "y")], {}),
        ("B-x O S-x", [(0, 1, "x"), (2, 3, "x")], {UNCLOSED: 1}),
        ("B-x I-x S-x", [(0, 2, "x"), (2, 3, "x")], {UNCLOSED: 1}),
        ("B-x E-y O", [(0, 1, "x"), (1, 2, "y")], {UNCLOSED: 1, LONELY: 1}),
        ("S-x I-x E-x", [(0, 1, "x"), (1, 3, "x")], {LONELY: 1}),
        ("B-x E-x E-x", [(0, 2, "x"), (2, 3, "x")], {LONELY: 1}),
        ("S-x B-x I-x", [(0, 1, "x"), (1, 3, "x")], {UNCLOSED: 1}),
        ("", [], {}),
    ],
)
def test_reading(tags, spans, warnings):
    assert decode(tags) == (spans, warnings)


def test_an_open_entity_is_odd_only_in_bioes():
    assert decode("B-x I-x", bioes=False) == ([(0, 2, "x")], {})
    assert decode("B-x I-x", bioes=True) == ([(0, 2, "x")], {UNCLOSED: 1})


SPANS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from(["x", "y", "B-z"])), max_size=5)


@BOUNDED
@given(SPANS, st.integers(0, 3), st.sampled_from(["bio", "bioes"]))
def test_spans_survive_their_tags(gaps, rest, scheme):
    spans, at = [], 0
    for gap, length, label in gaps:
        spans.append((at + gap, at + gap + length, label))
        at += gap + length
    tags = encode_tags(at + rest, spans, scheme)
    assert decode(" ".join(tags), bioes=scheme == "bioes") == (spans, {})
    reference = Entities([tags], IOB2 if scheme == "bio" else IOBES)
    assert [(e.start, e.end, e.tag) for e in reference.entities[0]] == spans


@BOUNDED
@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), max_size=8))
def test_any_bio_sequence_is_read_and_covers_every_tagged_word(tags):
    spans, _ = decode(" ".join(tags))
    assert [i for first, last, _ in spans for i in range(first, last)] == [i for i, t in enumerate(tags) if t != "O"]
    reference = Entities([tags], IOB1)  # the lenient reading is that of IOB1
    if all(tag[0] != "B" for tag in tags):
        assert [(e.start, e.end, e.tag) for e in reference.entities[0]] == spans


@BOUNDED
@given(st.lists(st.sampled_from([p + "-" + x for p in "BIES" for x in "xy"] + ["O"]), max_size=8))
def test_any_bioes_sequence_is_read_and_covers_every_tagged_word(tags):
    spans, _ = decode(" ".join(tags), bioes=True)
    assert [i for first, last, _ in spans for i in range(first, last)] == [i for i, t in enumerate(tags) if t != "O"]
