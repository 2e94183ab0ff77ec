"""The domains that ship with the package: a library inside it for each embedded backbone, to be read only.

``xdner/data/<alias>/domains`` holds trained domains and, in ``.initial``, the δ₀ that they all started from. A domain
of the user's own library goes before a bundled one of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdner.errors import UnknownDomainError
from xdner.library.entry import DomainEntry
from xdner.library.kinds import Entry, with_prefix
from xdner.library.store import Library
from xdner.prefix.prefix import Prefix

__all__ = [
    "bundled_initial",
    "bundled_libraries",
    "find_entry",
    "find_prefix",
    "find_store",
    "known_entries",
    "shipped_entries",
]

DATA = Path(__file__).resolve().parent.parent / "data"


def bundled_libraries() -> list[Library]:
    """All of them, in the order of their backbones' names."""
    return [Library(folder) for folder in sorted(DATA.glob("*/domains")) if folder.is_dir()]


def shipped_entries() -> dict[str, Entry]:
    """All domains that ship, by name."""
    return {name: entry for library in bundled_libraries() for name, entry in library.load_all()[0].items()}


def bundled_initial(fingerprint: str, length: int) -> Prefix | None:
    """The δ₀ that ships for a backbone, if it has this length."""
    for library in bundled_libraries():
        initial = library.initial_prefix()
        if initial is not None and initial.backbone == fingerprint and initial.length == length:
            return initial
    return None


def find_entry(name: str, library: Library) -> Entry:
    """A domain by its name: the library's own, or one that ships.

    Raises:
        UnknownDomainError: neither has it.
        XdnerError: its folder is damaged.
    """
    return find_store(name, library).get(name)


def find_store(name: str, library: Library) -> Library:
    """The library that holds a domain: the given one, or one that ships.

    Raises:
        UnknownDomainError: none does.
    """
    for store in (library, *bundled_libraries()):
        if name in store:
            return store
    own = ", ".join(library.names()) or "nothing"
    ships = ", ".join(n for store in bundled_libraries() for n in store.names()) or "none"
    raise UnknownDomainError(
        f"the library {library.folder} has no domain {name!r}",
        hint=f"Train it with `xdner train NAME --train FILE`, or choose another library with --library. "
        f"In the library: {own}. Shipped with xdner: {ships}.",
    )


def find_prefix(name: str, library: Library) -> DomainEntry:
    """As :func:`find_entry`, for whoever needs a prefix.

    Raises:
        LibraryError: the domain is a tagger's.
    """
    return with_prefix(find_entry(name, library))


def known_entries(
    library: Library | None, fingerprint: str, initial: str, *, without: Sequence[str] = ()
) -> tuple[dict[str, DomainEntry], dict[str, str]]:
    """Every domain whose prefix can help another one, the library's own before those that ship (``--from all``).

    Args:
        library: ``None``: only those that ship.
        fingerprint: of the backbone; domains of other ones are left out.
        initial: hash of δ₀; domains that started elsewhere, and ensembles, cannot be combined and are left out.
        without: names to leave out.

    Returns:
        Sound domains by name, and why names were left out: those of the library's own domains with a prefix, and those under
        which the library has something without a prefix, so that the shipped one is not used either.
    """
    sound: dict[str, DomainEntry] = {}
    left_out: dict[str, str] = {}
    taken = set(without)
    hidden: set[str] = set()
    for store in (*([] if library is None else [library]), *bundled_libraries()):
        entries, errors = store.load_all()
        left_out |= {n: f"is damaged and was left out: {e.message}" for n, e in errors.items() if n not in taken}
        for name, entry in entries.items():
            if not isinstance(entry, DomainEntry):
                continue
            why = _unfit(entry, fingerprint, initial)
            if name in taken:
                if why is None and name in hidden:
                    left_out[name] = (
                        "has no prefix here, and the shipped one of that name was left out: it is another domain"
                    )
            elif why is None:
                sound[name] = entry
            elif store is library:
                left_out[name] = f"{why} and was left out"
        # Whatever the library has under a name is not replaced by what ships under it: that is another domain. What ships for
        # another backbone takes no name away from what ships for this one.
        own = entries if store is library else ()
        hidden |= {name for name in own if not isinstance(entries[name], DomainEntry)} - taken
        taken |= {*sound, *errors, *own}
    return sound, left_out


def _unfit(entry: DomainEntry, fingerprint: str, initial: str) -> str | None:
    if entry.prefix.backbone != fingerprint:
        return "was trained on another backbone"
    if entry.prefix.initial != initial:
        return "started from another initial prefix"
    return "is an ensemble" if entry.members else None
