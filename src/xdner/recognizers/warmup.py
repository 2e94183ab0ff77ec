"""Domain-specific warm-up (Eq. 4): a prefix is trained on one domain's sentences, and nothing else is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xdner.backbone.base import Backbone
from xdner.backbone.store import PrefixRows
from xdner.codec.instructor import Instructor
from xdner.domain import DEFAULT_INSTRUCTION, Domain
from xdner.errors import BackboneMismatchError, DomainError, SettingsError, TrainingError
from xdner.evaluation.report import evaluate
from xdner.library.entry import DomainEntry, sentence_hashes
from xdner.prefix.parametrization import DirectParametrization, MLPParametrization, Parametrization
from xdner.prefix.prefix import Prefix
from xdner.recognizers.reader import Reader
from xdner.settings import PrefixSettings, Settings, TrainingSettings
from xdner.text import Sentence
from xdner.training.augmentation import Augmentation, mention_pool
from xdner.training.domain_task import DomainTask, make_items
from xdner.training.loop import TrainingResult, train
from xdner.training.run import Run
from xdner.training.sources import limited

__all__ = ["WarmUp", "assert_frozen", "check_labels", "initial_prefix"]


def initial_prefix(reader: Reader, settings: PrefixSettings) -> Prefix:
    """δ₀: keys and values of the default instruction (repeated to the length), or noise from a fixed seed.

    It does not depend on the domain or the training seed: all prefixes of one library start from the same place.
    """
    backbone = reader.backbone
    if settings.init == "instruction":
        text = reader.encoder.text(DEFAULT_INSTRUCTION)
        ids = (text * (settings.length // len(text) + 1))[: settings.length]
        pairs = backbone.read_keys_values(ids)
        keys, values = [k.float() for k, _ in pairs], [v.float() for _, v in pairs]
    else:
        generator = torch.Generator().manual_seed(0)
        shapes = [(s.heads, settings.length, s.head_dim) for s in backbone.geometry.sites]
        keys, values = (
            [torch.randn(shape, generator=generator) * settings.noise for shape in shapes] for _ in range(2)
        )
    # In 16 bits as a library stores it, so that its hash is the same before and after.
    return Prefix(backbone.geometry, tuple(keys), tuple(values), backbone.fingerprint).rounded()


def assert_frozen(backbone: Backbone, trained: Mapping[str, torch.nn.Parameter]) -> None:
    """Nothing of the backbone takes a gradient, and nothing that is trained belongs to it.

    Raises:
        TrainingError: otherwise.
    """
    own = {p.data_ptr() for p in backbone.model.parameters()}
    loose = [n for n, p in backbone.model.named_parameters() if p.requires_grad]
    if loose or any(p.data_ptr() in own for p in trained.values()):
        raise TrainingError(
            f"the backbone is not frozen: {', '.join(loose[:3]) or 'its weights are among what is trained'}",
            hint="Call backbone.freeze(), and train prefixes only.",
        )


class WarmUp:
    """One training run of one domain's prefix.

    Args:
        reader: of the frozen backbone; it also scores dev.
        domain: its types.
        sentences, dev: labelled sentences.
        settings: all groups.
        initial: δ₀, which the prefix remembers and ``training.anchor`` holds it to; by default
            :func:`initial_prefix`.
        start: where training starts, if not at δ₀: a prefix, or parameters that emit one.

    Raises:
        DomainError: labels in the sentences that the domain does not have.
        SettingsError: the settings want another length than δ₀ has.
    """

    def __init__(
        self,
        reader: Reader,
        domain: Domain,
        sentences: Sequence[Sentence],
        dev: Sequence[Sentence],
        settings: Settings,
        *,
        initial: Prefix | None = None,
        start: Prefix | Parametrization | None = None,
    ) -> None:
        check_labels(domain, sentences, dev)
        self.reader, self.backbone, self.domain = reader, reader.backbone, domain
        self.sentences, self.dev, self.settings = sentences, dev, settings
        self.initial = initial.rounded() if initial is not None else initial_prefix(reader, settings.prefix)
        _check_length(self.initial, settings)
        emits = start if isinstance(start, Parametrization) else _parametrize(start or self.initial, settings)
        self.parametrization = emits.to(self.backbone.device)
        keys, values = self.parametrization.collapse()
        #: Hash of the prefix that training starts from.
        self.start = replace(self.initial, keys=keys, values=values).hash()
        self.scored = limited(dev, settings.training.dev_limit)

    def run(self, run: Run | None = None) -> tuple[DomainEntry, TrainingResult]:
        """Train; ``run`` says where checkpoints go, and what is shown.

        Returns:
            The domain with its prefix, and the record of the run.

        Raises:
            TrainingError: nothing to train on, an unfrozen backbone, or the loss is not a number any more.
            TrainingInterrupted: Ctrl-C.
            BackboneMismatchError: the frozen weights changed.
        """
        task = self._task()
        assert_frozen(self.backbone, task.parameters())
        before = self.backbone.compute_fingerprint()
        result = train(task, self.settings.training, run, fingerprint=self._fingerprint())
        if self.backbone.compute_fingerprint() != before:
            raise BackboneMismatchError(
                "the backbone's weights changed during training, although they are frozen",
                hint="This is a bug, or another thread trains the same model; the prefix was not kept.",
            )
        seen = sentence_hashes(self.sentences)
        return DomainEntry(self.domain, self._prefix(result), self.settings, seen=seen), result

    def mean_loss(self, prefix: Prefix) -> float:
        """Eq. 4 of another prefix on these sentences, the mean over all their decisions, all options in their order, without
        dropout; nothing is trained."""
        dtype, device = self.backbone.dtype, self.backbone.device
        keys, values = ([t.to(device, dtype) for t in part] for part in (prefix.keys, prefix.values))
        rows = PrefixRows.stack([(keys, values)], [0])
        plain = replace(self.settings.training, backbone_dropout=False)
        task = self._task(Augmentation(shuffle=False), lambda: rows, plain)
        order = sorted(range(len(task.lengths())), key=task.lengths().__getitem__)
        size = self.settings.training.batch_size
        total, places = 0.0, 0
        with torch.inference_mode():
            for first in range(0, len(order), size):
                batch = order[first : first + size]
                decided = sum(map(task.decisions, batch))
                total += float(task.loss(batch, random.Random(0))) * decided
                places += decided
        return total / max(1, places)

    def _prefix(self, result: TrainingResult) -> Prefix:
        keys, values = self.parametrization.collapse()
        notes = {
            "domain": self.domain.name,
            "backbone_name": self.backbone.name,
            "backbone_source": self.backbone.source,
            "seed": self.settings.training.seed,
            "train_sentences": len(self.sentences),
            "dev_sentences": len(self.dev),
            "best_epoch": result.best_epoch,
            "dev_f1": result.best_dev,
            "steps": result.steps,
        }
        identity, initial = self.backbone.fingerprint, self.initial.hash()
        return Prefix(self.backbone.geometry, keys, values, identity, initial, notes).rounded()

    def _task(
        self,
        augmentation: Augmentation | None = None,
        rows: Callable[[], PrefixRows] | None = None,
        training: TrainingSettings | None = None,
    ) -> DomainTask:
        training, encoder = training or self.settings.training, self.reader.encoder
        instructor = Instructor(encoder, self.settings.codec)
        varied = Augmentation(
            shuffle=training.shuffle_options,
            drop=training.drop_options,
            replace=training.replace_mentions,
            mentions={self.domain.name: mention_pool(self.sentences)},
        )
        return DomainTask(
            self.backbone,
            make_items(
                self.domain,
                self.sentences,
                encoder,
                instructor,
                training.max_pieces,
                max_tokens=self.backbone.max_tokens - self.initial.length,
            ),
            self.settings.codec,
            training,
            encoder=encoder,
            augmentation=augmentation or varied,
            parameters=dict(self.parametrization.named_parameters()),
            prefix=rows or self._rows,
            score=self._score,
            penalty=self._distance if training.anchor and rows is None else None,
        )

    def _rows(self) -> PrefixRows:
        """The prefix as it is now, one for all rows; trained in 32 bits, used in the backbone's type."""
        dtype = self.backbone.dtype
        keys, values = self.parametrization()
        if self.settings.training.prefix_dropout:
            kept = _kept_positions(keys[0].shape[1], self.settings.training.prefix_dropout)
            keys, values = [k[:, kept] for k in keys], [v[:, kept] for v in values]
        return PrefixRows.stack([([k.to(dtype) for k in keys], [v.to(dtype) for v in values])], [0])

    def _distance(self) -> Tensor:
        """Weighted squared distance to δ₀."""
        keys, values = self.parametrization()
        pairs = zip((*keys, *values), (*self.initial.keys, *self.initial.values), strict=True)
        return self.settings.training.anchor * torch.stack([((a - b.to(a)) ** 2).sum() for a, b in pairs]).sum()

    def _score(self) -> float | None:
        """Dev F1 of the prefix as it is now."""
        if not self.scored:
            return None
        with torch.inference_mode():
            keys, values = self.parametrization()
            steered = self.reader.steer(self.domain, self.settings.codec, keys, values, self.settings.decoding)
        results = self.reader.read([(s, steered) for s in self.scored])
        return evaluate([s.entities for s in self.scored], [r.entities for r in results], samples=0).micro.f1

    def _fingerprint(self) -> str:
        """What a run depends on; a checkpoint of another run is refused."""
        described: dict[str, Any] = {
            "backbone": self.backbone.exact_fingerprint,
            "domain": self.domain.to_dict(),
            "initial": self.initial.hash(),
            "start": self.start,
            "settings": self.settings.to_dict(),
        }
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for sentence in (*self.sentences, *self.dev):
            entities = [dataclasses.astuple(e) for e in sentence.entities]
            digest.update(json.dumps([sentence.text, entities]).encode())
        return digest.hexdigest()


