"""The benchmark corpora, where they are present: known counts, known leaks, and the time that reading takes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from xdner.corpora import carve_dev, find_leaks, inspect_corpora, read_corpus, sample_mentions, write_corpus

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not (DATA / "manifest.json").is_file(), reason="the benchmark corpora are not here")


def test_counts_labels_and_hashes_are_those_of_the_manifest():
    seen = 0
    for name, known in json.loads((DATA / "manifest.json").read_text()).items():
        path = DATA / f"{name}.txt"
        if not path.is_file():
            continue
        corpus = read_corpus(path)
        seen += 1
        entities = sum(len(sentence.entities) for sentence in corpus)
        assert (len(corpus), entities) == (known["sentences"], known["entities"]), name
        assert (list(corpus.labels), corpus.sha256, corpus.warnings) == (known["labels"], known["sha256"], {}), name
    assert seen >= 10


def test_known_leaks_are_found():
    (leak,) = inspect_corpora([DATA / "conll2003" / "train.txt", DATA / "conll2003" / "test.txt"]).leaks
    assert (leak.identical, leak.in_second, leak.in_first) == (126, 132, 309)
    train, test = (read_corpus(DATA / "music" / f"{split}.txt") for split in ("train", "test"))
    leaks = find_leaks(train, test)
    assert len(leaks) == 6
    assert sum(leak.differs for leak in leaks) == 4


def test_reading_14041_sentences_takes_less_than_2_seconds():
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        assert len(read_corpus(DATA / "conll2003" / "train.txt")) == 14_041
        best = min(best, time.process_time() - begin)
    assert best < 2


@pytest.mark.parametrize(
    ("format", "scheme"), [("columns", "bio"), ("columns", "bioes"), ("tokens", "bioes"), ("spans", "bio")]
)
def test_real_sentences_survive_every_format(tmp_path, format, scheme):
    corpus = read_corpus(DATA / "politics" / "dev.txt")
    write_corpus(corpus, tmp_path / "x", format=format, scheme=scheme)
    found = read_corpus(tmp_path / "x")
    assert found.format == format
    assert [(s.text, s.entities) for s in found] == [(s.text, s.entities) for s in corpus]
    if format != "spans":
        assert [s.words for s in found] == [s.words for s in corpus]


def test_samples_and_splits_of_a_real_corpus():
    corpus = read_corpus(DATA / "mit-restaurant" / "train.txt")
    drawn = sample_mentions(corpus, 10, 1)
    assert all(sum(e.label == label for s in drawn for e in s.entities) >= 10 for label in corpus.labels)
    assert len(drawn) < 80
    train, dev = carve_dev(corpus, count=500, seed=1)
    assert (len(train), len(dev)) == (len(corpus) - 500, 500)
    assert find_leaks(train, dev) == ()
