"""What an export carries besides its domain: the δ₀ that it started from.

Prefixes can be combined only if they started from one δ₀. A library that is empty takes it over with the first domain, so
that what is trained there later can be combined with what was imported.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from xdner.errors import LibraryError, XdnerError
from xdner.files import replace_folder
from xdner.library.archive import files_of
from xdner.library.kinds import Entry
from xdner.library.manifest import Manifest
from xdner.library.reading import sound
from xdner.prefix.prefix import Prefix

__all__ = ["adopt", "start_of", "take_start"]

#: Folder in an export; not in a library, where δ₀ is stored once.
START = "initial"


def start_of(entry: Entry, folder: Path, initial: Prefix | None) -> dict[str, bytes]:
    """The files of δ₀ for an export, by their path in it; none where it is not the domain's, or a tagger's domain has none.

    Args:
        entry: the domain.
        folder: where δ₀ is stored.
        initial: δ₀ of the library, as it was read from there.
    """
    if initial is None or {initial.rounded().hash()} != {p.initial for p in entry.prefixes}:
        return {}
    return {f"{START}/{name}": data for name, data in files_of(folder).items()}


def take_start(file: Path, folder: Path, entry: Entry) -> Prefix | None:
    """Take δ₀ out of an unpacked export, so that only the domain's own files stay in the folder.

    Raises:
        LibraryError: it is damaged, or another one than the domain's.
    """
    place = folder / START
    if not place.is_dir():
        return None
    try:
        initial = sound(place, Prefix.load)
    except XdnerError as error:
        why = error.message.replace(f"{folder}{os.sep}", "")
        raise LibraryError(f"{file} does not hold a sound domain: {why}", hint="Export it again.") from None
    if {(initial.backbone, initial.rounded().hash())} != {(p.backbone, p.initial) for p in entry.prefixes}:
        raise LibraryError(
            f"{file} does not hold a sound domain: the initial prefix in it is not the one that the domain started from",
            hint="Export it again.",
        )
    shutil.rmtree(place)
    return initial


def adopt(initial: Prefix | None, folder: Path, known: Manifest | None) -> None:
    """Store the δ₀ that came with a domain, where there is none and no other one is expected.

    Args:
        initial: what :func:`take_start` gave.
        folder: of δ₀ in the library, whose lock is held.
        known: what the library knows of its backbone and δ₀.
    """
    if initial is None or os.path.lexists(folder):
        return
    if known is None or known.initial in ("", initial.rounded().hash()):
        with replace_folder(folder) as fresh:
            initial.save(fresh)
