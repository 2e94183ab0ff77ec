"""The bench of one process: backbone and corpora, loaded once, and a run from its name to its record."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.transfer.adapted import adapted_from
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Pools
from benchmarks.transfer.preparation import RESUME, Preparation, steps_per_epoch
from benchmarks.transfer.specs import Spec, sources_seen
from xdner.backbone.load import load_backbone
from xdner.corpora.corpus import Corpus
from xdner.errors import TrainingError, TrainingInterrupted, XdnerError
from xdner.evaluation.match import sentence_counts
from xdner.evaluation.report import evaluate
from xdner.recognizers.cp_ner import CPNER, Trained
from xdner.recognizers.sources import Source
from xdner.settings import Settings
from xdner.text import Entity, Sentence
from xdner.training.progress import Progress
from xdner.training.run import Run as TrainingRun

__all__ = ["Bench", "Run", "epochs_for"]

Run = dict[str, Any]


def epochs_for(steps: int, per_epoch: int, sources: int) -> int:
    """Epochs on a target, the same for every strategy.

    So many that there are at least ``steps`` optimizer steps; a multiple of the number of sources, as the members of an
    ensemble share them; and at least two for each member, one of them its warm-up.
    """
    members = max(1, sources)
    return members * max(2, math.ceil(math.ceil(steps / per_epoch) / members))


class Bench:
    """One backbone and the corpora.

    Args:
        options: see there.

    Raises:
        BackboneNotFoundError: the weights are not here.
        SettingsError: the track is ``adapted``, and the backbone is not one that `xdner adapt` made.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.pools = options, Pools(options)
        self.adapted = adapted_from(options.backbone) if options.track == "adapted" else None
        self.backbone = load_backbone(options.backbone, device=options.device, dtype=options.dtype)
        # Of the code that is loaded now, whatever is checked out later.
        self.circumstances = record.circumstances()
        self.preparation = Preparation(options, self.pools, self.backbone, self.circumstances)

    def run(self, spec: Spec, progress: Progress) -> Run:
        """Train on the target and read its dev sentences.

        Returns:
            The record, as it is written. A run that diverges is a result too: its ``error`` says so.

        Raises:
            TrainingInterrupted: a checkpoint is kept, and the same run goes on from it.
        """
        target = self.pools.target(spec.target)
        train, manifest = self.pools.train(spec.target, spec.k, spec.seed)
        settings, steps = self._settings(spec, train)
        made: Run = {
            "benchmark": "transfer", "track": self.options.track, "initial": self.options.initial, **spec.to_dict(),
            "method": spec.method(self.options), "asked": self.options.asked(),
            "data": self.pools.files(spec.target, sources_seen(spec, self.options)), "steps": steps,
            "train_sentences": len(train), "dev_sentences": len(target.dev), "dev_ids": [s.id for s in target.dev],
            "manifest": None if manifest is None else asdict(manifest), "labels": list(target.domain.label_names),
            "settings": settings.to_dict(), "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "backbone": {"name": self.backbone.name, "fingerprint": self.backbone.fingerprint}, "adapted": self.adapted,
        }  # fmt: skip
        run = TrainingRun(self._unfinished(spec), hint=RESUME, progress=progress).going_on()
        try:
            made |= self._train(spec, train, settings, run)
        except TrainingInterrupted:
            raise
        except TrainingError as error:
            made |= {"error": error.message, "dev": None, "predicted": None, "selection": None, "seconds": {}}
        run.remove()
        return made | self.circumstances | {"date": datetime.now(UTC).isoformat(timespec="seconds")}

    def _train(self, spec: Spec, train: Corpus, settings: Settings, run: TrainingRun) -> Run:
        target = self.pools.target(spec.target)
        initial, initial_facts = self.preparation.initial(spec.target, spec.without, run.progress)
        sources, facts = self._sources(spec, run.progress)
        recognizer = CPNER(self.backbone, settings=settings, initial=initial)
        trained = recognizer.train(
            target.domain, train, target.dev if self.options.epoch == "best" else (), sources=sources,
            settings=settings, run=run,
        )  # fmt: skip
        began = time.monotonic()
        found = [r.entities for r in recognizer.predict(target.dev, domain=target.domain.name)]
        reading = time.monotonic() - began
        steps = self._checked(spec, trained, settings, train)
        phases = [
            {"name": p.name or "target", "seconds": round(p.result.seconds, 2), "steps": p.result.steps,
             "epochs": p.result.epochs_run, "loss": p.result.history[-1].loss} for p in trained.transfer.phases
        ]  # fmt: skip
        selection = trained.transfer.selection
        return {
            "error": None, "steps": steps, "phases": phases, "prepared": {"initial": initial_facts, **facts},
            "dropped": {n: count for n in spec.sources if (count := self.pools.known(n, spec.target).dropped)},
            "seconds": {
                "target": round(trained.transfer.seconds, 2), "reading": round(reading, 2),
                "sources": {"initial": initial_facts["seconds"]} | {name: f["seconds"] for name, f in facts.items()},
            },
            "selection": None if selection is None else selection.to_dict(),
            "dev": _report(target.dev, found), "predicted": [[list(e.key) for e in entities] for entities in found],
        }  # fmt: skip

    # -- parts -----------------------------------------------------------------------------------------------------

    def _settings(self, spec: Spec, train: Corpus) -> tuple[Settings, Run]:
        """Settings with their epochs, and what is said about steps."""

        def build(*more: str) -> Settings:
            return self.options.settings(spec.seed, [*spec.own_settings(), *more], self.backbone.recommended)

        domain = self.pools.target(spec.target).domain
        per_epoch = steps_per_epoch(self.preparation.reader, [(domain, train)], build())
        epochs = epochs_for(self.options.steps, per_epoch, len(self.options.sources_of(spec.target)))
        steps = {"asked": self.options.steps, "per_epoch": per_epoch, "epochs": epochs, "planned": epochs * per_epoch}
        return build(f"training.epochs={epochs}"), steps | {"made": None}

    def _sources(self, spec: Spec, progress: Progress) -> tuple[list[Source], dict[str, Run]]:
        """Sources with their prefixes, and how each was made; a chain is one source that has seen all of them."""
        if spec.strategy == "chain":
            chain = self.preparation.chain(spec.target, spec.sources, spec.without, progress)
            return [Source(chain.entry)], {"chain": chain.facts}
        made = {n: self.preparation.source(spec.target, n, spec.without, progress) for n in spec.sources}
        return [Source(p.entry, p.sentences) for p in made.values()], {n: p.facts for n, p in made.items()}

    def _checked(self, spec: Spec, trained: Trained, settings: Settings, train: Corpus) -> Run:
        _, steps = self._settings(spec, train)
        made = trained.transfer.steps
        if made != steps["planned"]:
            raise XdnerError(
                f"{spec.title(self.options)} made {made} steps on the target, not {steps['planned']}",
                hint="Strategies can be compared only with equally many steps; this is a bug.",
            )
        return steps | {"made": made}

    def _unfinished(self, spec: Spec) -> Path:
        """Where checkpoints go; those of other options, weights or code are not gone on with."""
        parts = [self.options.asked(), spec.to_dict(), self.backbone.fingerprint, self.circumstances["commit"]]
        parts.append(self.pools.files(spec.target, sources_seen(spec, self.options)))
        name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.options.out / "unfinished" / f"run-{name}"


def _report(dev: Corpus, found: list[tuple[Entity, ...]]) -> Run:
    """:meth:`Report.to_dict`, and right, predicted and gold entities of each sentence, for paired comparisons."""
    gold, sentences = [s.entities for s in dev], list[Sentence](dev)
    report = evaluate(gold, found, ids=[s.id for s in sentences]).to_dict()
    report["sentence_counts"] = sentence_counts(gold, found).tolist()
    return report
