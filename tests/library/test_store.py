"""What a library keeps, what it refuses, and what it says about damage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load, save

from xdner.errors import LibraryError, PrefixFormatError, SettingsError, StorageError, UnknownDomainError, XdnerError
from xdner.library.store import Library
from xdner.library.verdict import Verdict
from xdner.workflows.reading import open_domain, select_sources

OTHER = "sha256:" + "c" * 64


@pytest.mark.parametrize("members", [1, 3, 12])
def test_what_is_added_is_read_back(small: ModuleType, tmp_path: Path, members: int) -> None:
    library = Library(tmp_path / "new" / "library")
    assert library.names() == []
    entry = small.make_entry(members=members)
    assert library.add(entry) == tmp_path / "new" / "library" / "seas"
    assert small.same(library.get("seas"), entry)
    assert list(library) == ["seas"]
    assert "seas" in library
    assert "moon" not in library
    assert 3 not in library
    library.add(small.make_entry(seed=7))
    assert small.same(library.get("seas"), small.make_entry(seed=7)), "the older one was replaced, members and all"
    library.remove("seas")
    assert library.names() == []
    with pytest.raises(UnknownDomainError, match="has no domain 'seas'"):
        library.remove("seas")


def test_the_environment_says_where_the_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDNER_LIBRARY", "~/domains")  # as in a file of settings, where no shell puts the home in
    assert Library().folder == tmp_path / "domains"
    monkeypatch.setenv("XDNER_LIBRARY", "")
    assert Library().folder == Path("xdner-library")


def test_asking_a_library_that_is_not_there_does_not_make_one(tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    assert (library.names(), library.verify(), library.load_all()) == ([], [], ({}, {}))
    assert library.initial_prefix() is None
    for ask in (library.get, library.remove, lambda name: library.export(name, tmp_path / "x.xdner")):
        with pytest.raises(UnknownDomainError, match="has no domain 'seas'"):
            ask("seas")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../library/seas", "x/../seas", ".initial", "\0", "a" * 300, "\ud800"])
def test_a_name_never_leads_elsewhere(small: ModuleType, tmp_path: Path, name: str) -> None:
    library = Library(tmp_path / "library")
    library.add(small.make_entry())
    library.set_initial(small.make_prefix(initial="sha256:start"))
    assert name not in library
    with pytest.raises(UnknownDomainError):
        library.get(name)
    with pytest.raises(UnknownDomainError):
        library.remove(name)
    assert small.same(library.get("seas"), small.make_entry())


def test_a_file_is_no_library(small: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    library = Library(tmp_path / "file")
    with pytest.raises(LibraryError, match="cannot read the library"):
        library.names()
    with pytest.raises(StorageError, match="cannot write"):
        library.add(small.make_entry())


# -- one backbone ------------------------------------------------------------------------------------------------------


def test_a_library_has_one_backbone(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.check_backbone(OTHER)
    library.add(small.make_entry())
    described = json.loads((tmp_path / "library.json").read_text())
    assert described == {
        "format": 1, "backbone": small.BACKBONE, "backbone_name": "tiny", "initial": "sha256:start",
    }  # fmt: skip
    stranger = small.make_entry("stars", backbone=OTHER, backbone_name="large")
    with pytest.raises(
        LibraryError, match=r"for the backbone tiny \(sha256:b+…\), but domain 'stars' is for large \(sha256:c+…\)"
    ) as caught:
        library.add(stranger)
    assert "another folder with --library" in str(caught.value.hint)
    with pytest.raises(LibraryError, match="but this one is for large"):
        library.check_backbone(OTHER, "large")
    library.check_backbone(small.BACKBONE)
    assert library.names() == ["seas"]
    library.remove("seas")
    with pytest.raises(LibraryError, match="is for the backbone"):
        library.add(stranger)
    assert json.loads((tmp_path / "library.json").read_text()) == described


def test_all_members_belong_to_the_backbone(small: ModuleType, tmp_path: Path) -> None:
    entry = small.make_entry(members=3)
    mixed = replace(entry, members=(entry.members[0], small.make_prefix(backbone=OTHER)))
    with pytest.raises(LibraryError, match="is for the backbone"):
        Library(tmp_path).add(mixed)
    assert Library(tmp_path).names() == []
    assert not (tmp_path / "library.json").exists()


def test_another_start_is_kept_and_noted(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())
    library.add(small.make_entry("stars", initial="sha256:elsewhere"))
    entry = small.make_entry("towns", members=2)
    library.add(replace(entry, members=(small.make_prefix(initial="sha256:elsewhere"),)))
    seas, stars, towns = library.verify()
    assert seas == Verdict("seas")
    for verdict in (stars, towns):
        assert verdict.problem is None
        assert "another initial prefix (sha256:elsewhere) than the library's (sha256:start)" in verdict.notes[0]


def test_an_older_library_is_taken_as_it_is(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    for name in ("seas", "stars"):
        small.make_entry(name).save(tmp_path / name)
    assert library.names() == ["seas", "stars"]
    assert [(v.problem, v.notes) for v in library.verify()] == [(None, ())] * 2
    with pytest.raises(LibraryError, match="is for the backbone"):
        library.add(small.make_entry("towns", backbone=OTHER))
    assert not (tmp_path / "library.json").exists()
    library.add(small.make_entry("towns", initial="sha256:new"))
    described = json.loads((tmp_path / "library.json").read_text())
    assert (described["backbone"], described["initial"]) == (small.BACKBONE, "sha256:start")


def test_an_older_library_of_several_backbones_becomes_that_of_the_next_domain(
    small: ModuleType, tmp_path: Path
) -> None:
    library = Library(tmp_path)
    small.make_entry("seas").save(tmp_path / "seas")
    small.make_entry("stars", backbone=OTHER).save(tmp_path / "stars")
    assert all(v.problem is None and "several backbones" in v.notes[0] for v in library.verify())
    library.check_backbone("sha256:any")
    small.make_prefix().save(tmp_path / ".initial")
    with pytest.raises(LibraryError, match="is for the backbone"):
        library.check_backbone("sha256:any")
    library.check_backbone(small.BACKBONE)
    library.add(small.make_entry("towns"))
    found = {v.name: v for v in library.verify()}
    assert found["seas"].problem is None
    assert "was trained on the backbone tiny (sha256:c" in str(found["stars"].problem)
    assert small.same(library.get("stars"), small.make_entry("stars", backbone=OTHER)), "it can still be read"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"format": 1, "backbone": 3}', "\xff", "[" * 100_000, '{"format": 9}']
)
def test_a_damaged_library_json_is_told_and_reading_goes_on(small: ModuleType, tmp_path: Path, text: str) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())
    (tmp_path / "library.json").write_text(text, encoding="latin-1")
    with pytest.raises(LibraryError, match=r"library\.json") as caught:
        library.add(small.make_entry("stars"))
    assert ("newer xdner" if "9" in text else "Delete") in str(caught.value.hint)
    assert small.same(library.get("seas"), small.make_entry())
    first, seas = library.verify()
    assert first.name == "library.json"
    assert first.problem
    assert seas == Verdict("seas")
    (tmp_path / "library.json").unlink()
    library.add(small.make_entry("stars"))
    assert [v.problem for v in library.verify()] == [None, None]


# -- the start -----------------------------------------------------------------------------------------------------------


def test_a_start_is_set_once(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert library.initial_prefix() is None
    start = small.make_prefix(1)
    library.set_initial(start)
    library.set_initial(start)
    found = library.initial_prefix()
    assert found is not None
    assert found.hash() == start.hash()
    with pytest.raises(LibraryError, match="has another initial prefix") as caught:
        library.set_initial(small.make_prefix(2))
    assert start.hash()[:19] in str(caught.value)
    assert library.names() == [], "a start is no domain"
    assert json.loads((tmp_path / "library.json").read_text())["initial"] == start.hash()
    library.add(small.make_entry(initial=start.hash()))
    library.add(small.make_entry("stars"))
    assert [len(v.notes) for v in library.verify()] == [0, 1]
    with pytest.raises(LibraryError, match="is for the backbone"):
        library.add(small.make_entry("towns", backbone=OTHER))


def test_a_start_is_of_the_librarys_backbone_and_in_sixteen_bits(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())
    with pytest.raises(LibraryError, match="the initial prefix is for"):
        library.set_initial(small.make_prefix(backbone=OTHER))
    fine = small.make_prefix(1)
    fine = replace(fine, keys=tuple(k + 1e-6 for k in fine.keys))
    assert fine.hash() != fine.rounded().hash()
    library.set_initial(fine)
    library.set_initial(fine)
    found = library.initial_prefix()
    assert found is not None
    assert found.hash() == fine.rounded().hash()


def test_only_the_same_start_takes_a_damaged_ones_place(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.set_initial(small.make_prefix(1))
    library.add(small.make_entry())
    (tmp_path / ".initial" / "prefix.safetensors").write_bytes(b"broken")
    with pytest.raises(PrefixFormatError, match="truncated or was altered"):
        library.initial_prefix()
    broken, seas = library.verify()
    assert (broken.name, seas.problem) == (".initial", None)
    library.add(small.make_entry("stars"))
    with pytest.raises(LibraryError, match="has another initial prefix"):
        library.set_initial(small.make_prefix(2))
    library.set_initial(small.make_prefix(1))
    found = library.initial_prefix()
    assert found is not None
    assert found.hash() == small.make_prefix(1).hash()
    assert [v.name for v in library.verify()] == ["seas", "stars"]


# -- damage ----------------------------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _notes(path: Path, **notes: object) -> None:
    _told(path, notes=json.loads(path.read_text())["notes"] | notes)


def _told(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _no_numbers(folder: Path) -> None:
    """A prefix of NaNs with the right hash: in a batch, they would reach other domains' rows."""
    path = folder / "prefix.safetensors"
    path.write_bytes(save({name: torch.full_like(t, torch.nan) for name, t in load(path.read_bytes()).items()}))
    data = path.read_bytes()
    _told(folder / "prefix.json", file={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


DAMAGE: dict[str, tuple[Callable[[Path], object], type[XdnerError], str]] = {
    "altered": (lambda p: _flip(p / "prefix.safetensors"), PrefixFormatError, "truncated or was altered"),
    "cut": (lambda p: (p / "domain.toml").write_text("name = "), XdnerError, r"domain\.toml"),
    "lost": (lambda p: (p / "prefix.json").unlink(), PrefixFormatError, "there is no"),
    "bare": (lambda p: [(p / f"prefix.{e}").unlink() for e in ("json", "safetensors")], PrefixFormatError, "there is no"),
    "unset": (lambda p: (p / "settings.toml").unlink(), SettingsError, r"settings\.toml"),
    "member": (lambda p: _flip(p / "member-2" / "prefix.safetensors"), PrefixFormatError, "member-2"),
    "fewer": (lambda p: shutil.rmtree(p / "member-2"), PrefixFormatError, "member-2"),
    "many": (lambda p: _notes(p / "prefix.json", members="many"), PrefixFormatError, "impossible number of members"),
    "millions": (lambda p: _notes(p / "prefix.json", members=10**9), PrefixFormatError, "impossible number of members"),
    "nan": (_no_numbers, PrefixFormatError, "values that are not numbers"),
    "nanny": (lambda p: _notes(p / "prefix.json", dev_f1=float("nan")), PrefixFormatError, "NaN is no number"),
    "nonsense": (lambda p: _told(p / "prefix.json", file={"sha256": 3, "bytes": 1}), PrefixFormatError, "is damaged: TypeError"),
    "odd": (lambda p: _notes(p / "prefix.json", files=["a"]), PrefixFormatError, "broken entries in 'files'"),
    "unseen": (lambda p: (p / "sentences.txt").unlink(), PrefixFormatError, r"cannot read .*sentences\.txt"),
    "unsure": (lambda p: (p / "sentences.txt").write_text("ab"), PrefixFormatError, r"sentences\.txt is truncated or"),
    "binary": (lambda p: (p / "card.md").write_bytes(b"\xff"), PrefixFormatError, r"card\.md"),
}  # fmt: skip


def test_a_damaged_domain_is_named_and_the_others_work(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    for name, (damage, _, _) in DAMAGE.items():
        damage(library.add(small.make_entry(name, members=2)))
    library.add(small.make_entry("seas"))
    sound, damaged = library.load_all()
    assert list(sound) == ["seas"]
    assert sorted(damaged) == sorted(DAMAGE)
    verdicts = {v.name: v for v in library.verify()}
    assert sorted(verdicts) == sorted([*DAMAGE, "seas"])
    assert verdicts["seas"] == Verdict("seas")
    for name, (_, kind, message) in DAMAGE.items():
        with pytest.raises(kind, match=message):
            library.get(name)
        assert verdicts[name].problem == damaged[name].message
        assert verdicts[name].hint
    for name in DAMAGE:
        library.add(small.make_entry(name)) if name < "cut" else library.remove(name)
    assert [v.problem for v in library.verify()] == [None] * 4


def test_words_that_were_edited_since_training_are_told(small: ModuleType, tmp_path: Path) -> None:
    """A domain may be read in other words on purpose; nobody should do it unawares."""
    library = Library(tmp_path)
    path = library.add(small.make_entry()) / "domain.toml"
    assert library.get("seas").altered == ()
    path.write_text(path.read_text().replace('"place0"', '"place1"'))
    assert library.get("seas").altered == ("domain.toml",)
    (verdict,) = library.verify()
    assert verdict.problem is None
    assert verdict.notes == ("domain.toml changed since training: it may be read otherwise than it was learned",)
    entry = library.get("seas")
    assert "files" not in entry.prefix.notes
    library.add(entry)
    assert library.verify() == [Verdict("seas")], "what is stored anew is stored as it is"


def test_a_domain_of_an_older_xdner_vouches_for_its_prefix_alone(small: ModuleType, tmp_path: Path) -> None:
    path = Library(tmp_path).add(small.make_entry()) / "prefix.json"
    notes = {key: note for key, note in json.loads(path.read_text())["notes"].items() if key != "files"}
    _told(path, notes=notes)
    (path.parent / "sentences.txt").unlink()
    assert Library(tmp_path).verify() == [Verdict("seas")]


def test_a_folder_with_the_name_of_another_domain_is_told(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())
    os.rename(tmp_path / "seas", tmp_path / "oceans")
    with pytest.raises(LibraryError, match="the folder oceans holds the domain 'seas'") as caught:
        library.get("oceans")
    assert "import --name" in str(caught.value.hint)
    assert [v.problem is None for v in library.verify()] == [False]
    os.rename(tmp_path / "oceans", tmp_path / "seas")
    assert library.verify() == [Verdict("seas")]


def test_nothing_that_is_no_domain_is_replaced(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    (tmp_path / "seas").mkdir()
    (tmp_path / "seas" / "domain.toml").write_text("mine")
    (tmp_path / "seas" / "train.txt").write_text("mine")
    (tmp_path / "stars").write_text("mine")
    (tmp_path / "link").symlink_to("seas")
    (tmp_path / "empty").mkdir()
    assert library.names() == []
    for name in ("seas", "stars", "link"):
        with pytest.raises(LibraryError, match="is in the way"):
            library.add(small.make_entry(name))
    for name in ("library.json", "Library.JSON"):
        with pytest.raises(LibraryError, match="a library's own file"):
            library.add(small.make_entry(name))
    assert (tmp_path / "seas" / "train.txt").read_text() == "mine"
    library.add(small.make_entry("empty"))
    assert library.names() == ["empty"]
    library.add(small.make_entry("字" * 66))  # as long as a name can be
    assert library.verify()[-1].problem is None


def test_a_linked_domain_is_read_but_only_the_link_is_removed(small: ModuleType, tmp_path: Path) -> None:
    elsewhere, library = Library(tmp_path / "elsewhere"), Library(tmp_path / "library")
    elsewhere.add(small.make_entry())
    library.folder.mkdir()
    library.path("seas").symlink_to(elsewhere.path("seas"))
    assert small.same(library.get("seas"), small.make_entry())
    with pytest.raises(LibraryError, match="is a link"):
        library.add(small.make_entry())
    library.remove("seas")
    assert library.names() == []
    assert small.same(elsewhere.get("seas"), small.make_entry())


def test_a_full_disk_leaves_the_old_domain(small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            library.add(small.make_entry(seed=2))
    assert small.same(library.get("seas"), small.make_entry())
    assert sorted(os.listdir(tmp_path)) == [".lock", "library.json", "seas"]


def test_a_backbone_that_is_no_name_is_the_manifests_fault(small: ModuleType, tmp_path: Path) -> None:
    store = Library(tmp_path / "library")
    store.add(small.make_entry("seas", backbone_source=5))
    with pytest.raises(PrefixFormatError, match="'seas': 'backbone_source' must be text, not 5"):
        open_domain("seas", library=store.folder)
    with pytest.raises(PrefixFormatError, match="'backbone_source' must be text"):
        select_sources(["seas"], ["seas"], library=store.folder)
