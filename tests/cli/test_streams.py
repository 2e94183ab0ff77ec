"""Where the output goes: a pipe that closes, an encoding that lacks characters, a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "xdner", "inspect"]
LABELLED = "Björk\tB-person\nsang\tO\n"


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    (tmp_path / "train.txt").write_text(LABELLED, encoding="utf-8")
    return str(tmp_path / "train.txt")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_failure(corpus: str, more: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*COMMAND, corpus, *more], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_encoding_lacks_is_replaced(corpus: str, tmp_path: Path) -> None:
    where = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    (tmp_path / "Málaga.txt").write_text(LABELLED, encoding="utf-8")
    done = subprocess.run([*COMMAND, str(tmp_path / "Málaga.txt")], env=where, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"M?laga.txt" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_disk_is_told_as_such(corpus: str, more: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, corpus, *more], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "error: cannot write: No space left on device" in done.stderr
    assert "bug" not in done.stderr
