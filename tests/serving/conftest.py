"""A library with domains of all three recognizers; tests that change one copy it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from xdner.domain import Domain
from xdner.library.store import Library
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.laner import LANER
from xdner.testing.examples import people, people_recognizer
from xdner.testing.known_domains import DATA, settings
from xdner.testing.models import save_tiny_backbone
from xdner.testing.taggers import TOWNS, quick, save_letter_encoder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of CP-NER ``people`` and ``seas``, of LANER ``towns`` and ``villages``, of IF-WRANER ``guests``."""
    folder = tmp_path_factory.mktemp("serving")
    library = Library(folder / "library")
    recognizer = CPNER.from_pretrained(save_tiny_backbone(folder / "backbone"), settings=settings("epochs=2"))
    for name in ("people", "seas"):
        library.add(recognizer.train(*DATA[name]).entry)
    tagger = LANER.from_pretrained(save_letter_encoder(folder / "encoder"), settings=quick())
    for name in ("towns", "villages"):
        library.add(tagger.train(Domain.from_corpus(name, TOWNS), TOWNS).entry)
    shown = people_recognizer(folder / "backbone", "retrieval.method=bm25")
    library.add(shown.add_domain(Domain.from_corpus("guests", people(4)), people(4)))
    return library.folder


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "library"))
