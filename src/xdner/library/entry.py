"""A trained domain as a folder: what it is, how it is steered, how it was trained, what it has seen.

::

    domain.toml            types, verbalizations, instruction
    settings.toml          all settings of the run
    prefix.json            manifest: backbone, initial prefix, notes, hashes of the prefix and of the three files of text
    prefix.safetensors     keys and values, 16 bits
    member-2/ …            further prefixes, where the domain is an ensemble
    sentences.txt          a short hash of every sentence it was trained on, to find out whether two domains share some
    card.md                for people, where there is one
    index/                 of examples, if it was given one (``retrieval/``); kept as it is when the rest is written anew
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xdner.domain import Domain
from xdner.errors import PrefixFormatError
from xdner.library.parts import ask_back, read_lines, read_text, taking_place, vouch, write_further, write_shared
from xdner.prefix.prefix import Prefix
from xdner.settings import Settings
from xdner.text import Sentence

__all__ = ["DomainEntry", "sentence_hashes"]

_SEEN = "sentences.txt"
_TEXTS = ("domain.toml", "settings.toml", _SEEN)
LIMIT_MEMBERS = 500  # of an ensemble; an export holds no more
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
        altered: of ``domain.toml`` and ``settings.toml``, those that were edited since they were saved: the model may read other
            words than it was trained with.
    """

    domain: Domain
    prefix: Prefix
    settings: Settings
    members: tuple[Prefix, ...] = ()
    seen: frozenset[str] = frozenset()
    card: str = ""
    altered: tuple[str, ...] = ()

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
            self.write(fresh)
            write_further(fresh, also)

    def write(self, folder: Path) -> None:
        """Write the files into a folder that nobody reads yet."""
        write_shared(folder, self.domain, self.settings, self.seen, self.card)
        for number, member in enumerate(self.members, start=2):
            member.save(folder / f"member-{number}")
        texts = {name: (folder / name).read_bytes() for name in _TEXTS if (folder / name).is_file()}
        self.prefix.with_notes(members=len(self.prefixes), files=vouch(texts)).save(folder)

    def renamed(self, domain: Domain) -> DomainEntry:
        """The same under another name."""
        prefix, *members = (
            p.with_notes(domain=domain.name) if p.notes.get("domain") == self.domain.name else p for p in self.prefixes
        )
        return replace(self, domain=domain, prefix=prefix, members=tuple(members))

    @classmethod
    def load(cls, folder: str | Path) -> DomainEntry:
        """Read what :meth:`save` wrote.

        Raises:
            DomainError, SettingsError, PrefixFormatError: a file is missing, broken or altered.
        """
        folder = Path(folder)
        prefix = Prefix.load(folder)
        members = prefix.notes.get("members", 1)
        if type(members) is not int or not 1 <= members <= LIMIT_MEMBERS:  # do not even begin to look for a billion
            raise PrefixFormatError(f"{folder / 'prefix.json'} claims an impossible number of members", hint=_RESTORE)
        parts = [folder / f"member-{number}" for number in range(2, members + 1)]
        told = {name: one for name, one in _files(folder, prefix).items() if name in _TEXTS}
        prefix = replace(prefix, notes={key: note for key, note in prefix.notes.items() if key != "files"})
        if _SEEN in told:  # without it, the domain would seem to have seen nothing
            ask_back(folder / _SEEN, told.pop(_SEEN), PrefixFormatError, _RESTORE)
        return cls(
            Domain.read(folder / "domain.toml"),
            prefix,
            Settings.stored(folder / "settings.toml"),
            members=tuple(Prefix.load(part) for part in parts),
            seen=read_lines(folder, PrefixFormatError, _RESTORE),
            card=read_text(folder / "card.md", PrefixFormatError, _RESTORE),
            altered=tuple(name for name, one in told.items() if _hash(folder / name) != one.get("sha256")),
        )


def _files(folder: Path, prefix: Prefix) -> dict[str, dict[str, Any]]:
    """What the manifest vouches for; nothing in that of an older xdner."""
    told = prefix.notes.get("files", {})
    if not isinstance(told, dict) or not all(isinstance(one, dict) and "sha256" in one for one in told.values()):
        raise PrefixFormatError(f"{folder / 'prefix.json'} has broken entries in 'files'", hint=_RESTORE)
    return told


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
