"""``xdner inspect``, as a command and as tables."""

from __future__ import annotations

import io
import json

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from xdner.cli.inspect import inspect, print_inspection
from xdner.corpora import inspect_corpora

TRAIN = "Ada\tB-person\nwent\tO\n\nno\tO\n\nno\tB-[red]x\n\nin\tO\nRome\tI-city\n"


@pytest.fixture
def files(tmp_path):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text(TRAIN if name == "train.txt" else TRAIN.replace("Ada", "Bob"))
    return [str(tmp_path / "train.txt"), str(tmp_path / "test.txt")]


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(inspect)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def shown(paths, width=120) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_inspection(inspect_corpora(paths), console)
    return console.file.getvalue()


def test_json_on_stdout_is_json_and_nothing_else(run, files):
    result = run(*files, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(inspect_corpora(files).to_dict()))


def test_tables_say_what_was_found(run, files):
    output = run(*files, "--format", "columns").stdout
    for text in (
        "train.txt",
        "test.txt",
        "sentences",
        "[red]x",
        "I- or E- tags",
        "Leaks: sentences that two files share",
    ):
        assert text in output


def test_rows_hold_the_numbers(files):
    rows = {
        line.split("│")[1].strip(): line.split("│")[2:4] for line in shown(files).splitlines() if line.startswith("│")
    }
    cells = {name: [cell.strip() for cell in row] for name, row in rows.items()}
    assert cells["sentences"] == ["4", "4"]
    assert cells["… without entities"] == ["1", "1"]
    assert cells["words per sentence"] == ["1 / 1.5 / 2", "1 / 1.5 / 2"]
    assert cells["[red]x"] == ["1", "1"]


def test_many_files_are_shown_a_few_at_a_time(files, tmp_path):
    for index in range(7):
        (tmp_path / f"more{index}.txt").write_text(TRAIN)
    output = shown([tmp_path / f"more{index}.txt" for index in range(7)], width=80)
    assert all(f"more{index}.txt" in output for index in range(7))
    assert output.count("Entities of each type") == 3
    assert max(map(len, output.splitlines())) <= 80


def test_leaks_are_readable_on_a_narrow_terminal(tmp_path):
    names = [f"sentences-of-the-{what}.txt" for what in ("sea", "shore")]
    for name in names:
        (tmp_path / name).write_text(TRAIN)
    leaks = shown([tmp_path / name for name in names], width=60).partition("Leaks: ")[2].partition("Conflicts")[0]
    assert all(name in leaks for name in names), "whole"
    told = " ".join(cells[2].strip() for line in leaks.splitlines() if len(cells := line.split("│")) == 4)
    assert told.startswith("4 of the first, 4 of the second: 4 exactly, 0 with other labels; such as")


def test_clean_files_get_lines_instead_of_empty_tables(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "spans": []}\n')
    output = shown([tmp_path / "a.jsonl"])
    assert "Types: no file has entities." in output
    assert "Leaks: name more than one file to look for them." in output
    assert "Conflicts: no file labels a sentence in two ways." in output
    assert "Warnings: nothing was odd." in output


def test_text_cannot_steer_the_terminal(tmp_path):
    records = [{"text": "\x1b[2J [bold]hi", "spans": spans} for spans in ([], [[6, 10, "x"]])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    output = shown([tmp_path / "a.jsonl"])
    assert "\x1b" not in output
    assert "[bold]hi" in output


def test_ids_types_and_paths_are_no_emoji_and_no_markup(tmp_path):
    records = [{"id": "doc:100:3", "text": "a key", "spans": [[2, 5, label]]} for label in ("a:key:b", "[b]")]
    for name in ("a:book:.jsonl", "b\x1b[31m\\.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in records))
    output = shown([tmp_path / "a:book:.jsonl", tmp_path / "b\x1b[31m\\.jsonl"])
    for text in ("a:book:.jsonl", "b\ufffd[31m\\.jsonl", "a:key:b", "[b]", "doc:100:3"):
        assert text in output


def test_an_error_is_one_message_with_the_next_step(run, tmp_path):
    result = run(str(tmp_path / "none.txt"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "there is no such file" in result.stderr
    assert "→" in result.stderr
