"""What runs start from, made once and kept: δ₀, each source's prefix, and the prefixes of chains.

Everything lies in ``<out>/prepared/<name>-<hash>`` with a record beside it; the hash is over all that it depends on, so
another backbone, setting or sentence makes another one. The record is written last: without it, the thing is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.record import read_json, write_json
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Known, Pools, digest
from xdner.backbone.base import Backbone
from xdner.codec.instructor import Instructor
from xdner.domain import Domain
from xdner.library.entry import DomainEntry
from xdner.prefix.prefix import Prefix
from xdner.recognizers.reader import Reader
from xdner.recognizers.shared_start import train_shared_start
from xdner.recognizers.warmup import WarmUp, initial_prefix
from xdner.settings import Settings
from xdner.text import Sentence
from xdner.training.augmentation import Augmentation
from xdner.training.batching import bucketed_batches
from xdner.training.domain_task import DomainTask, make_items
from xdner.training.progress import Progress
from xdner.training.run import Run
from xdner.training.sources import LabelledSource, limited
from xdner.workflows.domains import ABLATIONS
from xdner.workflows.initial import INITIAL_DEFAULTS

__all__ = ["RESUME", "SEED", "Prepared", "Preparation", "steps_per_epoch"]

#: Of everything that is prepared: seeds of runs vary the target's sample and training alone.
SEED = 1
RESUME = "The same command goes on where it stopped."

Facts = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A source that is ready to be drawn on.

    Attributes:
        entry: with its trained prefix.
        sentences: what it was trained on.
        facts: ``seconds``, ``steps``, ``epochs``, ``sentences``, ``dropped``, ``hash`` and circumstances.
    """

    entry: DomainEntry
    sentences: Sequence[Sentence]
    facts: Facts


def steps_per_epoch(reader: Reader, corpora: Iterable[tuple[Domain, Sequence[Sentence]]], settings: Settings) -> int:
    """Optimizer steps of one epoch over all of them; it depends on the sentences' lengths only, not on the seed."""
    training, encoder = settings.training, reader.encoder
    instructor = Instructor(encoder, settings.codec)
    made = [make_items(d, sentences, encoder, instructor, training.max_pieces) for d, sentences in corpora]
    items = [item for of_one in made for item in of_one]
    task = DomainTask(
        reader.backbone, items, settings.codec, training, encoder=encoder, augmentation=Augmentation(), parameters={},
        prefix=reader.backbone.empty_prefix, score=lambda: None,
    )  # fmt: skip
    batches = bucketed_batches(task.lengths(), training.batch_size, random.Random(0), task.groups())
    return math.ceil(len(batches) / training.accumulation)


