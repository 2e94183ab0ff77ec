"""What a worker is given to do: a thing to prepare, or a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Pools, digest
from benchmarks.transfer.specs import Spec
from xdner.training.progress import Progress

if TYPE_CHECKING:
    from benchmarks.transfer.bench import Bench

__all__ = ["Task", "perform", "preparations"]

Key = tuple[str, ...]  # all that a thing depends on


@dataclass(frozen=True)
class Task:
    """A piece of work that one process does alone.

    Attributes:
        kind: what it is.
        spec: the run, or a run that needs the thing.
        name: of the source that is prepared.
    """

    kind: Literal["initial", "source", "chain", "run"]
    spec: Spec
    name: str = ""

    def title(self, options: Options) -> str:
        """For people."""
        if self.kind == "run":
            return self.spec.title(options)
        mark = f", without {self.spec.without}" if self.spec.without == "options" else ""
        what = {"initial": "δ₀", "source": f"source {self.name}", "chain": "chain " + " → ".join(self.spec.sources)}
        return f"{what[self.kind]} for {self.spec.target}{mark}"


def perform(bench: Bench, task: Task, progress: Progress) -> dict[str, Any]:
    """Do it.

    Returns:
        The record of a run; of what is prepared, what is known about it.
    """
    spec, preparation = task.spec, bench.preparation
    if task.kind == "run":
        return bench.run(spec, progress)
    if task.kind == "initial":
        return preparation.initial(spec.target, spec.without, progress)[1]
    if task.kind == "source":
        return preparation.source(spec.target, task.name, spec.without, progress).facts
    return preparation.chain(spec.target, spec.sources, spec.without, progress).facts


def preparations(options: Options, pools: Pools, specs: Iterable[Spec]) -> list[list[Task]]:
    """What the runs need, stage by stage: δ₀, sources, then chains, link by link: two chains may begin alike. Within a stage
    nothing is made twice, so that its tasks can be done at the same time."""
    initials: dict[Key, Task] = {}
    sources: dict[Key, Task] = {}
    chains: dict[int, dict[Key, Task]] = {}

    @cache
    def data(source: str, target: str) -> str:
        return digest(pools.known(source, target).sentences)

    for spec in specs:
        codec = spec.without if spec.without == "options" else ""
        shared = options.initial == "shared"
        named = options.sources_of(spec.target) if shared else ()
        start = (*named, *(data(n, spec.target) for n in named), codec if shared else "")
        initials.setdefault(start, Task("initial", spec))
        made = [(n, data(n, spec.target), codec, *start) for n in spec.sources]
        for name, key in zip(spec.sources, made, strict=True):
            sources.setdefault(key, Task("source", spec, name))
        for length in range(2, len(made) + 1) if spec.strategy == "chain" else ():
            begun = replace(spec, sources=spec.sources[:length])
            links = chains.setdefault(length, {})
            links.setdefault(tuple(part for key in made[:length] for part in key), Task("chain", begun))
    stages = (initials, sources, *(chains[length] for length in sorted(chains)))
    return [list(stage.values()) for stage in stages if stage]
