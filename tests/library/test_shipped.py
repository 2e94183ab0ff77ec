"""The domains that ship: sound, small, honest, and all from one start."""

from __future__ import annotations

import re

import pytest

from xdner.library.bundled import bundled_initial, bundled_libraries
from xdner.library.kinds import with_prefix
from xdner.library.store import Library

LIBRARIES = bundled_libraries()
DOMAINS = [(library, name) for library in LIBRARIES for name in library]
ids = [f"{library.folder.parent.name}/{name}" for library, name in DOMAINS]


def test_there_are_some_and_nothing_is_damaged() -> None:
    assert DOMAINS
    for library in LIBRARIES:
        good, damaged = library.load_all()
        assert sorted(good) == library.names()
        assert damaged == {}


@pytest.mark.parametrize("library", LIBRARIES, ids=[library.folder.parent.name for library in LIBRARIES])
def test_every_backbone_that_ships_has_a_shared_start(library: Library) -> None:
    initial = library.initial_prefix()
    assert initial is not None
    assert initial.notes["backbone_name"] == library.folder.parent.name
    assert {source["domain"] for source in initial.notes["sources"]} >= {"politics", "literature", "music"}
    assert all(0 < source["sentences"] <= 1000 for source in initial.notes["sources"])
    assert library.initial_hash() == initial.hash()
    found = bundled_initial(initial.backbone, initial.length)
    assert found is not None
    assert found.hash() == initial.hash()


@pytest.mark.parametrize(("library", "name"), DOMAINS, ids=ids)
def test_a_domain_is_small_and_from_the_shared_start(library: Library, name: str) -> None:
    entry, initial = with_prefix(library.get(name)), library.initial_prefix()
    assert initial is not None
    assert entry.prefix.initial == initial.hash()
    assert entry.prefix.backbone == initial.backbone
    assert sum(path.stat().st_size for path in library.path(name).rglob("*") if path.is_file()) < 1_000_000
    assert entry.seen, "experiments refuse sources that share sentences with their target"


@pytest.mark.parametrize(("library", "name"), DOMAINS, ids=ids)
def test_a_card_tells_the_score_and_a_weak_domain_says_so_first(library: Library, name: str) -> None:
    entry = with_prefix(library.get(name))
    told = re.search(r"micro-F1 on dev (0\.\d+)", entry.card)
    assert told is not None
    assert float(told[1]) == pytest.approx(entry.prefix.notes["dev_f1"], abs=5e-4)
    assert entry.card.startswith("**Weak") == (float(told[1]) < 0.40)
    for part in ("Data:", "Backbone:", "seed", "Command:"):
        assert part in entry.card
