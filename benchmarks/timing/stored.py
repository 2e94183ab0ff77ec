"""A store of thousands of domains: what putting one in, loading it and reading in it cost, and how much memory they hold."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.timing.clock import Clock
from benchmarks.timing.inference import Plan
from benchmarks.timing.workload import Workload
from xdner.library.entry import DomainEntry
from xdner.library.store import Library
from xdner.recognizers.base import Request
from xdner.recognizers.cp_ner import CPNER
from xdner.settings import Settings

__all__ = ["measure_stored"]

SAMPLE = 200  # domains that are loaded and timed one by one


def measure_stored(plan: Plan, count: int, resident_mb: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Fill a library, attach it, and read each sentence in a domain of its own, drawn by chance, three times.

    Args:
        plan: model, sentences and prefix.
        count: domains in the store.
        resident_mb: megabytes of ready domains in memory, at most.
        say: where a line for a person goes.

    Returns:
        Seconds, bytes and counts; ``passes`` has ``first``, ``again`` and ``resident``: domains that were never seen,
        the same once more (in memory or mapped from files), and a stream of the few that are in memory.
    """
    backbone = plan.recipe.load()
    workload = plan.workload(backbone)
    clock = Clock(backbone.device)
    settings = Settings.build(None, [f"decoding.resident_mb={resident_mb}"], backbone.recommended)
    recognizer = CPNER(backbone, settings=settings)
    with tempfile.TemporaryDirectory(prefix="xdner-store-") as folder:
        library = Library(folder)
        say(f"filling a library with {count:,} domains")
        adding = _fill(library, workload, count, clock)
        began = clock.now()
        names = library.names()
        listing = clock.now() - began
        recognizer.attach(library)
        chance = random.Random(1)
        loading = []
        for name in chance.choices(names, k=min(SAMPLE, count)):
            began = clock.now()
            library.get(name)
            loading.append(clock.now() - began)
        drawn = chance.sample(names, min(len(workload.cases), count))
        passes = {kind: _pass(recognizer, workload, drawn, clock, say, kind) for kind in ("first", "again")}
        # Of the domains that were read last, as many as are in memory for certain.
        size = recognizer.residents.bytes // max(1, len(recognizer.residents))
        fits = max(1, min(len(drawn), recognizer.residents.budget // max(1, size) // 2))
        _pass(recognizer, workload, drawn[-fits:], clock, say, "")
        passes["resident"] = _pass(recognizer, workload, drawn[-fits:], clock, say, "resident")
        on_disk = sum(f.stat().st_size for f in library.path(names[0]).iterdir())
    return {
        "domains": count, "sentences": len(workload.cases), "add_seconds": statistics.median(adding),
        "add_seconds_last": statistics.median(adding[-SAMPLE:]), "list_seconds": listing,
        "load_seconds": _spread(loading), "bytes_on_disk": on_disk, "bytes_ready": size,
        "budget": recognizer.residents.budget, "passes": passes,
    }  # fmt: skip


def _fill(library: Library, workload: Workload, count: int, clock: Clock) -> list[float]:
    seconds = []
    for index in range(count):
        keys, values = workload.keys_values(index)
        prefix = replace(workload.prefix, keys=tuple(keys), values=tuple(values))
        entry = DomainEntry(replace(workload.domain, name=f"domain-{index:05d}"), prefix, workload.settings)
        began = clock.now()
        library.add(entry)
        seconds.append(clock.now() - began)
    return seconds


def _pass(
    recognizer: CPNER, workload: Workload, names: Sequence[str], clock: Clock, say: Callable[[str], None], kind: str
) -> dict[str, float]:
    residents = recognizer.residents
    made, mapped = residents.made, residents.mapped
    requests = [Request(case.sentence, names[i % len(names)]) for i, case in enumerate(workload.cases)]
    if kind:
        say(f"reading {len(requests)} sentences in {len(names)} domains: {kind}")
    began = clock.now()
    recognizer.recognize(requests)
    seconds = clock.now() - began
    return {
        "domains": len(names), "seconds": seconds, "sentences_per_second": len(requests) / seconds,
        "made": residents.made - made, "mapped": residents.mapped - mapped, "bytes_in_memory": residents.bytes,
    }  # fmt: skip


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"median": statistics.median(ordered), "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]}
