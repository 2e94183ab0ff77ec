"""The library: one folder, one backbone for all prefixes, a sub-folder for each domain.

::

    library.json    the backbone's fingerprint and the hash of δ₀
    .initial/       δ₀, the prefix that all domains start from
    .lock           held by whoever writes
    music/          a domain: a prefix (``entry.py``), a tagger with weights of its own (``tagger_entry.py``), or examples
                    (``examples_entry.py``)

A domain's folder is replaced in one step (``entry.save``). Writers take turns; readers need no lock: they
see the old domain or the new one, never a mixture, and never miss one because a writer is at work or was killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from xdner.errors import LibraryError, XdnerError
from xdner.files import discard, holds, replace_folder, storage_errors, taking_turns, write_atomically
from xdner.library.archive import files_of, pack, unpack
from xdner.library.exchange import adopt, start_of, take_start
from xdner.library.kinds import Entry
from xdner.library.leftovers import entries, is_domain, may_give_way, orphans, recover
from xdner.library.manifest import MANIFEST, Manifest, name_of, title
from xdner.library.parts import at_rest
from xdner.library.reading import read_domain, read_unpacked, sound
from xdner.library.shelf import Shelf
from xdner.library.verdict import INITIAL, Verdict, verdicts
from xdner.prefix.prefix import Prefix, short

__all__ = ["Library", "Verdict"]

_ANOTHER = "Keep it in another folder with --library: one library holds domains of one backbone."


class Library(Shelf):
    """Trained domains in a folder: what a :class:`~xdner.library.shelf.Shelf` reads, one backbone for all of them, and writers
    in turns.

    Args:
        folder: need not exist before the first domain is added.
        timeout: seconds to wait for another writer.
    """

    def __init__(self, folder: str | Path | None = None, *, timeout: float = 30.0) -> None:
        super().__init__(folder)
        self.timeout = timeout

    # -- the backbone and δ₀ -------------------------------------------------------------------------------------

    def verify(self) -> list[Verdict]:
        """Read every domain and compare it with the library's backbone and δ₀.

        Another δ₀ is no damage: such a domain works, but cannot be combined with the others. A library without
        ``library.json`` is held to the backbone that its domains agree on.
        """
        return verdicts(self.folder, self.initial_prefix, *self.load_all())

    def initial_prefix(self) -> Prefix | None:
        """δ₀ of this library, if it has one.

        Raises:
            PrefixFormatError: it was altered or is incomplete.
        """
        folder = self.folder / INITIAL
        if not folder.exists():
            folder = orphans(self.folder, entries(self.folder)).get(INITIAL, folder)
        return sound(folder, Prefix.load) if folder.exists() else None

    def initial_hash(self) -> str:
        """Hash of the δ₀ that the library's domains started from, also where δ₀ itself is not there; empty if unknown.

        Raises:
            LibraryError: ``library.json`` is damaged.
        """
        known = self._known()
        return known.initial if known else ""

    def check_backbone(self, fingerprint: str, name: str = "") -> None:
        """Ask before a long training whether a domain of this backbone may be added.

        Raises:
            LibraryError: the library or its δ₀ is for another backbone, or ``library.json`` is damaged.
            PrefixFormatError: δ₀ is damaged.
        """
        self._admit(self._known(), fingerprint, name)
        initial = self.initial_prefix()
        if initial is not None:  # counts by itself where the domains of an older library disagree
            self._admit(Manifest(initial.backbone, name_of(initial)), fingerprint, name)

    # -- writing -------------------------------------------------------------------------------------------------

    def add(self, entry: Entry, *, also: Mapping[str, str] | None = None) -> Path:
        """Store a domain under its name, replacing an older one; ``also`` are further files of text, by name.

        The first domain makes ``library.json``. In an older library without one, the backbone is that of all domains
        that are there; if they disagree, it is the new domain's.

        Raises:
            LibraryError: another backbone than the library's, something else has the name, or another process writes.
            StorageError: the folder cannot be written.
        """
        with self._writing():
            known, target = self._admit_entry(entry), self._place(entry.domain.name)
            entry.save(target, also)
            self._pin(known, entry)
        return target

    def remove(self, name: str) -> None:
        """Delete a domain, sound or damaged, or an index that none was made of yet. Rows on a server stay there
        (:func:`xdner.workflows.remove_domain`).

        Raises:
            UnknownDomainError: it is not there.
            LibraryError: another process writes.
            StorageError: it cannot be deleted.
        """
        if name not in self and name not in self.begun():
            raise self._unknown(name)
        path = self.path(name)
        with self._writing():
            if not is_domain(path) and name not in self.begun():
                raise self._unknown(name)
            with storage_errors(path):
                if path.is_symlink():
                    path.unlink()
                    return
                # First out of sight in one step, so that nobody reads half of it; and at rest: files that somebody wrote to its
                # index now would make the folder anew.
                with at_rest(path, self.timeout):
                    gone = self.folder / f".{name[:32]}.{secrets.token_hex(6)}.part"
                    os.replace(path, gone)
                    discard(gone)

    def set_initial(self, prefix: Prefix) -> None:
        """Make a prefix the start of all domains; it is stored in 16 bits.

        Raises:
            LibraryError: there is another one already, the library is for another backbone, or another process writes.
            StorageError: the folder cannot be written.
        """
        new = prefix.rounded().hash()
        with self._writing():
            known = self._known()
            self._admit(known, prefix.backbone, name_of(prefix), "the initial prefix")
            old = self._initial_hash(known)
            if old is not None and old != new:
                raise LibraryError(
                    f"the library {self.folder} has another initial prefix: {short(old)}, not {short(new)}",
                    hint="Choose another folder with --library; prefixes of two starts cannot be combined.",
                )
            try:
                present = self.initial_prefix() is not None
            except XdnerError:
                present = False  # damaged, and known to be the same one
            if not present:
                with replace_folder(self.folder / INITIAL, holds("prefix.json", "prefix.safetensors")) as fresh:
                    prefix.save(fresh)
            name = (known.backbone_name if known else "") or name_of(prefix)
            self._write(Manifest(prefix.backbone, name, new))

    def export(self, name: str, file: str | Path) -> Path:
        """Write a domain as one file (``.xdner``), with the δ₀ that it started from; an older file is replaced. Equal
        domains give equal bytes.

        Returns:
            The file.

        Raises:
            UnknownDomainError: it is not there.
            XdnerError: it is damaged, or somebody writes to its index.
            StorageError: the file cannot be written.
        """

        def files(path: Path) -> dict[str, bytes]:
            entry = read_domain(path, name)
            try:
                initial = self.initial_prefix()
            except XdnerError:
                initial = None  # damaged: the domain itself is sound
            with at_rest(path, self.timeout):  # an index that is being written is whole to nobody
                return files_of(path) | start_of(entry, self.folder / INITIAL, initial)

        write_atomically(file, pack(self._steady(name, files)))
        return Path(file)

    def import_(
        self, file: str | Path, *, name: str | None = None, replace: bool = False,
        giving_way: Callable[[Path], None] = lambda folder: None,
    ) -> str:  # fmt: skip
        """Add a domain from a file that :meth:`export` wrote. A library without a δ₀ takes over the one in the file.

        Args:
            name: another name for it.
            replace: take the place of a domain, or an index of examples, of that name. Rows on a server stay there
                (:func:`xdner.workflows.import_domain`).
            giving_way: told the folder of what is replaced, while it is still there.

        Returns:
            Its name.

        Raises:
            LibraryError: the file is no sound export, its backbone is another one, there is a domain of that name, or
                another process writes.
            DomainError: ``name`` cannot be a domain's name.
            StorageError: the library cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with storage_errors(tempfile.gettempdir()):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xdner-import-")))
            unpack(Path(file), folder)
            entry = read_unpacked(Path(file), folder, name)
            initial = take_start(Path(file), folder, entry)
            with self._writing():
                known, target = self._admit_entry(entry), self._place(entry.domain.name)
                if may_give_way(target) and not replace:
                    what = "a domain" if is_domain(target) else "an index of examples"
                    raise LibraryError(
                        f"the library {self.folder} has {what} {entry.domain.name!r} already",
                        hint="Take its place with --replace, or choose another name with --name.",
                    )
                with at_rest(target, self.timeout), replace_folder(target, may_give_way) as fresh:
                    giving_way(target)
                    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                        write_atomically(fresh / path.relative_to(folder), path.read_bytes())
                adopt(initial, self.folder / INITIAL, known)
                self._pin(known, entry)
        return entry.domain.name

    # -- the parts -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock, with everything that killed writers left put right."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with taking_turns(self.folder, f"the library {self.folder}", self.timeout, LibraryError):
            with storage_errors(self.folder):
                recover(self.folder)
            yield

    def _known(self) -> Manifest | None:
        """``library.json``, or what the domains of an older library agree on."""
        written = Manifest.read(self.folder)
        if written is not None:
            return written
        try:
            initial = self.initial_prefix()
        except XdnerError:
            initial = None
        return Manifest.infer(self.load_all()[0].values(), initial)

    def _initial_hash(self, known: Manifest | None) -> str | None:
        """Hash of the stored δ₀, also where only ``library.json`` still knows it; ``None`` if none was ever stored."""
        try:
            prefix = self.initial_prefix()
        except XdnerError:
            if known is None or not known.initial:
                raise
            return known.initial
        return None if prefix is None else prefix.rounded().hash()

    def _admit(self, known: Manifest | None, fingerprint: str, name: str, what: str = "this one") -> None:
        if known is not None and fingerprint != known.backbone:
            raise LibraryError(
                f"the library {self.folder} is for the backbone {known.title}, "
                f"but {what} is for {title(fingerprint, name)}",
                hint=_ANOTHER,
            )

    def _admit_entry(self, entry: Entry) -> Manifest | None:
        known = self._known()
        if not entry.prefixes:  # a tagger brings its own weights
            return known
        own = known or Manifest(entry.prefixes[0].backbone, name_of(entry.prefixes[0]))
        for prefix in entry.prefixes:
            self._admit(own, prefix.backbone, name_of(prefix), f"domain {entry.domain.name!r}")
        return known

    def _place(self, name: str) -> Path:
        """Where a domain goes; nothing that is no domain is ever replaced."""
        target = self.path(name)
        if name.casefold() == MANIFEST:
            raise LibraryError(f"{name!r} is the name of a library's own file", hint="Choose another name.")
        link, empty = os.path.islink(target), os.path.isdir(target) and not entries(target)
        if link or (os.path.lexists(target) and not may_give_way(target) and not empty):
            what = "a link" if link else "no domain"
            raise LibraryError(
                f"{target} is in the way: it is {what}", hint="Move it away, or give the domain another name."
            )
        return target

    def _pin(self, known: Manifest | None, entry: Entry) -> None:
        """Write what the library did not know before this domain came."""
        if not entry.prefixes:
            return
        prefix = entry.prefixes[0]
        own = known or Manifest(prefix.backbone)
        with contextlib.suppress(XdnerError):  # a damaged δ₀ is for `verify`; the domain is stored
            initial = self.initial_prefix()
            own = own if initial is None else replace(own, initial=initial.rounded().hash())
        self._write(
            replace(
                own,
                backbone_name=own.backbone_name or name_of(prefix),
                initial=own.initial or prefix.initial,
            )
        )

    def _write(self, manifest: Manifest) -> None:
        if manifest != Manifest.read(self.folder):
            manifest.write(self.folder)
