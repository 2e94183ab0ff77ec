"""The plain rival: an encoder with one linear layer that gives each word a BIO tag, all weights tuned. It is LANER's plain
head, driven without LANER's own settings: windows as long as the encoder allows, no overlap.

A word's tag is read at its first sub-word. A sentence longer than the encoder's positions is split into windows between
words, and no word is dropped. MiniLM-L6, the embedded encoder, lower-cases its input.

With sources, the same network first learns the source domains' tags; the rows of the layer whose tags the target has
too (``O``, and types of the same name) are carried over, the others start anew. Like the instructed backbone, the sources'
tagger is one model for all targets, rates and seeds: it is trained once and kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from benchmarks.arms import Corpora, Measured, Target, measured, resolved
from benchmarks.record import circumstances, read_json, write_json
from xdner.backbone.encoder import load_encoder
from xdner.backbone.words import WordPieces
from xdner.files import write_atomically
from xdner.settings import TrainingSettings
from xdner.tagger.carry import carry_over
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import TaggerSettings
from xdner.tagger.tags import tags_for
from xdner.training.loop import train
from xdner.training.progress import Progress
from xdner.training.run import Run
from xdner.training.tagger_task import TaggerTask

#: The source domains that the instructed backbone has seen.
SOURCES = ("conll2003", "politics", "music", "literature")

# An epoch costs next to nothing and F1 is 0 in the first ones, so patience would end the run: all epochs are run, and
# the best one on dev counts.
DEFAULTS = (
    "training.epochs=40", "training.batch_size=16", "training.patience=0", "training.evaluate_from=1",
)  # fmt: skip

_PLAIN = TaggerSettings(head="plain")


# -- the sources' tagger -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceStage:
    """A tagger of all source domains together, trained when it is first asked for.

    Attributes:
        corpora: where the sources come from.
        folder: where it is kept: ``<hash of what it depends on>.safetensors`` and ``.json``, the record, written last.
        names: of the source domains.
        per_source: at most so many sentences of each, the sample of instruction tuning.
        epochs: passes over them. There is no dev split here: the last one counts.
        rate, seed: of the training.
        device: ``cpu``, ``cuda``, ...
    """

    corpora: Corpora
    folder: Path
    names: tuple[str, ...] = SOURCES
    per_source: int = 600
    epochs: int = 10
    rate: float = 1e-4
    seed: int = 1
    device: str = "cpu"

    def asked(self) -> dict[str, Any]:
        """What was chosen, as plain values."""
        return {
            "names": list(self.names), "per_source": self.per_source, "epochs": self.epochs, "rate": self.rate,
            "seed": self.seed,
        }  # fmt: skip

    def ready(self, encoder: str, progress: Progress) -> tuple[TaggerNetwork, dict[str, Any]]:
        """The network, and its record: ``asked``, ``sources``, ``seconds``, ``steps``.

        Args:
            encoder: alias, hub id or folder.
            progress: of the training, if it is not ready yet.

        Raises:
            BackboneNotFoundError: the encoder's weights are not here.
            CorpusError: a source cannot be read.
        """
        sources = [self.corpora.source(name, self.per_source) for name in self.names]
        settings = resolved(DEFAULTS, [f"epochs={self.epochs}"], self.seed, self.rate).training
        loaded = load_encoder(encoder, device=self.device)
        tagger = TaggerNetwork(loaded.model, tags_of(sources), _PLAIN, seed=self.seed).to(self.device)
        listed = [{"domain": s.domain.name, "sentences": len(s.train), "data": dict(s.data)} for s in sources]
        depends = {"encoder": loaded.fingerprint, "sources": listed, "settings": _plain(settings)}
        name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        weights, record = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        if not record.is_file():
            learned = [s for source in sources for s in source.train]
            task = TaggerTask(tagger, WordPieces(loaded.tokenizer, loaded.positions), learned, ())
            run = Run(self.folder / f"{name}-run", hint="The same command goes on.", progress=progress).going_on()
            result = train(task, settings, run)
            state = {key: value.detach().contiguous() for key, value in tagger.named_parameters()}
            write_atomically(weights, save(state))
            facts = {
                "seconds": round(result.seconds, 2),
                "steps": result.steps,
                "sources": listed,
                "asked": self.asked(),
            }
            write_json(record, facts | {"depends": depends} | circumstances())
            run.remove()
        tagger.load_state_dict(load_file(weights, device=self.device), strict=False)
        return tagger, read_json(record)


# -- the arm -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaggerArm:
    """An encoder tuned on the target, after the sources if there are any.

    Attributes:
        name, rates: see :class:`benchmarks.arms.Arm`; of the target's stage.
        encoder: alias, hub id or folder.
        stage: of the sources; ``None``: without.
        overrides: of the group ``training``, for the target.
        device: ``cpu``, ``cuda``, ...
    """

    name: str
    encoder: str
    rates: tuple[float, ...]
    stage: SourceStage | None = None
    overrides: tuple[str, ...] = ()
    device: str = "cpu"

    def asked(self) -> dict[str, Any]:
        own = {"backbone": self.encoder, "overrides": list(self.overrides), "dtype": "float32"}
        return own | ({"sources": self.stage.asked()} if self.stage is not None else {})

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        sources, record = (
            self.stage.ready(self.encoder, progress) if self.stage is not None else (None, {"sources": []})
        )
        began = time.monotonic()  # the sources' tagger is shared, and has a time of its own
        settings = resolved(DEFAULTS, self.overrides, seed, rate).training
        loaded = load_encoder(self.encoder, device=self.device)
        tagger = TaggerNetwork(loaded.model, tags_of([target]), _PLAIN, seed=seed).to(self.device)
        if sources is not None:
            carry_over(tagger, sources)
        pieces = WordPieces(loaded.tokenizer, loaded.positions)
        task = TaggerTask(tagger, pieces, target.train, target.dev, recompute=settings.gradient_checkpointing)
        result = train(task, settings, Run(progress=progress))
        made = measured(
            target.dev, task.found(), result, began, settings={"training": _plain(settings)},
            backbone={"name": loaded.name, "fingerprint": loaded.fingerprint}, dtype="float32",
            trained_weights=sum(p.numel() for p in tagger.parameters()), labels=list(target.domain.label_names),
            sources=record["sources"],
        )  # fmt: skip
        return made if sources is None else replace(made, seconds=made.seconds | {"sources": record["seconds"]})


def tags_of(targets: Sequence[Target]) -> list[str]:
    """``O``, then ``B-`` and ``I-`` of every type of these domains."""
    return list(tags_for(label for target in targets for label in target.domain.label_names))


def _plain(settings: TrainingSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in TrainingSettings.__slots__}
