"""A domain as one file: it comes back bit for bit, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from xdner.errors import DomainError, LibraryError, PrefixFormatError, StorageError, UnknownDomainError
from xdner.library import archive
from xdner.library.store import Library

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may be left in the folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert os.listdir(folder) == []


@pytest.fixture
def source(small: ModuleType, tmp_path: Path) -> Library:
    library = Library(tmp_path / "from")
    folder = library.add(small.make_entry(members=2))
    (folder / "sample.json").write_text("{}\n")
    return library


@pytest.fixture
def exported(source: Library, tmp_path: Path) -> Path:
    return source.export("seas", tmp_path / "seas.xdner")


@pytest.fixture
def target(tmp_path: Path) -> Library:
    return Library(tmp_path / "to")


def contents(path: Path) -> Files:
    with zipfile.ZipFile(path) as old:
        return {name: old.read(name) for name in old.namelist()}


def write(path: Path, files: Files, **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as new:  # type: ignore[arg-type]
        for name, data in files.items():
            new.writestr(zipfile.ZipInfo(name), data, new.compression)
    return path


def listed(files: Files) -> Files:
    """With true hashes in ``export.json``, as a liar would write them."""
    told = json.loads(files["export.json"])
    told["files"] = {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n != "export.json"}
    return files | {"export.json": json.dumps(told).encode()}


def tree(folder: Path) -> Files:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(library: Library, file: Path, match: str) -> None:
    """Nothing may be left of a file that is refused."""
    before = tree(library.folder)
    with pytest.raises(LibraryError, match=match) as caught:
        library.import_(file)
    assert caught.value.hint
    after = tree(library.folder)
    after.pop(".lock", None)
    before.pop(".lock", None)
    assert after == before


# -- what goes well ------------------------------------------------------------------------------------------------------


def test_a_domain_travels_as_one_file(small: ModuleType, source: Library, exported: Path, target: Library) -> None:
    assert target.import_(exported) == "seas"
    assert small.same(target.get("seas"), small.make_entry(members=2))
    assert tree(target.path("seas")) == tree(source.path("seas"))
    assert target.verify()[0].problem is None
    assert json.loads((target.folder / "library.json").read_text())["backbone"] == small.BACKBONE
    assert sorted(os.listdir(target.folder)) == [".lock", "library.json", "seas"]


def test_the_start_travels_along_and_is_taken_over_where_there_is_none(
    small: ModuleType, tmp_path: Path, target: Library
) -> None:
    start = small.make_prefix(5)
    old = Library(tmp_path / "old")
    old.set_initial(start)
    entry = small.make_entry()
    old.add(replace(entry, prefix=replace(entry.prefix, initial=start.hash())))
    file = old.export("seas", tmp_path / "seas.xdner")
    target.import_(file)
    assert tree(target.path("seas")) == tree(old.path("seas")), "only the domain's own files are in its folder"
    found = target.initial_prefix()
    assert found is not None
    assert found.hash() == start.hash() == target.initial_hash()
    assert target.export("seas", tmp_path / "again.xdner").read_bytes() == file.read_bytes()
    # A library with a start of its own keeps it.
    other = Library(tmp_path / "other")
    other.set_initial(small.make_prefix(6))
    other.import_(file)
    kept = other.initial_prefix()
    assert kept is not None
    assert kept.hash() == small.make_prefix(6).hash()
    assert "cannot be combined" in other.verify()[0].notes[0]


@pytest.mark.parametrize(
    ("member", "problem"), [("prefix.safetensors", "altered"), ("prefix.json", "expected|not JSON|damaged|manifest")]
)
def test_a_start_that_is_damaged_or_another_ones_is_refused(
    small: ModuleType, tmp_path: Path, target: Library, member: str, problem: str
) -> None:
    start, entry = small.make_prefix(5), small.make_entry()
    old = Library(tmp_path / "old")
    old.set_initial(start)
    old.add(replace(entry, prefix=replace(entry.prefix, initial=start.hash())))
    files = contents(old.export("seas", tmp_path / "seas.xdner"))
    broken = listed(files | {f"initial/{member}": b"{}"})
    refused(target, write(tmp_path / "broken.xdner", broken), problem)
    small.make_prefix(6).save(tmp_path / "another")
    swapped = {f"initial/{p.name}": p.read_bytes() for p in (tmp_path / "another").iterdir()}
    refused(
        target, write(tmp_path / "swapped.xdner", listed(files | swapped)), "not the one that the domain started from"
    )


def test_equal_domains_give_equal_files(source: Library, exported: Path, target: Library, tmp_path: Path) -> None:
    target.import_(exported)
    os.utime(target.path("seas") / "domain.toml", (1e9, 1e9))
    assert target.export("seas", tmp_path / "again.xdner").read_bytes() == exported.read_bytes()
    with zipfile.ZipFile(exported) as archive_:
        assert archive_.namelist() == sorted(archive_.namelist())
        listing = json.loads(archive_.read("export.json"))
    assert listing["format"] == 1
    assert sorted(listing) == ["files", "format", "xdner"]


def test_any_zip_program_may_have_packed_it(small: ModuleType, exported: Path, target: Library, tmp_path: Path) -> None:
    files = dict(reversed(contents(exported).items()))
    target.import_(write(tmp_path / "deflated.xdner", files, compression=zipfile.ZIP_DEFLATED))
    assert small.same(target.get("seas"), small.make_entry(members=2))


def test_a_domain_can_be_imported_under_another_name(
    small: ModuleType, source: Library, exported: Path, target: Library
) -> None:
    assert target.import_(exported, name="oceans") == "oceans"
    entry, old = target.get("oceans"), source.get("seas")
    assert entry.domain == replace(old.domain, name="oceans")
    assert [p.hash() for p in entry.prefixes] == [p.hash() for p in old.prefixes]
    assert [p.notes["domain"] for p in entry.prefixes] == ["oceans", "oceans"]
    assert (target.path("oceans") / "sample.json").exists()
    assert (target.verify()[0].problem, target.verify()[0].notes) == (None, ())
    with pytest.raises(DomainError, match="not one word"):
        target.import_(exported, name="../oceans")
    assert target.names() == ["oceans"]


def test_a_file_in_the_place_of_an_index_is_left_out(exported: Path, target: Library, tmp_path: Path) -> None:
    target.import_(write(tmp_path / "odd.xdner", listed(contents(exported) | {"index": b"hello"})))
    assert not (target.path("seas") / "index").exists()


def test_a_domain_of_that_name_is_kept_unless_it_may_be_replaced(
    small: ModuleType, exported: Path, target: Library
) -> None:
    old = small.make_entry(seed=9, members=3)
    target.add(old)
    refused(target, exported, "has a domain 'seas' already")
    assert small.same(target.get("seas"), old)
    target.import_(exported, name="oceans")
    target.import_(exported, replace=True)
    assert small.same(target.get("seas"), small.make_entry(members=2))
    assert not (target.path("seas") / "member-3").exists()


def test_a_domain_of_another_backbone_is_refused(small: ModuleType, exported: Path, target: Library) -> None:
    target.add(small.make_entry("stars", backbone="sha256:other"))
    refused(target, exported, r"is for the backbone tiny \(sha256:other\), but domain 'seas' is for tiny")
    assert target.names() == ["stars"]


def test_a_full_disk_is_told_as_such(exported: Path, target: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            target.import_(exported)
    assert os.listdir(target.folder) == [".lock"]


def test_a_domain_that_could_not_be_imported_is_not_exported(
    small: ModuleType, source: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "x.xdner", source.path("seas")
    with pytest.raises(UnknownDomainError):
        source.export("moon", file)
    (folder / ".sample.json.0123456789ab.part").write_text("half")
    source.export("seas", file)
    assert not any(n.endswith(".part") for n in contents(file))
    file.unlink()
    for name in ("export.json", "a\\b", "a\nb"):
        (folder / name).write_text("")
        with pytest.raises(LibraryError, match="cannot be part of an export"):
            source.export("seas", file)
        (folder / name).unlink()
    (folder / "more").symlink_to(tmp_path)
    with pytest.raises(LibraryError, match="cannot be part of an export"):
        source.export("seas", file)
    (folder / "more").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(archive, "LIMIT_FILES", 4)
        with pytest.raises(LibraryError, match="too large for an export"):
            source.export("seas", file)
    (folder / "prefix.safetensors").write_bytes(b"broken")
    with pytest.raises(PrefixFormatError, match="truncated or was altered"):
        source.export("seas", file)
    assert not file.exists()
    source.add(small.make_entry())
    with pytest.raises(StorageError, match="cannot write"):
        source.export("seas", tmp_path)


# -- what does not ---------------------------------------------------------------------------------------------------------


def _with(name: str) -> Callable[[Files], Files]:
    return lambda files: listed(files | {name: b"evil"})


def _told(**changes: object) -> Callable[[Files], Files]:
    return lambda files: files | {"export.json": json.dumps(json.loads(files["export.json"]) | changes).encode()}


def _without(name: str) -> Callable[[Files], Files]:
    return lambda files: {n: d for n, d in files.items() if n != name}


def _members(value: object) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        manifest = json.loads(files["prefix.json"])
        manifest["notes"]["members"] = value
        return listed(files | {"prefix.json": json.dumps(manifest).encode()})

    return change


CHANGES: dict[str, tuple[Callable[[Files], Files], str]] = {
    "altered": (lambda f: f | {"domain.toml": f["domain.toml"] + b"\n"}, r"'domain\.toml' was altered"),
    "missing": (_without("settings.toml"), r"it lacks 'settings\.toml'"),
    "added": (lambda f: f | {"more.txt": b"x"}, r"it holds 'more\.txt' besides"),
    "a folder": (lambda f: f | {"member-2/": b""}, "is a folder itself"),
    "no listing": (_without("export.json"), r"has no export\.json"),
    "broken listing": (lambda f: f | {"export.json": b"{"}, r"export\.json: "),
    "deep listing": (lambda f: f | {"export.json": b"[" * 100_000}, r"export\.json: "),
    "binary listing": (lambda f: f | {"export.json": b"\xff"}, r"export\.json: "),
    "a list": (lambda f: f | {"export.json": b"[]"}, "no format and no list of files"),
    "no hashes": (_told(files={"domain.toml": 3}), "no format and no list of files"),
    "itself listed": (lambda f: listed(f) | _told(files={"export.json": "0"})(f), "besides|altered|lacks"),
    "later format": (_told(format=2), "has format 2, this version reads 1"),
    "upwards": (_with("../evil.txt"), "would leave the domain's folder"),
    "inside and upwards": (_with("member-2/../../evil.txt"), "would leave the domain's folder"),
    "absolute": (_with("/evil.txt"), "would leave the domain's folder"),
    "backslash": (_with("..\\evil.txt"), "would leave the domain's folder"),
    "drive": (_with("C:evil.txt"), "would leave the domain's folder"),
    "control": (_with("a\nb"), "has an impossible name"),
    "long": (_with("n/" * 300 + "n"), "has an impossible name"),
    "long for a disk": (_with("ж" * 128), "has an impossible name"),
    "a file as a folder": (_with("domain.toml/evil.txt"), "is inside of a file"),
    "no domain": (lambda f: listed(_without("domain.toml")(f)), r"not hold a sound domain: there is no file domain\.toml"),
    "no member": (
        lambda f: listed({n: d for n, d in f.items() if not n.startswith("member")}), "not hold a sound domain: .*member-2"
    ),
    "a billion members": (_members(10**9), "impossible number of members"),
    "no members": (_members("many"), "impossible number of members"),
    "nonsense": (lambda f: listed(f | {"prefix.json": b'{"notes": 3}'}), "not hold a sound domain: "),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_is_not_whole_or_not_honest_is_refused(
    small: ModuleType, exported: Path, target: Library, tmp_path: Path, what: str
) -> None:
    change, message = CHANGES[what]
    write(exported, change(contents(exported)))
    refused(target, exported, message)
    assert not target.folder.exists(), "it was refused before anything was written"
    assert not list(tmp_path.rglob("evil.txt"))
    target.add(small.make_entry("stars"))
    assert target.names() == ["stars"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO])
def test_links_and_special_files_are_refused(exported: Path, target: Library, kind: int) -> None:
    files = contents(exported)
    with zipfile.ZipFile(exported, "w") as new:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((kind if name == "card.md" else stat.S_IFREG) | 0o777) << 16
            new.writestr(info, data)
    refused(target, exported, r"'card\.md' is a link or another special file")


def test_a_name_given_twice_is_refused(exported: Path, target: Library) -> None:
    with zipfile.ZipFile(exported, "a") as new, pytest.warns(UserWarning, match="Duplicate"):
        new.writestr("card.md", b"another")
    refused(target, exported, r"holds 'card\.md' twice")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(exported: Path, target: Library, method: int) -> None:
    refused(target, write(exported, contents(exported), compression=method), "packed in an unknown way")


def test_an_encrypted_member_is_refused(exported: Path, target: Library) -> None:
    data = bytearray(exported.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 8] |= 1
    exported.write_bytes(bytes(data))
    refused(target, exported, "is encrypted")


def test_bombs_are_refused_by_what_comes_out_of_them(
    exported: Path, target: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(exported)
    size = sum(len(d) for n, d in files.items() if n != "export.json")
    monkeypatch.setattr(archive, "LIMIT_BYTES", size + 100_000)
    fits = write(tmp_path / "fits", listed(files | {"z": b"0" * 100_000}), compression=zipfile.ZIP_DEFLATED)
    over = write(tmp_path / "over", listed(files | {"z": b"0" * 100_001}), compression=zipfile.ZIP_DEFLATED)
    assert over.stat().st_size < 20_000
    refused(target, over, "more than a domain can")
    # The headers may lie about it.
    data = over.read_bytes()
    assert data.count(struct.pack("<I", 100_001)) == 2
    lying = tmp_path / "lying"
    lying.write_bytes(data.replace(struct.pack("<I", 100_001), struct.pack("<I", 1)))
    refused(target, lying, "not a sound export|more than a domain can")
    target.import_(fits)
    assert (target.path("seas") / "z").stat().st_size == 100_000


def test_too_many_files_are_refused(
    exported: Path, target: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(exported)
    monkeypatch.setattr(archive, "LIMIT_FILES", 20)
    many = listed(files | {f"f{n}": b"" for n in range(20 - len(files) + 1)})
    assert len(many) == 21, "export.json is not counted"
    target.import_(write(tmp_path / "many", many))
    more = write(tmp_path / "more", listed(many | {"f": b""}))
    refused(target, more, "more than a domain can")
    data = more.read_bytes()
    end = data.rindex(b"PK\5\6")
    told = struct.pack("<4s4H", b"PK\5\6", 0, 0, 5, 5)  # the directory is as long as before, and is read by its length
    (tmp_path / "lying").write_bytes(data[:end] + told + data[end + 12 :])
    refused(target, tmp_path / "lying", "more than a domain can")


def test_a_huge_directory_or_listing_is_not_read(
    exported: Path, target: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(exported)
    padded = files | {"export.json": files["export.json"] + b" " * 4_000_000}
    refused(target, write(tmp_path / "padded", padded, compression=zipfile.ZIP_DEFLATED), "more than a domain can")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the directory was read"))
    monkeypatch.setattr(archive, "_LIMIT_LISTING", 100)
    refused(target, exported, "more than a domain can")


def test_a_file_cut_anywhere_is_refused(exported: Path, target: Library) -> None:
    data = exported.read_bytes()
    for cut in [0, 1, 21, 22, *range(30, len(data), 211), len(data) - 22, len(data) - 1]:
        exported.write_bytes(data[:cut])
        refused(target, exported, "was cut off|not a sound export")
    assert not target.folder.exists()


def test_a_changed_byte_is_noticed_or_harmless(small: ModuleType, exported: Path, target: Library) -> None:
    """A flag or a date in a header may change unseen; a domain never does."""
    data, chance, noticed = exported.read_bytes(), random.Random(0), 0
    for at in sorted(chance.sample(range(len(data)), 80)) + list(range(len(data) - 100, len(data))):
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        exported.write_bytes(bytes(changed))
        try:
            target.import_(exported, replace=True)
        except LibraryError:
            noticed += 1
        else:
            assert small.same(target.get("seas"), small.make_entry(members=2)), at
    assert noticed > 100


def test_what_is_no_export_is_told(target: Library, tmp_path: Path) -> None:
    refused(target, tmp_path / "nothing.xdner", "there is no file")
    refused(target, tmp_path, "not a sound export of a domain: .*directory")
    (tmp_path / "text.xdner").write_text("not a zip at all, but long enough to be one")
    refused(target, tmp_path / "text.xdner", "not a zip archive, or was cut off")
    write(tmp_path / "other.zip", {"hello.txt": b"hello"})
    refused(target, tmp_path / "other.zip", r"it has no export\.json")
    assert not target.folder.exists()
