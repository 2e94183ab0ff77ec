"""What is left out is really left out, and what is there already is not made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation, cross_domain
from benchmarks.ablation import draw, markdown, variants
from xdner.library.entry import DomainEntry

Make = Callable[..., dict[str, Any]]
EIGHT = [[1, 1, 1]] * 8 + [[0, 1, 1]] * 2  # F1 0.8
SIX = [[1, 1, 1]] * 6 + [[0, 1, 1]] * 4  # 0.6


@pytest.fixture
def arguments(domains: Path, backbone: Path, tmp_path: Path) -> list[str]:
    return [
        "--data", str(domains), "--out", str(tmp_path / "runs"), "--raw", str(backbone), "--steps", "4",
        "--source-steps", "2", "--set", "length=2", "training.batch_size=4", "--seeds", "1", "--targets", "ai",
        "--sources", "conll2003", "music",
    ]  # fmt: skip


def runs_of(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {p.parent.name: json.loads(p.read_text()) for p in (tmp_path / "runs").rglob("seed1.json")}


def test_all_parts_and_sources_are_left_out_in_turn(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs of ``cross_domain`` are used; a second time nothing is made, and the table needs the files alone."""
    assert cross_domain.main([*arguments, "--strategies", "none", "collaborative", "--alphas", "1"]) == 0
    assert "3 runs made" in capsys.readouterr().err
    assert ablation.main(arguments) == 0
    first = capsys.readouterr()
    assert "5 runs made, 2 were there, 0 not begun" in first.err
    runs = runs_of(tmp_path)
    assert set(runs) == {
        "none", "collaborative", "collaborative-alpha0", "collaborative-alpha1", "collaborative-without-warm-up",
        "collaborative-without-options", "collaborative-of-conll2003", "collaborative-of-music",
    }  # fmt: skip
    assert {run["steps"]["made"] for run in runs.values()} == {runs["none"]["steps"]["planned"]}
    for name in ("– entity-similarity", "– music"):
        assert name not in first.out  # only in the figure
    for name in ("full method", "without entity-similarity", "without prefix-similarity", "without warm-up",
                 "without options", "without conll2003", "without music"):  # fmt: skip
        assert f"| {name} |" in first.out
    assert "none" not in [line.split("|")[1].strip() for line in first.out.splitlines() if line.startswith("|")]
    assert (tmp_path / "runs/raw-instruction/ablation.png").read_bytes().startswith(b"\x89PNG")
    # Each differs from the full method in what its name says.
    full = runs["collaborative"]["settings"]
    ends = {"alpha0": ("selector", "alpha", 0.0), "alpha1": ("selector", "alpha", 1.0),
            "without-warm-up": ("transfer", "warmup_share", 0.0), "without-options": ("codec", "options", False)}  # fmt: skip
    for name, (group, key, value) in ends.items():
        settings = runs[f"collaborative-{name}"]["settings"]
        assert settings[group][key] == value
        assert settings == full | {group: full[group] | {key: value}}
    assert [p["name"] for p in runs["collaborative-without-warm-up"]["phases"]] == ["target"]
    assert [s["name"] for s in runs["collaborative-of-music"]["selection"]["sources"]] == ["music"]
    # Without options, the sources were trained without them too, from the same δ₀.
    prepared = [DomainEntry.load(p) for p in (tmp_path / "runs/prepared").glob("music-*/")]
    assert sorted(entry.settings.codec.options for entry in prepared) == [False, True]
    assert len({entry.prefix.initial for entry in prepared}) == 1
    assert runs["collaborative-without-options"]["prepared"]["music"] != runs["collaborative"]["prepared"]["music"]
    assert ablation.main(arguments) == 0
    assert "0 runs made, 7 were there" in capsys.readouterr().err
    assert ablation.main([*arguments, "--table", "--data", "nowhere", "--raw", "nowhere"]) == 0
    assert capsys.readouterr().out == first.out


def test_a_shared_start_is_trained_without_options_too(arguments: list[str], tmp_path: Path) -> None:
    assert ablation.main([*arguments, "--without", "options", "--initial", "shared"]) == 0
    told = [json.loads(p.read_text()) for p in (tmp_path / "runs/prepared").glob("initial-*.json")]
    assert sorted(one["depends"]["settings"]["codec"]["options"] for one in told) == [False, True]
    starts = {p.prefix.initial for p in map(DomainEntry.load, (tmp_path / "runs/prepared").glob("music-*/"))}
    assert starts == {one["hash"] for one in told}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--without", "hope"], "'hope' cannot be left out of conll2003, music"),
        (["--without", "music", "--sources", "music"], "'music' cannot be left out of music"),
        (["--targets", "music"], "music is a source and cannot be a target here"),
    ],
)
def test_what_is_not_there_cannot_be_left_out(
    arguments: list[str], more: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablation.main([*arguments, *more]) == 1
    assert problem in capsys.readouterr().err


def test_the_table_has_differences_to_the_full_method(made_run: Make, tmp_path: Path) -> None:
    runs = [made_run("collaborative", s, EIGHT, target=t) for s in (1, 2) for t in ("ai", "science")]
    runs += [made_run("collaborative-alpha0", s, SIX, alpha=0.0) for s in (1, 2)]
    runs += [made_run("collaborative-without-options", 1, EIGHT, without="options")]
    runs += [made_run("none", 1, SIX), made_run("collaborative-alpha0.25", 1, SIX, alpha=0.25)]
    assert variants(runs) == {
        "full method": "collaborative",
        "without entity-similarity": "collaborative-alpha0",
        "without options": "collaborative-without-options",
    }
    text = markdown(runs)
    # Science has the full method alone: nothing to show.
    assert "| full method | **80.00** |" in text.splitlines()
    assert "| without entity-similarity | 60.00 |" in text.splitlines()
    assert "ai: over seed 1, which all rows have." in text.splitlines()
    alike = [run for run in runs if not run["without"]]
    assert "| full method | **80.00 ± 0.00** |" in markdown(alike).splitlines()
    assert "| without entity-similarity | 60.00 ± 0.00 |" in markdown(alike).splitlines()
    assert "which all rows have" not in markdown(alike)
    lines = [line for line in text.splitlines() if line.startswith("| ai | without")]
    assert lines[0].startswith("| ai | without entity-similarity | -20.00 | [-")
    assert lines[0].endswith("| 1, 2 |")
    assert lines[1] == "| ai | without options | +0.00 | [+0.00, +0.00] | 1.0000 | 1 |"
    assert "alpha0.25" not in text
    (path,) = draw(runs, tmp_path)
    assert path.name == "ablation.png"


def test_without_the_full_method_there_is_nothing_to_compare_with(
    made_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "raw-instruction" / "ai" / "all" / "none" / "seed1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(made_run("none", 1, SIX)))
    assert ablation.main(["--table", "--out", str(tmp_path)]) == 1
    assert "no target has runs of the full method and of a variant" in capsys.readouterr().err
