"""What the tests of the programs about transfer share: a tiny grid, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cross_domain
from benchmarks.transfer.options import Options, options_of

SETTINGS = ("length=2", "training.batch_size=2", "learning_rate=0.05")


@pytest.fixture
def arguments(domains: Path, backbone: Path, tmp_path: Path) -> list[str]:
    return [
        "--data", str(domains), "--out", str(tmp_path / "runs"), "--raw", str(backbone), "--set", *SETTINGS,
        "--steps", "4", "--source-steps", "2", "--dev-cap", "8", "--conll-cap", "4", "--seeds", "1", "--k", "2",
        "--sources", "conll2003", "literature",
    ]  # fmt: skip


@pytest.fixture
def program(arguments: list[str]) -> Callable[..., int]:
    return lambda *more: cross_domain.main([*arguments, *more])


@pytest.fixture
def options(arguments: list[str]) -> Callable[..., Options]:
    return lambda *more: options_of(cross_domain.parser().parse_args([*arguments, *more]))


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """What the runs of the raw track wrote, by name."""

    def read(place: Path = tmp_path) -> dict[str, dict[str, Any]]:
        folder = place / "runs" / "raw-instruction"
        return {str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(folder.rglob("seed*.json"))}

    return read
