"""An index of examples in a domain's folder: what takes the domain's place keeps it, and nobody removes it under its writer."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from filelock import FileLock

from xdner.domain import Domain
from xdner.errors import LibraryError
from xdner.library import parts
from xdner.library.kinds import Entry
from xdner.library.store import Library
from xdner.library.tagger_entry import TaggerEntry
from xdner.tagger.settings import LanerSettings
from xdner.tagger.tags import tags_for

ENCODER = {"name": "tiny", "source": "tiny", "fingerprint": "sha256:" + "b" * 64}


def begin(folder: Path) -> Path:
    """What ``xdner index`` makes of a name that no domain has, in form."""
    (folder / "index").mkdir(parents=True)
    (folder / "domain.toml").write_text(Domain.from_labels(folder.name, ["sea"]).to_toml())
    (folder / "index" / "index.json").write_text("{}")
    return folder


def tagger(name: str) -> TaggerEntry:
    domain = Domain.from_labels(name, ["sea"])
    tags = tags_for(domain.label_names)
    return TaggerEntry(domain, LanerSettings.build(), tuple(tags), {"w": torch.zeros(1)}, {}, ENCODER)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library", timeout=0.05)


@pytest.mark.parametrize("kind", ["prefix", "tagger"])
def test_a_domain_of_any_kind_keeps_the_index_in_its_place(
    library: Library, small: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: Entry = small.make_entry("seas") if kind == "prefix" else tagger("seas")
    index = begin(library.path("seas")) / "index"
    (index / ".lock").touch()
    library.add(entry)
    assert os.listdir(index) == ["index.json"]
    library.add(entry)
    assert (index / "index.json").read_text() == "{}"
    assert type(library.get("seas")) is type(entry)
    # What its writer adds after the copy would be lost.
    monkeypatch.setattr(parts, "_PATIENCE", 0.05)
    with FileLock(index / ".lock"), pytest.raises(LibraryError, match="another process is writing to the index"):
        library.add(entry)


def test_nothing_is_removed_while_its_index_is_written_to(library: Library, small: ModuleType) -> None:
    library.add(small.make_entry("seas"))
    for folder in (library.path("seas"), begin(library.path("lakes"))):
        (folder / "index").mkdir(exist_ok=True)
        with FileLock(folder / "index" / ".lock"):
            with pytest.raises(LibraryError, match="another process is writing to the index"):
                library.remove(folder.name)
            assert (folder / "domain.toml").is_file()
        library.remove(folder.name)
        assert not folder.exists()
    assert sorted(os.listdir(library.folder)) == [".lock", "library.json"]


def test_an_index_that_is_written_to_is_not_exported(library: Library, small: ModuleType, tmp_path: Path) -> None:
    library.add(small.make_entry("seas"))
    index = begin(library.path("lakes")) / "index"
    (index / "index.json").write_text('{"uri": ""}')
    index.rename(library.path("seas") / "index")
    with (
        FileLock(library.path("seas") / "index" / ".lock"),
        pytest.raises(LibraryError, match="another process is writing to the index"),
    ):
        library.export("seas", tmp_path / "seas.xdner")
    assert not (tmp_path / "seas.xdner").exists()
    library.export("seas", tmp_path / "seas.xdner")
    other = Library(tmp_path / "other")
    other.import_(tmp_path / "seas.xdner")
    assert (other.path("seas") / "index" / "index.json").is_file()


def test_an_import_takes_the_place_of_an_index_only_if_it_may(
    library: Library, small: ModuleType, tmp_path: Path
) -> None:
    source = Library(tmp_path / "source")
    source.add(small.make_entry("seas"))
    file = source.export("seas", tmp_path / "seas.xdner")
    index = begin(library.path("seas")) / "index"
    with pytest.raises(LibraryError, match="has an index of examples 'seas' already") as refusal:
        library.import_(file)
    assert "--replace" in str(refusal.value.hint)
    assert (index / "index.json").is_file()
    with FileLock(index / ".lock"):
        with pytest.raises(LibraryError, match="another process is writing to the index"):
            library.import_(file, replace=True)
        assert (index / "index.json").is_file()
    library.import_(file, replace=True)
    assert small.same(library.get("seas"), small.make_entry("seas"))
