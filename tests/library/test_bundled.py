"""Domains that ship: found by name behind the user's own, and never written to."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from xdner.cli.app import app
from xdner.errors import UnknownDomainError
from xdner.library import bundled
from xdner.library.store import Library


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
