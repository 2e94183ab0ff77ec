"""The domains that a server has: a library's, and those that ship. The library's go first, damaged ones too."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xdner.domain import Domain
from xdner.errors import UnknownDomainError, XdnerError
from xdner.library.bundled import bundled_libraries
from xdner.library.kinds import Entry, recognizer_of
from xdner.library.leftovers import inside, is_domain
from xdner.library.reading import identity
from xdner.library.store import Library

__all__ = ["Known", "Shelves"]


@dataclass(frozen=True, slots=True)
class Known:
    """A domain that can be asked for.

    Attributes:
        name: of the domain.
        recognizer: ``cp-ner``, ``laner`` or ``if-wraner``.
        labels: names of its types.
        shipped: whether it came with xdner, and is not of the library.
    """

    name: str
    recognizer: str
    labels: tuple[str, ...]
    shipped: bool


class Shelves:
    """Fulfils :class:`~xdner.library.kinds.Shelf` for a library and what ships, as one.

    Which library a name is in is asked anew each time, for it may change; backbones are those of each domain, whatever
    ``library.json`` says.

    Args:
        library: a folder of domains; ``None`` is the default one.
    """

    def __init__(self, library: str | Path | None = None) -> None:
        self.own = Library(library)
        self._shipped = bundled_libraries()
        # Names that the library does not have, as long as its folder does not change: to look for one lists the folder.
        self._absent: tuple[Hashable, frozenset[str]] = None, frozenset()
        self._listed: dict[str, tuple[Hashable, Known]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for store in (self.own, *self._shipped) for name in store))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._store(name) is not None

    def get(self, name: str) -> Entry:
        """Read a domain.

        Raises:
            UnknownDomainError: it is not there.
            XdnerError: it is damaged.
        """
        return self._found(name).get(name)

    def path(self, name: str) -> Path:
        """Where a domain's folder is, or would be."""
        return (self._store(name) or self.own).path(name)

    def stamp(self, name: str) -> Hashable:
        """Equal as long as a domain's folder is the same.

        Raises:
            UnknownDomainError: it is not there.
        """
        path = self._found(name).path(name)
        return path, identity(path)

    def check_backbone(self, fingerprint: str, name: str = "") -> None:
        """Domains of several backbones may be here; each is checked when it is loaded."""

    def known(self) -> list[Known]:
        """All domains by name, read from their ``domain.toml`` alone; folders that have no sound one are left out."""
        found = {name: self._look(store, name) for store in (*self._shipped, self.own) for name in store}
        self._listed = {name: kept for name, kept in self._listed.items() if name in found}
        return sorted((one for one in found.values() if one is not None), key=lambda one: one.name)

    def _look(self, store: Library, name: str) -> Known | None:
        path = store.path(name)
        stamp = (path, identity(path))
        if self._listed.get(name, (None,))[0] != stamp:
            try:
                labels = Domain.read(path / "domain.toml").label_names
                known = Known(name, recognizer_of(path), labels, store is not self.own)
            except XdnerError:
                return None
            self._listed[name] = stamp, known
        return self._listed[name][1]

    def _found(self, name: str) -> Library:
        store = self._store(name)
        if store is None:
            raise UnknownDomainError(f"there is no domain {name!r} here", hint="GET /domains lists those that are.")
        return store

    def _store(self, name: str) -> Library | None:
        if not inside(name):
            return None
        if is_domain(self.own.path(name)):
            return self.own
        # A writer may just be replacing it: only who looks at the whole folder knows that it is not there.
        now = identity(self.own.folder)
        if now is None or self._absent[0] != now or name not in self._absent[1]:
            if name in self.own:
                return self.own
            known = self._absent[1] if self._absent[0] == now else frozenset()
            if any(name in store for store in self._shipped):  # strangers' names would fill it
                self._absent = now, known | {name}
        return next((store for store in self._shipped if is_domain(store.path(name))), None)
