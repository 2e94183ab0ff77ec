"""What the folders of all kinds of domains have in common: the files for people, and files that a manifest vouches for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from xdner.domain import Domain
from xdner.errors import XdnerError
from xdner.files import write_atomically

__all__ = ["ask_back", "read_lines", "read_text", "vouch", "write_further", "write_shared"]


class _Settings(Protocol):
    def to_toml(self) -> str: ...


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
