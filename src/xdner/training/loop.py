"""The one training loop. It knows steps, epochs, dev scores and checkpoints, and no method.

What it trains is a :class:`TrainingTask`. Every random draw comes from a generator seeded with the run's seed and the
epoch or step, so a run that resumes from a checkpoint makes the same draws as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import math
import random
import signal
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from xdner.errors import StorageError, TrainingError, TrainingInterrupted
from xdner.settings import TrainingSettings
from xdner.training.batching import bucketed_batches, padding_share
from xdner.training.checkpoint import Position, read_checkpoint, write_checkpoint
from xdner.training.progress import Progress, SilentProgress

__all__ = ["EpochRecord", "TrainingResult", "TrainingTask", "train"]


class TrainingTask(Protocol):
    """What a method gives the loop."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Exactly what is trained."""
        ...

    def lengths(self) -> Sequence[int]:
        """Tokens of each training item, for bucketing."""
        ...

    def groups(self) -> Sequence[Hashable] | None:
        """Items that may share a batch have equal groups; ``None``: all may."""
        ...

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        """Mean loss of these items, a scalar; random draws only from ``rng`` and torch's global generator."""
        ...

    def evaluate(self) -> float | None:
        """The dev score, higher is better; ``None`` without a dev split."""
        ...


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: mean loss, dev score, seconds and steps since the start, share of padding."""

    epoch: int
    loss: float
    dev: float | None
    seconds: float
    steps: int
    padding: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The record of a run. The task's parameters are those of the best epoch (without dev: of the last)."""

    best_epoch: int
    best_dev: float | None
    epochs_run: int
    steps: int
    seconds: float
    history: tuple[EpochRecord, ...]
    stopped: Literal["finished", "patience"]
    failed_checkpoints: int = 0

    @property
    def padding(self) -> float:
        """Mean share of padding."""
        return sum(r.padding for r in self.history) / len(self.history) if self.history else 0.0


def train(
    task: TrainingTask,
    settings: TrainingSettings,
    *,
    run_folder: Path | None = None,
    resume: bool = False,
    fingerprint: str = "",
    progress: Progress | None = None,
    resume_hint: str = "",
) -> TrainingResult:
    """Train until the epochs are over or dev has not improved for ``patience`` evaluations.

    Args:
        task: what is trained.
        settings: see :class:`~xdner.settings.TrainingSettings`.
        run_folder: ``run_folder/checkpoint`` is written on the settings' interval, and removed at the end by the
            caller, who knows when the result is safe.
        resume: go on from that checkpoint.
        fingerprint: names the run; a checkpoint of another one is refused.
        progress: what is shown.
        resume_hint: how to resume, for the message of an interruption.

    Raises:
        TrainingError: the loss is not a number any more, or the checkpoint cannot be used.
        TrainingInterrupted: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
    """
    return _Run(task, settings, run_folder, fingerprint, progress or SilentProgress(), resume_hint).go(resume)


