"""What inspection counts."""

from __future__ import annotations

import json

import pytest

from xdner.corpora import Lengths, inspect_corpora
from xdner.errors import CorpusError

TRAIN = "Ada\tB-person\nLovelace\tI-person\nwrote\tO\n\nno\tO\n\nno\tB-x\n\nin\tO\nRome\tI-city\n"
TEST = (
    '{"text": "ada lovelace wrote!", "spans": []}\n{"text": "No", "spans": [[0, 1, "x"]]}\n{"text": "no", "spans": []}'
)


def test_counts_lengths_types_leaks_and_conflicts(put):
    train, test = put(TRAIN, "train.txt"), put(TEST, "test.jsonl")
    inspection = inspect_corpora([train, test])
    first, second = inspection.files
    assert (first.path, first.format, len(first.sha256)) == (str(train), "columns", 64)
    assert (first.sentences, first.words, first.entities, first.without_entities) == (4, 7, 3, 1)
    assert first.types == {"city": 1, "person": 1, "x": 1}
    assert first.sentence_lengths == Lengths(1, 1.5, 1.75, 3)
    assert first.mention_lengths == Lengths(1, 1, 1.33, 2)
    assert (first.repeated, first.conflicts) == (1, 1)
    assert first.examples[0].ids == (("train:2",), ("train:3",))
    assert list(first.warnings.values()) == [1]
    assert (second.format, second.mention_lengths, second.repeated, second.conflicts) == (
        "spans",
        Lengths(1, 1, 1, 1),
        1,
        1,
    )
    (leak,) = inspection.leaks
    assert (leak.first, leak.second) == (str(train), str(test))
    assert (leak.in_first, leak.in_second, leak.identical, leak.differing) == (2, 2, 1, 1)
    assert leak.examples == (("train:2", "test:2"),)


def test_it_is_plain_values(put):
    data = inspect_corpora([put(TRAIN, "a"), put(TRAIN, "b")]).to_dict()
    assert json.loads(json.dumps(data))["leaks"][0]["in_first"] == 4
    assert set(data) == {"files", "leaks"}


def test_no_entities_no_lengths(put):
    (report,) = inspect_corpora([put('{"text": "a", "spans": []}')]).files
    assert (report.entities, report.types, report.mention_lengths) == (0, {}, None)


def test_errors_come_through(put):
    with pytest.raises(CorpusError, match="there is no file to inspect"):
        inspect_corpora([])
    with pytest.raises(CorpusError, match="not JSON"):
        inspect_corpora([put(TRAIN)], format="spans")
    with pytest.raises(CorpusError, match="there is no such file"):
        inspect_corpora([put(TRAIN), "none.txt"])
