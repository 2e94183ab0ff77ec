"""What several files of tests begin with: LANER's, and IF-WRANER's."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdner.domain import Domain, Label
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.laner import LANER
from xdner.testing.examples import people, people_recognizer
from xdner.testing.models import save_tiny_backbone
from xdner.testing.taggers import TOWNS, quick, save_letter_encoder
from xdner.training.sources import LabelledSource


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder."""
    return save_letter_encoder(tmp_path_factory.mktemp("laner") / "encoder")


@pytest.fixture(scope="session")
def trained(letters: Path) -> LANER:
    """It knows towns by heart."""
    made = LANER.from_pretrained(letters, settings=quick("epochs=40", "evaluate_from=40"))
    made.train(Domain.from_corpus("towns", TOWNS), TOWNS, TOWNS)
    return made


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny language model."""
    return save_tiny_backbone(tmp_path_factory.mktemp("wraner") / "llm")


@pytest.fixture(scope="session")
def folk() -> LabelledSource:
    """A source for IF-WRANER."""
    return LabelledSource(Domain("folk", (Label("person"), Label("place"))), people(8))


@pytest.fixture(scope="module")
def tuned(llm: Path, folk: LabelledSource) -> IFWRANER:
    """It was tuned, and has a domain."""
    made = people_recognizer(llm)
    made.tune([folk])
    made.add_domain(Domain.from_corpus("people", people()), people())
    return made
