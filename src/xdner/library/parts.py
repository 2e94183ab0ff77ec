"""What the folders of all kinds of domains have in common: the files for people, files that a manifest vouches for, and an
index of examples that is kept when the rest is written anew."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from xdner.domain import Domain
from xdner.errors import LibraryError, StorageError, XdnerError
from xdner.files import replace_folder, storage_errors, taking_turns, write_atomically
from xdner.library.leftovers import may_give_way

__all__ = [
    "INDEX",
    "ask_back",
    "at_rest",
    "read_lines",
    "read_text",
    "taking_place",
    "vouch",
    "write_further",
    "write_shared",
]

#: Folder of a domain's index of examples (``retrieval/``), whatever kind the domain is.
INDEX = "index"
_PATIENCE = 60.0  # seconds that whoever saves waits for whoever writes to the index


class _Settings(Protocol):
    def to_toml(self) -> str: ...


@contextlib.contextmanager
def at_rest(folder: Path, patience: float) -> Iterator[None]:
    """Nobody writes to the index in a domain's folder meanwhile, if it has one. Whoever holds a library's lock may ask for this
    one, never the other way round.

    Args:
        folder: of the domain.
        patience: seconds to wait for a writer.

    Raises:
        LibraryError: somebody is writing to the index.
        StorageError: the lock cannot be written.
    """
    index = folder / INDEX
    with storage_errors(folder):
        there = index.is_dir()
    with taking_turns(index, f"the index in {index}", patience, LibraryError) if there else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def taking_place(folder: str | Path) -> Iterator[Path]:
    """Give a fresh folder to fill; when the block ends well it takes a domain's place, and has the index that was there. Nobody
    writes to that index meanwhile: what came after the copy would be lost.

    Raises:
        StorageError: it cannot be written.
        LibraryError: somebody is writing to the index.
    """
    index = Path(folder) / INDEX
    with at_rest(Path(folder), _PATIENCE), replace_folder(folder, may_give_way) as fresh:
        yield fresh
        if index.is_dir():
            try:
                shutil.copytree(index, fresh / INDEX, ignore=shutil.ignore_patterns(".lock"))
            except shutil.Error as error:
                raise StorageError(f"cannot copy {index}: {error}", hint="Is the index in use?") from None


def write_shared(folder: Path, domain: Domain, settings: _Settings, seen: Collection[str], card: str) -> None:
    """``domain.toml`` and ``settings.toml``; ``sentences.txt`` (hashes) and ``card.md`` where there is something in them.

    Raises:
        StorageError: a file cannot be written.
    """
    write_atomically(folder / "domain.toml", domain.to_toml())
    write_atomically(folder / "settings.toml", settings.to_toml())
    if seen:
        write_atomically(folder / "sentences.txt", "\n".join(sorted(seen)) + "\n")
    if card:
        write_atomically(folder / "card.md", card)


def write_further(folder: Path, also: Mapping[str, str] | None) -> None:
    """Files of text that are not the domain's own, by name: how its sentences were sampled."""
    for name, text in (also or {}).items():
        write_atomically(folder / name, text)


def read_text(path: Path, error: type[XdnerError], hint: str) -> str:
    """A file's text, empty if there is none.

    Raises:
        error: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"cannot read {path}: {reason}", hint=hint) from None


def read_lines(folder: Path, error: type[XdnerError], hint: str) -> frozenset[str]:
    """The hashes in ``sentences.txt``."""
    return frozenset(read_text(folder / "sentences.txt", error, hint).split())


def vouch(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """What a manifest says about files, by name: ``bytes`` and ``sha256``."""
    return {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()}


def ask_back(path: Path, told: Mapping[str, Any], error: type[XdnerError], hint: str) -> bytes:
    """The file that the manifest vouched for.

    Raises:
        error: it is missing, or is another one.
    """
    try:
        data = path.read_bytes()
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror}", hint=hint) from None
    found = hashlib.sha256(data).hexdigest()
    if found != told["sha256"]:
        raise error(
            f"{path} is truncated or was altered: its hash is {found[:12]}…, the manifest says "
            f"{str(told['sha256'])[:12]}… ({len(data)} of {told.get('bytes')} bytes)",
            hint=f"Copy the folder again from where it came. {hint}",
        )
    return data