class _Run:
    def __init__(
        self,
        task: TrainingTask,
        settings: TrainingSettings,
        run_folder: Path | None,
        fingerprint: str,
        progress: Progress,
        resume_hint: str,
    ) -> None:
        self.task, self.settings, self.fingerprint = task, settings, fingerprint
        self.progress, self.resume_hint = progress, resume_hint
        self.folder = None if run_folder is None else run_folder / "checkpoint"
        self.parameters = task.parameters()
        self.lengths, self.groups = task.lengths(), task.groups()
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.at = Position()
        self.best: dict[str, Tensor] = {}
        self.failed_checkpoints = 0
        self.steps_per_epoch = math.ceil(len(self._batches(1)) / settings.accumulation)
        self.total = self.steps_per_epoch * settings.epochs
        self.before = 0.0  # seconds of earlier sessions
        self.began = time.monotonic()

    # -- the loop ----------------------------------------------------------------------------------------------------

    def go(self, resume: bool) -> TrainingResult:
        if resume:
            self._restore()
        self.progress.start(self.total, self.at.step)
        try:
            with _stop_on_signal() as stop:
                while not self.at.stopped:
                    self._epoch(stop)
        finally:
            self.progress.finish()
        if self.best:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.best[name])
        history = tuple(EpochRecord(**record) for record in self.at.history)
        stopped: Literal["finished", "patience"] = "patience" if self.at.stopped == "patience" else "finished"
        best_epoch = self.at.best_epoch or (history[-1].epoch if history else 0)
        return TrainingResult(
            best_epoch, self.at.best, len(history), self.at.step, self._seconds(), history, stopped,
            self.failed_checkpoints,
        )  # fmt: skip

    def _epoch(self, stop: _Stop) -> None:
        batches = self._batches(self.at.epoch)
        every = self.settings.checkpoint_every
        while self.at.batch < len(batches):
            group = batches[self.at.batch : self.at.batch + self.settings.accumulation]
            self._step(group)
            self.at.batch += len(group)
            self.at.step += 1
            if stop.asked:
                self._interrupt()
            if every and self.at.step % every == 0:
                self._save()
        self._end_of_epoch(batches)
        self._save()
        if stop.asked and not self.at.stopped:
            self._interrupt()

    def _step(self, group: Sequence[Sequence[int]]) -> None:
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = self.settings.learning_rate * self._rate(self.at.step)
        torch.manual_seed(_seed(self.settings.seed, "step", self.at.step))
        items = sum(len(batch) for batch in group)
        total = 0.0
        for number, batch in enumerate(group):
            rng = random.Random(_seed(self.settings.seed, "batch", self.at.epoch, self.at.batch + number))
            loss = self.task.loss(batch, rng)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss became {value} at step {self.at.step + 1}",
                    hint=f"Lower the learning rate (now {self.settings.learning_rate:g}), "
                    "e.g. --set learning_rate=1e-3, or use --dtype float32.",
                )
            (loss * (len(batch) / items)).backward()  # type: ignore[no-untyped-call]
            total += value * len(batch) / items
            self.at.epoch_loss += value
        if self.settings.clip:
            nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step(self.at.step + 1, total)

    def _end_of_epoch(self, batches: Sequence[Sequence[int]]) -> None:
        settings, at = self.settings, self.at
        last = at.epoch == settings.epochs
        due = at.epoch >= settings.evaluate_from and (at.epoch - settings.evaluate_from) % settings.evaluate_every == 0
        dev = None
        if due or last:
            self.progress.evaluating()
            dev = self.task.evaluate()
        if dev is not None:
            if at.best is None or dev > at.best:
                at.best, at.best_epoch, at.waited = dev, at.epoch, 0
                self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
            else:
                at.waited += 1
        loss = at.epoch_loss / max(1, len(batches))
        padding = padding_share(batches, self.lengths)
        record = EpochRecord(at.epoch, loss, dev, self._seconds(), at.step, padding)
        at.history.append({name: getattr(record, name) for name in EpochRecord.__slots__})
        self.progress.epoch(at.epoch, loss, dev, at.best)
        if last:
            at.stopped = "finished"
        elif settings.patience and at.waited >= settings.patience:
            at.stopped = "patience"
        at.epoch, at.batch, at.epoch_loss = at.epoch + 1, 0, 0.0

    # -- parts -------------------------------------------------------------------------------------------------------

    def _batches(self, epoch: int) -> list[list[int]]:
        rng = random.Random(_seed(self.settings.seed, "epoch", epoch))
        return bucketed_batches(self.lengths, self.settings.batch_size, rng, self.groups)

    def _rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to zero."""
        warmup = max(1, round(self.settings.warmup * self.total))
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return max(0.0, (self.total - step) / max(1, self.total - warmup))

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"parameter.{n}": p for n, p in self.parameters.items()}
        tensors |= {f"best.{n}": p for n, p in self.best.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        return tensors

    def _save(self) -> bool:
        """A full disk does not end a run: the last good checkpoint stays, and the failure is counted."""
        if self.folder is None:
            return False
        self.at.seconds = self._seconds()
        try:
            write_checkpoint(self.folder, self.at, self.fingerprint, self._tensors())
        except StorageError:
            self.failed_checkpoints += 1
            return False
        return True

    def _restore(self) -> None:
        if self.folder is None:
            raise TrainingError("a run without a folder cannot be resumed", hint="Pass run_folder.")
        kept = read_checkpoint(self.folder, self.fingerprint)
        self.at, self.before = kept.position, kept.position.seconds
        state: dict[Any, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(kept.tensors[f"parameter.{name}"])
                if f"best.{name}" in kept.tensors:
                    self.best[name] = kept.tensors[f"best.{name}"].to(parameter.device)
                own = {
                    key: kept.tensors[f"optimizer.{key}.{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"optimizer.{key}.{name}" in kept.tensors
                }
                if own:
                    state[parameter] = {
                        k: v if k == "step" else v.to(parameter.device) for k, v in own.items()
                    }
        for parameter, values in state.items():
            self.optimizer.state[parameter] = values

    def _interrupt(self) -> None:
        saved = self._save()
        where = f"a checkpoint is in {self.folder}" if saved else "no checkpoint could be kept"
        hint = self.resume_hint if saved else "Start again; give the run a folder to be able to resume."
        raise TrainingInterrupted(f"stopped after step {self.at.step} of {self.total}; {where}", hint=hint or None)


def _seed(*parts: object) -> int:
    """A 63-bit seed from its parts; ``hash`` would differ from process to process."""
    return random.Random(repr(parts)).getrandbits(63)


class _Stop:
    asked = False


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """SIGINT and SIGTERM ask for a stop after the current step; a second one stops at once."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
