"""``xdner domains``: what it shows of sound and damaged domains, and how a domain travels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from xdner.cli.app import app
from xdner.domain import Domain
from xdner.geometry import PrefixGeometry, SiteShape
from xdner.library import bundled
from xdner.library.entry import DomainEntry
from xdner.library.store import Library
from xdner.prefix.prefix import Prefix
from xdner.settings import Settings
from xdner.testing import commands

GEOMETRY = PrefixGeometry((SiteShape("self.0", 2, 4),))
TRANSFER = {
    "strategy": "collaborative",
    "sources": [{"name": "seas", "weight": 0.75}, {"name": "lakes", "weight": 0.25}],
}


def entry(
    name: str, seed: int = 0, *, members: int = 1, card: str = "", backbone: str = "sha256:b", **notes: object
) -> DomainEntry:
    generator = torch.Generator().manual_seed(seed)

    def prefix() -> Prefix:
        keys, values = ((torch.randn(2, 3, 4, generator=generator),) for _ in range(2))
        told = {"backbone_name": "tiny", "domain": name, "train_sentences": 7, "dev_f1": 0.5, **notes}
        return Prefix(GEOMETRY, keys, values, backbone, "sha256:start", told).rounded()

    first, *others = (prefix() for _ in range(members))
    return DomainEntry(Domain.from_labels(name, ["sea", "[red]x"]), first, Settings(), members=tuple(others), card=card)


pytestmark = pytest.mark.usefixtures("nothing_ships")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.chdir(tmp_path)
    store = Library(tmp_path / "lib")
    store.add(entry("seas"))
    store.add(entry("rivers", 1, members=3, card="\n# Rivers of [green]Europe\n\nMore.\n", transfer=TRANSFER))
    return store


@pytest.fixture
def damaged(library: Library) -> Library:
    for name in ("lakes", "bold"):
        library.add(entry(name, 2))
    (library.path("lakes") / "prefix.safetensors").write_bytes(b"broken")
    (library.path("bold") / "domain.toml").write_text('name = "bold"\nlabels = ["[red]"]\n\x1b')
    return library


def run(*args: str, library: Library) -> Result:
    return commands.run("domains", *args, "--library", str(library.folder))


def done(*args: str, library: Library) -> Result:
    result = run(*args, library=library)
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    return result


def refused(*args: str, library: Library) -> str:
    return commands.refused("domains", *args, "--library", str(library.folder))


def test_the_list_has_the_damaged_ones_too(damaged: Library) -> None:
    shown = done("list", library=damaged).stdout
    assert "seas" in shown
    lines = [line for line in shown.splitlines() if line.startswith("✗")]
    assert len(lines) == 2
    assert "✗ lakes is damaged: " in lines[1]
    assert "truncated or was altered" in lines[1]
    assert "\x1b" not in shown
    listed = json.loads(done("list", "--json", library=damaged).stdout)
    assert [d["name"] for d in listed] == ["bold", "lakes", "rivers", "seas"]
    assert [sorted(d) for d in listed if "error" in d] == [["error", "name"]] * 2
    assert "truncated" in listed[1]["error"]


def test_a_shipped_domain_that_cannot_be_reached_is_not_listed(
    damaged: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "DATA", tmp_path / "data")
    shipped = Library(tmp_path / "data" / "tiny" / "domains")
    for name in ("lakes", "music"):
        shipped.add(entry(name))
    listed = json.loads(done("list", "--json", library=damaged).stdout)
    assert [d["name"] for d in listed if d.get("shipped")] == ["music"]
    assert "truncated" in refused("show", "lakes", library=damaged)


def test_facts_tell_members_strategy_and_sources_where_there_are_any(library: Library) -> None:
    rivers, seas = json.loads(done("list", "--json", library=library).stdout)
    assert rivers["strategy"] == "collaborative"
    assert rivers["sources"] == TRANSFER["sources"]
    assert (rivers["members"], seas["members"]) == (3, 1)
    assert rivers["bytes"] == 3 * seas["bytes"] == 3 * 2 * 2 * 2 * 3 * 4
    assert "strategy" not in seas
    assert "sources" not in seas
    shown = done("show", "rivers", library=library).stdout
    assert "Rivers of [green]Europe" in shown.splitlines()[0]
    assert "More." in shown.splitlines()
    assert "[red]x" in shown
    assert "strategy  collaborative" in shown
    assert "sources  seas 0.750, lakes 0.250" in shown
    assert "strategy" not in done("show", "seas", library=library).stdout
    described = json.loads(done("show", "rivers", "--json", library=library).stdout)
    assert described["card"].startswith("\n# Rivers")
    assert described["domain"]["name"] == "rivers"


@pytest.mark.parametrize(
    "transfer", [None, "x", {}, {"strategy": "chain"}, {"strategy": "chain", "sources": [{"name": "a"}, 3]}]
)
def test_odd_notes_about_transfer_are_no_bug(library: Library, transfer: object) -> None:
    library.add(entry("odd", transfer=transfer))
    done("list", library=library)
    done("list", "--json", library=library)
    shown = done("show", "odd", library=library).stdout
    assert ("strategy" in shown) == isinstance(transfer, dict)


def test_an_empty_library_is_no_error(tmp_path: Path) -> None:
    empty = Library(tmp_path / "none")
    for what in ("list", "verify"):
        result = done(what, library=empty)
        assert result.stdout == ""
        assert "no domains in" in result.stderr
        assert json.loads(done(what, "--json", library=empty).stdout) == []
    assert not empty.folder.exists()


def test_verify_is_content_with_a_sound_library(library: Library) -> None:
    result = done("verify", library=library)
    assert result.stdout.count("in order") == 2
    assert result.stderr == ""
    assert json.loads(done("verify", "--json", library=library).stdout) == [
        {"name": name, "problem": None, "hint": None, "notes": []} for name in ("rivers", "seas")
    ]


def test_verify_names_what_is_damaged_and_fails(damaged: Library) -> None:
    start = entry("x", 5).prefix
    damaged.set_initial(start)
    result = run("verify", library=damaged)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "damaged: bold, lakes" in result.stderr
    told = " ".join(result.stdout.replace("│", " ").split())
    assert "truncated" in told
    assert "train again" in told
    assert "another initial prefix" in told
    found = run("verify", "--json", library=damaged)
    assert found.exit_code == 1
    by_name = {v["name"]: v for v in json.loads(found.stdout)}
    assert by_name["seas"]["problem"] is None
    assert len(by_name["seas"]["notes"]) == 1
    assert by_name["lakes"]["hint"]


def test_a_domain_travels_as_a_file(library: Library, tmp_path: Path) -> None:
    result = done("export", "rivers", library=library)
    assert result.stdout == ""
    assert "wrote rivers.xdner" in result.stderr
    other = Library(tmp_path / "other")
    result = done("import", "rivers.xdner", library=other)
    assert result.stdout == ""
    assert "rivers is in" in result.stderr
    assert [p.hash() for p in other.get("rivers").prefixes] == [p.hash() for p in library.get("rivers").prefixes]
    assert "has a domain 'rivers' already" in refused("import", "rivers.xdner", library=other)
    done("import", "rivers.xdner", "--name", "streams", library=other)
    done("import", "rivers.xdner", "--replace", library=other)
    assert other.names() == ["rivers", "streams"]
    assert "not one word" in refused("import", "rivers.xdner", "--name", "a/b", library=other)


def test_an_export_never_takes_a_files_place_unasked(library: Library, tmp_path: Path) -> None:
    out = tmp_path / "mine.zip"
    out.write_text("mine")
    assert "Replace it with --force" in refused("export", "seas", "--out", str(out), library=library)
    assert out.read_text() == "mine"
    done("export", "seas", "--out", str(out), "--force", library=library)
    assert out.read_bytes().startswith(b"PK")
    assert "no domain 'moon'" in refused("export", "moon", library=library)
    assert not (tmp_path / "moon.xdner").exists()


def test_a_shipped_domain_can_be_exported_and_not_removed(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "DATA", tmp_path / "data")
    Library(tmp_path / "data" / "tiny" / "domains").add(entry("music", backbone="sha256:other"))
    done("export", "music", library=library)
    assert "is for the backbone" in refused("import", "music.xdner", library=library), "of another backbone than these"
    done("import", "music.xdner", library=Library(tmp_path / "new"))
    assert "'music' ships with xdner" in refused("remove", "music", "--yes", library=library)


def test_what_cannot_be_imported_gets_one_clear_error(library: Library, tmp_path: Path) -> None:
    assert "there is no file" in refused("import", "nothing.xdner", library=library)
    (tmp_path / "text.xdner").write_text("hello")
    assert "not a zip archive" in refused("import", "text.xdner", library=library)
    other = Library(tmp_path / "other")
    other.add(entry("lakes", backbone="sha256:other"))
    other.export("lakes", tmp_path / "lakes.xdner")
    assert "is for the backbone tiny (sha256:b), but domain 'lakes'" in refused(
        "import", "lakes.xdner", library=library
    )
    assert library.names() == ["rivers", "seas"]


def test_a_damaged_domain_can_be_removed(damaged: Library) -> None:
    assert "truncated" in refused("show", "lakes", library=damaged)
    assert "truncated" in refused("export", "lakes", library=damaged)
    asked = CliRunner().invoke(app, ["domains", "remove", "lakes", "--library", str(damaged.folder)], input="n\n")
    assert asked.exit_code == 1
    assert "lakes" in damaged
    assert "removed lakes" in done("remove", "lakes", "--yes", library=damaged).stderr
    assert "lakes" not in damaged
    assert "no domain 'lakes'" in refused("remove", "lakes", library=damaged)
