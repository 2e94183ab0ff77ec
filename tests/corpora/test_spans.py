"""Spans: character offsets in JSONL."""

from __future__ import annotations

import json
import time

import pytest

from xdner.corpora import read_corpus, write_corpus
from xdner.errors import CorpusError
from xdner.text import Sentence


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


TEXT = "Ada went  home."


@pytest.mark.parametrize(
    "record",
    [
        {"text": TEXT, "spans": [{"start": 0, "end": 3, "label": "person"}]},
        {"text": TEXT, "entities": [[0, 3, "person"]]},
        {"text": TEXT, "label": [[0, 3, "person"]]},
        {"text": TEXT, "spans": [], "entities": [[0, 3, "person"]], "label": "greeting"},
        {"text": TEXT, "spans": [{"start": 0, "end": 3, "label": "person", "text": "Ada", "score": 1}], "meta": {}},
    ],
)
def test_the_same_sentence_in_many_dresses(put, record):
    corpus = read_corpus(put(lines(record), "x.jsonl"))
    assert corpus.format == "spans"
    assert corpus[0] == Sentence.from_text(TEXT, [(0, 3, "person")], id="x:1")
    assert corpus.warnings == {}


def test_spans_under_several_keys_are_read_once_and_told(put):
    corpus = read_corpus(put(lines({"text": TEXT, "spans": [[0, 3, "person"]], "entities": [[4, 8, "move"]]})))
    assert [e.key for e in corpus[0].entities] == [(0, 3, "person")]
    assert corpus.warnings == {"texts with spans under several keys (those under 'spans' were read)": 1}


def test_ids_are_text_or_numbers(put):
    corpus = read_corpus(put(lines({"id": "a", "text": "x", "spans": []}, {"id": 7, "text": "x", "spans": None})))
    assert [s.id for s in corpus] == ["a", "7"]


def test_nested_and_overlapping_spans_are_flattened_to_the_longest(put):
    spans = [[0, 3, "a"], [0, 8, "b"], [4, 8, "c"], [8, 9, "d"], [7, 9, "e"], [8, 9, "d"], [10, 12, "z"], [10, 12, "y"]]
    corpus = read_corpus(put(lines({"text": "ada went! cde", "entities": spans})))
    assert [e.key for e in corpus[0].entities] == [(0, 8, "b"), (8, 9, "d"), (10, 12, "y")]
    assert corpus.warnings["nested or overlapping spans (the longest was kept)"] == 4
    assert corpus.warnings["spans given twice (one was kept)"] == 1


