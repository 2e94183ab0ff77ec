"""The program from end to end on a tiny encoder, and the table from hand-made runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import adaptation
from benchmarks.adapted import markdown, words_of
from benchmarks.arms import Corpora
from xdner.testing.encoders import save_tiny_encoder
from xdner.training.loop import train
from xdner.training.run import Run

Program = Callable[..., int]


@pytest.fixture
def program(data: Path, tmp_path: Path) -> Program:
    encoder = save_tiny_encoder(tmp_path / "encoder", positions=32)

    def run(*more: str) -> int:
        return adaptation.main([
            "--data", str(data), "--out", str(tmp_path / "runs"), "--encoder", str(encoder), "--targets", "ai", "science",
            "--text-from", "ai", "science", "--rates", "1e-3", "--tagger-set", "epochs=1", "--set", "epochs=2", "block=16",
            "head_steps=3", *more,
        ])  # fmt: skip

    return run


def test_both_arms_run_and_a_second_time_nothing_does(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--seeds", "1", "2") == 0
    first = capsys.readouterr()
    assert "8 runs made, 0 were there" in first.err
    for arm in ("plain", "adapted"):
        assert f"| ai | {arm} |" in first.out
        assert f"| mean of 2 | {arm} |" in first.out
    assert "| all sentences together |" in first.out
    assert "the words of the train files of ai, science, without labels" in first.out
    assert sorted(p.name for p in (tmp_path / "runs-encoders").iterdir()) == [
        "seed1", "seed1.json", "seed2", "seed2.json", "words.txt",
    ]  # fmt: skip
    runs = [json.loads(p.read_text()) for p in sorted((tmp_path / "runs").rglob("*.json"))]
    assert {r["benchmark"] for r in runs} == {"adaptation"}
    prints = {(r["arm"], r["seed"]): r["backbone"]["fingerprint"] for r in runs}
    assert prints["plain", 1] == prints["plain", 2]
    assert len(set(prints.values())) == 3, "an encoder of its own for each seed"
    assert program("--seeds", "1", "2") == 0
    second = capsys.readouterr()
    assert "0 runs made, 8 were there" in second.err
    assert second.out == first.out
    assert program("--table") == 0
    assert capsys.readouterr().out == first.out


def test_other_options_are_refused(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("--seeds", "1", "--targets", "ai") == 0
    assert program("--seeds", "1", "--targets", "science", "--set", "share=0.3") == 1
    assert "was made with other options: overrides was" in capsys.readouterr().err


def test_an_adaptation_goes_on_where_it_was_stopped(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from xdner.training import adapt

    resumed = []

    def watched(task: Any, settings: Any, run: Run, **options: Any) -> Any:
        resumed.append(run.resume)
        return train(task, settings, run, **options)

    def stopped(task: Any, settings: Any, run: Run, **options: Any) -> Any:
        assert run.folder is not None
        if run.folder.name == "main":
            raise KeyboardInterrupt
        return train(task, settings, run, **options)

    monkeypatch.setattr(adapt, "train", stopped)
    assert program("--seeds", "1", "--targets", "ai") == 130
    assert "The same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(adapt, "train", watched)
    assert program("--seeds", "1", "--targets", "ai") == 0
    assert resumed == [True, False], "the output layer had been taught"


def test_text_of_ones_own(program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the ship sails in the sea\n" * 30)
    assert program("--seeds", "1", "--targets", "ai", "--text", str(text)) == 0
    out = capsys.readouterr().out
    assert "The text is unlabelled text (sea.txt)." in out
    assert "no other text of the domain" not in out
    assert not (tmp_path / "runs-encoders" / "words.txt").exists()


def test_the_text_has_words_and_no_labels(data: Path, tmp_path: Path) -> None:
    path = words_of(Corpora(data), ["ai", "music"], tmp_path / "words.txt")
    assert path.read_text() == "Ann Lee in Rome\nRome\nno one\nAbba\n"
    words_of(Corpora(data, limit=1), ["ai"], path)
    assert path.read_text() == "Ann Lee in Rome\n"


def test_differences_are_paired(hand_made: Callable[..., dict[str, Any]]) -> None:
    better, worse = [[1, 1, 1]] * 20, [[0, 1, 1]] * 5 + [[1, 1, 1]] * 15
    facts = {
        "settings": {"training": {"seed": 1}}, "held_out_loss": {"before": 3.0, "after": 2.5}, "steps": 7, "seconds": 9,
        "text": {"tokens": 12345}, "blocks": {"held_out": 4}, "origin": "unlabelled text (a.txt)",
    }  # fmt: skip
    runs = []
    for target in ("ai", "music"):
        runs.append(hand_made("adapted", 1, better, target=target, rates=[0.01], adaptation=facts))
        runs.append(hand_made("plain", 1, worse, target=target, rates=[0.01]))
    text = markdown(runs)
    assert "| ai | +25.00 |" in text
    assert "| all sentences together | +25.00 |" in text
    assert "7 steps on 12,345 tokens; loss on 4 held-out blocks 3.000 → 2.500; 9 s." in text
    assert "| mean of 2 | plain |" in text
