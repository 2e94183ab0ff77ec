"""``library.json``: the backbone of a library, and the initial prefix that its domains start from."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from xdner.errors import LibraryError
from xdner.files import write_atomically
from xdner.library.kinds import Entry
from xdner.prefix.prefix import Prefix, short

__all__ = ["MANIFEST", "Manifest", "name_of", "title"]

MANIFEST = "library.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``library.json`` says.

    Attributes:
        backbone: fingerprint of the backbone that all domains belong to.
        backbone_name: for people; may be empty.
        initial: hash of δ₀; empty while unknown.
    """

    backbone: str
    backbone_name: str = ""
    initial: str = ""

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Of a library; ``None`` where there is none, as in a library of an older xdner.

        Raises:
            LibraryError: the file is damaged, or of a later format.
        """
        path = folder / MANIFEST
        hint = f"Delete {path}: it is written anew with the next domain."
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise LibraryError(f"cannot read {path}: {error}", hint=hint) from None
        data = data if isinstance(data, dict) else {}
        if isinstance(data.get("format"), int) and data["format"] > _FORMAT:
            raise LibraryError(
                f"{path} has format {data['format']}, this version reads {_FORMAT}", hint="Install a newer xdner."
            )
        values = [data.get(key) for key in ("backbone", "backbone_name", "initial")]
        if data.get("format") != _FORMAT or not all(isinstance(v, str) for v in values) or not values[0]:
            raise LibraryError(f"{path} is damaged: it does not name the library's backbone", hint=hint)
        return cls(*(str(v) for v in values))

    def write(self, folder: Path) -> None:
        """Write ``library.json`` in one step.

        Raises:
            StorageError: it cannot be written.
        """
        write_atomically(folder / MANIFEST, json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def infer(cls, entries: Collection[Entry], initial: Prefix | None) -> Manifest | None:
        """What the domains and δ₀ of a library without ``library.json`` agree on; ``None`` if on no backbone."""
        prefixes = [p for entry in entries for p in entry.prefixes]
        every = prefixes if initial is None else [initial, *prefixes]
        if len({p.backbone for p in every}) != 1:
            return None
        starts = {p.initial for p in prefixes} if initial is None else {initial.rounded().hash()}
        return cls(
            every[0].backbone, next((n for n in map(name_of, every) if n), ""), starts.pop() if len(starts) == 1 else ""
        )

    @property
    def title(self) -> str:
        """The backbone, for messages."""
        return title(self.backbone, self.backbone_name)


def name_of(prefix: Prefix) -> str:
    """The name of a prefix's backbone, if it was noted."""
    name = prefix.notes.get("backbone_name", "")
    return name if isinstance(name, str) else ""


def title(fingerprint: str, name: str) -> str:
    """A backbone for messages: its name and its fingerprint."""
    return f"{name} ({short(fingerprint)})" if name else short(fingerprint)
