"""Reading a folder of domains, without a lock: the old domain or the new one, never a mixture, and none is missed because a
writer is at work or was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from xdner.errors import LibraryError, UnknownDomainError, XdnerError
from xdner.library.kinds import Entry
from xdner.library.leftovers import begun, entries, inside, is_domain, orphans
from xdner.library.reading import identity, read_domain

__all__ = ["Shelf"]

_LOOKS = 20  # at a folder that changes while it is read
_PAUSE = 0.01

T = TypeVar("T")


def _default_folder() -> Path:
    return Path(os.environ.get("XDNER_LIBRARY") or "xdner-library").expanduser()


class Shelf:
    """The domains in a folder, by name.

    Args:
        folder: need not exist; ``$XDNER_LIBRARY``, or ``xdner-library`` in the current folder, if none is named.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = _default_folder() if folder is None else Path(folder)

    def path(self, name: str) -> Path:
        """Where a domain is, or would be."""
        return self.folder / name

    def names(self) -> list[str]:
        """Names of the domains, sound or damaged, sorted.

        Raises:
            LibraryError: the folder is a file, or may not be read.
        """
        found: set[str] = set()
        before: frozenset[str] | None = None
        # A domain that moves between a listing and a look at it is missed; it is in the next listing, which differs.
        for _ in range(_LOOKS):
            now = entries(self.folder)
            found |= {name for name in now if is_domain(self.folder / name)} | set(orphans(self.folder, now))
            if now == before:
                break
            before = now
        return sorted(name for name in found if not name.startswith("."))

    def begun(self) -> list[str]:
        """Names that are no domains yet, but an index of examples (``xdner index``), sorted."""
        return begun(self.folder)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._locate(name) is not None

    def get(self, name: str) -> Entry:
        """Read a domain.

        Raises:
            UnknownDomainError: it is not there.
            PrefixFormatError, DomainError, SettingsError: it was altered or is incomplete.
            LibraryError: its folder has the name of another domain.
        """
        return self._steady(name, lambda path: read_domain(path, name))

    def load_all(self) -> tuple[dict[str, Entry], dict[str, XdnerError]]:
        """Sound domains by name, and the errors of damaged ones."""
        good: dict[str, Entry] = {}
        damaged: dict[str, XdnerError] = {}
        for name in self.names():
            try:
                good[name] = self.get(name)
            except UnknownDomainError:
                continue  # removed since it was listed
            except XdnerError as error:
                damaged[name] = error
        return good, damaged

    def _locate(self, name: str) -> Path | None:
        """Where a domain is now: at its place, or in what a writer that was killed or is at work moved aside."""
        if not inside(name):
            return None  # never look outside of the library
        path = self.path(name)
        if is_domain(path):
            return path
        aside = orphans(self.folder, entries(self.folder)).get(name)
        return aside or (path if name in self.names() else None)

    def _steady(self, name: str, read: Callable[[Path], T]) -> T:
        """What ``read`` makes of a domain's folder, all of it from one folder even if it is replaced meanwhile."""
        for _ in range(_LOOKS):
            path = self._locate(name)
            if path is None:
                raise self._unknown(name)
            before = identity(path)
            made: T | XdnerError
            try:
                made = read(path)
            except XdnerError as error:
                made = error
            if before is not None and identity(path) == before:
                if isinstance(made, XdnerError):
                    raise made
                return made
            time.sleep(_PAUSE)
        raise LibraryError(f"{self.path(name)} changes again and again", hint="Try again when its writer has ended.")

    def _unknown(self, name: str) -> UnknownDomainError:
        known, new = ", ".join(self.names()) or "nothing", name if inside(name) else "NAME"
        return UnknownDomainError(
            f"the library {self.folder} has no domain {name!r}",
            hint=f"Train it with `xdner train {new} --train FILE`, or choose another library with --library. "
            f"In the library: {known}.",
        )
