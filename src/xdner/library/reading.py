"""Reading a domain's folder, whatever state it is in: it comes whole, or there is an error that says what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from xdner.domain import Domain
from xdner.errors import LibraryError, PrefixFormatError, XdnerError
from xdner.files import discard
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.kinds import Entry, load_entry
from xdner.library.parts import INDEX

__all__ = ["identity", "read_domain", "read_unpacked", "sound"]

T = TypeVar("T")


def sound(path: Path, load: Callable[[Path], T]) -> T:
    """Load, and turn what a nonsensical but well-formed file provokes into an error that names the folder.

    Raises:
        XdnerError: whatever is wrong.
    """
    try:
        return load(path)
    except XdnerError:
        raise
    except Exception as error:
        raise PrefixFormatError(
            f"{path} is damaged: {type(error).__name__}: {error}", hint="Restore the folder, or train again."
        ) from None


def read_domain(path: Path, name: str) -> Entry:
    """The domain in a library's folder ``name``.

    Raises:
        LibraryError: it is a domain of another name.
        XdnerError: it is damaged.
    """
    entry = sound(path, load_entry)
    if entry.domain.name != name:
        raise LibraryError(
            f"the folder {name} holds the domain {entry.domain.name!r}",
            hint="Give the folder that name again. A domain is renamed by `xdner domains export` and `import --name`.",
        )
    return entry


def read_unpacked(file: Path, folder: Path, name: str | None) -> Entry:
    """The domain in an unpacked export, renamed if asked for: its files are as if it had always had that name.

    Raises:
        LibraryError: it is not sound.
        DomainError: the name cannot be a domain's name.
    """
    try:
        entry = sound(folder, load_entry)
    except XdnerError as error:
        raise LibraryError(
            f"{file} does not hold a sound domain: {error.message.replace(f'{folder}{os.sep}', '')}",
            hint="Export it again, with the xdner that made it or a newer one.",
        ) from None
    _forget_server(folder / INDEX)
    if isinstance(entry, ExamplesEntry) and (careful := entry.distrusted()) is not entry:
        entry = careful
        entry.write(folder)
    old = entry.domain
    if name is None or name == old.name:
        return entry
    renamed = Domain(name, old.labels, old.instruction)
    entry.renamed(renamed).write(folder)
    return load_entry(folder)


def _forget_server(index: Path) -> None:
    """An index whose rows are on a server is left out. Nobody here has chosen that server: it would be asked, with this
    machine's token, and the collection dropped when the domain is removed."""
    try:
        place = json.loads((index / "index.json").read_text(encoding="utf-8"))["uri"]
    except FileNotFoundError:
        return
    except Exception:
        place = "unknown"
    if place:
        discard(index)


def identity(path: Path) -> tuple[int, int, int] | None:
    """Equal before and after reading a folder if it was one and the same all the time; ``None`` if it is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
