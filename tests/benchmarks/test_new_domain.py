"""What ships, against nothing: the program on a tiny random model and domains that were made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import new_domain, prewarm
from xdner.library import bundled


@pytest.fixture
def shipped(data: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Domains that ship for the tiny backbone; arguments that ask for it."""
    ships = tmp_path / "package"
    made = prewarm.main([
        "--data", str(data), "--backbone", str(backbone), "--encoder", "", "--out", str(ships / "tiny" / "domains"),
        "--only", "music", "politics", "literature", "--cap", "2", "--per-source", "2", "--start-epochs", "1",
        "--dtype", "float32", "--set", "epochs=1", "length=2",
    ])  # fmt: skip
    assert made == 0
    monkeypatch.setattr(bundled, "DATA", ships)
    return [
        "--data", str(data), "--out", str(tmp_path / "runs"), "--backbone", str(backbone), "--dtype", "float32",
        "--set", "length=2", "epochs=2", "--seeds", "1", "--sentences", "2", "--limit", "3",
    ]  # fmt: skip


def files(tmp_path: Path) -> dict[str, dict[str, Any]]:
    folder = tmp_path / "runs"
    return {str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(folder.rglob("seed*.json"))}


def test_both_arms_make_the_same_steps_and_no_source_knows_the_target(
    shipped: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bands = tmp_path / "data" / "bands" / "train.txt"
    bands.parent.mkdir()
    bands.write_text("Abba\tB-band\n\nVega\tB-band\nsang\tO\n\nQueen\tB-band\n\nthey\tO\nsang\tO\n")
    asked = [*shipped, "--targets", "cooking", "bands"]
    assert new_domain.main(asked) == 0
    first = capsys.readouterr()
    assert "4 runs made, 0 were there" in first.err
    runs = files(tmp_path)
    assert set(runs) == {f"{t}/s2/{arm}/seed1.json" for t in ("cooking", "bands") for arm in ("none", "collaborative")}
    for target, sources in (("cooking", {"music", "politics", "literature"}), ("bands", {"politics", "literature"})):
        none, helped = (runs[f"{target}/s2/{arm}/seed1.json"] for arm in ("none", "collaborative"))
        assert none["steps"] == helped["steps"] > 0
        assert none["train_ids"] == helped["train_ids"]
        assert none["selection"] is None
        # Music has seen a sentence of bands.
        assert {s["name"] for s in helped["selection"]["sources"]} == sources
        assert len(helped["dev"]["sentence_counts"]) == len(helped["dev_ids"]) <= 3
    for row in ("from nothing", "with the domains that ship"):
        assert f"\n| {row} |" in first.out
    assert "- cooking 2: helped most by " in first.out
    # Nothing is made twice; the table comes from the files alone.
    assert new_domain.main(asked) == 0
    assert "0 runs made, 4 were there" in capsys.readouterr().err
    assert new_domain.main([*asked, "--table", "--backbone", "nowhere"]) == 0
    assert capsys.readouterr().out == first.out
    assert new_domain.main([*asked, "--set", "epochs=3"]) == 1
    assert "was made with other options: set was" in capsys.readouterr().err


def test_what_no_domain_ships_for_is_told(shipped: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert new_domain.main([*shipped, "--set", "length=3"]) == 1
    assert "no domains ship for" in capsys.readouterr().err
    assert new_domain.main([*shipped, "--targets", "baking"]) == 1
    assert "cooking, gardening, operations" in capsys.readouterr().err
