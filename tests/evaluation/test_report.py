"""The report: numbers worked out by hand, JSON, rows, and empty input."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil

import pytest

import xdner.evaluation
from xdner.errors import DataError
from xdner.evaluation import RULE, Averages, Score, evaluate
from xdner.text import Entity

MODULES = [f"xdner.evaluation.{m.name}" for m in pkgutil.iter_modules(xdner.evaluation.__path__)]


def test_an_example_worked_out_by_hand(example):
    report = evaluate(*example)
    assert report.micro == Score(1 / 6, 1 / 6, 1 / 6, 1, 6, 6)
    assert report.per_type == {
        "city": Score(0.0, 0.0, 0.0, 0, 3, 3),
        "person": Score(0.5, 0.5, 0.5, 1, 2, 2),
        "team": Score(0.0, 0.0, 0.0, 0, 1, 1),
    }
    assert report.macro == Averages(0.5 / 3, 0.5 / 3, 0.5 / 3, 3)
    assert report.string_level == report.micro
    found = {scheme: (c.correct, c.incorrect, c.partial, c.missed, c.spurious) for scheme, c in report.schemes.items()}
    assert found == {
        "strict": (1, 3, 0, 2, 2),
        "exact": (2, 2, 0, 2, 2),
        "partial": (2, 0, 2, 2, 2),
        "ent_type": (2, 2, 0, 2, 2),
    }
    assert report.schemes["partial"].f1 == 0.5
    assert (report.sentences, report.left_out, report.rule) == (3, {}, RULE)
    assert report.interval is not None
    assert report.interval.low <= report.micro.f1 <= report.interval.high


def test_perfect_predictions_score_one(example):
    gold, _ = example
    report = evaluate(gold, gold)
    assert report.micro == Score(1.0, 1.0, 1.0, 6, 6, 6)
    assert report.macro == Averages(1.0, 1.0, 1.0, 3)
    assert (report.interval.low, report.interval.high) == (1.0, 1.0)
    assert report.worst == ()


def test_string_level_forgives_positions_and_needs_text():
    gold = [[Entity(0, 4, "city", "Rome"), Entity(10, 14, "city", "Rome"), Entity(20, 24, "city", "Oslo")]]
    predicted = [[Entity(10, 14, "city", "Rome"), Entity(30, 34, "city", "Oslo")]]
    report = evaluate(gold, predicted)
    assert report.micro == Score.of(1, 2, 3)
    assert report.string_level == Score(1.0, 1.0, 1.0, 2, 2, 2)
    assert evaluate(gold, [[Entity(10, 14, "city")]]).string_level is None


def test_labels_choose_the_types_and_their_order(example):
    report = evaluate(*example, labels=["river", "person"])
    assert list(report.per_type) == ["river", "person"]
    assert report.per_type["river"] == Score(0.0, 0.0, 0.0, 0, 0, 0)
    assert report.micro == report.per_type["person"]
    assert report.macro == Averages(0.5, 0.5, 0.5, 1)  # a type that does not occur is not averaged
    assert report.left_out == {"gold_other_types": 4, "predicted_other_types": 4}


def test_entities_given_twice_count_once(example):
    gold, predicted = example
    report = evaluate([g + g for g in gold], [p + p + p for p in predicted])
    once = evaluate(gold, predicted)
    assert report.left_out == {"gold_repeated": 6, "predicted_repeated": 12}
    assert (report.micro, report.schemes, report.errors) == (once.micro, once.schemes, once.errors)
    assert report.interval == once.interval


def test_json_holds_everything_unrounded(example):
    report = evaluate(*example, ids=["one", "two", "three"], seed=3)
    data = json.loads(report.to_json())
    assert data == json.loads(json.dumps(report.to_dict()))
    assert data["micro"]["f1"] == 1 / 6
    assert data["interval"]["seed"] == 3
    assert data["interval"]["samples"] == 1000
    assert data["schemes"]["partial"] == {
        "correct": 2,
        "incorrect": 0,
        "partial": 2,
        "missed": 2,
        "spurious": 2,
        "possible": 6,
        "actual": 6,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
    }
    assert data["confusion"]["counts"][-1] == [1, 1, 0, 0]
    assert data["worst"][0]["id"] == "two"
    assert data["rule"] == RULE


def test_json_escapes_half_surrogates():
    report = evaluate([[Entity(0, 1, "a", "\ud800")]], [[]])
    assert json.loads(report.to_json().encode("ascii"))["worst"][0]["errors"][0]["gold"]["text"] == "\ud800"


def test_rows_are_plain(example):
    rows = evaluate(*example).rows()
    assert [(row["group"], row["name"]) for row in rows] == [
        ("overall", "micro"),
        ("overall", "macro"),
        ("overall", "string-level"),
        ("type", "city"),
        ("type", "person"),
        ("type", "team"),
    ]
    assert len({tuple(row) for row in rows}) == 1  # the same columns in every row
    assert rows[0]["gold"] == 6
    assert rows[1]["gold"] is None
    without_text = evaluate([[Entity(0, 1, "a")]], [[]]).rows()
    assert [row["name"] for row in without_text] == ["micro", "macro", "a"]


@pytest.mark.parametrize("sentences", [0, 1, 5])
def test_nothing_to_find_and_nothing_found_is_zero(sentences):
    report = evaluate([[]] * sentences, [[]] * sentences)
    assert report.micro == report.string_level == Score(0.0, 0.0, 0.0, 0, 0, 0)
    assert report.macro == Averages(0.0, 0.0, 0.0, 0)
    assert (report.interval.low, report.interval.high) == (0.0, 0.0)
    assert (report.per_type, report.worst, report.sentences) == ({}, (), sentences)
    assert {scheme: c.f1 for scheme, c in report.schemes.items()} == dict.fromkeys(report.schemes, 0.0)
    assert len(report.schemes) == 4


def test_no_samples_no_interval(example):
    assert evaluate(*example, samples=0).interval is None
    with pytest.raises(DataError, match="samples must not be negative, not -1"):
        evaluate(*example, samples=-1)


def test_sides_that_do_not_fit_are_refused(example):
    with pytest.raises(DataError, match="3 sentences have gold entities, 2 have predicted ones"):
        evaluate(example[0], example[1][:2])
    with pytest.raises(DataError, match="3 sentences came with 2 ids"):
        evaluate(*example, ids=["one", "two"])
    with pytest.raises(DataError, match="labels are a list of names, not the text 'city'"):
        evaluate(*example, labels="city")


@pytest.mark.parametrize("name", MODULES)
def test_the_numbers_in_docstrings_are_right(name):
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0


def test_every_module_was_seen():
    assert {name.rpartition(".")[2] for name in MODULES} == {"analysis", "match", "report", "significance"}
