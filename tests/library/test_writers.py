"""Several writers, killed writers, and readers in between: no domain is ever lost, damaged or half-read."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock

from xdner.errors import LibraryError, UnknownDomainError, XdnerError
from xdner.library.entry import DomainEntry
from xdner.library.store import Library

LONG = "a-domain-with-a-name-of-more-than-32-characters"


def litter(folder: Path) -> list[str]:
    """What does not belong into a library at rest."""
    return [n for n in os.listdir(folder) if n.endswith((".part", ".old"))]


def killed_everywhere(
    writers: Any, folder: Path, reset: Callable[[], None], check: Callable[[], bool], **order: Any
) -> int:
    """Kill a writer before each of its changes in turn, until one gets through; ``check`` says whether it counts as done.

    Returns:
        How often it was killed.
    """
    seen = set()
    for number in range(1, 500):
        reset()
        code = writers.run(library=folder, kill=number, **order)
        seen.add(check())
        if code == 0:
            assert seen == {True, False} or order["do"] == "initial"
            return number - 1
        assert code == -signal.SIGKILL
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("name", "moves"), [("seas", False), (LONG, True)])
def test_a_killed_replacement_leaves_the_old_domain_or_the_new_one(
    writers: Any, small: ModuleType, tmp_path: Path, name: str, moves: bool
) -> None:
    library = Library(tmp_path / "library")
    old, new = small.make_entry(name, 1, members=2), small.make_entry(name, 2, members=2)
    other = small.make_entry("other", 3)
    aside = []

    def reset() -> None:
        library.add(old)
        library.add(other)
        assert litter(library.folder) == [], "the next writer cleans up"

    def check() -> bool:
        aside.append(not library.path(name).exists())
        assert library.names() == sorted([name, "other"]), "a reader misses nothing"
        assert small.same(library.get("other"), other)
        found = library.get(name)
        assert small.same(found, old) or small.same(found, new)
        before = sorted(os.listdir(library.folder))
        assert [v.problem for v in library.verify()] == [None, None]
        assert sorted(os.listdir(library.folder)) == before, "readers write nothing"
        library.remove("other")
        assert litter(library.folder) == []
        assert small.same(library.get(name), found), "and cleaning up keeps what readers saw"
        return bool(small.same(found, new))

    order = {"do": "add", "name": name, "seed": 2, "members": 2, "moves": moves}
    assert killed_everywhere(writers, library.folder, reset, check, **order) > (8 if moves else 20)
    assert True in aside, "the worst moment was among them"


def test_a_killed_first_add_leaves_no_half_domain(writers: Any, small: ModuleType, tmp_path: Path) -> None:
    library, new = Library(tmp_path / "library"), small.make_entry("seas", 2, members=3)

    def reset() -> None:
        shutil.rmtree(library.folder, ignore_errors=True)

    def check() -> bool:
        assert library.names() in ([], ["seas"])
        done = "seas" in library
        assert not done or small.same(library.get("seas"), new)
        refused = pytest.raises(LibraryError, match="is for the backbone") if done else contextlib.nullcontext()
        with refused:
            library.add(small.make_entry("stars", backbone="sha256:other"))
        return done

    assert killed_everywhere(writers, library.folder, reset, check, do="add", name="seas", seed=2, members=3) > 20


def test_a_killed_removal_leaves_all_or_nothing(writers: Any, small: ModuleType, tmp_path: Path) -> None:
    library, old = Library(tmp_path / "library"), small.make_entry("seas", 1, members=2)

    def reset() -> None:
        library.add(old)

    def check() -> bool:
        gone = library.names() == []
        if gone:
            with pytest.raises(UnknownDomainError):
                library.get("seas")
        else:
            assert small.same(library.get("seas"), old)
        library.add(small.make_entry("other"))
        assert ("seas" not in library) == gone, "what is gone stays gone"
        assert litter(library.folder) == []
        library.remove("other")
        return gone

    assert killed_everywhere(writers, library.folder, reset, check, do="remove", name="seas") > 5


def test_a_killed_import_leaves_the_old_domain_or_the_new_one(writers: Any, small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    old, new = small.make_entry("seas", 1, members=2), small.make_entry("seas", 2)
    Library(tmp_path / "from").add(new)
    file = Library(tmp_path / "from").export("seas", tmp_path / "seas.xdner")

    def check() -> bool:
        found = library.get("seas")
        assert small.same(found, old) or small.same(found, new)
        return bool(small.same(found, new))

    def reset() -> None:
        library.add(old)
        assert litter(library.folder) == []

    assert killed_everywhere(writers, library.folder, reset, check, do="import", file=str(file), moves=True) > 7


def test_a_killed_start_can_be_set_again(writers: Any, small: ModuleType, tmp_path: Path) -> None:
    library, start = Library(tmp_path / "library"), small.make_prefix(5)

    def reset() -> None:
        shutil.rmtree(library.folder, ignore_errors=True)

    def check() -> bool:
        found = library.initial_prefix()
        assert found is None or found.hash() == start.hash()
        library.set_initial(start)
        again = library.initial_prefix()
        assert again is not None
        assert again.hash() == start.hash()
        assert litter(library.folder) == []
        assert library.verify() == []
        return found is not None

    assert killed_everywhere(writers, library.folder, reset, check, do="initial", seed=5) > 5


def test_a_writer_killed_while_it_cleans_up_after_another_does_no_harm(
    writers: Any, small: ModuleType, tmp_path: Path
) -> None:
    library, old = Library(tmp_path / "library"), small.make_entry("seas", 1, members=2)

    def reset() -> None:
        shutil.rmtree(library.folder, ignore_errors=True)
        library.add(old)
        os.rename(library.path("seas"), library.folder / ".seas.0123456789ab.old")
        shutil.copytree(library.folder / ".seas.0123456789ab.old", library.folder / ".seas.0123456789ab.part")

    def check() -> bool:
        assert small.same(library.get("seas"), old)
        return "stars" in library

    assert killed_everywhere(writers, library.folder, reset, check, do="add", name="stars", seed=2, members=1) > 15


def test_two_writers_at_once_lose_nothing_and_readers_miss_nothing(
    writers: Any, small: ModuleType, tmp_path: Path
) -> None:
    rounds = 10
    library, seen = Library(tmp_path / "library"), tmp_path / "seen"
    library.add(small.make_entry("shared", 0))
    wanted = {
        seed + number: small.make_entry("shared", seed + number, members=1 + number % 3)
        for seed in (0, 100)
        for number in range(rounds)
    }
    order = {"library": str(library.folder), "do": "race", "rounds": rounds, "seen": str(seen)}
    writers.order({**order, "name": "a", "seed": 0}, {**order, "name": "b", "seed": 100})
    reads, versions, ended = 0, set(), False
    while not ended:
        ended = writers.ended()  # and then once more: what is at rest is none of the first half
        assert "shared" in library.names()
        assert "shared" in library
        found = library.get("shared")
        assert any(small.same(found, w) for w in wanted.values()), "never parts of two"
        versions.add(found.prefix.hash())
        reads += 1
        if reads == 5:
            seen.touch()
    assert writers.codes() == [0, 0]
    assert reads > 5
    assert len(versions) > 1
    kept = [n for n in range(rounds) if n % 3]
    assert library.names() == sorted(["shared", *(f"{who}-{n}" for who in "ab" for n in kept)])
    for who in "ab":
        for number in kept:
            assert small.same(library.get(f"{who}-{number}"), small.make_entry(f"{who}-{number}", number))
    assert litter(library.folder) == []
    assert [v.problem for v in library.verify()] == [None] * len(library.names())


def test_a_writer_waits_for_another_and_not_for_ever(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path, timeout=0.2)
    library.add(small.make_entry())
    with FileLock(tmp_path / ".lock"):
        for write in (
            lambda: library.add(small.make_entry("stars")),
            lambda: library.remove("seas"),
            lambda: library.set_initial(small.make_prefix()),
        ):
            with pytest.raises(LibraryError, match=r"another process is writing .* \(waited 0\.2 s\)"):
                write()
        assert small.same(library.get("seas"), small.make_entry()), "readers need no lock"
        assert library.verify()[0].problem is None
    library.add(small.make_entry("stars"))
    assert Library(tmp_path).timeout == 30


def test_threads_take_turns_too(small: ModuleType, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def write(who: str) -> None:
        try:
            for number in range(4):
                Library(tmp_path).add(small.make_entry(f"{who}-{number}", number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(Library(tmp_path).names()) == 12


# -- what a killed writer leaves, piece by piece ------------------------------------------------------------------------


def aside(library: Library, entry: DomainEntry, digits: str = "0123456789ab") -> Path:
    """As if its writer had been killed between the two moves."""
    path = library.add(entry)
    old = library.folder / f".{entry.domain.name[:32]}.{digits}.old"
    os.rename(path, old)
    return old


def test_of_two_old_folders_the_newest_comes_back(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    path = aside(library, small.make_entry(seed=1))
    shutil.copytree(path, tmp_path / "keep")
    library.add(small.make_entry(seed=2))
    os.rename(library.path("seas"), tmp_path / ".seas.ba9876543210.old")
    os.rename(tmp_path / "keep", path)
    os.utime(path, (1, 1))
    assert small.same(library.get("seas"), small.make_entry(seed=2))
    library.add(small.make_entry("stars"))
    assert small.same(library.get("seas"), small.make_entry(seed=2))
    assert litter(tmp_path) == []


def test_a_damaged_domain_that_was_moved_aside_comes_back_as_it_was(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    (aside(library, small.make_entry()) / "domain.toml").write_text("name = ")
    assert library.names() == ["seas"]
    library.add(small.make_entry("stars"))
    assert library.names() == ["seas", "stars"]
    with pytest.raises(XdnerError, match=r"domain\.toml"):
        library.get("seas")


def test_something_else_in_an_old_domains_place_keeps_both(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    old = aside(library, small.make_entry())
    (tmp_path / "seas").mkdir()
    (tmp_path / "seas" / "thesis.txt").write_text("mine")
    library.add(small.make_entry("stars"))
    assert old.exists()
    assert (tmp_path / "seas" / "thesis.txt").read_text() == "mine"
    assert small.same(library.get("seas"), small.make_entry())


def test_only_leftovers_are_swept(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())
    for name in (".runs", ".initial.old", "seas.0123456789ab.old", ".mine.part", ".x.0123456789AB.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".library.json.0123456789ab.part").write_text("half")
    (tmp_path / ".gone.0123456789ab.old").mkdir()
    library.add(small.make_entry("stars"))
    assert not (tmp_path / ".library.json.0123456789ab.part").exists()
    assert not (tmp_path / ".gone.0123456789ab.old").exists()
    assert {".runs", ".initial.old", "seas.0123456789ab.old", ".mine.part"} <= set(os.listdir(tmp_path))
    assert library.names() == ["seas", "stars"]


def test_a_start_that_was_moved_aside_is_found(small: ModuleType, tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.set_initial(small.make_prefix(1))
    os.rename(tmp_path / ".initial", tmp_path / "..initial.0123456789ab.old")
    found = library.initial_prefix()
    assert found is not None
    assert found.hash() == small.make_prefix(1).hash()
    assert library.names() == []
    library.add(small.make_entry())
    assert (tmp_path / ".initial" / "prefix.json").exists()


def test_a_domain_that_changes_for_ever_is_told_and_not_waited_for(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(tmp_path)
    library.add(small.make_entry())
    numbers = iter(range(1000))
    monkeypatch.setattr("xdner.library.shelf.identity", lambda _: next(numbers))
    with pytest.raises(LibraryError, match="changes again and again"):
        library.get("seas")
