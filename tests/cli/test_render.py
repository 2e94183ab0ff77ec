"""Reports and comparisons as tables."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from xdner.cli.render import matches_table, report_tables
from xdner.evaluation import evaluate
from xdner.prefix.selector import Match, Selection, SourceSimilarity
from xdner.text import Entity


def shown(*tables, width: int = 140) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


@pytest.fixture
def report():
    gold = [[Entity(0, 7, "person", "Johnson"), Entity(11, 20, "city", "Baltimore")], [Entity(0, 4, "city", "Rome")]]
    predicted = [[Entity(0, 7, "person", "Johnson"), Entity(11, 20, "team", "Baltimore")], []]
    return evaluate(gold, predicted, ids=["a-1", ""], seed=5)


def flowing(text: str) -> str:
    """Captions are broken into lines where it fits."""
    return " ".join(text.split())


def row(text: str, name: str) -> list[str]:
    line, *_ = [line for line in text.splitlines() if line.strip("│ ").startswith(name + " ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_report_shows_scores_interval_errors_and_rule(report):
    text = shown(*report_tables(report))
    assert row(text, "micro") == ["micro", "50.00", "33.33", "40.00", "1", "2", "3"]
    assert row(text, "macro (3 types)") == ["macro (3 types)", "33.33", "33.33", "33.33", "", "", ""]
    assert row(text, "team")[1:] == ["0.00", "0.00", "0.00", "0", "1", "0"]
    assert "1,000 samples, seed 5" in text
    assert "those of a gold entity of the same sentence" in " ".join(text.split())
    assert "type: Baltimore (city) → Baltimore (team)" in text
    assert "missed: Rome (city)" in text
    assert "a-1" in text
    assert "#1" in text


def test_plain_values_look_like_the_report(report):
    data = json.loads(report.to_json())
    assert shown(*report_tables(data)) == shown(*report_tables(report))


def test_what_does_not_exist_is_not_shown():
    text = shown(*report_tables(evaluate([[]], [[]], samples=0)))
    assert "95 %, from" not in text
    assert "Sentences with the most errors" not in text
    assert "Types taken for others" not in text


def test_labels_are_no_markup_and_steer_no_terminal():
    entity = Entity(0, 3, "[red]x[/]", "a\x1b[2Jb\ud800")
    text = shown(*report_tables(evaluate([[entity, entity]], [[]], ids=["[bold]1"])))
    assert "[red]x[/]" in text
    assert "[bold]1" in text
    assert "a\ufffd[2Jb\ufffd ([red]x[/])" in text
    assert "Not scored: 1 gold repeated." in text
    assert "\x1b" not in text


def test_long_lists_of_errors_are_cut():
    names = [f"L{n:02d}" for n in range(16)]
    gold = [[Entity(2 * i, 2 * i + 1, name, "x") for i, name in enumerate(names)]]
    predicted = [[Entity(2 * i, 2 * i + 1, name, "x") for i, name in enumerate(reversed(names))]]
    text = shown(*report_tables(evaluate(gold, predicted)))
    assert "and 10 more" in text
    assert "and 6 more pairs of types, in the JSON form" in flowing(text)


LONG = "musicalinstrument"  # the longest of CrossNER's types


@pytest.mark.parametrize("width", [60, 70, 80])
def test_a_narrow_terminal_breaks_no_number_and_no_type(width):
    gold = [[Entity(0, 3, LONG, "lute")], [Entity(0, 4, "song", "Aria")]] * 1200
    tables = report_tables(evaluate(gold, [gold[0], []] * 1200), width=width)
    text = shown(*tables, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert row(text, LONG)[:4] == [LONG, "100.00", "100.00", "100.00"]
    assert row(text, "missed") == ["missed", *["1,200"] * 4]
    assert ("1,200" in row(text, LONG)) == (width == 80), "in less, counts are left to JSON"
    errors = text[text.index("Errors") :]
    assert row(errors, "all")[-2:] == ["1,200", "0"]
    assert LONG in [line.split("│")[0].strip() for line in errors.splitlines()]


def test_many_sources_share_a_column_of_the_nearest_types():
    def selection(*found: tuple[str, float]) -> Selection:
        sources = [
            SourceSimilarity(f"s{i}", 0.5, 0.5, {}, 0.5, 0.5, 1 / len(found), (Match("sea", name, cosine),))
            for i, (name, cosine) in enumerate(found)
        ]
        return Selection("maps", tuple(sources), "tuned", 0.1)

    few = shown(matches_table(selection(("lake", 0.5), ("sea", 1.0), ("city", 0.25))))
    assert row(few, "sea")[1:] == ["lake 0.50", "= sea", "city 0.25"]
    many = shown(matches_table(selection(("lake", 0.5), ("sea", 1.0), ("city", 0.25), ("bay", 0.75))))
    assert row(many, "sea")[1:] == ["= sea (s1); bay 0.75 (s3); lake 0.50 (s0)"]
