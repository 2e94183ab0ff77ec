"""CP-NER + DAPT, the last row of Table 1: a track of its own beside the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., int]
Files = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def adapted(backbone: Path, tmp_path: Path) -> Path:
    """The tiny backbone after some more reading, by the command's own workflow."""
    from xdner.workflows import JobOptions, adapt_backbone

    text = tmp_path / "text.txt"
    text.write_text("Ann built a robot\nNed saw Vega\n" * 20)
    folder = tmp_path / "adapted"
    adapt_backbone([text], folder, JobOptions(overrides=["epochs=1", "block=16"]), backbone=backbone)
    return folder


def test_an_adapted_backbone_has_a_track_and_stands_beside_the_other(
    program: Program, adapted: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Files
) -> None:
    asked = ("--plan", "table1", "--targets", "ai", "science", "--drop-shared")
    assert program(*asked) == 0
    assert set(files()) == {f"{t}/all/{m}/seed1.json" for t in ("ai", "science") for m in ("none", "single-conll2003")}
    capsys.readouterr()
    assert program(*asked, "--track", "adapted", "--adapted", str(adapted), "--beside", "raw") == 0
    out = capsys.readouterr().out
    assert f"Track `adapted` (adapted). It is {backbone.name}, which has gone on reading unlabelled text (" in out
    table = out.partition("## Table 1: CP-NER + DAPT")[2]
    for row in (
        "CP-NER, no source",
        "CP-NER + DAPT, no source",
        "CP-NER, source conll2003",
        "CP-NER + DAPT, source conll2003",
    ):
        assert f"\n| {row} |" in table
    assert "| mean of ai, science | CP-NER + DAPT, source conll2003 | CP-NER, source conll2003 |" in table
    runs = [json.loads(p.read_text()) for p in sorted((tmp_path / "runs/adapted-instruction").rglob("seed1.json"))]
    assert len(runs) == 4
    assert {run["adapted"]["base"] for run in runs} == {backbone.name}
    raw = next(iter(files().values()))
    assert {run["backbone"]["fingerprint"] for run in runs} != {raw["backbone"]["fingerprint"]}
    # From the files alone.
    assert program("--track", "adapted", "--beside", "raw", "--table") == 0
    assert capsys.readouterr().out == out


def test_what_cannot_stand_beside_is_refused(
    program: Program, adapted: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("--plan", "table1", "--targets", "ai", "--strategies", "none")
    for folder in ((), ("--adapted", str(backbone))):
        assert program(*one, "--track", "adapted", *folder) == 1
        err = capsys.readouterr().err
        assert "the track adapted needs a folder that `xdner adapt` made" in err
        assert "→ Make one: xdner adapt" in err
    assert program(*one, "--steps", "6") == 0
    assert program(*one, "--track", "adapted", "--adapted", str(adapted), "--beside", "raw") == 1
    assert "cannot stand beside these runs: steps is 6 there, 4 here" in capsys.readouterr().err
    assert program(*one, "--steps", "6", "--beside", "raw") == 1
    assert "these runs are not of the track adapted" in capsys.readouterr().err
