from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests kill children that are forks of this process. Where a test before them has loaded the client of Milvus, its gRPC would
# look for threads that a fork has not, and abort the child.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"


# By default an example must not take longer than 0.2 s, nor drawing some of them 30 s: a busy machine may stand still for as
# long. Whatever else holds where the tests run (as in CI, where examples are the same each time) stays.
settings.register_profile("xdner", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("xdner")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: a tiny T5 learns for minutes, and at the end one process would wait for it."""
    items.sort(key=lambda item: item.path.stem != "test_tiny_t5")


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """Whoever starts the tests in the background has SIGINT ignored, and every child inherits that."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def nothing_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package without its domains: for tests of what a library alone shows."""
    monkeypatch.setattr("xdner.library.bundled.DATA", tmp_path / "no-data")
