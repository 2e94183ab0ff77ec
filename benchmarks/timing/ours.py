"""Arms (c) and (d): xdner's reader, one domain after the other, and on the mixed stream as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.timing.clock import Clock
from benchmarks.timing.forced import ForcedGrammar, choose_gold
from benchmarks.timing.passes import Items, Pass
from benchmarks.timing.workload import Workload
from xdner.backbone.base import Backbone
from xdner.generation.engine import Chooser, Engine
from xdner.generation.jobs import Generated, Job, More
from xdner.recognizers.reader import Reader, Steered

__all__ = ["Ours", "ReaderArm"]


class _Watched(Engine):
    """An engine that keeps what its jobs wrote."""

    def __init__(self, backbone: Backbone, *, batch_size: int, choose: Chooser | None) -> None:
        super().__init__(backbone, batch_size=batch_size, choose=choose)
        self.generated: list[Generated] = []

    def stream(self, jobs: Sequence[Job], *, more: More | None = None) -> Iterator[tuple[int, Generated]]:
        made: dict[int, Generated] = {}
        for index, generated in super().stream(jobs, more=more):
            made[index] = generated
            yield index, generated
        self.generated += [made[i] for i in sorted(made)]


class Ours:
    """The domains of a stream, ready to be read in.

    Args:
        backbone: the model.
        workload: what is read.
        forced: whether the gold targets are written (:mod:`benchmarks.timing.forced`).
    """

    def __init__(self, backbone: Backbone, workload: Workload, *, forced: bool) -> None:
        self.backbone, self.workload, self.forced = backbone, workload, forced
        self.clock = Clock(backbone.device)
        self.steered: dict[int, Steered] = {}

    def prepare(self, domains: Sequence[int]) -> float:
        """Steer these domains, and no others: their contexts are read, each under its prefix.

        Returns:
            Seconds that it took, without making the prefixes up.
        """
        work, total = self.workload, 0.0
        reader = Reader(self.backbone, work.settings.decoding)
        self.steered = {}
        for domain in domains:
            keys, values = work.keys_values(domain)
            began = self.clock.now()
            steered = reader.steer(work.domain, work.codec, keys, values)
            total += self.clock.now() - began
            if self.forced:
                grammar = ForcedGrammar(work.encoder, work.domain, work.codec, work.targets())
                steered = replace(steered, grammar=grammar)
            self.steered[domain] = steered
        return total

    def bytes_per_domain(self) -> dict[str, int]:
        """Bytes of a domain in memory, ``prefix`` and ``context`` apart, and of its prefix as a library stores it."""
        steering = next(iter(self.steered.values())).steering
        stored = sum(t.numel() for t in (*self.workload.prefix.keys, *self.workload.prefix.values))
        return {
            "prefix": sum(t.numel() * t.element_size() for t in (*steering.keys, *steering.values)),
            "context": sum(t.numel() * t.element_size() for t in (*steering.context.keys, *steering.context.values)),
            "context_tokens": len(steering.context.ids),
            "prefix_stored": 2 * stored,
        }


class ReaderArm:
    """xdner's reader.

    Args:
        name: in tables.
        ours: the domains.
        apart: one domain after the other, instead of all mixed.
    """

    def __init__(self, name: str, ours: Ours, *, apart: bool) -> None:
        self.name, self.ours, self.apart = name, ours, apart

    def read(self, items: Items, batch: int) -> Pass:
        """Read all sentences."""
        ours, clock = self.ours, self.ours.clock
        reader = Reader(ours.backbone, replace(ours.workload.settings.decoding, batch_size=batch))
        reader.engine = engine = _Watched(ours.backbone, batch_size=batch, choose=choose_gold if ours.forced else None)
        parts = [list(range(len(items)))]
        if self.apart:
            parts = [[i for i in parts[0] if items[i][1] == d] for d in sorted({d for _, d in items})]
        first: list[float] = []

        began = clock.now()
        for part in parts:
            for _ in reader.stream([(items[i][0].sentence, ours.steered[items[i][1]]) for i in part]):
                if not first:
                    first.append(clock.now())
        seconds = clock.now() - began
        written: dict[int, Generated] = dict(zip([i for part in parts for i in part], engine.generated, strict=True))
        outputs = [written[i] for i in range(len(items))]
        counts, ended = engine.counts, sum(g.complete for g in outputs)
        read = counts.prompt_tokens
        if ours.backbone.kind == "seq2seq":  # an encoder reads the context with every sentence, and an end token
            read += sum(len(ours.steered[domain].steering.context.ids) + 1 for _, domain in items)
        ids = [g.ids for g in outputs]
        return Pass(seconds, first[0] - began, counts.calls, counts.row_steps, read, ids, ended)
