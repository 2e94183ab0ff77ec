"""Runs at once: processes and Ray give what one process gives, and what goes wrong there comes back."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.transfer import engines
from benchmarks.transfer.options import Options
from benchmarks.transfer.specs import Spec
from benchmarks.transfer.tasks import Task
from xdner.errors import TrainingInterrupted, XdnerError

Program = Callable[..., int]
Files = Callable[..., dict[str, dict[str, Any]]]


def test_processes_give_what_one_process_gives(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    monkeypatch.setattr(engines, "share_of_cores", lambda workers: 1)
    asked = ("--targets", "ai", "--strategies", "none", "collaborative")
    assert program(*asked) == 0
    alone = files()
    assert program(*asked, "--workers", "2", "--out", str(tmp_path / "other" / "runs")) == 0
    several = files(tmp_path / "other")
    assert "2 runs made, 0 were there, 0 not begun" in capsys.readouterr().err
    assert list(alone) == list(several)
    for name, run in alone.items():
        other = several[name]
        for key in ("predicted", "dev", "selection", "steps", "settings", "data", "asked", "backbone"):
            assert other[key] == run[key], (name, key)
        assert [p["loss"] for p in other["phases"]] == [p["loss"] for p in run["phases"]]


def test_what_goes_wrong_in_a_worker_comes_back_as_it_was(
    options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("run", Spec("ai", None, "none", (), 1))
    lost = engines.attempt(options("--raw", "nowhere/model"), task, 1)
    with pytest.raises(XdnerError, match="nowhere/model"):
        engines._value(json.loads(json.dumps(lost)))
    raised: list[Exception] = [TrainingInterrupted("stopped", hint="Again."), ZeroDivisionError("a bug")]

    def fails(*arguments: object) -> None:
        raise raised.pop(0)

    monkeypatch.setattr(engines, "perform", fails)
    stopped, bug = (engines.attempt(options(), task, 1) for _ in range(2))
    with pytest.raises(TrainingInterrupted, match=r"stopped\n  → Again\."):
        engines._value(stopped)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug"):
        engines._value(bug)


class FakeRay(types.ModuleType):
    """What this program needs of Ray, done at once."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[str] = []

    def init(self, **how: Any) -> None:
        self.calls.append(f"init {how.get('num_cpus')}")
        assert str(engines.ROOT) in how["runtime_env"]["env_vars"]["PYTHONPATH"].split(os.pathsep)

    def remote(self, **how: Any) -> Any:
        self.asked = how

        def wrap(function: Any) -> Any:
            return types.SimpleNamespace(remote=lambda *arguments: (function, arguments))

        return wrap

    def wait(self, references: list[Any], **how: Any) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        function, arguments = reference
        return json.loads(json.dumps(function(*arguments)))

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_ray_is_asked_for_only_where_it_is_wanted(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    asked = ("--targets", "ai", "--strategies", "none", "--engine", "ray", "--workers", "2")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert program(*asked) == 1
    err = capsys.readouterr().err
    assert "the engine 'ray' needs the package ray" in err
    assert "→ pip install 'xdner[ray]'" in err
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert program(*asked) == 0
    assert ray.calls == ["init 2", "shutdown"]
    assert ray.asked == {"num_cpus": 1, "max_retries": 0}
    assert list(files()) == ["ai/all/none/seed1.json"]


def test_a_cluster_that_is_there_is_used_as_it_is(
    options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    made = engines.Ray(replace(options(), device="cuda"), 4)
    assert made.go([], lambda: True, lambda task, value: None) == 0
    made.close()
    assert ray.calls == ["init None", "shutdown"], "its number of processors is its own"
    assert ray.asked == {"num_cpus": 1, "max_retries": 0, "num_gpus": 1}


def test_a_worker_that_dies_is_told(options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that closes while its task is under way."""
    made = engines.Processes(options(), 1)
    ours, theirs = engines.multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(XdnerError, match="a worker died while it worked on none on ai, seed 1"):
        made._receive(ours, Task("run", Spec("ai", None, "none", (), 1)))
