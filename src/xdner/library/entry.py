"""One domain on disk: a folder with ``domain.toml``, ``settings.toml``, ``prefix.json`` and ``prefix.safetensors``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xdner.domain import Domain
from xdner.files import replace_folder, write_atomically
from xdner.prefix.prefix import Prefix
from xdner.settings import Settings

__all__ = ["DomainEntry"]


@dataclass(frozen=True, eq=False)
class DomainEntry:
    """A domain, its trained prefix, and the settings it was trained with (its prompt must be read as it was learned)."""

    domain: Domain
    prefix: Prefix
    settings: Settings

    def save(self, folder: str | Path) -> None:
        """Write the folder in one step; an older one at its place is replaced only when the new one is complete.

        Raises:
            StorageError: it cannot be written.
        """
        with replace_folder(folder) as fresh:
            write_atomically(fresh / "domain.toml", self.domain.to_toml())
            write_atomically(fresh / "settings.toml", self.settings.to_toml())
            self.prefix.save(fresh)

    @classmethod
    def load(cls, folder: str | Path) -> DomainEntry:
        """Read what :meth:`save` wrote.

        Raises:
            DomainError, SettingsError, PrefixFormatError: a file is missing, broken or altered.
        """
        folder = Path(folder)
        prefix = Prefix.load(folder)
        return cls(Domain.read(folder / "domain.toml"), prefix, Settings.build(folder / "settings.toml"))
