"""IF-WRANER on a target. The language model is tuned once for each (sources, regularization, k, retriever, rate, seed), and kept.

An adapter lies in ``<out>-adapters/<sources>-<hash>`` with a record beside it, written last; the hash is over all that it
depends on. Every row that reads with it shares it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.arms import Measured, Target, resolved, scored
from benchmarks.record import circumstances, read_json, write_json
from benchmarks.tagging.bench import ALL, RESUME, Pooled
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Known, Pools, digest
from benchmarks.wraner.variants import TUNINGS, Variant
from xdner.backbone.lora import Adapter
from xdner.corpora.corpus import Corpus
from xdner.corpora.splits import sample_sentences
from xdner.errors import SettingsError, XdnerError
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import find_template
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.retrievers import Retrievers
from xdner.training.progress import Progress
from xdner.training.run import Run
from xdner.training.sources import LabelledSource

__all__ = ["Bench", "Ready", "WranerArm", "encoders_of"]

_TUNING = ("prompt", "retrieval", "tune", "training")  # groups of settings that an adapter depends on


@dataclass(frozen=True, eq=False)
class Ready:
    """An adapter that is ready.

    Attributes:
        adapter: LoRA factors.
        facts: ``key``, ``sources``, ``sentences``, ``dropped``, ``seconds``, ``steps``, ``history``, ``short``, ...
    """

    adapter: Adapter
    facts: dict[str, Any]


def encoders_of(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``NAME=BACKBONE`` or ``NAME=BACKBONE@LAYER``: name → settings.

    Raises:
        SettingsError: not of this form.
    """
    made = {}
    for text in given:
        name, _, rest = text.partition("=")
        backbone, _, layer = rest.rpartition("@") if rest.rpartition("@")[2].lstrip("-").isdigit() else (rest, "", "")
        if not name or not backbone:
            raise SettingsError([f"{text!r} names no encoder"], hint="Write --encoders mpnet=mpnet-base@8.")
        made[name] = (f"retrieval.encoder={backbone}", *([f"retrieval.layer={layer}"] if layer else []))
    return made


