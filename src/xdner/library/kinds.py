"""The kinds of domains that a library holds side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from xdner.errors import LibraryError
from xdner.library.entry import DomainEntry
from xdner.library.examples_entry import EXAMPLES_MANIFEST, ExamplesEntry
from xdner.library.tagger_entry import MANIFEST, WEIGHTS, TaggerEntry

__all__ = ["RECOGNIZERS", "Entry", "Shelf", "check_kind", "load_entry", "recognizer_of", "with_prefix"]

#: A domain with a prefix (CP-NER), with a tagger (LANER), or of examples (IF-WRANER).
Entry = DomainEntry | TaggerEntry | ExamplesEntry

#: Each kind that a folder can be: what it holds, in words, and the files that only this kind has.
_KINDS: dict[type[Entry], tuple[str, tuple[str, ...]]] = {
    DomainEntry: ("a prefix", ("prefix.json", "prefix.safetensors")),
    TaggerEntry: ("a tagger", (MANIFEST, WEIGHTS)),
    ExamplesEntry: ("a domain of examples", (EXAMPLES_MANIFEST,)),
}
#: What trains and reads each kind, by the name that ``--recognizer`` has for it.
RECOGNIZERS: dict[type[Entry], str] = {DomainEntry: "cp-ner", TaggerEntry: "laner", ExamplesEntry: "if-wraner"}


class Shelf(Protocol):
    """Domains by name, as a library has them."""

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, name: object) -> bool: ...

    def get(self, name: str) -> Entry:
        """Read a domain."""
        ...

    def path(self, name: str) -> Path:
        """Where a domain's folder is, or would be."""
        ...

    def check_backbone(self, fingerprint: str, name: str = "") -> None:
        """Raise an error if these domains are for another backbone."""
        ...


def _kinds_in(folder: Path) -> list[type[Entry]]:
    """The kinds of which a folder has files; one, unless it is damaged or no domain."""
    return [kind for kind, (_, names) in _KINDS.items() if any((folder / name).is_file() for name in names)]


def recognizer_of(folder: Path) -> str:
    """What reads the domain in a folder, by its files alone: ``cp-ner``, ``laner`` or ``if-wraner``.

    Raises:
        LibraryError: it has files of several kinds, or of none.
    """
    found = _kinds_in(folder)
    if len(found) != 1:
        raise LibraryError(
            f"{folder} is no domain, or several in one", hint="Restore the folder as it was made, or train again."
        )
    return RECOGNIZERS[found[0]]


def load_entry(folder: str | Path) -> Entry:
    """The domain in a folder, of whichever kind its files are.

    Raises:
        LibraryError: it holds files of several kinds.
        XdnerError: it is damaged.
    """
    found = _kinds_in(Path(folder))
    if len(found) > 1:
        raise LibraryError(
            f"{folder} holds {' and '.join(_KINDS[kind][0] for kind in found)}",
            hint="Restore the folder as it was made, or train again.",
        )
    return (found[0] if found else DomainEntry).load(folder)


def check_kind(folder: Path, kind: type[Entry]) -> None:
    """Refuse to put a domain in the place of one that another method made.

    Args:
        folder: where it will be.
        kind: of the new domain.

    Raises:
        LibraryError: there is one.
    """
    other = next((_KINDS[found][0] for found in _kinds_in(folder) if found is not kind), None)
    if other is not None:
        raise LibraryError(
            f"{folder} holds {other}, made by another method; {_KINDS[kind][0]} would take its place",
            hint=f"Choose another name, or remove it first: xdner domains remove {folder.name}.",
        )


def with_prefix(entry: Entry) -> DomainEntry:
    """The domain, if it has a prefix.

    Raises:
        LibraryError: it has a tagger, or examples.
    """
    if isinstance(entry, ExamplesEntry):
        raise LibraryError(
            f"domain {entry.domain.name!r} was made with --recognizer if-wraner: it has no prefix",
            hint="CP-NER reads, and draws on, domains with a prefix. Its examples are labelled sentences: train on them.",
        )
    if not isinstance(entry, DomainEntry):
        raise LibraryError(
            f"domain {entry.domain.name!r} was trained with --recognizer laner: it has no prefix",
            hint="CP-NER reads, and draws on, domains with a prefix. A new LANER domain can start from it: "
            "--recognizer laner --from.",
        )
    return entry
