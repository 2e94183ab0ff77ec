"""What is compared: each arm trains something on one domain and reads that domain's dev split.

An arm is whatever has a name, rates to try and ``run``. Here are those that tune a generative language model, all with
the same codec, decoder, training loop and stopping rule; they differ in what is trained:

=========  =================================================================================================
prefix     keys and values at each attention site; the backbone stays frozen (the method of this project)
lora       LoRA factors on all linear layers but the output layer
full       all weights, embeddings included
=========  =================================================================================================

each from two starts: ``raw``, the model as it came, and ``instructed``, tuned on source domains beforehand.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from xdner.backbone.base import Backbone
from xdner.backbone.load import load_backbone
from xdner.codec.instructor import Instructor
from xdner.corpora.io import read_corpus
from xdner.domain import Domain
from xdner.errors import SettingsError, XdnerError
from xdner.evaluation.match import sentence_counts
from xdner.evaluation.report import evaluate
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.reader import Reader
from xdner.settings import Settings
from xdner.text import Entity, Sentence
from xdner.training.augmentation import Augmentation, mention_pool
from xdner.training.domain_task import DomainTask, make_items
from xdner.training.factors import lora_dropouts
from xdner.training.loop import TrainingResult, train
from xdner.training.progress import Progress
from xdner.training.run import Run
from xdner.training.sources import limited

__all__ = ["Arm", "Corpora", "LanguageModelArm", "Measured", "Target", "Tuned", "measured", "resolved", "scored"]

Entities = list[tuple[Entity, ...]]

# No arm trains longer; patience usually ends a run before.
DEFAULTS = ("training.epochs=15",)


@dataclass(frozen=True)
class Target:
    """A domain to be learned: its types (of the whole files) and its sentences.

    Attributes:
        domain: types that occur in train or dev.
        train, dev: labelled sentences, perhaps the first few only.
        data: file below the data folder → its sha256.
    """

    domain: Domain
    train: tuple[Sentence, ...]
    dev: tuple[Sentence, ...]
    data: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """What one run gave.

    Attributes:
        report: :meth:`Report.to_dict` on dev, and ``sentence_counts``: right, predicted and gold entities of each
            sentence, for paired comparisons.
        seconds: of training and of everything.
        history: one record an epoch.
        facts: what is particular to the arm (resolved settings, backbone, number of trained weights, ...).
    """

    report: dict[str, Any]
    seconds: dict[str, float]
    history: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)


class Arm(Protocol):
    """Something to compare."""

    @property
    def name(self) -> str:
        """In tables and file names."""
        ...

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to try."""
        ...

    def asked(self) -> dict[str, Any]:
        """Everything that was chosen for this arm but seed and rate, as plain values: it names its runs."""
        ...

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        """Train from the start and score dev.

        Raises:
            BackboneNotFoundError: the weights are not here.
            TrainingError: the run diverged.
        """
        ...


@dataclass(frozen=True)
class Corpora:
    """The benchmark corpora: ``folder/<domain>/<split>.txt``.

    Attributes:
        folder: where they are.
        limit: read the first so many sentences of every file only (for trials); ``None``: all.
    """

    folder: Path
    limit: int | None = None

    def target(self, name: str) -> Target:
        """Train and dev of a domain.

        Raises:
            CorpusError: a file is missing or cannot be read.
        """
        corpora = {split: read_corpus(self.folder / name / f"{split}.txt") for split in ("train", "dev")}
        domain = Domain.from_corpus(name, [*corpora["train"], *corpora["dev"]])
        data = {f"{name}/{split}.txt": corpus.sha256 for split, corpus in corpora.items()}
        return Target(domain, self._few(corpora["train"]), self._few(corpora["dev"]), data)

    def source(self, name: str, per_source: int) -> Target:
        """The training sentences of a source domain (no dev): the sample that instruction tuning draws."""
        corpus = read_corpus(self.folder / name / "train.txt")
        chosen = self._few(limited(corpus, per_source))
        return Target(Domain.from_corpus(name, corpus), chosen, (), {f"{name}/train.txt": corpus.sha256})

    def _few(self, sentences: Sequence[Sentence]) -> tuple[Sentence, ...]:
        return tuple(sentences)[: self.limit]