@dataclass
class Bench:
    """Corpora, encoders and tuned models of one program.

    Attributes:
        llm: alias, hub id or folder of a causal model.
        data, out: folders.
        sources: that the language model is tuned on.
        tune_with, tune_k: retriever and k in tuning, but for the arms ``+own``.
        encoders: name → settings, of the arms ``+enc-NAME``.
        dev_cap: dev sentences of a target, at most.
        overrides: settings of all arms.
        dtype, device: of the language model's weights.
        limit: a trial: the first so many sentences of every file.
    """

    llm: str
    data: Path
    out: Path
    sources: tuple[str, ...] = ("politics", "music")
    tune_with: str = "word"
    tune_k: int | None = None
    encoders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dev_cap: int = 200
    overrides: tuple[str, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"
    limit: int | None = None

    @cached_property
    def pools(self) -> Pools:
        """The corpora; what a target has too is taken out of its sources."""
        options = Options(
            "wraner", self.llm, self.data, self.out, self.sources, steps=0, source_steps=0, conll_cap=ALL,
            dev_cap=self.dev_cap, drop_shared=True, limit=self.limit,
        )  # fmt: skip
        return Pools(options)

    @property
    def corpora(self) -> Pooled:
        """For :class:`benchmarks.runs.Plan`."""
        return Pooled(self.data, self.limit, self.pools)

    @cached_property
    def retrievers(self) -> Retrievers:
        """Whose encoders are loaded once."""
        return Retrievers(self.device)

    @cached_property
    def template(self) -> str:
        """Hash of the prompts' template."""
        return find_template(WranerSettings.build(None, self.overrides).prompt.template).hash

    def tuned_as(self, variant: Variant) -> Variant:
        """What the language model of a variant is shown while it is tuned."""
        if variant.own:
            return replace(variant, n=None)
        return Variant(self.tune_with, None if self.tune_with == "none" else self.tune_k, tuning=variant.tuning)

    def settings(self, variant: Variant, seed: int, rate: float) -> WranerSettings:
        """Of one run.

        Raises:
            SettingsError: wrong settings, an encoder that was not named, or a rate or seed among the overrides.
        """
        if variant.encoder and variant.encoder not in self.encoders:
            raise SettingsError([f"the arm {variant.name} needs an encoder named {variant.encoder!r}"],
                                hint=f"Give --encoders {variant.encoder}=BACKBONE.")  # fmt: skip
        encoder = self.encoders[variant.encoder] if variant.encoder else ()
        given = [*self.overrides, *TUNINGS[variant.tuning], *encoder]
        # What all arms are given is no mistake in one whose method makes no use of it.
        base = resolved((), given, seed, rate, groups=WranerSettings).to_dict()
        made = WranerSettings.build(None, variant.retrieval, base)
        return replace(made, retrieval=replace(made.retrieval, seed=seed))

    def recognizer(self, settings: WranerSettings) -> IFWRANER:
        """With the language model as it came: an adapter is merged in place, so each run loads its own."""
        return IFWRANER.from_pretrained(
            self.llm, retriever=self.retrievers, device=self.device, dtype=self.dtype, settings=settings
        )

    def known(self, target: str) -> list[Known]:
        """The sources for a target.

        Raises:
            SettingsError: it is one of them.
        """
        if target in self.sources:
            raise SettingsError([f"{target} is a source and cannot be a target"],
                                hint="Choose other --targets or --sources.")  # fmt: skip
        return [self.pools.known(name, target) for name in self.sources]

    def tuned(self, variant: Variant, target: str, seed: int, rate: float, progress: Progress) -> Ready:
        """The adapter of a variant's language model, tuned if it is not there yet.

        Raises:
            XdnerError: peft is not installed.
            TrainingError: the rate diverged.
            TrainingInterrupted: Ctrl-C; the same command goes on from the checkpoint.
        """
        known, settings = self.known(target), self.settings(self.tuned_as(variant), seed, rate)
        recognizer = self.recognizer(settings)
        depends: dict[str, Any] = {
            "llm": recognizer.llm.identity["fingerprint"], "dtype": self.dtype, "template": self.template,
            "encoder": self._fingerprint(settings), "domains": [k.domain.to_dict() for k in known],
            "data": digest(*(k.sentences for k in known)),
            "settings": {group: settings.to_dict()[group] for group in _TUNING},
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.out.with_name(self.out.name + "-adapters") / f"{'-'.join(self.sources)}-{key}"
        record = folder.with_name(folder.name + ".json")
        if not record.is_file():
            if find_spec("peft") is None:  # said here, or every run would be recorded as one that diverged
                raise XdnerError("tuning needs the package peft", hint="pip install 'xdner[instruct]'")
            run = Run(folder.with_name(folder.name + "-run"), hint=RESUME, progress=progress).going_on()
            made = recognizer.tune([LabelledSource(k.domain, k.sentences) for k in known], run=run)
            folder.mkdir(parents=True, exist_ok=True)
            made.adapter.write(folder)
            facts = {
                "key": key, "sources": list(self.sources), "sentences": [len(k.sentences) for k in known],
                "dropped": sum(k.dropped for k in known), "steps": made.result.steps,
                "seconds": round(made.result.seconds, 2), "short": list(made.dropped), "lost": dict(made.lost),
                "history": [{"epoch": r.epoch, "loss": r.loss} for r in made.result.history], "rate": rate,
                "retrieval": depends["settings"]["retrieval"], "tune": depends["settings"]["tune"],
            }  # fmt: skip
            write_json(record, {"facts": facts, "depends": depends, **circumstances()})
            run.remove()
        return Ready(Adapter.load(folder), read_json(record)["facts"])

    def _fingerprint(self, settings: WranerSettings) -> str | None:
        how = settings.retrieval
        return self.retrievers.encoder(how.encoder).fingerprint if how.method in ("word", "sentence") else None


@dataclass(frozen=True)
class WranerArm:
    """A variant as :class:`benchmarks.arms.Arm`.

    Attributes:
        variant: its name is the arm's.
        rates: of tuning; a model that is not tuned has the first one, which means nothing.
        bench: shared by all arms.
    """

    variant: Variant
    rates: tuple[float, ...]
    bench: Bench

    @property
    def name(self) -> str:
        return self.variant.name

    def asked(self) -> dict[str, Any]:
        bench, variant = self.bench, self.variant
        files = {name: bench.pools.source_hash(name) for name in bench.sources}
        made: dict[str, Any] = {
            "llm": bench.llm, "dtype": bench.dtype, "overrides": list(bench.overrides), "template": bench.template,
            "dev_cap": bench.dev_cap, "sources": files,
        }  # fmt: skip
        if variant.tuning != "raw" and not variant.own:
            made |= {"tune_with": bench.tune_with, "tune_k": bench.tune_k}
        if variant.encoder:
            made["encoder"] = list(bench.encoders.get(variant.encoder, ()))
        return made

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        """Nothing is trained on the target; its training sentences are the examples."""
        bench, variant, began = self.bench, self.variant, time.monotonic()
        settings = bench.settings(variant, seed, rate)
        known = bench.known(target.domain.name)
        ready = None if variant.tuning == "raw" else bench.tuned(variant, target.domain.name, seed, rate, progress)
        recognizer = bench.recognizer(settings)
        if ready is not None:
            recognizer.adopt(ready.adapter)
        pool = self._pool(target, seed)
        before = time.monotonic()  # the adapters are shared and have times of their own
        recognizer.add_domain(target.domain, tuple(pool))
        results = recognizer.predict(target.dev, domain=target.domain.name)
        reading = time.monotonic() - before
        found = [r.entities for r in results]
        notes: Counter[str] = Counter()
        for result in results:
            notes.update(result.diagnostics)
        learned = {label.verbalization.casefold() for k in known for label in k.domain.labels}
        unseen = [label.name for label in target.domain.labels if label.verbalization.casefold() not in learned]
        there = any(e.label in unseen for s in target.dev for e in s.entities)
        identity = recognizer.llm.identity
        facts = {
            "settings": settings.to_dict(), "labels": list(target.domain.label_names), "unseen_labels": unseen,
            "unseen": scored(target.dev, found, unseen) if there else None, "notes": dict(notes),
            "backbone": {"name": identity["name"], "fingerprint": identity["fingerprint"]}, "dtype": bench.dtype,
            "tuned": None if ready is None else ready.facts, "used_examples": len(pool),
            "sample": [s.id for s in pool] if variant.n is not None else None,
        }  # fmt: skip
        seconds = {
            "reading": round(reading, 2), "total": round(time.monotonic() - began, 2),
            "tuning": 0.0 if ready is None else ready.facts["seconds"],
        }  # fmt: skip
        return Measured(scored(target.dev, found), seconds, [] if ready is None else ready.facts["history"], facts)

    def _pool(self, target: Target, seed: int) -> Corpus:
        whole, n = Corpus(target.train), self.variant.n
        return whole if n is None else sample_sentences(whole, min(n, len(whole)), seed)
