"""Reading, side by side: all arms on one stream, round after round, so that a busy moment of the machine meets all."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing.clock import Clock, rate
from benchmarks.timing.memory import peak_memory
from benchmarks.timing.models import ModelRecipe
from benchmarks.timing.ours import Ours, ReaderArm
from benchmarks.timing.passes import Arm, Items, Pass
from benchmarks.timing.stock import GenerateArm, Stock
from benchmarks.timing.workload import Workload
from xdner.backbone.base import Backbone
from xdner.codec.grammar import Grammar
from xdner.library.entry import DomainEntry

__all__ = ["ARMS", "Plan", "first_sight", "measure_inference"]

#: Arms by the letter that tables give them.
ARMS = {
    "generate": "(a) generate, peft",
    "generate-grammar": "(b) generate, peft, our grammar",
    "by-domain": "(c) xdner, domain by domain",
    "xdner": "(d) xdner, mixed",
    "one-domain": "(d) the same stream in one domain",
}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        recipe: of the model.
        data, sentences, prefix: of the workload.
        batches, domains: the cells: rows at a time, and domains in the stream.
        rounds: timed passes of every arm.
        forced: whether all arms write the gold targets.
        memory: whether peak memory is measured too, at the smallest number of domains.
        arms: of :data:`ARMS`; the mixed stream is always among them.
    """

    recipe: ModelRecipe
    data: Path
    sentences: int
    prefix: Path | None
    batches: tuple[int, ...]
    domains: tuple[int, ...]
    rounds: int
    forced: bool = False
    memory: bool = True
    arms: tuple[str, ...] = tuple(ARMS)

    def workload(self, backbone: Backbone) -> Workload:
        """Its sentences for a model."""
        return Workload(backbone, self.data, self.sentences, self.prefix)


class Bench:
    """All arms on one model in memory."""

    def __init__(self, backbone: Backbone, workload: Workload, *, forced: bool) -> None:
        self.workload, self.forced = workload, forced
        self.stock, self.ours = Stock(backbone, workload), Ours(backbone, workload, forced=forced)
        grammar = Grammar(workload.encoder, workload.domain, workload.codec)
        self.arms: dict[str, Arm] = {
            "generate": GenerateArm("generate", self.stock, None, forced=forced),
            "generate-grammar": GenerateArm("generate-grammar", self.stock, grammar, forced=forced),
            "by-domain": ReaderArm("by-domain", self.ours, apart=True),
            "xdner": ReaderArm("xdner", self.ours, apart=False),
            "one-domain": ReaderArm("one-domain", self.ours, apart=False),
        }

    def items(self, name: str, domains: int) -> Items:
        """What an arm reads of a stream. Stock arms take no part in repetitions: more sentences with a domain each are
        more of the same to them."""
        stream = self.workload.stream(domains)
        if name == "one-domain":
            return [(case, 0) for case, _ in stream]
        return stream[: len(self.workload.cases)] if name.startswith("generate") else stream

    def prepare(self, name: str, domains: int) -> float:
        """Make the domains of a stream ready for an arm; seconds that it took."""
        needed = sorted({domain for _, domain in self.items(name, domains)})
        return (self.stock if name.startswith("generate") else self.ours).prepare(needed)


def measure_inference(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """All cells.

    Returns:
        ``backbone``, ``dtype``, ``sentences``, ``prefix``, ``cells`` and ``domain``: bytes and seconds of one domain.
    """
    backbone = plan.recipe.load()
    workload = plan.workload(backbone)
    bench = Bench(backbone, workload, forced=plan.forced)
    found: dict[str, Any] = {
        "backbone": backbone.name,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "device": str(backbone.device),
        "forced": plan.forced,
        "sentences": len(workload.cases),
        "prefix_length": workload.prefix.length,
        "gold_tokens_per_sentence": statistics.fmean(len(case.gold) for case in workload.cases),
        "prompt_tokens_per_sentence": statistics.fmean(len(case.prompt) for case in workload.cases),
        "cells": [],
    }
    for domains in plan.domains:
        stock = any(name.startswith("generate") for name in plan.arms)
        seconds = {name: bench.prepare(name, domains) for name in (("generate", "xdner") if stock else ("xdner",))}
        for batch in plan.batches:
            say(f"{backbone.name}: {domains} domains, batch {batch}")
            cell = _cell(bench, plan, domains, batch, seconds)
            if plan.memory and domains == min(plan.domains):
                for name, arm in cell["arms"].items():
                    arm["memory_mib"] = peak_memory(plan.recipe.device, _one_pass, plan, name, domains, batch)
            found["cells"].append(cell)
    found["domain"] = _domain(backbone, bench.ours)
    return found


def _cell(bench: Bench, plan: Plan, domains: int, batch: int, prepared: dict[str, float]) -> dict[str, Any]:
    # In a stream of one domain, two of the arms are the mixed one.
    asked = {"xdner", *plan.arms}
    names = [n for n in bench.arms if n in asked and (domains > 1 or n not in ("by-domain", "one-domain"))]
    items = {name: bench.items(name, domains) for name in names}
    passes: dict[str, list[Pass]] = {name: [] for name in names}
    for name in names:  # once untimed: memory is allocated, and kernels are chosen
        bench.arms[name].read(items[name][:batch], batch)
    for _ in range(plan.rounds):
        for name in names:
            passes[name].append(bench.arms[name].read(items[name], batch))
    expected = passes["xdner"][0].outputs
    arms = {}
    for name in names:
        arms[name] = _summary(passes[name], first_sight(name, domains, prepared), expected)
    return {"batch": batch, "domains": domains, "arms": arms}


def first_sight(name: str, domains: int, prepared: dict[str, float]) -> float:
    """Seconds until an arm has its domains ready; ``prepared``: of all of them, with ``generate`` and with our engine."""
    if name.startswith("generate"):
        return prepared["generate"]
    return prepared["xdner"] / domains if name == "one-domain" else prepared["xdner"]


def _summary(passes: Sequence[Pass], ready: float, expected: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    one, seconds = passes[0], [p.seconds for p in passes]
    same = sum(a == b for a, b in zip(one.outputs, expected, strict=False))
    return {
        "sentences": len(one.outputs),
        "seconds": seconds,
        "sentences_per_second": rate(len(one.outputs), seconds),
        "cold_sentences_per_second": len(one.outputs) / (ready + statistics.median(seconds)),
        "first_result_seconds": statistics.median(p.first for p in passes),
        **one.counts(),
        "same_as_xdner": same / len(one.outputs),
        "memory_mib": None,
    }


def _one_pass(plan: Plan, name: str, domains: int, batch: int) -> Callable[[], object]:
    """One pass of one arm with nothing else in memory but the model."""
    backbone = plan.recipe.load()
    workload = plan.workload(backbone)

    def work() -> Pass:
        bench = Bench(backbone, workload, forced=plan.forced)
        bench.prepare(name, domains)
        return bench.arms[name].read(bench.items(name, domains), batch)

    return work


def _domain(backbone: Backbone, ours: Ours) -> dict[str, float]:
    """What one domain costs: bytes, and seconds to steer it and to load it from disk."""
    work = ours.workload
    clock, times, loads = Clock(backbone.device), [], []
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder) / work.domain.name
        DomainEntry(work.domain, work.prefix, work.settings).save(entry)
        for _ in range(5):
            began = clock.now()
            DomainEntry.load(entry)
            loads.append(clock.now() - began)
            times.append(ours.prepare([0]))
    return {
        **ours.bytes_per_domain(),
        "steer_seconds": statistics.median(times),
        "load_seconds": statistics.median(loads),
    }
