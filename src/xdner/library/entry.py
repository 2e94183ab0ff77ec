"""A trained domain as a folder: what it is, how it is steered, how it was trained, what it has seen.

::

    domain.toml            types, verbalizations, instruction
    settings.toml          all settings of the run
    prefix.json            manifest: backbone, initial prefix, hash, notes
    prefix.safetensors     keys and values, 16 bits
    member-2/ …            further prefixes, where the domain is an ensemble
    sentences.txt          a short hash of every sentence it was trained on, to find out whether two domains share some
    card.md                for people, where there is one
    index/                 of examples, if it was given one (``retrieval/``); kept as it is when the rest is written anew
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xdner.domain import Domain
from xdner.errors import PrefixFormatError
from xdner.library.parts import read_lines, read_text, taking_place, write_further, write_shared
from xdner.prefix.prefix import Prefix
from xdner.settings import Settings
from xdner.text import Sentence

__all__ = ["DomainEntry", "sentence_hashes"]

_RESTORE = "Restore the file, or train again."


def sentence_hashes(sentences: Iterable[Sentence]) -> frozenset[str]:
    """A short hash of each sentence's words, in lower case: equal for copies that differ in spacing or case."""
    texts = (" ".join(w.text for w in s.words).casefold() for s in sentences)
    return frozenset(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] for text in texts)


@dataclass(frozen=True, eq=False)
class DomainEntry:
    """A domain, its trained prefix, and the settings it was trained with (its prompt must be read as it was learned).

    Attributes:
        domain: types and instruction.
        prefix: the trained prefix; of an ensemble, its first member.
        settings: of the run.
        members: the other members of an ensemble; each reads every text, and they vote.
        seen: :func:`sentence_hashes` of the training sentences, and of those of the sources that it draws on.
        card: a text for people (Markdown), or nothing.
    """

    domain: Domain
    prefix: Prefix
    settings: Settings
    members: tuple[Prefix, ...] = ()
    seen: frozenset[str] = frozenset()
    card: str = ""

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """All prefixes, one unless the domain is an ensemble."""
        return (self.prefix, *self.members)

    @property
    def ancestors(self) -> frozenset[str]:
        """Names of all domains that it learned from: its sources, and theirs."""
        transfer = self.prefix.notes.get("transfer")
        names = transfer.get("ancestors") if isinstance(transfer, dict) else None
        return frozenset(n for n in names if isinstance(n, str)) if isinstance(names, list) else frozenset()

    def save(self, folder: str | Path, also: Mapping[str, str] | None = None) -> None:
        """Write the folder in one step; an older one at its place is replaced only when the new one is complete.
        Its ``index`` is kept. ``also`` are further files of text, by name.

        Raises:
            StorageError: it cannot be written.
            LibraryError: somebody is writing to the index.
        """
        with taking_place(folder) as fresh:
            write_shared(fresh, self.domain, self.settings, self.seen, self.card)
            write_further(fresh, also)
            for number, member in enumerate(self.members, start=2):
                member.save(fresh / f"member-{number}")
            self.prefix.with_notes(members=len(self.prefixes)).save(fresh)

    @classmethod
    def load(cls, folder: str | Path) -> DomainEntry:
        """Read what :meth:`save` wrote.

        Raises:
            DomainError, SettingsError, PrefixFormatError: a file is missing, broken or altered.
        """
        folder = Path(folder)
        prefix = Prefix.load(folder)
        parts = [folder / f"member-{number}" for number in range(2, int(prefix.notes.get("members", 1)) + 1)]
        return cls(
            Domain.read(folder / "domain.toml"),
            prefix,
            Settings.stored(folder / "settings.toml"),
            members=tuple(Prefix.load(part) for part in parts),
            seen=read_lines(folder, PrefixFormatError, _RESTORE),
            card=read_text(folder / "card.md", PrefixFormatError, _RESTORE),
        )
