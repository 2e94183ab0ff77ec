"""Prefix training: xdner's loop against peft's prefix tuning in the stock ``Trainer``.

The same sentences in one order of options, the same batch size, weights, type and optimizer, no dev evaluation, no
checkpoint; seconds are those of the two loops. Augmentation is off: both read the same tokens.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from benchmarks.timing.clock import rate
from benchmarks.timing.inference import Plan
from benchmarks.timing.memory import peak_memory
from benchmarks.timing.stock import prefix_model
from benchmarks.timing.workload import Workload
from xdner.backbone.base import Backbone
from xdner.recognizers.reader import Reader
from xdner.recognizers.warmup import WarmUp
from xdner.settings import Settings

__all__ = ["TRAINERS", "measure_training", "our_settings"]

TRAINERS = {
    "trainer": "peft, stock Trainer",
    "trainer-grouped": "peft, Trainer with group_by_length",
    "xdner": "xdner",
}
RATE = 1e-3
IGNORED = -100  # where transformers asks for no loss


def our_settings(workload: Workload, batch: int) -> Settings:
    """One epoch without anything that would change what is read."""
    chosen = [
        "epochs=1", f"training.batch_size={batch}", f"learning_rate={RATE}", "patience=0", "shuffle_options=false",
        "drop_options=0", "replace_mentions=0", "prefix_dropout=0", "max_pieces=1000000", "checkpoint_every=0",
        f"prefix.length={workload.prefix.length}",
    ]  # fmt: skip
    base = {g: v for g, v in workload.settings.to_dict().items() if g in ("codec", "prefix")}
    return Settings.build(None, chosen, base)


class _Embedded:
    """Counts the tokens that are embedded, padding included: all that a model's layers have to work on."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.tokens = 0
        weight = model.get_input_embeddings().weight
        for module in model.modules():  # T5's encoder and decoder each have a module of their own for one table
            if isinstance(module, nn.Embedding) and module.weight is weight:
                module.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.tokens += args[0].numel()


class _Ours:
    def __init__(self, backbone: Backbone, workload: Workload, batch: int) -> None:
        self._work, self._settings = workload, our_settings(workload, batch)
        self._reader = Reader(backbone, self._settings.decoding)
        self._embedded = _Embedded(backbone.model)

    def run(self) -> tuple[float, int, int]:
        """One epoch: seconds, optimizer steps, tokens embedded."""
        sentences = [case.sentence for case in self._work.cases]
        self._embedded.tokens = 0
        warm_up = WarmUp(
            self._reader, self._work.domain, sentences, [], self._settings, initial=self._work.prefix
        )  # fmt: skip
        _, result = warm_up.run()
        return result.seconds, result.steps, self._embedded.tokens


class _Stock:
    def __init__(self, backbone: Backbone, workload: Workload, batch: int, *, grouped: bool) -> None:
        self._work, self._batch, self._grouped = workload, batch, grouped
        self._causal, self._device = backbone.kind == "causal", backbone.device
        self._model = prefix_model(backbone, workload.prefix.length, trained=True)
        self._embedded = _Embedded(self._model.get_base_model())
        self._pad = workload.end if backbone.tokenizer.pad_token_id is None else backbone.tokenizer.pad_token_id
        self._rows = [self._row(case.prompt, case.gold) for case in workload.cases]

    def _row(self, prompt: Sequence[int], gold: Sequence[int]) -> dict[str, list[int]]:
        if not self._causal:
            return {"input_ids": [*prompt, self._work.end], "labels": list(gold)}
        return {"input_ids": [*prompt, *gold], "labels": [*(IGNORED for _ in prompt), *gold]}

    def _collate(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        def padded(lists: Sequence[Sequence[int]], value: int) -> Tensor:
            return pad_sequence([torch.tensor(x) for x in lists], batch_first=True, padding_value=value)

        ids = [row["input_ids"] for row in rows]
        return {
            "input_ids": padded(ids, self._pad),
            "attention_mask": padded([[1] * len(x) for x in ids], 0),
            "labels": padded([row["labels"] for row in rows], IGNORED),
        }

    def run(self) -> tuple[float, int, int]:
        """One epoch: seconds, optimizer steps, tokens embedded."""
        self._embedded.tokens = 0
        with tempfile.TemporaryDirectory() as folder:
            how = TrainingArguments(
                output_dir=folder, per_device_train_batch_size=self._batch, num_train_epochs=1, learning_rate=RATE,
                lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0, save_strategy="no",
                logging_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
                use_cpu=self._device.type == "cpu", dataloader_pin_memory=False,
                train_sampling_strategy="group_by_length" if self._grouped else "random",
            )  # fmt: skip
            trainer = Trainer(self._model, how, data_collator=self._collate, train_dataset=self._rows)
            trainer.remove_callback(PrinterCallback)
            done = trainer.train()
        return float(done.metrics["train_runtime"]), int(done.global_step), self._embedded.tokens


def _trainer(name: str, backbone: Backbone, workload: Workload, batch: int) -> _Ours | _Stock:
    if name == "xdner":
        return _Ours(backbone, workload, batch)
    return _Stock(backbone, workload, batch, grouped=name == "trainer-grouped")


def measure_training(plan: Plan, batch: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Epochs of both, alternating.

    Returns:
        ``backbone``, ``dtype``, ``batch``, ``sentences`` and ``arms``.
    """
    backbone = plan.recipe.load()
    workload = plan.workload(backbone)
    trainers = {name: _trainer(name, backbone, workload, batch) for name in TRAINERS}
    done: dict[str, list[tuple[float, int, int]]] = {name: [] for name in TRAINERS}
    for number in range(plan.rounds + 1):
        say(f"{backbone.name}: training, round {number} of {plan.rounds}")
        for name, trainer in trainers.items():
            one = trainer.run()
            if number:  # the first one warms up
                done[name].append(one)
    arms = {}
    for name, runs in done.items():
        seconds, n = [r[0] for r in runs], len(workload.cases)
        arms[name] = {
            "seconds": seconds,
            "sentences_per_second": rate(n, seconds),
            "steps": runs[0][1],
            "tokens_per_sentence": statistics.fmean(r[2] for r in runs) / n,
            "memory_mib": peak_memory(plan.recipe.device, _one_epoch, plan, name, batch) if plan.memory else None,
        }
    return {
        "backbone": backbone.name, "dtype": str(backbone.dtype).removeprefix("torch."), "batch": batch,
        "sentences": len(workload.cases), "prefix_length": workload.prefix.length, "arms": arms,
    }  # fmt: skip


def _one_epoch(plan: Plan, name: str, batch: int) -> Callable[[], object]:
    backbone = plan.recipe.load()
    workload = plan.workload(backbone)
    return lambda: _trainer(name, backbone, workload, batch).run()
