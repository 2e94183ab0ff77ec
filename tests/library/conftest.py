"""Small domains, and a program that writes them from other processes."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module ``small.py`` beside this file."""
    spec = importlib.util.spec_from_file_location("xdner_tests_small", HERE / "small.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Writers:
    """Starts writers in processes of their own (``writer.py``); what killed ones leave behind goes to ``temporary``."""

    def __init__(self, temporary: Path) -> None:
        self.program = subprocess.Popen(
            [sys.executable, str(HERE / "writer.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )  # fmt: skip

    def order(self, *orders: dict[str, Any]) -> None:
        """Start one writer an order, all at once."""
        assert self.program.stdin is not None
        self.program.stdin.write(json.dumps(orders) + "\n")
        self.program.stdin.flush()

    def ended(self) -> bool:
        """Have they all ended?"""
        return bool(select.select([self.program.stdout], [], [], 0)[0])

    def codes(self) -> list[int]:
        """Wait for them; their exit codes."""
        assert self.program.stdout is not None
        codes: list[int] = json.loads(self.program.stdout.readline())
        return codes

    def run(self, **order: Any) -> int:
        """One writer, and its exit code."""
        self.order({key: str(value) if isinstance(value, Path) else value for key, value in order.items()})
        return self.codes()[0]


@pytest.fixture(scope="session")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writers]:
    made = Writers(tmp_path_factory.mktemp("writers"))
    yield made
    assert made.program.stdin is not None
    made.program.stdin.close()
    made.program.wait(300)
