"""Domain-adaptive pre-training: a backbone goes on learning from plain text of a domain (Gururangan et al. 2020).

What it learns from a block of text is its :class:`~xdner.training.learners.Learner`'s business, and the text lies on
disk (:mod:`xdner.training.token_store`); here are the order of the blocks and the run. The items of the training loop
are whole batches of blocks, dealt out once from a seeded order: the loop keeps a number for each item, and there are
as many times fewer of them.

The result is a backbone like any other, with its own fingerprint.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xdner.backbone.aliases import MANIFEST, manifest_of
from xdner.backbone.lora import check_mergeable, merge_lora
from xdner.backbone.recompute import recomputed
from xdner.backbone.saving import save_like
from xdner.backbone.sources import ResolvedBackbone
from xdner.corpora.plain import LONGEST, PlainText
from xdner.errors import StorageError, TrainingError
from xdner.files import holds, replace_folder, storage_errors, write_manifest
from xdner.settings import TrainingSettings
from xdner.training.adapt_settings import AdaptationSettings
from xdner.training.factors import Factors, put_factors
from xdner.training.learners import Learner, load_learner
from xdner.training.loop import TrainingResult, train
from xdner.training.run import Run
from xdner.training.token_store import TokenStore, open_store, tokenizer_hash

__all__ = ["Adapted", "TextTask", "adapt", "dealt"]

_HELD_OUT = 20  # one block of so many is held out
_FEW_STEPS = 100  # of an optimizer whose rate rises first


@dataclass(frozen=True)
class Adapted:
    """What continued pre-training gave.

    Attributes:
        result: of the run.
        folder: the new backbone.
        facts: how it was made, as in the folder's manifest.
    """

    result: TrainingResult
    folder: Path
    facts: dict[str, Any]


class TextTask:
    """Fulfils :class:`xdner.training.loop.TrainingTask`; its items are batches of blocks.

    Args:
        learner: what learns.
        store: the text.
        batches: indices of blocks, item by item.
        parameters: what is trained, by name.
        training: dropout.
        autocast: whether products are in 16 bits.
    """

    def __init__(
        self,
        learner: Learner,
        store: TokenStore,
        batches: Sequence[np.ndarray],
        parameters: dict[str, nn.Parameter],
        training: TrainingSettings,
        *,
        autocast: bool = False,
    ) -> None:
        self.learner, self.store, self.batches, self.training = learner, store, batches, training
        self._parameters, self._autocast = parameters, autocast

    def parameters(self) -> dict[str, nn.Parameter]:
        """Exactly what is trained."""
        return self._parameters

    def lengths(self) -> list[int]:
        """Blocks of each item."""
        return [len(batch) for batch in self.batches]

    def groups(self) -> None:
        """Any items may follow one another."""

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        """Mean negative log-likelihood of what is asked for."""
        blocks = [self.store.block(int(i)) for index in indices for i in self.batches[index]]
        how = self.training
        again = recomputed(self.learner.model, how.gradient_checkpointing)
        with self.learner.dropout(how.backbone_dropout), again, self._products():
            total, count = self.learner.loss(blocks, rng)
        return total / max(count, 1)  # where a tokenizer knows no word, there is nothing to ask

    def evaluate(self) -> None:
        """There is no dev score: the last epoch counts."""

    def held_out_loss(self, blocks: np.ndarray) -> float | None:
        """Mean over blocks that are not trained on, hidden in the same way each time; ``None`` if there are none."""
        total, count, size = 0.0, 0, max(map(len, self.batches))
        for start in range(0, len(blocks), size):
            chosen = [self.store.block(int(i)) for i in blocks[start : start + size]]
            with torch.no_grad(), self._products():
                loss, asked = self.learner.loss(chosen, random.Random(start))
            total, count = total + float(loss), count + asked
        return total / count if count else None

    def _products(self) -> Any:
        return torch.autocast(self.learner.device.type, torch.bfloat16, enabled=self._autocast)


def dealt(blocks: int, batch_size: int, held_out: int, most: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Batches of blocks to train on, and the blocks that are held out.

    Args:
        blocks: how many there are; at least 1.
        batch_size: blocks of a batch, at most; batches differ by one block at most.
        held_out: so many blocks, at most a twentieth of all.
        most: so many blocks are trained on, at most (0 = no limit).
        seed: of the order.
    """
    order = torch.randperm(blocks, generator=torch.Generator().manual_seed(seed)).numpy().astype(np.uint32)
    apart = min(held_out, blocks // _HELD_OUT)
    used = order[apart:][: most or None]
    items = math.ceil(len(used) / batch_size)
    return [used[i::items] for i in range(items)], order[:apart]


def adapt(
    found: ResolvedBackbone,
    texts: Sequence[str | Path],
    out: str | Path,
    *,
    settings: AdaptationSettings,
    device: str = "cpu",
    autocast: bool = False,
    run: Run | None = None,
    told: Callable[[int], None] = lambda read: None,
) -> Adapted:
    """Continue a backbone's pre-training on plain text, and write the new backbone.

    Args:
        found: where to start.
        texts: UTF-8 files of any size, one document a line.
        out: folder of the new backbone; the run's own files are in ``out-run`` meanwhile, which needs room for two or
            four bytes a token and for three times the weights that are trained.
        settings: groups ``training`` (``batch_size`` counts blocks) and ``adapt``.
        device: where the weights go.
        autocast: products in 16 bits; weights and their updates stay in 32.
        run: whether to resume, and what is shown; its folder is ``out-run``.
        told: called with the bytes of text read so far.

    Raises:
        CorpusError: a text that cannot be used, or too little of it.
        BackboneError: a model that cannot learn from text.
        TrainingError: see :func:`xdner.training.loop.train`.
        StorageError: ``out`` is there already or cannot be written, or something else than an older run is at ``OUT-run``.
    """
    out = Path(out)
    scratch = out.with_name(out.name + "-run")
    run = replace(run or Run(), folder=scratch)
    plain = [PlainText(path) for path in texts]
    _check(found, plain, out, settings)
    run.check()
    learner = load_learner(found, settings.adapt, device=device)
    with run.claimed():
        store = open_store(
            plain, learner.tokenizer, scratch, room=learner.room, separator=learner.separator, vocabulary=learner.vocabulary,
            told=told,
        )  # fmt: skip
        for note in _oddities(store):
            run.progress.note(note)
        stage = _Stage(found, learner, store, settings, autocast, run)
        for note in stage.shortages():
            run.progress.note(note)
        result, losses = stage.go()
        facts = _facts(found, stage, result, losses)
        _write(found, stage, scratch, out, facts)
        run.remove()
    return Adapted(result, out, facts)


def _check(found: ResolvedBackbone, texts: Sequence[PlainText], out: Path, settings: AdaptationSettings) -> None:
    """What can be told before any work."""
    if not texts:
        raise TrainingError("there is no text to learn from", hint="Give --corpus FILE.")
    if out.exists() or out.is_symlink():
        raise StorageError(f"{out} is there already", hint="Choose another --out, or remove it first.")
    for text in texts:
        text.check()
    if settings.adapt.weights == "lora":
        check_mergeable(found.path, found.name, "use --set adapt.weights=full")


def _oddities(store: TokenStore) -> list[str]:
    """What is strange about the text, in words."""
    facts = store.facts
    cut = sum(file["cut"] for file in facts["files"])
    notes = []
    if cut:
        notes.append(f"{cut:,} lines are longer than {LONGEST:,} characters; they were read in pieces")
    if facts["unknown"] > 0.05 * facts["tokens"]:
        share = 100 * facts["unknown"] / facts["tokens"]
        notes.append(f"{share:.0f} % of the tokens are unknown to the tokenizer: is this its language?")
    return notes


class _Stage:
    """The run: if there is an output layer to be made, that first; then the model."""

    def __init__(
        self, found: ResolvedBackbone, learner: Learner, store: TokenStore, settings: AdaptationSettings, autocast: bool,
        run: Run,
    ) -> None:  # fmt: skip
        self.learner, self.store, self.settings, self.autocast = learner, store, settings, autocast
        self.run = run
        training, how = settings.training, settings.adapt
        self.batches, self.apart = dealt(
            len(store), training.batch_size, how.held_out, how.max_blocks, training.seed
        )  # fmt: skip
        self.factors: Factors | None = None
        if how.weights == "lora":
            self.factors = put_factors(
                learner.model, rank=how.lora_rank, alpha=how.lora_alpha, seed=training.seed, what="adapting with LoRA"
            )
        else:
            learner.model.requires_grad_(True)
        self.identity = {
            "backbone": learner.fingerprint,
            "tokenizer": tokenizer_hash(learner.tokenizer),
            "text": [file["sha256"] for file in store.facts["files"]],
            "training": settings.to_dict()["training"],
            "adapt": settings.to_dict()["adapt"],
            "autocast": autocast,
        }

    def shortages(self) -> list[str]:
        """What the text is too little for, in words, with what helps."""
        training, how, notes = replace(self.settings.training, batch_size=1), self.settings.adapt, []
        if how.held_out and not len(self.apart):
            notes.append(
                f"{self.store.facts['tokens']:,} tokens of text are {len(self.store)} blocks; of fewer than {_HELD_OUT} none is "
                "held out, and no loss will tell what was learned: give more text, or shorter blocks (--set adapt.block=…)"
            )
        epochs = training.scheduled(len(self.batches)).epochs
        steps = math.ceil(len(self.batches) / training.accumulation) * epochs
        if steps < _FEW_STEPS:
            sampled = how.max_blocks and len(self.store) - len(self.apart) > how.max_blocks
            notes.append(
                f"the model makes {steps} optimizer step{'s' if steps > 1 else ''} in all, which teaches it little: give "
                f"{'more blocks (--set adapt.max_blocks=0)' if sampled else 'more text'}, more epochs (--set epochs="
                f"{math.ceil(_FEW_STEPS * epochs / steps)}) or smaller batches (--set training.batch_size=…)"
            )
        return notes

    def go(self) -> tuple[TrainingResult, dict[str, float | None]]:
        """The result, and the losses on what was held out."""
        training, head = self.settings.training, self.learner.output
        main = self.run.part("main", first=True)
        self.run.forget()
        parameters = dict(self.factors.parameters if self.factors else self.learner.weights())
        if head is not None:
            own = {f"output_layer.{n}": p for n, p in head.named_parameters()}
            head.begin_with(torch.from_numpy(self.store.counts(self.learner.vocabulary)))
            if self.settings.adapt.head_steps:
                self._teach(head, own)  # gives its result again where it had ended
                main = self.run.part("main", first=False)
            parameters |= own
        task = TextTask(self.learner, self.store, self.batches, parameters, training, autocast=self.autocast)
        before = task.held_out_loss(self.apart)
        self.run.progress.phase("the model")
        result = self._train(task, replace(training, batch_size=1), "main", main)
        self.learner.model.eval()
        return result, {"before": before, "after": task.held_out_loss(self.apart)}

    def _teach(self, head: Any, own: dict[str, nn.Parameter]) -> None:
        how, training = self.settings.adapt, self.settings.training
        few = self.batches[: how.head_steps]
        settings = replace(
            training, batch_size=1, accumulation=1, epochs=math.ceil(how.head_steps / len(few)),
            learning_rate=how.head_rate, backbone_dropout=False,
        )  # fmt: skip
        head.alone = True
        self.run.progress.phase("output layer")
        task = TextTask(self.learner, self.store, few, own, settings, autocast=self.autocast)
        self._train(task, settings, "head", self.run.part("head", first=True))
        head.alone = False

    def _train(self, task: TextTask, settings: TrainingSettings, name: str, run: Run) -> TrainingResult:
        return train(task, settings, run, fingerprint=json.dumps(self.identity | {"part": name}, sort_keys=True))


def _facts(
    found: ResolvedBackbone, stage: _Stage, result: TrainingResult, losses: dict[str, float | None]
) -> dict[str, Any]:
    """How the backbone was made: the same for every run of the same bits."""
    learner, settings = stage.learner, stage.settings.to_dict()
    made_head = None if learner.output is None else "made for this run; not saved"
    return {
        "by": "xdner adapt",
        "objective": learner.objective,
        "output_layer": made_head or "the model's own",
        "weights": stage.settings.adapt.weights,
        "base": {"name": found.name, "fingerprint": learner.fingerprint},
        "text": stage.store.facts,
        "blocks": {
            "of": learner.room, "trained": sum(map(len, stage.batches)), "held_out": len(stage.apart),
        },
        "held_out_loss": losses,
        "steps": result.steps,
        "losses": [round(record.loss, 4) for record in result.history],
        "settings": {"training": settings["training"], "adapt": settings["adapt"]},
    }  # fmt: skip


def _write(found: ResolvedBackbone, stage: _Stage, scratch: Path, out: Path, facts: dict[str, Any]) -> None:
    """The folder appears complete or not at all: it is made beside the checkpoints and then moved."""
    learner, made = stage.learner, scratch / "made"
    manifest: dict[str, Any] = {"name": out.name, "kind": found.kind, "base": facts["base"], "made": facts}
    if recommended := manifest_of(found.path).get("recommended"):
        manifest["recommended"] = recommended  # it reads the same prompts as before
    if stage.factors is not None:
        adapter = scratch / "adapter"
        with replace_folder(adapter, holds("adapter_config.json")) as fresh:
            stage.factors.write(fresh, found.name, learner.fingerprint)
        merge_lora(found.path, adapter, made, manifest)
    else:
        learner.model.to(learner.stored)
        with replace_folder(made, holds(MANIFEST)) as fresh:
            save_like(learner.model, found.path, fresh)
            write_manifest(fresh / MANIFEST, manifest)
    with storage_errors(out):
        made.rename(out)
