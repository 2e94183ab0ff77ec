"""The program from end to end, with tiny random models: files, resuming, choice of rates, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import quality
from benchmarks.arms import Measured, Target
from benchmarks.runs import chosen_rate
from xdner.errors import TrainingError, TrainingInterrupted
from xdner.training.progress import Progress

Program = Callable[..., int]


@pytest.fixture
def program(data: Path, backbone: Path, encoder: Path, tmp_path: Path) -> Program:
    def run(*more: str) -> int:
        return quality.main([
            "--data", str(data), "--out", str(tmp_path / "runs"), "--raw", str(backbone), "--instructed", str(backbone),
            "--encoder", str(encoder), "--set", "epochs=1", "length=2", "--tagger-set", "epochs=1",
            "--source-epochs", "1", *more,
        ])  # fmt: skip

    return run


def files(tmp_path: Path) -> list[str]:
    return sorted(str(p.relative_to(tmp_path / "runs")) for p in (tmp_path / "runs").rglob("*.json"))


def test_all_arms_run_and_a_second_time_nothing_does(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--seeds", "1", "2", "--targets", "ai", "science")
    rates = ("--rates", "prefix=1e-2", "lora=1e-3", "full=1e-4", "minilm=1e-4")
    assert program(*options, *rates) == 0
    first = capsys.readouterr()
    assert "32 runs made, 0 were there, 0 not begun" in first.err
    assert len(files(tmp_path)) == 32
    assert "prefix-raw/ai/seed1-rate0.01.json" in files(tmp_path)
    assert "The arms of the language model have the same codec, decoder, loop and stopping rule" in first.out
    for arm in quality.ARMS:
        assert f"| ai | {arm} |" in first.out
        assert f"| mean of ai, science | {arm} |" in first.out
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")}
    assert program(*options, *rates) == 0
    second = capsys.readouterr()
    assert "0 runs made, 32 were there" in second.err
    assert second.out == first.out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")} == before


def test_a_file_has_what_a_table_and_a_reader_need(program: Program, tmp_path: Path) -> None:
    assert program("--arms", "minilm-sources", "--targets", "ai", "--seeds", "3", "--rates", "minilm=1e-4") == 0
    (name,) = files(tmp_path)
    run = json.loads((tmp_path / "runs" / name).read_text())
    assert (run["arm"], run["target"], run["seed"], run["first_seed"], run["rate"]) == (
        "minilm-sources", "ai", 3, 3, 1e-4,
    )  # fmt: skip
    assert {"commit", "machine", "versions", "date", "settings", "history", "seconds", "backbone"} <= set(run)
    assert all(len(digest) == 64 for digest in run["data"].values())
    assert (run["train_sentences"], run["dev_sentences"], run["limit"], run["error"]) == (3, 3, None, None)
    assert [s["domain"] for s in run["sources"]] == ["conll2003", "politics", "music", "literature"]
    assert run["asked"]["sources"]["per_source"] == 1000


def test_the_table_needs_no_models(program: Program, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("--arms", "minilm", "--targets", "ai", "--seeds", "1", "--rates", "minilm=1e-4") == 0
    made = capsys.readouterr().out
    assert program("--table", "--encoder", "nowhere", "--data", "nowhere") == 0
    assert capsys.readouterr().out == made


def test_weights_that_are_not_here_leave_their_arm_out(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDNER_CACHE", str(tmp_path / "empty"))
    arms = ("--arms", "prefix-instructed", "minilm", "--targets", "ai", "--seeds", "1", "2")
    assert program(*arms, "--instructed", "smollm2-135m-ner", "--rates", "minilm=1e-4") == 0
    err = capsys.readouterr().err
    assert "left out prefix-instructed: the backbone 'smollm2-135m-ner' is not in the cache" in err
    assert "→ xdner backbones pull smollm2-135m-ner" in err
    assert {f.split("/")[0] for f in files(tmp_path)} == {"minilm"}


def test_other_options_are_not_mixed_in(program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ("--arms", "minilm", "--targets", "ai", "--rates", "minilm=1e-4")
    assert program(*one, "--seeds", "1", "--limit", "1") == 0
    assert "**A trial: the first 1 sentences of each file only." in capsys.readouterr().out
    assert program(*one, "--seeds", "1") == 1
    err = capsys.readouterr().err
    assert "seed1-rate0.0001.json was made with other options: limit was 1, now None" in err
    assert "→ Choose another --out, or give the same options as before." in err
    # A full run of another arm beside it: the table refuses.
    assert program("--arms", "minilm-sources", "--targets", "ai", "--rates", "minilm=1e-4", "--seeds", "1") == 1
    err = capsys.readouterr().err
    assert "mixes full runs and trials: 1 full, 1 with --limit 1" in err
    assert "→ Give trials an --out of their own." in err


def test_nothing_new_begins_after_the_budget(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--arms", "minilm", "--targets", "ai", "--budget-minutes", "0") == 1
    err = capsys.readouterr().err
    assert "0 runs made, 0 were there, 3 not begun (--budget-minutes)" in err
    assert "there are no runs in" in err


class Scripted:
    """An arm whose scores are given: (seed, rate) → F1, or an error."""

    name = "prefix-raw"
    rates: tuple[float, ...] = (0.1, 0.2, 0.3)

    def __init__(self, script: dict[tuple[int, float], float | Exception]) -> None:
        self.script, self.calls = script, []  # type: ignore[var-annotated]

    def asked(self) -> dict[str, Any]:
        return {}

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        self.calls.append((seed, rate))
        value = self.script[seed, rate]
        if isinstance(value, Exception):
            raise value
        report = {"micro": {"f1": value}, "sentence_counts": [[1, 1, 1]]}
        facts = {"settings": {"codec": {}, "decoding": {}, "training": {}}, "trained_weights": 1}
        return Measured(report, {}, [], facts)


@pytest.fixture
def scripted(program: Program, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(arm: Scripted, *more: str) -> int:
        monkeypatch.setattr(quality, "arms", lambda options: [arm])
        return program("--targets", "ai", *more)

    return run


def test_the_rate_is_chosen_on_the_first_seed_and_kept(
    scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    diverged = TrainingError("the loss became nan at step 3 of 9")
    arm = Scripted({(1, 0.1): 0.5, (1, 0.2): 0.5, (1, 0.3): diverged, (2, 0.1): 0.25, (3, 0.1): 0.75})
    assert scripted(arm) == 0
    assert arm.calls == [(1, 0.1), (1, 0.2), (1, 0.3), (2, 0.1), (3, 0.1)]
    out = capsys.readouterr().out
    assert "| ai | prefix-raw * | 1 | 0.1 | 1: 50.00, 2: 25.00, 3: 75.00 | 50.00 ± 25.00 |" in out
    assert "* prefix-raw on ai: seed 1 at 0.3: the loss became nan at step 3 of 9." in out
    assert "prefix-raw on ai: 0.1 → 50.00, 0.2 → 50.00, 0.3 → failed." in out


def test_a_rate_that_another_command_tried_counts_too(
    scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The seeds run at the rate that the table will show."""
    assert scripted(Scripted({(1, 0.1): 0.5, (1, 0.2): 0.6, (1, 0.3): 0.4}), "--seeds", "1") == 0
    lower = Scripted({(1, 0.05): 0.3, (2, 0.2): 0.5})
    lower.rates = (0.05,)
    assert scripted(lower, "--seeds", "1", "2") == 0
    assert lower.calls == [(1, 0.05), (2, 0.2)]
    assert "| ai | prefix-raw | 1 | 0.2 | 1: 60.00, 2: 50.00 | 55.00 ± 7.07 |" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0", "-1", "x"])
