"""The retrieval benchmark on small data: values by hand, and the whole program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval, retrieval_speed
from benchmarks.coverage import Bench, Remembered, bootstrap_difference, bootstrap_mean, covered
from xdner.backbone.encoder import load_encoder
from xdner.retrieval.base import Example, Hit
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.settings import RetrievalSettings
from xdner.text import Sentence

QUERY = Sentence.from_words(["Ann", "Bob", "Rome"], [(0, 1, "person"), (1, 2, "person"), (2, 3, "place")])


def example(words: str, label: str) -> Example:
    return Example.of(Sentence.from_words(words.split(), [(0, 1, label)]))


def test_shares_by_hand() -> None:
    person, band = example("Eve", "person").sentence, example("Abba", "band").sentence
    assert covered(QUERY, [person, band]) == (1 / 2, 2 / 3)
    assert covered(QUERY, []) == (0, 0)


def test_intervals_hold_the_mean_and_know_no_difference() -> None:
    values = [np.array([0.0, 1.0, 1.0, 0.5]), np.array([1.0] * 9)]
    mean, low, high = bootstrap_mean(values)
    assert mean == (0.625 + 1) / 2
    assert low < mean < high
    assert bootstrap_difference(values, values) == (0, 0, 0)


def test_what_is_remembered_is_what_would_be_read(encoder: Path) -> None:
    loaded = load_encoder(encoder)
    sentences = [QUERY, Sentence.from_words(["a"] * 40)]
    remembered = Remembered(loaded, [(0, "mean"), (1, "max")])
    for layer, pooling in remembered.kinds:
        plain = WordEmbedder(loaded, RetrievalSettings(layer=layer, pooling=pooling))  # type: ignore[arg-type]
        for one, two in zip(remembered.of(layer, pooling).embed(sentences), plain.embed(sentences), strict=True):
            assert np.allclose(one, two, atol=1e-5)
        assert np.allclose(remembered.embed_sentences(sentences), plain.embed_sentences(sentences), atol=1e-5)


def test_a_budget_takes_the_best_that_still_fit(encoder: Path) -> None:
    examples = [example(words, "x") for words in ("a a a", "b b b b b b", "c c")]
    bench = Bench({}, {}, Remembered(load_encoder(encoder), [(0, "mean")]), RetrievalSettings(),
                  lambda e: len(e.sentence.words))  # fmt: skip
    taken = bench._fitting([Hit(e, 0.0) for e in examples], 5)
    assert [h.example.sentence.text for h in taken] == ["a a a", "c c"]


def test_without_words_there_is_no_difference_to_tell() -> None:
    values = {"5": {"types": [[0.5, 1.0]]}}
    assert retrieval._difference({"at_k": {"sentence": values, "none": values}}, "5") == ""
    assert retrieval._difference({"at_k": {"sentence": values, "word": values}}, "5").startswith("**word - sentence")


def test_the_program(
    data: Path, encoder: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    asked = ["--data", str(data), "--domains", "ai", "science", "--encoder", str(encoder), "--generator", str(backbone),
             "--layers", "0", "1", "--k", "1", "2", "--budgets", "60", "--pools", "1", "--seeds", "1", "2",
             "--set", "layer=1"]  # fmt: skip
    assert retrieval.main([*asked, *out]) == 0
    shown = capsys.readouterr().out
    run = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert run["sizes"] == {"ai": [2, 2], "science": [2, 2]}
    assert set(run["at_k"]) == set(retrieval.METHODS)
    assert run["at_k"]["none"]["5"]["types"] == [[0, 0], [0, 0]]
    assert {(r["layer"], r["pooling"]) for r in run["grid"]} == {
        (x, p) for x in (0, 1) for p in ("mean", "first", "max")
    }
    assert "**word - sentence: " in shown
    assert (tmp_path / "out" / "retrieval.png").is_file()
    assert retrieval.main(["--table", *out]) == 0
    assert capsys.readouterr().out == shown
    assert retrieval.main([*asked, *out, "--set", "layer=9"]) == 1
    assert "layer is 9" in capsys.readouterr().err


def test_enough_words_and_the_same_labels() -> None:
    known = [QUERY, Sentence.from_words(["a", "b"], [(1, 2, "place")]), QUERY]
    assert retrieval_speed.enough(known, 5, 1) == known[:2]
    assert retrieval_speed.enough(known, 3, 1) == known[:1]
    many = retrieval_speed.enough(known, 60, 1)
    assert 60 <= sum(len(s.words) for s in many) <= 62
    assert len({s.text for s in many}) == len(many)
    assert {w.text for s in many for w in s.words} <= {"Ann", "Bob", "Rome", "a", "b"}
    assert {tuple(e.label for e in s.entities) for s in many} == {("person", "person", "place"), ("place",)}
    assert retrieval_speed.enough(known, 60, 1) == many


@pytest.mark.parametrize("search", ["memory", "milvus"])
def test_the_speed_program(
    search: str, data: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--data", str(data), "--encoder", str(encoder), "--words", "60", "--queries", "3", "--batches", "1", "2",
             "--domains", "ai", "science", "--query-domains", "ai", "--rounds", "2", "--search", search,
             "--out", str(tmp_path / "out"), "--set", "stop_words=none"]  # fmt: skip
    assert retrieval_speed.main(asked) == 0
    shown = capsys.readouterr().out
    run = json.loads((tmp_path / "out" / f"{search}.json").read_text())
    assert run["words"] >= 60
    assert run["from_corpora"] < 60
    assert run["queries"] == 3
    for size in ("1", "2"):
        for one in run["batches"][size]:
            assert one["whole"] == pytest.approx(one["embedding"] + one["searching"] + one["choosing"])
            assert min(one.values()) > 0
    assert run["settings"]["search"] == search
    assert "words a second" in shown
    assert "came again with drawn words" in shown
    assert retrieval_speed.main([*asked, "--table"]) == 0
    assert capsys.readouterr().out == shown
