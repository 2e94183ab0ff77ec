"""The kinds of domains that a library holds side by side."""

from __future__ import annotations

from pathlib import Path

from xdner.errors import LibraryError
from xdner.library.entry import DomainEntry
from xdner.library.tagger_entry import MANIFEST, WEIGHTS, TaggerEntry

__all__ = ["Entry", "load_entry", "with_prefix"]

#: A domain with a prefix (CP-NER), or with a tagger (LANER).
Entry = DomainEntry | TaggerEntry


def load_entry(folder: str | Path) -> Entry:
    """The domain in a folder, of whichever kind its files are.

    Raises:
        LibraryError: it holds files of both kinds.
        XdnerError: it is damaged.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (MANIFEST, WEIGHTS)):
        return DomainEntry.load(folder)
    if any((folder / name).is_file() for name in ("prefix.json", "prefix.safetensors")):
        raise LibraryError(
            f"{folder} holds a prefix and a tagger", hint="Restore the folder as it was made, or train again."
        )
    return TaggerEntry.load(folder)


def with_prefix(entry: Entry) -> DomainEntry:
    """The domain, if it has a prefix.

    Raises:
        LibraryError: it has a tagger.
    """
    if not isinstance(entry, DomainEntry):
        raise LibraryError(
            f"domain {entry.domain.name!r} was trained with --recognizer laner: it has no prefix",
            hint="CP-NER reads, and draws on, domains with a prefix. A new LANER domain can start from it: "
            "--recognizer laner --from.",
        )
    return entry