def measured(
    dev: Sequence[Sentence], found: Sequence[Sequence[Entity]], result: TrainingResult, began: float, **facts: Any
) -> Measured:
    """The record of a run that ended.

    Args:
        dev: with gold entities.
        found: the entities that were found in each of them.
        result: of training.
        began: ``time.monotonic()`` at the start.
        facts: see :class:`Measured`.
    """
    report = scored(dev, found)
    seconds = {"training": round(result.seconds, 2), "total": round(time.monotonic() - began, 2)}
    history = [
        {"epoch": r.epoch, "loss": r.loss, "dev": r.dev, "seconds": round(r.seconds, 2), "steps": r.steps}
        for r in result.history
    ]
    facts |= {"best_epoch": result.best_epoch, "epochs_run": result.epochs_run, "stopped": result.stopped}
    return Measured(report, seconds, history, facts)


def scored(
    dev: Sequence[Sentence], found: Sequence[Sequence[Entity]], labels: Collection[str] | None = None
) -> dict[str, Any]:
    """The report on dev, with ``sentence_counts``: right, predicted and gold entities of each sentence.

    Args:
        dev: with gold entities.
        found: the entities that were found in each of them.
        labels: only these count, in gold and found.
    """
    if labels is not None:
        dev = [s.with_entities(e for e in s.entities if e.label in labels) for s in dev]
        found = [tuple(e for e in entities if e.label in labels) for entities in found]
    gold = [s.entities for s in dev]
    report = evaluate(gold, found, examples=0).to_dict()  # no example: what a run leaves behind quotes no corpus
    return report | {"sentence_counts": sentence_counts(gold, found).tolist()}


def resolved(
    defaults: Sequence[str],
    overrides: Sequence[str],
    seed: int,
    rate: float,
    base: Mapping[str, Any] | None = None,
    groups: type[Any] = Settings,
) -> Any:
    """Settings of one run, of the class ``groups``: defaults, then what was asked for, then its seed and rate.

    Raises:
        SettingsError: wrong settings, or a rate or seed among the overrides.
    """
    taken = [o for o in overrides if o.partition("=")[0].strip().rpartition(".")[2] in ("seed", "learning_rate")]
    if taken:
        raise SettingsError(
            [f"{o!r} cannot be set: the benchmark goes through seeds and rates itself" for o in taken],
            hint="Use --seeds and --rates.",
        )
    own = [f"training.seed={seed}", f"training.learning_rate={rate!r}"]
    return groups.build(None, [*defaults, *overrides, *own], base)


