"""Is a library in order? One verdict for each domain, and for the library's own files if they are damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xdner.errors import XdnerError
from xdner.library.entry import DomainEntry
from xdner.library.kinds import Entry
from xdner.library.manifest import MANIFEST, Manifest, name_of, title
from xdner.prefix.prefix import Prefix, short

__all__ = ["INITIAL", "Verdict", "verdicts"]

INITIAL = ".initial"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about a domain.

    Attributes:
        name: of the domain; or ``library.json`` or ``.initial``, which are mentioned only if they are damaged.
        problem: why it cannot be used, or ``None``.
        hint: the next step, if there is one.
        notes: what is worth knowing, but no damage.
    """

    name: str
    problem: str | None = None
    hint: str | None = None
    notes: tuple[str, ...] = ()


def verdicts(
    folder: Path,
    initial: Callable[[], Prefix | None],
    sound: Mapping[str, Entry],
    damaged: Mapping[str, XdnerError],
) -> list[Verdict]:
    """Compare all domains of a library with its backbone and δ₀.

    Args:
        folder: of the library.
        initial: reads δ₀.
        sound, damaged: what reading the domains gave.
    """
    found: list[Verdict] = []
    manifest, start = None, None
    try:
        manifest = Manifest.read(folder)
    except XdnerError as error:
        found.append(Verdict(MANIFEST, error.message, error.hint))
    try:
        start = initial()
    except XdnerError as error:
        found.append(Verdict(INITIAL, error.message, error.hint))
    manifest = manifest or Manifest.infer(sound.values(), start)
    if start is not None and manifest is not None:
        if start.backbone != manifest.backbone:
            problem = f"it was made for the backbone {_backbone(start)}, the library is for {manifest.title}"
            found.append(Verdict(INITIAL, problem, f"Move {folder / INITIAL} away; `xdner train` makes a new one."))
        else:
            manifest = replace(manifest, initial=start.rounded().hash())
    for name in sorted({*sound, *damaged}):
        if name in damaged:
            found.append(Verdict(name, damaged[name].message, damaged[name].hint))
        else:
            found.append(_judge(name, sound[name], manifest))
    return found


def _judge(name: str, entry: Entry, manifest: Manifest | None) -> Verdict:
    altered = entry.altered if isinstance(entry, DomainEntry) else ()
    notes = (
        (f"{' and '.join(altered)} changed since training: it may be read otherwise than it was learned",)
        if altered
        else ()
    )
    if not entry.prefixes:  # it brings its own weights: the library's backbone is nothing to it
        return Verdict(name)
    if manifest is None:
        note = f"the library has domains of several backbones, and no {MANIFEST} that names its own"
        return Verdict(name, notes=(*notes, note))
    strangers = [p for p in entry.prefixes if p.backbone != manifest.backbone]
    if strangers:
        problem = f"it was trained on the backbone {_backbone(strangers[0])}, the library is for {manifest.title}"
        return Verdict(name, problem, "Move its folder to another library.")
    others = sorted({p.initial for p in entry.prefixes} - {manifest.initial})
    if not others or not manifest.initial:
        return Verdict(name, notes=notes)
    started = " and ".join(short(o) for o in others)
    note = f"started from another initial prefix ({started}) than the library's ({short(manifest.initial)})"
    return Verdict(name, notes=(*notes, f"{note}: it cannot be combined with the others"))


def _backbone(prefix: Prefix) -> str:
    return title(prefix.backbone, name_of(prefix))
