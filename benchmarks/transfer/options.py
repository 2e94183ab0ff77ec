"""Options that the programs about transfer share, and what of them a result depends on."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xdner.errors import SettingsError
from xdner.settings import Settings

__all__ = ["INSTRUCTED_ON", "Options", "add_options", "add_place", "mentions", "options_of"]

ROOT = Path(__file__).resolve().parents[2]
#: Where the instructed backbone comes from: on its track, every strategy has seen these, ``none`` too.
INSTRUCTED_ON = ("conll2003", "politics", "music", "literature")
#: The order counts: chains go through the sources in it, and the first n of it are the sweep over their number.
SOURCES = ("conll2003", "politics", "literature", "music")
FEW_SHOT = ("mit-movie", "mit-restaurant")
#: Every run makes all its steps, so that they are equal.
DEFAULTS = ("training.patience=0",)
_OWN = {
    "seed": "Use --seeds.",
    "epochs": "Use --steps, --source-steps and --initial-steps.",
    "patience": "Every run makes all its steps, so that strategies can be compared.",
    "strategy": "Use --strategies.",
}


@dataclass(frozen=True)
class Options:
    """Everything that was chosen but the runs themselves.

    Attributes:
        track: ``raw``, ``instructed`` or ``adapted``: in names and captions.
        backbone: alias, hub id or folder.
        data: folder with ``NAME/train.txt`` and, where there is one, ``NAME/dev.txt``.
        out: folder of everything that is made.
        sources: known domains, in their order.
        steps: optimizer steps on the target in all, at least.
        source_steps: optimizer steps on each source, at least.
        initial_steps: optimizer steps on all sources together, at least, where δ₀ is trained on them.
        conll_cap: training sentences of a source, at most (a seeded sample).
        dev_cap: dev sentences of a target, at most.
        initial: δ₀: the instruction's keys and values, or trained on the sources together.
        epoch: whether the last epoch counts or the one that is best on dev.
        drop_shared: whether sentences that the target has too are taken out of the sources.
        drop_also: further targets whose sentences are taken out of the sources, so that all of them share δ₀ and the
            sources' prefixes.
        overrides: of the settings, over the backbone's recommended ones.
        dtype, device: of the frozen weights.
        limit: the first so many sentences of every file only (a trial).
    """

    track: str
    backbone: str
    data: Path
    out: Path
    sources: tuple[str, ...]
    steps: int
    source_steps: int
    conll_cap: int
    dev_cap: int
    initial_steps: int = 300
    initial: Literal["instruction", "shared"] = "instruction"
    epoch: Literal["last", "best"] = "last"
    drop_shared: bool = False
    drop_also: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"
    limit: int | None = None

    @property
    def folder(self) -> Path:
        """Where the runs of this track and δ₀ are."""
        return self.out / f"{self.track}-{self.initial}"

    @property
    def alpha(self) -> float:
        """α of every run that is not part of the sweep over it."""
        return Settings.build(None, self.overrides).selector.alpha

    def sources_of(self, target: str) -> tuple[str, ...]:
        """The sources of a target: all; the first alone where the target is one of them (the paper's Table 1)."""
        if target not in self.sources:
            return self.sources
        return tuple(s for s in self.sources[:1] if s != target)

    def asked(self) -> dict[str, Any]:
        """What a result depends on, as plain values; runs that differ in it are not mixed."""
        return {
            "track": self.track, "backbone": self.backbone, "sources": list(self.sources), "steps": self.steps,
            "source_steps": self.source_steps, "conll_cap": self.conll_cap, "dev_cap": self.dev_cap,
            "initial": self.initial, "initial_steps": self.initial_steps, "epoch": self.epoch, "drop_shared": self.drop_shared,
            "drop_also": list(self.drop_also), "overrides": list(self.overrides), "dtype": self.dtype, "limit": self.limit,
        }  # fmt: skip

    @classmethod
    def from_asked(cls, asked: Mapping[str, Any], data: Path, out: Path) -> Options:
        """The options that a run was made with, to look at its data again."""
        lists = {key: tuple(values) for key, values in asked.items() if isinstance(values, list)}
        return cls(data=data, out=out, **(dict(asked) | lists))

    def settings(self, seed: int, own: Iterable[str] = (), base: Mapping[str, Any] | None = None) -> Settings:
        """Defaults, then the overrides, then what the program decides itself.

        Raises:
            SettingsError: wrong settings, or one that has an option of its own.
        """
        taken = {o: _OWN[key] for o in self.overrides if (key := o.partition("=")[0].strip().split(".")[-1]) in _OWN}
        if taken:
            raise SettingsError(
                [f"{o!r} cannot be set: the benchmark decides it" for o in taken],
                hint=" ".join(dict.fromkeys(taken.values())),
            )
        return Settings.build(None, [*DEFAULTS, *self.overrides, f"training.seed={seed}", *own], base)


def add_place(made: argparse.ArgumentParser) -> None:
    """Options that say where runs are."""
    add = made.add_argument
    add("--track", choices=["raw", "instructed", "adapted"], default="raw", help="which backbone (default: raw)")
    add("--initial", choices=["instruction", "shared"], default="instruction",
        help="δ₀: keys and values of the instruction, or trained on the sources together")  # fmt: skip
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with NAME/train.txt")
    add("--out", type=Path, default=Path("runs/cross_domain"), help="folder of the runs' JSON files")


def add_options(made: argparse.ArgumentParser) -> None:
    """The options that are shared, those of :func:`add_place` included."""
    add_place(made)
    add = made.add_argument
    add("--raw", default="smollm2-135m", metavar="BACKBONE", help="alias, hub id or folder")
    add("--instructed", default="smollm2-135m-ner", metavar="BACKBONE", help="alias, hub id or folder")
    add("--adapted", default="", metavar="FOLDER", help="of the track adapted: a backbone that `xdner adapt` made")
    add("--sources", nargs="+", default=list(SOURCES), metavar="NAME", help="known domains, in this order")
    add("--few-shot", nargs="*", default=list(FEW_SHOT), metavar="NAME", help="targets that --k is for")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="of the samples and of the training")
    add("--steps", type=_count, default=200, metavar="N", help="optimizer steps on the target, whatever the strategy")
    add("--source-steps", type=_count, default=250, metavar="N", help="optimizer steps on each source")
    add("--conll-cap", type=_count, default=2000, metavar="N", help="training sentences of a source, at most")
    add("--initial-steps", type=_count, default=300, metavar="N",
        help="optimizer steps on all sources together, with --initial shared")  # fmt: skip
    add("--dev-cap", type=_count, default=300, metavar="N", help="dev sentences of a target, at most")
    add("--epoch", choices=["last", "best"], default="last", help="which epoch counts: the last, or the best on dev")
    add("--drop-shared", nargs="*", metavar="NAME",
        help="take sentences that the target has too out of the sources, and those of the targets named here, which then "
             "share δ₀ and the sources' prefixes")  # fmt: skip
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of sources and targets")
    add("--dtype", default="float32", help="of the frozen weights: float32, bfloat16 or auto")
    add("--device", default="cpu", help="cpu, cuda, ...")
    add("--limit", type=_count, metavar="N", help="a trial: only the first N sentences of each file")
    add("--table", action="store_true", help="run nothing; tables and figures from the files of the runs")
    add("--budget-minutes", type=float, metavar="M", help="begin nothing new after so many minutes")
    add("--engine", choices=["processes", "ray"], default="processes", help="what several workers are")
    add("--workers", type=_count, default=1, metavar="N", help="runs at a time (1: in this process)")


def options_of(given: argparse.Namespace) -> Options:
    """The shared options from a parsed command line."""
    return Options(
        given.track, getattr(given, given.track), given.data, given.out,
        tuple(given.sources), given.steps, given.source_steps, given.conll_cap, given.dev_cap,
        initial_steps=given.initial_steps, initial=given.initial,
        epoch=given.epoch, drop_shared=given.drop_shared is not None, drop_also=tuple(given.drop_shared or ()),
        overrides=tuple(given.set), dtype=given.dtype, device=given.device, limit=given.limit,
    )  # fmt: skip


def mentions(text: str) -> int | None:
    """A number of mentions per type, or ``all``."""
    return None if text == "all" else _count(text)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return value
