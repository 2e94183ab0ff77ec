"""Taggers from a source to a target. A source stage is made once for each (source, structure, rate, seed) and kept.

A stage lies in ``<out>-stages/<source>-<hash>`` with a record beside it, written last; the hash is over all that it depends
on. Every target that has no sentence in common with the source shares it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.arms import Corpora, Measured, Target, measured, resolved
from benchmarks.record import circumstances, read_json, write_json
from benchmarks.tagging.variants import Variant
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import DRAW, Pools, digest
from xdner.backbone.encoder import Encoder, load_encoder
from xdner.corpora.corpus import Corpus
from xdner.corpora.splits import sample_sentences
from xdner.errors import SettingsError
from xdner.library.tagger_entry import TaggerEntry
from xdner.recognizers.base import Result
from xdner.recognizers.laner import LANER
from xdner.recognizers.vote import vote
from xdner.tagger.settings import LanerSettings
from xdner.training.loop import TrainingResult
from xdner.training.progress import Progress
from xdner.training.run import Run

__all__ = ["DEFAULTS", "Bench", "Pooled", "Stage", "TaggingArm"]

# Few steps cost little, but F1 is 0 in the first epochs: all epochs are run, and the best one on dev counts.
DEFAULTS = (
    "training.epochs=20", "training.patience=0", "training.evaluate_from=8", "training.evaluate_every=2",
    "training.dev_limit=150",
)  # fmt: skip
ALL = 10**9
RESUME = "The same command goes on where it stopped."


@dataclass(frozen=True)
class Pooled(Corpora):
    """Targets with a dev split of their own or one that is carved from train (MIT), as the transfer benchmarks have it.

    Attributes:
        pools: with the caps.
        train_cap: training sentences of a target, at most (a seeded sample).
    """

    pools: Pools | None = None
    train_cap: int = ALL

    def target(self, name: str) -> Target:
        assert self.pools is not None
        data = self.pools.target(name)
        train = data.pool if len(data.pool) <= self.train_cap else sample_sentences(data.pool, self.train_cap, DRAW)
        return Target(data.domain, tuple(train), tuple(data.dev), dict(data.files))


@dataclass(frozen=True, eq=False)
class Stage:
    """A source stage that is ready.

    Attributes:
        entry: the source's tagger.
        facts: ``sources``; ``sentences``, ``dropped``, ``steps`` and ``seconds`` of all of them together; ``types`` of the last.
    """

    entry: TaggerEntry
    facts: dict[str, Any]


@dataclass
class Bench:
    """Encoders, corpora and source stages of one program.

    Attributes:
        encoder, adapted: alias, hub id or folder; the second one is that of the arms ``+dapt``.
        data, out: folders.
        source: of the arms with one source; ``sources``: of chains and ensembles, in their order.
        source_epochs, source_rate: of every source stage; rate ``None``: that of the target's stage.
        per_source, train_cap, dev_cap: sentences of a source, of a target's train and of its dev, at most.
        overrides: settings of all arms.
        device: ``cpu``, ``cuda``, ...
        limit: a trial: the first so many sentences of every file.
    """

    encoder: str
    data: Path
    out: Path
    adapted: str | None = None
    source: str = "conll2003"
    sources: tuple[str, ...] = ("conll2003", "politics", "literature", "music")
    source_epochs: int = 1
    source_rate: float | None = None
    per_source: int = ALL
    train_cap: int = ALL
    dev_cap: int = 600
    overrides: tuple[str, ...] = ()
    device: str = "cpu"
    limit: int | None = None

    def __post_init__(self) -> None:
        self._encoders: dict[str, Encoder] = {}

    @cached_property
    def pools(self) -> Pools:
        """The corpora; what a target has too is taken out of its sources."""
        options = Options(
            "laner", self.encoder, self.data, self.out, self.sources, steps=0, source_steps=0, conll_cap=self.per_source,
            dev_cap=self.dev_cap, drop_shared=True, limit=self.limit,
        )  # fmt: skip
        return Pools(options)

    @property
    def corpora(self) -> Pooled:
        """For :class:`benchmarks.runs.Plan`."""
        return Pooled(self.data, self.limit, self.pools, self.train_cap)

    def sources_of(self, variant: Variant) -> tuple[str, ...]:
        """The names of a variant's sources."""
        if variant.start == "none":
            return ()
        return (self.source,) if variant.start == "single" else self.sources

    def encoder_of(self, variant: Variant) -> Encoder:
        """Loaded once.

        Raises:
            SettingsError: an arm ``+dapt``, and no adapted encoder was named.
            BackboneNotFoundError, BackboneError: see :func:`~xdner.backbone.encoder.load_encoder`.
        """
        name = self.encoder_name(variant)
        if name not in self._encoders:
            self._encoders[name] = load_encoder(name, device=self.device)
        return self._encoders[name]

    def encoder_name(self, variant: Variant) -> str:
        """Alias, hub id or folder."""
        if variant.dapt and self.adapted is None:
            raise SettingsError(
                [f"the arm {variant.name} needs an adapted encoder"],
                hint="Make one with `xdner adapt --corpus TEXT --backbone ENCODER --out FOLDER`, and give --adapted FOLDER.",
            )
        return self.adapted if variant.dapt and self.adapted is not None else self.encoder

    def settings(self, variant: Variant, seed: int, rate: float, *more: str) -> LanerSettings:
        """Of one stage.

        Raises:
            SettingsError: wrong settings, or a rate or seed among the overrides.
        """
        own = [*self.overrides, *variant.overrides, *more]
        return resolved(DEFAULTS, own, seed, rate, groups=LanerSettings)

    def stage(
        self, variant: Variant, names: Sequence[str], target: str, seed: int, rate: float, progress: Progress
    ) -> Stage:
        """The stage of the last of these sources, after the stages of those before it.

        Raises:
            SettingsError: the target is one of them.
        """
        if target in names:
            raise SettingsError([f"{target} is a source of {variant.name} and cannot be its target"],
                                hint="Choose other --targets or --sources.")  # fmt: skip
        before = self.stage(variant, names[:-1], target, seed, rate, progress) if len(names) > 1 else None
        known, encoder = self.pools.known(names[-1], target), self.encoder_of(variant)
        own_rate = rate if self.source_rate is None else self.source_rate
        # Nothing is read in a source stage, so that arms which only read with a beam share it with those that do not.
        greedy = ("tagger.beam=1",) if any(one.startswith("tagger.beam=") for one in variant.overrides) else ()
        settings = self.settings(variant, seed, own_rate, f"training.epochs={self.source_epochs}", *greedy)
        depends = {
            "domain": known.domain.to_dict(), "data": digest(known.sentences), "settings": settings.to_dict(),
            "encoder": encoder.fingerprint, "before": None if before is None else before.facts["key"],
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.out.with_name(self.out.name + "-stages") / f"{known.domain.name}-{key}"
        record = folder.with_name(folder.name + ".json")
        if not record.is_file():
            recognizer = LANER(encoder, settings=settings, device=self.device)
            if before is not None:
                recognizer.add(before.entry)
            run = Run(folder.with_name(folder.name + "-run"), hint=RESUME, progress=progress).going_on()
            made = recognizer.train(
                known.domain, known.sentences, start=None if before is None else before.entry.domain.name,
                run=run,
            )  # fmt: skip
            made.entry.save(folder)
            own = {"sentences": len(known.sentences), "dropped": known.dropped, "steps": made.result.steps,
                   "seconds": made.result.seconds}  # fmt: skip
            facts = {
                "key": key, "sources": [*(before.facts["sources"] if before else []), known.domain.name],
                **{name: round(value + (before.facts[name] if before else 0), 2) for name, value in own.items()},
                "rate": own_rate, "epochs": self.source_epochs, "types": list(known.domain.label_names),
            }  # fmt: skip
            write_json(record, {"facts": facts, "depends": depends, **circumstances()})
            run.remove()
        return Stage(TaggerEntry.load(folder), read_json(record)["facts"])


@dataclass(frozen=True)
class TaggingArm:
    """A variant as :class:`benchmarks.arms.Arm`.

    Attributes:
        variant: its name is the arm's.
        rates: see there; of the target's stage.
        bench: shared by all arms.
    """

    variant: Variant
    rates: tuple[float, ...]
    bench: Bench

    @property
    def name(self) -> str:
        return self.variant.name

    def asked(self) -> dict[str, Any]:
        bench, names = self.bench, self.bench.sources_of(self.variant)
        made: dict[str, Any] = {
            "backbone": bench.encoder_name(self.variant), "overrides": list(bench.overrides), "dev_cap": bench.dev_cap,
            "train_cap": None if bench.train_cap == ALL else bench.train_cap,
        }  # fmt: skip
        if names:
            files = {name: bench.pools.source_hash(name) for name in names}
            per_source = None if bench.per_source == ALL else bench.per_source
            made["sources"] = {
                "files": files, "per_source": per_source, "epochs": bench.source_epochs, "rate": bench.source_rate,
            }  # fmt: skip
        return made

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        """A member of an ensemble trains as a single tagger does, so an ensemble of n makes n times as many steps."""
        variant, bench, name = self.variant, self.bench, target.domain.name
        encoder, sources = bench.encoder_of(variant), bench.sources_of(variant)
        settings = bench.settings(variant, seed, rate)
        groups: list[tuple[str, ...]] = [(s,) for s in sources] if variant.start == "ensemble" else [sources]
        stages = [bench.stage(variant, group, name, seed, rate, progress) if group else None for group in groups]
        train = self._train(target, seed)
        began, reading = time.monotonic(), 0.0  # the source stages are shared and have times of their own
        results: list[TrainingResult] = []
        ballots: list[list[Result]] = []
        weights = 0
        for stage in stages:
            recognizer = LANER(encoder, settings=settings, device=bench.device)
            if stage is not None:
                recognizer.add(stage.entry)
            start = None if stage is None else stage.entry.domain.name
            trained = recognizer.train(target.domain, train, target.dev, start=start, run=Run(progress=progress))
            results.append(trained.result)
            weights += sum(t.numel() for t in trained.entry.tensors.values())
            before = time.monotonic()
            ballots.append(recognizer.predict(target.dev, domain=name))
            reading += time.monotonic() - before
        found = [
            vote(ballot).entities if len(ballot) > 1 else ballot[0].entities for ballot in zip(*ballots, strict=True)
        ]
        types = sorted({t for stage in stages if stage for t in stage.facts["types"]})
        made = measured(
            target.dev, found, results[0], began, settings=settings.to_dict(), trained_weights=weights,
            backbone={"name": encoder.name, "fingerprint": encoder.fingerprint}, dtype="float32",
            labels=list(target.domain.label_names), shared=[t for t in target.domain.label_names if t in types],
            sources=[stage.facts for stage in stages if stage], used_sentences=len(train),
            sample=[s.id for s in train] if variant.few else None,
        )  # fmt: skip
        seconds = made.seconds | {
            "training": round(sum(r.seconds for r in results), 2), "reading": round(reading, 2),
            "sources": round(sum(stage.facts["seconds"] for stage in stages if stage), 2),
        }  # fmt: skip
        return replace(made, seconds=seconds)

    def _train(self, target: Target, seed: int) -> Corpus:
        few, whole = self.variant.few, Corpus(target.train)
        if not few:
            return whole
        count = int(few[1:])
        if few[0] == "k":
            return self.bench.pools.train(target.domain.name, count, seed)[0]
        return sample_sentences(whole, min(count, len(whole)), seed)
