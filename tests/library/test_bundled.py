"""Domains that ship: found by name behind the user's own, and never written to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from xdner.cli.app import app
from xdner.domain import Domain
from xdner.errors import UnknownDomainError
from xdner.library import bundled
from xdner.library.entry import DomainEntry
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.store import Library
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import find_template


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: ModuleType) -> Library:
    monkeypatch.setattr(bundled, "DATA", tmp_path / "data")
    library = Library(tmp_path / "data" / "tiny" / "domains")
    for seed, name in enumerate(("music", "news")):
        library.add(small.make_entry(name, seed=seed))
    return library


def test_the_users_own_domain_goes_first(tmp_path: Path, shipped: Library, small: ModuleType) -> None:
    own = Library(tmp_path / "own")
    own.add(small.make_entry("music", seed=9))
    assert bundled.find_entry("music", own).prefix.hash() == own.get("music").prefix.hash()
    assert bundled.find_entry("news", own).prefix.hash() == shipped.get("news").prefix.hash()
    with pytest.raises(UnknownDomainError, match="has no domain 'moon'") as caught:
        bundled.find_entry("moon", own)
    assert "Shipped with xdner: music, news" in str(caught.value.hint)


def test_all_known_domains_of_a_backbone(tmp_path: Path, shipped: Library, small: ModuleType) -> None:
    own = Library(tmp_path / "own")
    own.add(small.make_entry("music", seed=9))
    own.add(small.make_entry("stars", seed=8))
    (own.path("stars") / "prefix.safetensors").write_bytes(b"broken")
    prefix = own.get("music").prefix
    fingerprint, initial = prefix.backbone, prefix.initial
    sound, damaged = bundled.known_entries(own, fingerprint, initial, without=["nobody"])
    assert sorted(sound) == ["music", "news"]
    assert sound["music"].prefix.hash() == own.get("music").prefix.hash()
    assert sorted(damaged) == ["stars"]
    assert "is damaged and was left out" in damaged["stars"]
    assert bundled.known_entries(own, fingerprint, initial, without=["music", "stars"])[0].keys() == {"news"}
    alone = bundled.known_entries(None, fingerprint, initial)[0]
    assert {n: e.prefix.hash() for n, e in alone.items()} == {n: shipped.get(n).prefix.hash() for n in shipped.names()}
    assert bundled.known_entries(own, "sha256:another", initial)[0] == {}
    assert bundled.known_entries(own, fingerprint, "sha256:another")[0] == {}, "they cannot be combined"
    assert bundled.known_entries(own, fingerprint, "sha256:another")[1]["music"].startswith(
        "started from another initial"
    )
    (own.path("music") / "prefix.safetensors").write_bytes(b"broken")
    sound, damaged = bundled.known_entries(own, fingerprint, initial)
    assert (sorted(sound), sorted(damaged)) == (["news"], ["music", "stars"]), "the shipped music is another domain"


def test_what_the_library_has_under_a_name_is_not_replaced_by_what_ships(
    tmp_path: Path, shipped: Library, small: ModuleType
) -> None:
    own = Library(tmp_path / "own")
    entry = shipped.get("music")
    assert isinstance(entry, DomainEntry)
    fingerprint, initial = entry.prefix.backbone, entry.prefix.initial
    own.add(replace(entry, prefix=replace(entry.prefix, initial="sha256:another")))
    examples = ExamplesEntry(
        Domain.from_labels("news", ["person"]), WranerSettings.build(), find_template("dictionary"), (),
        {"kind": "endpoint", "name": "m", "url": "http://127.0.0.1:9/v1"},
    )  # fmt: skip
    own.add(examples)
    own.add(replace(examples, domain=Domain.from_labels("towns", ["person"])))
    sound, left_out = bundled.known_entries(own, fingerprint, initial)
    assert sound == {}
    assert left_out["music"] == "started from another initial prefix and was left out"
    assert "the shipped one of that name was left out" in left_out["news"]
    assert sorted(left_out) == ["music", "news"], "nothing of the name of towns ships"
    assert bundled.known_entries(own, fingerprint, initial, without=["news", "music"]) == ({}, {})
    # What ships for another backbone takes nothing away.
    prefix = replace(entry.prefix, backbone="sha256:another")
    Library(tmp_path / "data" / "atiny" / "domains").add(replace(entry, prefix=prefix))
    assert sorted(bundled.known_entries(None, fingerprint, initial)[0]) == ["music", "news"]


def test_the_start_that_ships_is_for_its_backbone_and_length(shipped: Library, small: ModuleType) -> None:
    prefix = small.make_prefix(5)
    assert bundled.bundled_initial(prefix.backbone, prefix.length) is None
    shipped.set_initial(prefix)
    found = bundled.bundled_initial(prefix.backbone, prefix.length)
    assert found is not None
    assert found.hash() == prefix.rounded().hash()
    assert bundled.bundled_initial(prefix.backbone, prefix.length + 1) is None
    assert bundled.bundled_initial("sha256:another", prefix.length) is None


def test_the_command_line_lists_and_shows_them(tmp_path: Path, shipped: Library) -> None:
    args = ["--library", str(tmp_path / "own")]
    listed = CliRunner().invoke(app, ["domains", "list", *args])
    assert "shipped with xdner" in listed.stdout
    assert "no domains in" in listed.stderr
    told = json.loads(CliRunner().invoke(app, ["domains", "list", "--json", *args]).stdout)
    assert [(d["name"], d["shipped"]) for d in told] == [("music", True), ("news", True)]
    shown = CliRunner().invoke(app, ["domains", "show", "music", *args])
    assert shown.exit_code == 0, shown.stderr
    assert CliRunner().invoke(app, ["domains", "remove", "music", "--yes", *args]).exit_code == 1
    assert "music" in shipped