class Preparation:
    """Makes what is not there yet, and reads what is.

    Args:
        options: steps, settings and the folder.
        pools: where sources' sentences come from.
        backbone: frozen.
        circumstances: commit, machine and versions, for the records.
    """

    def __init__(self, options: Options, pools: Pools, backbone: Backbone, circumstances: Facts) -> None:
        self.options, self.pools, self.backbone, self.circumstances = options, pools, backbone, circumstances
        self.reader = Reader(backbone, options.settings(SEED, base=backbone.recommended).decoding)
        self.folder = options.out / "prepared"

    def initial(self, target: str, without: str, progress: Progress) -> tuple[Prefix, Facts]:
        """δ₀ for a target: of the instruction, or trained on the target's sources together."""
        if self.options.initial == "instruction":
            settings = self._settings()
            depends: Facts = {"prefix": settings.to_dict()["prefix"]}

            def make(run: Run) -> tuple[Prefix, Facts]:
                return initial_prefix(self.reader, settings.prefix), {"seconds": 0.0, "steps": 0}

        else:
            base: dict[str, Any] = {group: dict(values) for group, values in self.backbone.recommended.items()}
            for group, values in INITIAL_DEFAULTS.items():
                base[group] = base.get(group, {}) | values
            settings = self.options.settings(SEED, self._own(without), base)
            known = [self.pools.known(name, target) for name in self.options.sources_of(target)]
            sources = [LabelledSource(k.domain, limited(k.sentences, settings.instruct.per_source)) for k in known]
            per_epoch = steps_per_epoch(self.reader, [(s.domain, s.sentences) for s in sources], settings)
            epochs = math.ceil(self.options.initial_steps / per_epoch)
            settings = self.options.settings(SEED, [*self._own(without), f"training.epochs={epochs}"], base)
            depends = {
                "settings": _of_training(settings, "instruct"),
                "sources": [source.domain.to_dict() for source in sources],
                "data": digest(*(s.sentences for s in sources)),
            }

            def make(run: Run) -> tuple[Prefix, Facts]:
                prefix, result = train_shared_start(self.reader, sources, settings, run)
                facts = {"seconds": result.seconds, "steps": result.steps, "epochs": result.epochs_run}
                return prefix, facts | {"sources": [s.domain.name for s in sources]}

        folder, facts = self._kept("initial", depends, make, progress)
        return Prefix.load(folder), facts

    def source(self, target: str, name: str, without: str, progress: Progress) -> Prepared:
        """A source's prefix, trained from δ₀ on its own sentences, those that the target has left out if asked for."""
        known = self.pools.known(name, target)
        initial, _ = self.initial(target, without, progress)
        return self._trained(name, known, known.domain, initial, None, without, progress)

    def chain(self, target: str, names: Sequence[str], without: str, progress: Progress) -> Prepared:
        """The first source's prefix, trained further on each next one with as many steps as each had alone.

        It does not depend on what is learned afterwards, so all sizes and seeds of a target share it.
        """
        first, *rest = names
        made = self.source(target, first, without, progress)
        initial, _ = self.initial(target, without, progress)
        done = [first]
        for name in rest:
            known = self.pools.known(name, target)
            done.append(name)
            domain = Domain("chain-" + "-".join(done), known.domain.labels, known.domain.instruction)
            link = self._trained(domain.name, known, domain, initial, made.entry, without, progress)
            total = {key: made.facts[key] + link.facts[key] for key in ("seconds", "steps", "sentences", "dropped")}
            made = replace(link, facts=link.facts | total)
        return made

    # -- parts -----------------------------------------------------------------------------------------------------

    def _own(self, without: str) -> list[str]:
        return [ABLATIONS["options"]] if without == "options" else []

    def _settings(self, without: str = "", *own: str) -> Settings:
        return self.options.settings(SEED, [*self._own(without), *own], self.backbone.recommended)

    def _trained(
        self,
        name: str,
        known: Known,
        domain: Domain,
        initial: Prefix,
        start: DomainEntry | None,
        without: str,
        progress: Progress,
    ) -> Prepared:
        per_epoch = steps_per_epoch(self.reader, [(domain, known.sentences)], self._settings(without))
        epochs = math.ceil(self.options.source_steps / per_epoch)
        settings = self._settings(without, f"training.epochs={epochs}")
        depends = {
            "domain": domain.to_dict(), "data": digest(known.sentences), "settings": _of_training(settings),
            "initial": initial.hash(), "start": None if start is None else start.prefix.hash(),
        }  # fmt: skip

        def make(run: Run) -> tuple[DomainEntry, Facts]:
            entry, result = WarmUp(
                self.reader, domain, known.sentences, (), settings, initial=initial,
                start=None if start is None else start.prefix,
            ).run(run)  # fmt: skip
            seen = entry.seen if start is None else entry.seen | start.seen
            return replace(entry, seen=seen), {
                "seconds": result.seconds,
                "steps": result.steps,
                "epochs": result.epochs_run,
            }

        folder, facts = self._kept(name, depends, make, progress)
        facts = facts | {"sentences": len(known.sentences), "dropped": known.dropped}
        return Prepared(DomainEntry.load(folder), known.sentences, facts)

    def _kept(
        self, name: str, depends: Facts, make: Callable[[Run], tuple[Prefix | DomainEntry, Facts]], progress: Progress
    ) -> tuple[Path, Facts]:
        """The folder and the record of a thing, which is made if it is not there."""
        depends = {
            "name": name, "backbone": self.backbone.fingerprint, "dtype": str(self.backbone.dtype), **depends,
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        folder, path = self.folder / f"{name}-{key}", self.folder / f"{name}-{key}.json"
        if not path.is_file():
            # Checkpoints of other code are not gone on with.
            unfinished = self.options.out / "unfinished" / f"{name}-{key}-{self.circumstances['commit']}"
            run = Run(unfinished, hint=RESUME, progress=progress).going_on()
            made, facts = make(run)
            made.save(folder)
            facts["seconds"] = round(facts["seconds"], 2)
            prefix = made if isinstance(made, Prefix) else made.prefix
            write_json(path, {"name": name, **facts, "hash": prefix.hash(), "depends": depends, **self.circumstances})
            run.remove()
        return folder, {
            k: v for k, v in read_json(path).items() if k in ("seconds", "steps", "epochs", "hash", "sources")
        }


def _of_training(settings: Settings, *more: str) -> Facts:
    """The groups that the training of a prefix depends on: how targets draw on sources is none of them."""
    groups = ("codec", "prefix", "training", *more)
    return {group: values for group, values in settings.to_dict().items() if group in groups}
