"""What several tests of commands start from; nothing changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdner.testing.models import save_tiny_backbone
from xdner.testing.places import write_places


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random language model."""
    return str(save_tiny_backbone(tmp_path_factory.mktemp("tiny") / "backbone"))


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the files of four tiny domains: towns, seas, stars and rivers."""
    return write_places(tmp_path_factory.mktemp("places"))
