"""A domain as one file: a zip archive of its folder, with the hash of every member in ``export.json``.

What is read may come from anybody, so nothing in it is believed: not the names, not the sizes, not the hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from xdner import __version__
from xdner.errors import LibraryError
from xdner.files import storage_errors
from xdner.library.leftovers import is_leftover

__all__ = ["LIMIT_FILES", "files_of", "pack", "unpack"]

LISTING = "export.json"
LIMIT_BYTES = 1_000_000_000
LIMIT_FILES = 1000
_LIMIT_LISTING = 4_000_000  # bytes of export.json, and of the archive's own directory
_LIMIT_NAME = 500
_FORMAT = 1
_CHUNK = 1 << 20
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first moment that the format knows: the bytes depend on nothing but the domain
_HINT = "Export the domain again with `xdner domains export`, and copy the whole file."
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, OverflowError, struct.error, zlib.error)


# -- writing ---------------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a domain's folder, by their path in it.

    Raises:
        LibraryError: a file cannot be read, or could not be imported again.
    """
    found: dict[str, bytes] = {}
    try:
        for place, folders, names in os.walk(folder, onerror=_reraise):
            here = Path(place)
            for path in [here / n for n in folders if (here / n).is_symlink()] + [here / n for n in names]:
                name = path.relative_to(folder).as_posix()
                if is_leftover(path.name):
                    continue
                if _flaw(name) or name == LISTING or not path.is_file():
                    raise LibraryError(
                        f"{folder} cannot be exported: {name!r} cannot be part of an export",
                        hint="Move it out of the domain's folder and try again.",
                    )
                found[name] = path.read_bytes()
    except OSError as error:
        raise LibraryError(f"cannot read {folder}: {error}", hint="Restore the file, or train again.") from None
    if len(found) > LIMIT_FILES or sum(map(len, found.values())) > LIMIT_BYTES:
        raise LibraryError(f"{folder} is too large for an export", hint="Copy the folder itself.")
    return found


def pack(files: Mapping[str, bytes]) -> bytes:
    """An archive of files; equal files give equal bytes.

    They are stored as they are: 16-bit numbers do not shrink, and compressed bytes differ from one zlib to the next.
    """
    listing = {
        "format": _FORMAT,
        "xdner": __version__,
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    members = {**files, LISTING: (json.dumps(listing, indent=2) + "\n").encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _LONG_AGO)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


# -- reading ---------------------------------------------------------------------------------------------------------


def unpack(file: Path, folder: Path) -> None:
    """Check an archive and write its files, without ``export.json``, into an empty folder.

    Raises:
        LibraryError: it is not an export, was cut off or altered, is too large, or wants to write elsewhere. Some files
            may have been written into the folder, never outside.
        StorageError: a file cannot be written.
    """
    with _opened(file) as archive:
        members = _members(file, archive.infolist())
        hashes = _listing(file, archive, members)
        missing, extra = sorted(hashes.keys() - members.keys()), sorted(members.keys() - hashes.keys() - {LISTING})
        if missing or extra:
            raise _refusal(file, f"it lacks {_some(missing)}" if missing else f"it holds {_some(extra)} besides")
        room = LIMIT_BYTES
        for name in sorted(hashes):
            room -= _extract(file, archive, members[name], folder / name, hashes[name], room)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        _check_end(file)
        with zipfile.ZipFile(file) as archive:
            yield archive
    except FileNotFoundError:
        raise LibraryError(f"there is no file {file}", hint="Check the path of the exported domain.") from None
    except _BROKEN as error:
        raise _refusal(file, str(error) or type(error).__name__) from None


def _check_end(file: Path) -> None:
    """Refuse what would make :mod:`zipfile` read a huge directory, before it does."""
    with open(file, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 42))
        tail = stream.read()
    end = tail[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise _refusal(file, "it is not a zip archive, or was cut off")
    count, listed = struct.unpack("<10xHI", end[:16])
    if (
        count > LIMIT_FILES + 1
        or listed > _LIMIT_LISTING
        or tail[:4] == b"PK\6\7"
        or size > LIMIT_BYTES + _LIMIT_LISTING
    ):
        raise _too_large(file)


def _members(file: Path, infos: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The members by name; all of them plain files that stay in the folder."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename  # zipfile has tidied the other one
        flaw = _flaw(name)
        if flaw:
            raise _refusal(file, f"its member {name!r} {flaw}")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _refusal(file, f"its member {name!r} is a link or another special file")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refusal(file, f"its member {name!r} is encrypted or packed in an unknown way")
        if name in members:
            raise _refusal(file, f"it holds {name!r} twice")
        members[name] = info
    if len(members) > LIMIT_FILES + 1:
        raise _too_large(file)
    for name in members:
        if any(str(parent) in members for parent in PurePosixPath(name).parents):
            raise _refusal(file, f"its member {name!r} is inside of a file")
    return members


def _listing(file: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> dict[str, str]:
    """The hashes in ``export.json``."""
    if LISTING not in members:
        raise _refusal(file, f"it has no {LISTING}")
    with archive.open(members[LISTING]) as stream:
        data = stream.read(_LIMIT_LISTING + 1)
    if len(data) > _LIMIT_LISTING:
        raise _too_large(file)
    try:
        listing: Any = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refusal(file, f"{LISTING}: {error}") from None
    listing = listing if isinstance(listing, dict) else {}
    form, files = listing.get("format"), listing.get("files")
    if isinstance(form, int) and form > _FORMAT:
        raise LibraryError(f"{file} has format {form}, this version reads {_FORMAT}", hint="Install a newer xdner.")
    if form != _FORMAT or not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise _refusal(file, f"its {LISTING} has no format and no list of files")
    return files


def _extract(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, wanted: str, room: int) -> int:
    """Write one member and return its size, which is counted as it comes and not as it is announced."""
    digest, size = hashlib.sha256(), 0
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        out = open(target, "xb")  # noqa: SIM115 - closed by the next line; its errors are the disk's, others the archive's
    with out, archive.open(info) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > room:
                raise _too_large(file)
            digest.update(chunk)
            with storage_errors(target):
                out.write(chunk)
        with storage_errors(target):
            out.flush()
    if digest.hexdigest() != wanted:
        raise _refusal(file, f"its member {info.filename!r} was altered: the hash in {LISTING} is another one")
    return size


def _flaw(name: str) -> str:
    """Why a member's name is refused; empty if it is fine."""
    parts = name.split("/")
    if len(name) > _LIMIT_NAME or not name.isprintable() or any(len(part.encode()) > 255 for part in parts):
        return "has an impossible name"
    if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        return "would leave the domain's folder, or is a folder itself"
    return ""


def _reraise(error: OSError) -> None:
    raise error


def _refusal(file: Path, why: str) -> LibraryError:
    return LibraryError(f"{file} is not a sound export of a domain: {why}", hint=_HINT)


def _too_large(file: Path) -> LibraryError:
    return LibraryError(
        f"{file} holds more than a domain can: over {LIMIT_BYTES / 1e9:g} GB or {LIMIT_FILES} files",
        hint="Do not trust it; ask for a file made by `xdner domains export`.",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
