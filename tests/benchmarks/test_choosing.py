"""The recognizers side by side on tiny models, each in processes of its own, and the page's table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import choices, choosing
from benchmarks.choices_table import BEGIN, END, markdown, write_page
from benchmarks.tagging.speed import even_sentences
from xdner.errors import DataError

Program = Callable[..., int]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "CHOOSING.md"


def _here(device: str, build: Callable[..., Callable[[], object]], *arguments: object) -> dict[str, float]:
    """Without a process of its own, which costs seconds; one test has them."""
    build(*arguments)()
    return {"peak": 100.0, "above_model": 1.0}


@pytest.fixture
def program(domains: Path, backbone: Path, encoder: Path, tmp_path: Path) -> Program:
    def run(*more: str) -> int:
        return choosing.main([
            "--data", str(domains), "--out", str(tmp_path / "runs"),
            "--backbone", str(backbone), "--encoder", str(encoder), "--llm", str(backbone),
            "--train-cap", "4", "--dev-cap", "2", "--source-epochs", "1", "--set", "epochs=1", "length=2",
            "--tagger-set", "training.epochs=1", "label_size=8",
            "--wraner-set", f"retrieval.encoder={encoder}", "retrieval.layer=1", "training.epochs=1", "prompt.max_tokens=2048",
            *more,
        ])  # fmt: skip

    return run


@pytest.fixture
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "peak_memory", _here)
    monkeypatch.setattr(choices, "even_sentences", lambda corpus, count: even_sentences(corpus, 2, words=6))


@pytest.mark.usefixtures("in_one_process")
def test_all_recognizers_side_by_side(program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert program("--write", str(page)) == 0
    out = capsys.readouterr().out
    for choice in choices.CHOICES.values():
        assert f"| {choice.title} |" in out
    assert "- ai: 4 training sentences; F1 (exact spans) on 2 dev sentences" in out
    assert page.read_text() == f"before\n{BEGIN}\n{out}{END}\nafter\n"
    runs = {p.parent.name: json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*/seed1.json")}
    assert set(runs) == set(choices.CHOICES)
    assert runs["laner-source"]["sources"] > 0
    assert runs["laner"]["sources"] is None
    assert runs["if-wraner"]["trained_weights"] == 0 < runs["if-wraner-source"]["trained_weights"]
    assert runs["if-wraner"]["sources"] is None
    assert runs["if-wraner-source"]["sources"] > 0
    assert runs["plain"]["settings"]["tagger"]["head"] == "plain"
    assert runs["cp-ner"]["bytes"] < runs["laner"]["bytes"]
    assert all(run["reading"]["sentences_per_second"] > 0 and run["dev"]["sentences"] == 2 for run in runs.values())
    (line,) = (line for line in out.splitlines() if line.startswith("- command: "))
    words = shlex.split(line.removeprefix("- command: `").removesuffix("`"))
    assert words[:2] == ["python", "benchmarks/choosing.py"]
    again = choosing.parser().parse_args(words[2:])
    assert (again.choices, again.seeds, again.train_cap, again.dev_cap) == (list(choices.CHOICES), [1], 4, 2)
    assert (again.set, again.tagger_set) == (["epochs=1", "length=2"], ["training.epochs=1", "label_size=8"])
    assert (again.source_epochs, again.per_source, again.backbone) == (1, 600, "language-model")
    assert again.wraner_set[0] == "retrieval.encoder=encoder"
    assert str(tmp_path.parent) not in out, "nothing on the page is a path of this machine"
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")}
    assert program() == 0
    assert capsys.readouterr().out == out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")} == before


def test_a_process_of_its_own_tells_its_memory(program: Program, tmp_path: Path) -> None:
    assert program("--choices", "plain") == 0
    run = json.loads((tmp_path / "runs" / "plain" / "seed1.json").read_text())
    for memory in (run["memory"], run["reading"]["memory"]):
        assert memory is None or memory["peak"] > 10


@pytest.mark.usefixtures("in_one_process")
def test_what_goes_wrong_is_told_once(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDNER_CACHE", str(tmp_path / "empty"))
    assert program("--choices", "cp-ner", "plain", "--backbone", "smollm2-135m-ner", "--budget-minutes", "9") == 0
    assert "left out cp-ner: the backbone 'smollm2-135m-ner' is not in the cache" in capsys.readouterr().err
    assert program("--choices", "plain", "--dev-cap", "1") == 1
    assert "was made with other options" in capsys.readouterr().err
    assert program("--choices", "laner", "--backbone", "smollm2-135m-ner", "--tagger-set", "epoch=1") == 1
    err = capsys.readouterr().err
    assert "was made with other options" not in err
    assert "unknown setting 'epoch'" in err


@pytest.mark.parametrize("what", ["asked", "data"])
def test_runs_that_do_not_belong_together_give_no_table(tmp_path: Path, what: str) -> None:
    for seed, value in ((1, "one"), (2, "other")):
        path = tmp_path / "plain" / f"seed{seed}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"choice": "plain", "asked": {}, "data": {}} | {what: {"ai": value}}))
    with pytest.raises(DataError, match="mixes runs of different"):
        markdown(tmp_path)


def test_the_page_tells_the_command_that_made_it() -> None:
    """Options that are on the page, in its notes and its columns, are those of its command."""
    text = PAGE.read_text(encoding="utf-8")
    words = shlex.split(text.partition("- command: `")[2].partition("`")[0])
    options = choosing.parser().parse_args(words[2:])
    titles = [choices.CHOICES[name].title for name in options.choices]
    assert [title for title in (c.title for c in choices.CHOICES.values()) if f"| {title} |" in text] == titles
    assert f"{options.train_cap} training sentences; F1 (exact spans) on {options.dev_cap} dev sentences" in text
    assert f"both {options.dtype}; taggers on {options.encoder}." in text
    for what, given in (("prefixes", options.set), ("taggers", options.tagger_set), ("IF-WRANER", options.wraner_set)):
        assert f"{what}: {', '.join(given)}" in text


def test_the_page_has_a_place_for_the_table(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    copy = tmp_path / "page.md"
    copy.write_text(text)
    write_page(copy, "| a table |\n")
    assert f"{BEGIN}\n| a table |\n{END}" in copy.read_text()
    copy.write_text("no marks")
    with pytest.raises(DataError, match="no place for the table"):
        write_page(copy, "x")
