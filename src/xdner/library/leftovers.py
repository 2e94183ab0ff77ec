"""What a writer that was killed leaves behind, and how a library gets over it.

:func:`~xdner.files.replace_folder` fills ``.name.<hex>.part``, moves the old folder to ``.name.<hex>.old`` and the new
one to its place. A process that dies between the two moves leaves the domain in the ``.old`` folder only. Readers find
it there; the next writer moves it back.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from xdner.errors import LibraryError
from xdner.files import discard

__all__ = ["begun", "entries", "inside", "is_begun", "is_domain", "is_leftover", "may_give_way", "orphans", "recover"]

_LEFTOVER = re.compile(r"\.(?P<stem>.+)\.[0-9a-f]{12}\.(?P<kind>part|old)", re.DOTALL)
_STEM = 32  # so many characters of a folder's name are in its leftovers' names


def is_leftover(name: str) -> bool:
    """Is this the name of something half-written or half-removed?"""
    return _LEFTOVER.fullmatch(name) is not None


def inside(name: str) -> bool:
    """Whether a name is that of a folder in the library, and not of one of its own."""
    return bool(name) and not name.startswith(".") and Path(name).name == name


def is_domain(path: Path) -> bool:
    """Does a folder look like a domain, sound or damaged? A lone ``domain.toml`` beside a corpus does not."""

    def has(name: str) -> bool:
        return os.path.isfile(path / name)

    files = ("prefix.json", "prefix.safetensors", "tagger.json", "tagger.safetensors", "wraner.json")
    return any(map(has, files)) or (has("domain.toml") and has("settings.toml"))


def is_begun(path: Path) -> bool:
    """Is a folder what ``xdner index`` makes of a name that no domain has: types and an index of examples, and nothing else?"""
    try:
        return {"index", "domain.toml"} == set(os.listdir(path)) - {".lock"} and os.path.isfile(
            path / "index" / "index.json"
        )
    except OSError:
        return False


def _is_unfinished(path: Path) -> bool:
    """Is a folder what ``xdner index`` leaves of a new name when it is killed before its examples count: an index without a
    manifest, and nothing else?"""
    try:
        files = os.listdir(path / "index") if os.listdir(path) == ["index"] else ["index.json"]
    except OSError:
        return False
    return "index.json" not in files and all(name.startswith((".", "xdner_", "examples.")) for name in files)


def may_give_way(path: Path) -> bool:
    """May a domain take this folder's place? A domain may, sound or damaged, and one that was begun with an index."""
    return is_domain(path) or is_begun(path)


def entries(folder: Path) -> frozenset[str]:
    """The names in a folder; none if there is no such folder.

    Raises:
        LibraryError: it is a file, or may not be read.
    """
    try:
        return frozenset(os.listdir(folder))
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise LibraryError(
            f"cannot read the library {folder}: {error.strerror or error}", hint="Choose another folder with --library."
        ) from None


def begun(folder: Path) -> list[str]:
    """Names in a library that are no domains yet, but an index of examples (``xdner index``), sorted."""
    found = (name for name in entries(folder) if not name.startswith("."))
    return sorted(name for name in found if is_begun(folder / name) or _is_unfinished(folder / name))


def orphans(folder: Path, names: frozenset[str]) -> dict[str, Path]:
    """Domains that are in an ``.old`` folder only, by name; of several, the newest."""
    found: dict[str, Path] = {}
    for path in sorted((folder / n for n in names if _kind(n) == "old"), key=_changed):
        target = _target(path)
        if is_domain(path) and not is_domain(folder / target):
            found[target] = path
    return found


def recover(folder: Path) -> None:
    """Move orphans back and delete all other leftovers. Only for whoever holds the library's lock.

    Raises:
        OSError: an orphan cannot be moved.
    """
    names = entries(folder)
    for name, path in orphans(folder, names).items():
        if not os.path.lexists(folder / name):
            os.replace(path, folder / name)
    for path in (folder / n for n in names if is_leftover(n)):
        # Something else may have taken the orphan's place: then this is the only copy, and stays.
        if _kind(path.name) == "part" or not is_domain(path) or is_domain(folder / _target(path)):
            discard(path)


def _kind(name: str) -> str:
    match = _LEFTOVER.fullmatch(name)
    return match["kind"] if match else ""


def _target(path: Path) -> str:
    """The name that a leftover folder had: in its own name, or if that is cut off, in its ``domain.toml``."""
    match = _LEFTOVER.fullmatch(path.name)
    stem = match["stem"] if match else path.name
    if len(stem) < _STEM:
        return stem
    try:
        name = tomllib.loads((path / "domain.toml").read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError, RecursionError):
        return stem
    return name if isinstance(name, str) and name.startswith(stem) and Path(name).name == name else stem


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
