"""The library: one folder, one domain a sub-folder.

A domain's folder is replaced in one step (:meth:`DomainEntry.save`), so a reader sees the old domain or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from xdner.errors import LibraryError, UnknownDomainError, XdnerError
from xdner.files import replace_folder, storage_errors
from xdner.library.entry import DomainEntry
from xdner.prefix.prefix import Prefix

__all__ = ["Library", "default_library"]


def default_library() -> Path:
    """``$XDNER_LIBRARY``, or ``xdner-library`` in the current folder."""
    return Path(os.environ.get("XDNER_LIBRARY") or "xdner-library")


class Library:
    """Trained domains in a folder.

    Args:
        folder: need not exist before the first domain is added.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_library()

    def path(self, name: str) -> Path:
        """Where a domain is, or would be."""
        return self.folder / name

    def names(self) -> list[str]:
        """Names of the domains, sorted."""
        return sorted(p.parent.name for p in self.folder.glob("*/prefix.json") if not p.parent.name.startswith("."))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.names()

    def add(self, entry: DomainEntry) -> Path:
        """Store a domain under its name, replacing an older one.

        Raises:
            StorageError: the folder cannot be written.
        """
        target = self.path(entry.domain.name)
        entry.save(target)
        return target

    def get(self, name: str) -> DomainEntry:
        """Read a domain.

        Raises:
            UnknownDomainError: it is not there.
            PrefixFormatError: it was altered or is incomplete.
        """
        if name not in self:
            known = ", ".join(self.names()) or "it is empty"
            raise UnknownDomainError(
                f"the library {self.folder} has no domain {name!r}",
                hint=f"Train it with `xdner train {name} --train FILE`, or choose another library with --library. "
                f"Known: {known}.",
            )
        return DomainEntry.load(self.path(name))

    def remove(self, name: str) -> None:
        """Delete a domain.

        Raises:
            UnknownDomainError: it is not there.
            StorageError: it cannot be deleted.
        """
        if name not in self:
            self.get(name)
        with storage_errors(self.path(name)):
            shutil.rmtree(self.path(name))

    def load_all(self) -> tuple[dict[str, DomainEntry], dict[str, XdnerError]]:
        """Sound domains by name, and the errors of damaged ones."""
        sound, damaged = {}, {}
        for name in self.names():
            try:
                sound[name] = self.get(name)
            except XdnerError as error:
                damaged[name] = error
        return sound, damaged

    def initial_prefix(self) -> Prefix | None:
        """δ₀ of this library, if it has one."""
        folder = self.folder / ".initial"
        return Prefix.load(folder) if folder.exists() else None

    def set_initial(self, prefix: Prefix) -> None:
        """Make a prefix the start of all domains.

        Raises:
            LibraryError: there is another one already.
        """
        there = self.initial_prefix()
        if there is None:
            with replace_folder(self.folder / ".initial") as fresh:
                prefix.save(fresh)
        elif there.hash() != prefix.hash():
            raise LibraryError(
                f"the library {self.folder} has another initial prefix", hint="Choose another folder with --library."
            )