def test_odd_spans_are_counted(put):
    record = {
        "text": " Ada  went homewards",
        "spans": [
            {"start": 0, "end": 5, "label": "person"},
            {"start": 4, "end": 6, "label": "x"},
            {"start": 11, "end": 15, "label": "x", "text": "Home"},
        ],
    }
    corpus = read_corpus(put(lines(record, {"text": " \n"}, {"text": "no spans"})))
    assert [e.key for e in corpus[0].entities] == [(1, 4, "person"), (11, 15, "x")]
    assert corpus.warnings == {
        "spans with white space at their ends (cut off)": 1,
        "spans of white space only (left out)": 1,
        "spans whose own 'text' is not what stands at their offsets": 1,
        "spans that begin or end inside a word (kept, but no recognizer can give them)": 1,
        "texts of white space only (left out)": 1,
        "texts without 'spans' (read as having no entities)": 2,
    }


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ('{"text": "Ada", "spans": [[0, 9, "p"]]}', "does not fit a text of 3 characters", "Offsets count characters"),
        ('{"text": "Ada", "spans": [[2, 1, "p"]]}', 'the span [2, 1, "p"]', "half-open"),
        ('{"text": "Ada", "spans": [[-1, 1, "p"]]}', "does not fit", "half-open"),
        ('{"text": "Ada", "spans": [[true, 2, "p"]]}', "expected a span of start, end and label", "A line is"),
        ('{"text": "Ada", "spans": [[0, 1.0, "p"]]}', "expected a span", "A line is"),
        ('{"text": "Ada", "spans": [["0", 1, "p"]]}', "expected a span", "A line is"),
        ('{"text": "Ada", "spans": [[0, 1]]}', "found [0, 1]", "A line is"),
        ('{"text": "Ada", "spans": [{"start": 0, "end": 1}]}', "expected a span", "A line is"),
        ('{"text": "Ada", "spans": [7]}', "found 7", "A line is"),
        ('{"text": "Ada", "spans": {"a": 1}}', "'spans' must be a list", "A line is"),
        ('{"text": "Ada", "label": "greeting"}', "'label' must be a list", "A line is"),
        ('{"text": "Ada", "spans": [[0, 1, "work of art"]]}', "the label 'work of art'", "write 'work_of_art'"),
        ('{"text": "Ada", "spans": [[0, 1, ""]]}', "is not one visible word", "one word"),
        ('{"text": 5}', "'text' must be text, not 5", "A line is"),
        ('{"txt": "Ada"}', "'text' is missing", "A line is"),
        ('{"text": ' + "[" * 500 + "]" * 500 + "}", "'text' must be text", "A line is"),
        ('{"text": "Ada", "id": 1.5}', "'id' must be text or a whole number, not 1.5", "its own id"),
        ('{"text": "Ada", "id": true}', "'id' must be", "leave 'id' out"),
        ('{"text": "a\\ud800b"}', "half a surrogate pair (\\ud800)", "no form in UTF-8"),
        ('{"text": "a\\u0000b"}', "a NUL character", "Remove the character"),
        ('{"text": "a", "spans": [[0, 1, "\\uDFFF"]]}', "half a surrogate pair (\\udfff)", "no form in UTF-8"),
        ('{"text": "a"', "not JSON (", "one JSON object a line"),
        ('{"text": "a"} {"text": "b"}', "not JSON (Extra data at column 15)", "one JSON object a line"),
        ("Ada\tO", "not JSON", "one JSON object a line"),
        ('["a"]', "expected a JSON object, found an array", "no array around it"),
        ("7", "found a bare value", "one JSON object a line"),
        ("[" * 100_000, "JSON that cannot be read", "one JSON object a line"),
        ('{"text": "a", "id": 1' + "0" * 5000 + "}", "JSON that cannot be read", "one JSON object a line"),
    ],
)
def test_what_is_refused(put, line, says, hint):
    path = put('{"text": "fine", "spans": []}\n\n' + line + "\n")
    with pytest.raises(CorpusError) as caught:
        read_corpus(path)
    assert (caught.value.path, caught.value.line) == (path, 3)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 600


def test_whole_surrogate_pairs_and_escaped_backslashes_are_fine(put):
    corpus = read_corpus(put('{"text": "\\ud83d\\ude00 \\\\u0000 \\\\ud800", "spans": [[0, 1, "emoji"]]}\n'))
    assert corpus[0].text == "😀 \\u0000 \\ud800"
    assert corpus[0].entities[0].text == "😀"


def test_only_blank_texts_are_no_corpus(put):
    with pytest.raises(CorpusError, match="no sentence was found in this file, read as 'spans'"):
        read_corpus(put('{"text": " ", "spans": []}\n'))


def test_a_line_of_100_000_words_is_read_in_linear_time(put):
    text = "word " * 100_000
    nested = [[i * 5, i * 5 + 4, "x"] for i in range(0, 100_000, 2)] + [[0, 9, "y"]]
    path = put(lines({"text": text * 3, "spans": nested}), "x.jsonl")
    assert path.stat().st_size > 1_500_000
    begin = time.process_time()
    corpus = read_corpus(path)
    write_corpus(corpus, path, format="spans")
    assert time.process_time() - begin < 15
    assert len(corpus[0].words) == 300_000
    assert len(corpus[0].entities) == 50_000
    assert read_corpus(path).sentences == corpus.sentences
