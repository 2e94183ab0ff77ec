"""The kinds of domains that a library holds side by side."""

from __future__ import annotations

from pathlib import Path

from xdner.errors import LibraryError
from xdner.library.entry import DomainEntry
from xdner.library.examples_entry import EXAMPLES_MANIFEST, ExamplesEntry
from xdner.library.tagger_entry import MANIFEST, WEIGHTS, TaggerEntry

__all__ = ["Entry", "check_kind", "load_entry", "with_prefix"]

#: A domain with a prefix (CP-NER), with a tagger (LANER), or of examples (IF-WRANER).
Entry = DomainEntry | TaggerEntry | ExamplesEntry

#: For each kind that a folder can be: the name of what it holds, and the files that only this kind has.
_OWN = {
    "a prefix": ("prefix.json", "prefix.safetensors"),
    "a tagger": (MANIFEST, WEIGHTS),
    "a domain of examples": (EXAMPLES_MANIFEST,),
}


def load_entry(folder: str | Path) -> Entry:
    """The domain in a folder, of whichever kind its files are.

    Raises:
        LibraryError: it holds files of several kinds.
        XdnerError: it is damaged.
    """
    folder = Path(folder)
    found = [what for what, names in _OWN.items() if any((folder / name).is_file() for name in names)]
    if len(found) > 1:
        raise LibraryError(
            f"{folder} holds {' and '.join(found)}", hint="Restore the folder as it was made, or train again."
        )
    kind: type[Entry] = DomainEntry
    if found == ["a tagger"]:
        kind = TaggerEntry
    elif found == ["a domain of examples"]:
        kind = ExamplesEntry
    return kind.load(folder)


def check_kind(folder: Path, kind: type[Entry]) -> None:
    """Refuse to put a domain in the place of one that another method made.

    Args:
        folder: where it will be.
        kind: of the new domain.

    Raises:
        LibraryError: there is one.
    """
    own = {DomainEntry: "a prefix", TaggerEntry: "a tagger", ExamplesEntry: "a domain of examples"}[kind]
    other = next((w for w, names in _OWN.items() if w != own and any((folder / n).is_file() for n in names)), None)
    if other is not None:
        raise LibraryError(
            f"{folder} holds {other}, made by another method; {own} would take its place",
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