@dataclass(frozen=True)
class LanguageModelArm:
    """A generative language model, with a trained prefix, LoRA factors or weights; loaded afresh for every run.

    Attributes:
        name: see :class:`Arm`.
        what: is trained.
        backbone: alias, hub id or folder.
        rates: see :class:`Arm`.
        overrides: of the settings, over the backbone's recommended ones.
        dtype: of weights that stay frozen. With ``full``, weights are trained and thus in 32 bits: steps of a small
            rate are less than what 16 bits can tell apart. Their products are in 16 bits if this says so (autocast).
        device: ``cpu``, ``cuda``, ...
    """

    name: str
    what: Literal["prefix", "lora", "full"]
    backbone: str
    rates: tuple[float, ...]
    overrides: tuple[str, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"

    def asked(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "overrides": list(self.overrides),
            "dtype": self._dtype(),
            "autocast": self._autocast(),
        }

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        began = time.monotonic()
        backbone = load_backbone(self.backbone, device=self.device, dtype=self._dtype())
        settings = resolved(DEFAULTS, self.overrides, seed, rate, backbone.recommended)
        identity = {"name": backbone.name, "fingerprint": backbone.fingerprint}
        if self.what == "prefix":
            found, result, trained = _prefix(backbone, target, settings, progress)
        else:
            parameters = _lora(backbone, settings) if self.what == "lora" else _all_weights(backbone)
            tuned = Tuned(backbone, target, settings, parameters, autocast=self._autocast())
            result = train(tuned.task(), settings.training, Run(progress=progress))
            found, trained = tuned.read(target.dev), sum(p.numel() for p in parameters.values())
        return measured(
            target.dev, found, result, began, settings=settings.to_dict(), backbone=identity, trained_weights=trained,
            dtype=str(backbone.dtype).removeprefix("torch."), labels=list(target.domain.label_names),
        )  # fmt: skip

    def _dtype(self) -> str:
        return "float32" if self.what == "full" else self.dtype

    def _autocast(self) -> bool:
        return self.what == "full" and self.dtype == "bfloat16"


def _prefix(
    backbone: Backbone, target: Target, settings: Settings, progress: Progress
) -> tuple[Entities, TrainingResult, int]:
    recognizer = CPNER(backbone, settings=settings)
    trained = recognizer.train(target.domain, target.train, target.dev, run=Run(progress=progress))
    found = [r.entities for r in recognizer.predict(target.dev, domain=target.domain.name)]
    weights = sum(p.numel() for p in trained.result.state.values())
    return found, trained.result, weights


def _all_weights(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Weights that are tied count once."""
    backbone.model.requires_grad_(True)
    return dict(backbone.model.named_parameters())


def _lora(backbone: Backbone, settings: Settings) -> dict[str, nn.Parameter]:
    """Factors of ``instruct.rank``, put into the model in place; trained in 32 bits over frozen weights."""
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise XdnerError("the arms with LoRA need the package peft", hint="pip install 'xdner[instruct]'") from None
    how = settings.instruct
    config = LoraConfig(
        r=how.rank, lora_alpha=how.alpha, lora_dropout=how.lora_dropout, target_modules="all-linear"
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(settings.training.seed)
        LoraModel(backbone.model, config, "default")
    backbone.model.requires_grad_(False)
    factors = {n: p for n, p in backbone.model.named_parameters() if "lora_" in n}
    for factor in factors.values():
        factor.data = factor.data.to(backbone.device, torch.float32)
        factor.requires_grad_(True)
    return factors


class _MixedPrecisionTask(DomainTask):
    """Weights and their updates in 32 bits, products in 16."""

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        with torch.autocast(self._backbone.device.type, torch.bfloat16):
            return super().loss(indices, rng)


class Tuned:
    """A backbone whose own weights, or weights that were put into it, are trained under the empty prefix.

    Args:
        backbone: freshly loaded.
        target: the domain.
        settings: all groups; ``prefix`` and ``training.anchor`` speak of a prefix and have no effect.
        parameters: what is trained.
        autocast: whether the products of training are in 16 bits, although the weights are in 32.
    """

    def __init__(
        self,
        backbone: Backbone,
        target: Target,
        settings: Settings,
        parameters: Mapping[str, nn.Parameter],
        *,
        autocast: bool = False,
    ) -> None:
        self.backbone, self.target, self.settings, self.parameters = backbone, target, settings, parameters
        self.autocast = autocast
        self.reader = Reader(backbone, settings.decoding)
        self.scored = limited(target.dev, settings.training.dev_limit)

    def task(self) -> DomainTask:
        """For :func:`xdner.training.loop.train`: prompts, targets and options as a prefix is trained on them."""
        training, encoder, empty = self.settings.training, self.reader.encoder, self.backbone.empty_prefix()
        instructor = Instructor(encoder, self.settings.codec)
        kind = _MixedPrecisionTask if self.autocast else DomainTask
        return kind(
            self.backbone,
            make_items(self.target.domain, self.target.train, encoder, instructor, training.max_pieces),
            self.settings.codec,
            training,
            encoder=encoder,
            augmentation=Augmentation(
                shuffle=training.shuffle_options,
                drop=training.drop_options,
                replace=training.replace_mentions,
                mentions={self.target.domain.name: mention_pool(self.target.train)},
            ),
            parameters=self.parameters,
            prefix=lambda: empty,
            score=self.score,
            dropouts=lora_dropouts(self.backbone.model),
        )

    def score(self) -> float | None:
        """Dev F1 of the weights as they are now."""
        if not self.scored:
            return None
        found = self.read(self.scored)
        return evaluate([s.entities for s in self.scored], found, samples=0).micro.f1

    def read(self, sentences: Sequence[Sentence]) -> Entities:
        """Entities of sentences, with the weights as they are now."""
        empty = self.backbone.empty_prefix()
        with torch.inference_mode():
            # The context was read with other weights before: it is read anew every time.
            steered = self.reader.steer(
                self.target.domain, self.settings.codec, [k[0] for k in empty.keys], [v[0] for v in empty.values]
            )
            results = self.reader.read([(s, steered) for s in sentences])
        return [r.entities for r in results]
