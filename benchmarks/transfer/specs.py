"""Runs by name: what is trained on which target, from which sources, with which seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.transfer.options import Options
from xdner.errors import SettingsError
from xdner.workflows.domains import ABLATIONS

__all__ = [
    "STRATEGIES",
    "Condition",
    "Spec",
    "ablated",
    "alphas",
    "conditions",
    "counts",
    "planned",
    "sources_seen",
    "without",
]

STRATEGIES = ("none", "single", "chain", "ensemble", "collaborative")


@dataclass(frozen=True, order=True)
class Condition:
    """A target and how much of it there is to train on.

    Attributes:
        target: name of the domain.
        k: mentions per type, ``None``: all sentences.
    """

    target: str
    k: int | None

    def __str__(self) -> str:
        return self.target if self.k is None else f"{self.target} {self.k}"


@dataclass(frozen=True)
class Spec:
    """One run.

    Attributes:
        target, k: see :class:`Condition`.
        strategy: one of :data:`STRATEGIES`.
        sources: in their order; none for ``none``.
        seed: of the sample and of the training.
        alpha: of the selector; ``None`` where it does not choose between sources.
        without: ``warm-up``, ``options`` or nothing: what is switched off beside α.
    """

    target: str
    k: int | None
    strategy: str
    sources: tuple[str, ...]
    seed: int
    alpha: float | None = None
    without: str = ""

    @property
    def condition(self) -> Condition:
        """Target and size."""
        return Condition(self.target, self.k)

    def method(self, options: Options) -> str:
        """The name of everything but target, size and seed; with all sources and the usual α, the strategy's own."""
        name = self.strategy
        if self.strategy == "single":
            name += f"-{self.sources[0]}"
        elif self.sources and self.sources != options.sources_of(self.target):
            name += "-of-" + "-".join(self.sources)
        if self.alpha is not None and self.alpha != options.alpha:
            name += f"-alpha{self.alpha:g}"
        return name + (f"-without-{self.without}" if self.without else "")

    def title(self, options: Options) -> str:
        """For people."""
        return f"{self.method(options)} on {self.condition}, seed {self.seed}"

    def path(self, options: Options) -> Path:
        """The run's file."""
        size = "all" if self.k is None else f"k{self.k}"
        return options.folder / self.target / size / self.method(options) / f"seed{self.seed}.json"

    def own_settings(self) -> list[str]:
        """Settings of this run alone."""
        own = [f"transfer.strategy={self.strategy}"]
        if self.alpha is not None:
            own.append(f"selector.alpha={self.alpha!r}")
        return own + ([ABLATIONS[self.without]] if self.without else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run's file."""
        return {
            "target": self.target, "k": "all" if self.k is None else self.k, "strategy": self.strategy,
            "sources": list(self.sources), "seed": self.seed, "alpha": self.alpha, "without": self.without,
        }  # fmt: skip


def conditions(targets: Iterable[str], few_shot: Sequence[str], ks: Sequence[int | None]) -> list[Condition]:
    """Each target; those with few examples once for each size."""
    return [Condition(t, k) for t in targets for k in (ks if t in few_shot else (None,))]


def planned(
    options: Options, where: Sequence[Condition], strategies: Sequence[str], seeds: Sequence[int]
) -> list[Spec]:
    """The strategies in every condition, seed by seed, so that an early end leaves something of everything.

    A target that is one of the sources gets ``none`` and ``single`` from the first source (the paper's Table 1).
    """
    made = []
    for seed in seeds:
        for condition in where:
            sources = options.sources_of(condition.target)
            for strategy in strategies:
                if strategy == "none":
                    made.append(Spec(condition.target, condition.k, "none", (), seed))
                elif strategy == "single":
                    made += [Spec(condition.target, condition.k, "single", (s,), seed) for s in sources]
                elif condition.target not in options.sources:
                    made.append(_with_all(options, condition, strategy, seed))
    return made


def alphas(options: Options, where: Sequence[Condition], values: Sequence[float], seeds: Sequence[int]) -> list[Spec]:
    """The sweep over α: ``collaborative`` with each value.

    Raises:
        SettingsError: a value outside [0, 1].
    """
    wrong = [f"α must be from 0 to 1, not {a:g}" for a in values if not 0 <= a <= 1]
    if wrong:
        raise SettingsError(wrong, hint="Give --alphas such as 0 0.25 0.5 0.75 1.")
    return [
        Spec(c.target, c.k, "collaborative", options.sources_of(c.target), seed, float(a))
        for seed in seeds for c in _open(options, where) for a in values
    ]  # fmt: skip


def counts(options: Options, where: Sequence[Condition], values: Sequence[int], seeds: Sequence[int]) -> list[Spec]:
    """The sweep over the number of sources: the first one, the first two, ... in the order of ``--sources``.

    One source is ``single``, none is ``none``: the same by definition.

    Raises:
        SettingsError: more sources than there are.
    """
    wrong = [f"there are {len(options.sources)} sources, not {n}" for n in values if not 0 <= n <= len(options.sources)]
    if wrong:
        raise SettingsError(wrong, hint=f"Give --source-counts from 0 to {len(options.sources)}.")
    made = []
    for seed in seeds:
        for condition in _open(options, where):
            for n in values:
                strategy = "none" if n == 0 else "single" if n == 1 else "collaborative"
                alpha = options.alpha if n > 1 else None
                made.append(Spec(condition.target, condition.k, strategy, options.sources[:n], seed, alpha))
    return made


def ablated(options: Options, where: Sequence[Condition], what: Sequence[str], seeds: Sequence[int]) -> list[Spec]:
    """The collaborative prefix, and the same without one thing each: of :data:`ABLATIONS`, or a source by its name.

    Raises:
        SettingsError: a part that is not there, or a target that is one of the sources.
    """
    known = [f"{c.target} is a source and cannot be a target here" for c in where if c.target in options.sources]
    if known:
        raise SettingsError(known, hint="Choose other --targets, or leave it out of --sources.")
    made = []
    for seed in seeds:
        for condition in where:
            full = _with_all(options, condition, "collaborative", seed)
            made.append(full)
            made += [without(full, part) for part in what]
    return made


def without(full: Spec, part: str) -> Spec:
    """The run without a part.

    Raises:
        SettingsError: a source that is not there, or the only one.
    """
    key, _, value = ABLATIONS.get(part, "").partition("=")
    if key == "selector.alpha":  # a point of the sweep over α
        return replace(full, alpha=float(value))
    if not key:
        rest = tuple(s for s in full.sources if s != part)
        if len(rest) == len(full.sources) or not rest:
            raise SettingsError(
                [f"{part!r} cannot be left out of {', '.join(full.sources)}"],
                hint=f"Parts: {', '.join(ABLATIONS)}, or a source if there are two or more.",
            )
        # One source left is the same path with weight 1; it stays under this name.
        return replace(full, sources=rest)
    return replace(full, without=part)


def sources_seen(spec: Spec, options: Options) -> tuple[str, ...]:
    """The sources that have a part in a run: its own, or all where δ₀ was trained on them."""
    return options.sources_of(spec.target) if options.initial == "shared" else spec.sources


def _with_all(options: Options, condition: Condition, strategy: str, seed: int) -> Spec:
    alpha = options.alpha if strategy == "collaborative" else None
    return Spec(condition.target, condition.k, strategy, options.sources_of(condition.target), seed, alpha)


def _open(options: Options, where: Sequence[Condition]) -> list[Condition]:
    """Those whose target is not among the sources."""
    return [c for c in where if c.target not in options.sources]
