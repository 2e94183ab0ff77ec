"""What the tests of corpora share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def put(tmp_path):
    """Write a file of the given text or bytes and return its path."""

    def write(content: str | bytes, name: str = "file.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
