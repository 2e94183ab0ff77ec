"""Tokens: words and tags in JSONL."""

from __future__ import annotations

import json

import pytest

from xdner.corpora import read_corpus
from xdner.errors import CorpusError
from xdner.text import Sentence


@pytest.mark.parametrize("key", ["tags", "ner_tags"])
def test_words_and_tags(put, key):
    record = {"id": 3, "tokens": ["New York", "is", "big"], key: ["B-city", "O", "I-x"]}
    corpus = read_corpus(put(json.dumps(record), "x.jsonl"))
    assert corpus.format == "tokens"
    assert corpus[0] == Sentence.from_words(["New York", "is", "big"], [(0, 1, "city"), (2, 3, "x")], id="3")
    assert corpus.warnings == {"I- or E- tags after O or another type (read as the beginning of an entity)": 1}


def test_tokens_have_no_white_space_at_their_ends(put):
    corpus = read_corpus(put('{"tokens": ["in", " Rome\\u00a0"], "tags": ["O", "B-city"]}\n', "x.jsonl"))
    assert corpus[0] == Sentence.from_words(["in", "Rome"], [(1, 2, "city")], id="x:1")


def test_bioes_is_recognized_over_the_whole_file(put):
    corpus = read_corpus(put('{"tokens": ["a"], "tags": ["B-x"]}\n{"tokens": ["a"], "tags": ["S-x"]}\n'))
    assert corpus.warnings == {"BIOES entities without their E- or S- tag (read as ending there)": 1}


def test_what_is_left_out_is_counted(put):
    corpus = read_corpus(
        put('{"tokens": [], "tags": []}\n{"tokens": ["a", " ", ""], "tags": ["B-x", "O", "I-x"]}\n', "x.jsonl")
    )
    assert [([w.text for w in s.words], s.id) for s in corpus] == [(["a"], "x:1")]
    assert corpus.warnings == {
        "sentences without words (left out)": 1,
        "words of white space only (left out, with their tags)": 2,
    }


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "2 tokens but 1 tags", "A line is"),
        ('{"tokens": "a", "tags": ["O"]}', "'tokens' must be a list", "A line is"),
        ('{"tokens": ["a"], "tags": "O"}', "'tags' must be a list", "A line is"),
        ('{"tokens": ["a"]}', "'tags' is missing", "A line is"),
        ('{"tags": ["O"]}', "'tokens' is missing", "A line is"),
        ('{"tokens": [1], "tags": ["O"]}', "a token must be text, not 1", "A line is"),
        ('{"tokens": ["a"], "ner_tags": [3]}', "a tag must be text, not 3", "feature.names[i]"),
        ('{"tokens": ["a"], "tags": ["X-person"]}', "unknown tag 'X-person'", "Tags are O"),
        ('{"tokens": ["\\ud800"], "tags": ["O"]}', "half a surrogate pair", "Remove"),
    ],
)
def test_what_is_refused(put, line, says, hint):
    path = put('{"tokens": ["a"], "tags": ["O"]}\n' + line + "\n")
    with pytest.raises(CorpusError) as caught:
        read_corpus(path)
    assert (caught.value.path, caught.value.line) == (path, 2)
    assert says in caught.value.message
    assert hint in caught.value.hint