def _kept_positions(length: int, dropout: float) -> Tensor:
    """Indices of the prefix positions of one step, at least one; from torch's global generator, as dropout is."""
    kept = torch.rand(length) >= dropout
    return kept.nonzero()[:, 0] if bool(kept.any()) else torch.randint(length, (1,))


def _parametrize(initial: Prefix, settings: Settings) -> Parametrization:
    if settings.prefix.reparametrization == "none":
        return DirectParametrization(initial.geometry, initial.keys, initial.values)
    return MLPParametrization(
        initial.geometry, initial.keys, initial.values, hidden=settings.prefix.hidden, seed=settings.training.seed
    )


def _check_length(initial: Prefix, settings: Settings) -> None:
    if initial.length != settings.prefix.length:
        raise SettingsError(
            [f"prefix.length is {settings.prefix.length}, but the initial prefix has length {initial.length}"],
            hint="All prefixes of one library have one length: leave prefix.length out, or use another --library.",
        )


def check_labels(domain: Domain, *corpora: Sequence[Sentence]) -> None:
    """Raise a :class:`DomainError` if sentences have labels that their domain does not."""
    unknown = sorted({e.label for corpus in corpora for s in corpus for e in s.entities if e.label not in domain})
    if unknown:
        raise DomainError(
            f"the sentences have labels that domain {domain.name!r} does not: {', '.join(unknown)}",
            hint=f"Add them to the domain, or correct the sentences. The domain has: {', '.join(domain.label_names)}.",
        )
