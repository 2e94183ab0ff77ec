"""What several tests of commands start from; nothing changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.examples import SHORT
from xdner.testing.models import save_tiny_backbone
from xdner.testing.places import PLACES, write_places


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random language model."""
    return str(save_tiny_backbone(tmp_path_factory.mktemp("tiny") / "backbone"))


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the files of four tiny domains: towns, seas, stars and rivers."""
    return write_places(tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what IF-WRANER's commands need: sentences, types, a short template, a tiny model and a tiny encoder."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "towns.txt").write_text(PLACES["towns"])
    (folder / "dev.txt").write_text("Eve\tB-person\nin\tO\nOslo\tB-city\n")
    (folder / "news.txt").write_text("Bob\tB-person\nof\tO\nNATO\tB-club\n\nAnn\tB-person\n\nEve\tB-person\nleft\tO\n")
    (folder / "seas.toml").write_text('name = "x"\n[[labels]]\nname = "sea"\ndescription = "salt water"\n')
    (folder / "short.toml").write_text(SHORT)
    save_tiny_backbone(folder / "llm")
    save_tiny_encoder(folder / "encoder")
    return folder