def test_a_trial_has_a_sentence(scripted: Callable[..., int], text: str) -> None:
    with pytest.raises(SystemExit):
        scripted(Scripted({}), "--limit", text)


def test_a_folder_that_cannot_be_written_is_told_before_the_first_run(
    scripted: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    arm = Scripted({(1, rate): 0.5 for rate in Scripted.rates})
    assert scripted(arm, "--seeds", "1", "--out", str(tmp_path / "file" / "runs")) == 1
    assert "cannot write" in capsys.readouterr().err
    assert arm.calls == []


def test_an_interrupted_program_goes_on_with_the_next_run(
    scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    arm = Scripted({(1, 0.1): 0.5, (1, 0.2): TrainingInterrupted("stopped after step 1 of 2")})
    assert scripted(arm, "--seeds", "1") == 130
    assert "stopped after step 1 of 2\n  → The same command goes on" in capsys.readouterr().err
    arm = Scripted({(1, 0.2): 0.6, (1, 0.3): 0.1})
    assert scripted(arm, "--seeds", "1") == 0
    assert arm.calls == [(1, 0.2), (1, 0.3)]


def test_another_first_seed_would_choose_otherwise(
    scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    script: dict[tuple[int, float], float | Exception] = {(s, r): r for s in (1, 2) for r in Scripted.rates}
    assert scripted(Scripted(script), "--seeds", "1", "2") == 0
    assert scripted(Scripted(script), "--seeds", "2") == 1
    assert "first_seed was 1, now 2" in capsys.readouterr().err


def test_an_arm_that_always_diverges_has_no_row(
    scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    arm = Scripted({(1, r): TrainingError("no") for r in Scripted.rates})
    assert scripted(arm) == 1
    assert arm.calls == [(1, r) for r in Scripted.rates]
    assert "no run succeeded" in capsys.readouterr().err


def test_equal_rates_give_the_lowest_and_failures_none() -> None:
    def run(rate: float, f1: float | None) -> dict[str, Any]:
        return {"rate": rate, "dev": None if f1 is None else {"micro": {"f1": f1}}}

    assert chosen_rate([run(0.2, 0.5), run(0.1, 0.5), run(0.3, 0.4)]) == 0.1
    assert chosen_rate([run(0.2, None)]) is None


def test_default_rates_are_those_that_were_agreed_upon() -> None:
    options = quality.parser().parse_args(["--rates", "full=1e-5,2e-5"])
    rates = {arm.name: arm.rates for arm in quality.arms(options)}
    assert rates["prefix-raw"] == rates["prefix-instructed"] == (3e-3, 1e-2, 2e-2)
    assert rates["lora-raw"] == (2e-4, 5e-4, 1e-3)
    assert rates["full-instructed"] == (1e-5, 2e-5)
    assert rates["minilm"] == rates["minilm-sources"] == (3e-5, 5e-5, 1e-4)
    assert (options.targets, options.seeds) == (["ai", "science"], [1, 2, 3])


@pytest.mark.parametrize("text", ["0.1", "prefix=a", "tagger=0.1"])
def test_rates_are_written_by_kind(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.parser().parse_args(["--rates", text])
    assert repr(text) in capsys.readouterr().err


def test_the_program_runs_as_a_file(tmp_path: Path) -> None:
    command = [sys.executable, str(quality.ROOT / "benchmarks" / "quality.py"), "--table", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 1
    assert "there are no runs in" in done.stderr
    assert "Run the benchmark first" in done.stderr
