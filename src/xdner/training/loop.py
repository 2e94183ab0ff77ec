"""The one training loop. It knows steps, epochs, dev scores and checkpoints, and no method.

What it trains is a :class:`TrainingTask`. Every random draw comes from a generator seeded with the run's seed and the
epoch, batch or step, so a run that resumes from a checkpoint makes the same draws as one that was never interrupted:
torch's global generator (dropout) is seeded anew before every optimizer step, and no random state has to be kept. On
one machine with one thread count the results are the same to the last bit; on a GPU, as far as its kernels are
deterministic.

A checkpoint that cannot be written does not end a run: the last good one stays, the person is told once, and the
failures are counted in the result.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from xdner.errors import StorageError, TrainingError, TrainingInterrupted
from xdner.files import write_atomically
from xdner.settings import TrainingSettings
from xdner.training.batching import bucketed_batches, padding_share
from xdner.training.checkpoint import Position, circumstances, identity, read_checkpoint, write_checkpoint
from xdner.training.interruption import Stop, stop_on_signal
from xdner.training.run import Run

__all__ = ["EpochRecord", "TrainingResult", "TrainingTask", "rate", "train"]

#: Seconds of work that a kill may cost, and those of the step that is going on: where steps are long, fewer than
#: ``checkpoint_every`` lie between two checkpoints.
MOST_LOST = 600.0


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
    """One epoch: mean loss of its items, dev score, seconds and steps since the start, share of padding."""

    epoch: int
    loss: float
    dev: float | None
    seconds: float
    steps: int
    padding: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The record of a run. The task's parameters are those of the best epoch (without dev: of the last).

    Attributes:
        best_epoch, best_dev: the epoch that was kept, and its dev score.
        epochs_run, steps, seconds: in all sessions together.
        history: one record an epoch.
        stopped: why it ended.
        failed_checkpoints: how many could not be written in this session.
        state: copies of the parameters that were kept, by name.
    """

    best_epoch: int
    best_dev: float | None
    epochs_run: int
    steps: int
    seconds: float
    history: tuple[EpochRecord, ...]
    stopped: Literal["finished", "patience"]
    failed_checkpoints: int = 0
    state: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def padding(self) -> float:
        """Mean share of padding."""
        return sum(r.padding for r in self.history) / len(self.history) if self.history else 0.0


def train(
    task: TrainingTask,
    settings: TrainingSettings,
    run: Run | None = None,
    *,
    fingerprint: str = "",
) -> TrainingResult:
    """Train until the epochs are over or dev has not improved for ``patience`` evaluations. The checkpoint of a run that ended
    stays, for a caller who removes it once the result is safe.

    Args:
        task: what is trained.
        settings: see :class:`~xdner.settings.TrainingSettings`.
        run: where checkpoints go, and what is shown.
        fingerprint: names data and backbone; a checkpoint of another run (or of other settings or lengths) is refused.

    Raises:
        TrainingError: nothing to train, the loss, a gradient or the dev score is no finite number, or the checkpoint
            cannot be used.
        TrainingInterrupted: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
    """
    return _Loop(task, settings, run or Run(), fingerprint).go()


def rate(step: int, total: int, warmup: float) -> float:
    """The learning rate's factor at ``step`` (from 0) of ``total``: linear warm-up, then linear decay to zero.

    The first step of a warm-up is not lost: it has the rate 1 / (w + 1), where w = ``warmup`` × ``total`` steps.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (total - step) / max(1, total - rising))


class _Loop:
    def __init__(self, task: TrainingTask, settings: TrainingSettings, run: Run, fingerprint: str) -> None:
        self.task, self.run, self.progress = task, run, run.progress
        self.folder = None if run.folder is None else run.folder / "checkpoint"
        self.parameters = task.parameters()
        self.lengths, self.groups = task.lengths(), task.groups()
        self._check()
        self.settings = settings = settings.scheduled(len(self.lengths))
        self.identity = identity(fingerprint, asdict(settings), list(self.lengths))
        # On a CPU, all of AdamW in one kernel: a tenth of the time, and for a whole encoder a step is a quarter shorter.
        fused = all(p.device.type == "cpu" for p in self.parameters.values())
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.at = Position()
        self.best: dict[str, Tensor] = {}
        self.saved: int | None = None  # the step of the checkpoint on disk
        self.tried = -math.inf  # when a checkpoint was last written, or could not be
        self.failed_checkpoints = 0
        self.total = math.ceil(len(self._batches(1)) / settings.accumulation) * settings.epochs
        self.before = 0.0  # seconds of earlier sessions
        self.began = time.monotonic()

    def _check(self) -> None:
        if not self.lengths:
            raise TrainingError("there is nothing to train on: 0 items", hint="Give at least one training sentence.")
        if not self.parameters:
            raise TrainingError("there is nothing to train: 0 parameters", hint="Give the task parameters to train.")
        if len({id(p) for p in self.parameters.values()}) < len(self.parameters):
            raise TrainingError("a parameter is given under two names", hint="Name each parameter once.")

    # -- the loop ----------------------------------------------------------------------------------------------------

    def go(self) -> TrainingResult:
        if self.run.resume:
            self._restore()
        else:
            self._save()  # from here on, a run that is killed can be resumed
        self.progress.start(self.total, self.at.step)
        gpus = {p.device for p in self.parameters.values() if p.device.type == "cuda"}
        try:
            # The caller's random numbers go on as if there had been no training.
            with stop_on_signal() as stop, torch.random.fork_rng(devices=list(gpus)):
                while not self.at.stopped:
                    self._epoch(stop)
        finally:
            self.progress.finish()
        # After its last step nobody has looked at them.
        if not all(bool(p.isfinite().all()) for p in self.parameters.values()):
            raise self._diverged("weights", math.nan)
        if self.best:
            self._put(self.best)
        result = self._result()
        self._record(result)
        return result

    def _epoch(self, stop: Stop) -> None:
        batches = self._batches(self.at.epoch)
        every = self.settings.checkpoint_every
        while self.at.batch < len(batches):
            group = batches[self.at.batch : self.at.batch + self.settings.accumulation]
            self._step(group)
            self.at.batch += len(group)
            self.at.step += 1
            if stop.asked:
                self._interrupt()
            if every and (self.at.step % every == 0 or time.monotonic() - self.tried >= MOST_LOST):
                self._save()
        self._end_of_epoch(batches)
        # A whole encoder with its moments is some hundred megabytes: not at the end of each of many short epochs.
        if self.at.stopped or not every or self.at.step - (self.saved or 0) >= every:
            self._save()
        if stop.asked and not self.at.stopped:
            self._interrupt()

    def _step(self, group: Sequence[Sequence[int]]) -> None:
        settings, at = self.settings, self.at
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = settings.learning_rate * rate(at.step, self.total, settings.warmup)
        torch.manual_seed(_seed(settings.seed, "step", at.step))
        items = sum(len(batch) for batch in group)
        total = 0.0
        for number, batch in enumerate(group):
            loss = self.task.loss(batch, random.Random(_seed(settings.seed, "batch", at.epoch, at.batch + number)))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise self._diverged("loss", value)
            (loss * (len(batch) / items)).backward()
            total += value * len(batch)
        # The norm is looked at even where it has no bound: a finite loss can have a gradient that is not.
        norm = float(nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.clip or math.inf))
        if not math.isfinite(norm):
            raise self._diverged("gradient's norm", norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at.epoch_loss += total
        self.progress.step(at.step + 1, total / items)

    def _diverged(self, what: str, value: float) -> TrainingError:
        step = min(self.at.step + 1, self.total)
        return TrainingError(
            f"the {what} became {value} at step {step} of {self.total}; it should be a finite number",
            hint=f"Lower the learning rate (now {self.settings.learning_rate:g}), "
            f"e.g. --set learning_rate={self.settings.learning_rate / 10:g}; a backbone in 16 bits may need --dtype float32.",
        )

    def _end_of_epoch(self, batches: Sequence[Sequence[int]]) -> None:
        settings, at = self.settings, self.at
        last = at.epoch == settings.epochs
        due = at.epoch >= settings.evaluate_from and (at.epoch - settings.evaluate_from) % settings.evaluate_every == 0
        dev = None
        if due or last:
            self.progress.evaluating()
            dev = self.task.evaluate()
        if dev is not None:
            if not math.isfinite(dev):
                raise TrainingError(
                    f"the dev score of epoch {at.epoch} is {dev}; it should be a finite number",
                    hint="Look at the dev split: a score that cannot be computed cannot choose the best epoch.",
                )
            if at.best is None or dev > at.best:
                at.best, at.best_epoch, at.waited = dev, at.epoch, 0
                self.best = self._copy()
            else:
                at.waited += 1
        loss = at.epoch_loss / len(self.lengths)
        record = EpochRecord(at.epoch, loss, dev, self._seconds(), at.step, padding_share(batches, self.lengths))
        at.history.append(asdict(record))
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

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])

    def _result(self) -> TrainingResult:
        history = tuple(EpochRecord(**record) for record in self.at.history)
        return TrainingResult(
            best_epoch=self.at.best_epoch or history[-1].epoch,
            best_dev=self.at.best,
            epochs_run=len(history),
            steps=self.at.step,
            seconds=history[-1].seconds,
            history=history,
            stopped="patience" if self.at.stopped == "patience" else "finished",
            failed_checkpoints=self.failed_checkpoints,
            state=self.best or self._copy(),
        )

    # -- on disk -----------------------------------------------------------------------------------------------------

    def _save(self) -> bool:
        """Write a checkpoint; a failure is told once and counted."""
        if self.folder is None:
            return False
        self.at.seconds, self.tried = self._seconds(), time.monotonic()
        tensors: dict[str, Tensor] = {f"parameter.{n}": p for n, p in self.parameters.items()}
        tensors |= {f"best.{n}": p for n, p in self.best.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        try:
            write_checkpoint(self.folder, self.at, self.identity, tensors)
        except StorageError as error:
            self.failed_checkpoints += 1
            if self.failed_checkpoints == 1:
                kept = "there is none yet" if self.saved is None else f"that of step {self.saved} is kept"
                self.progress.note(f"no checkpoint at step {self.at.step} ({error.message}); {kept}; training goes on")
            return False
        self.saved = self.at.step
        return True

    def _restore(self) -> None:
        if self.folder is None:
            raise TrainingError("a run without a folder cannot be resumed", hint="Give the run a folder.")
        kept = read_checkpoint(self.folder, self.identity)
        values = {name: kept.tensors.get(f"parameter.{name}") for name in self.parameters}
        wrong = [n for n, p in self.parameters.items() if (v := values[n]) is None or v.shape != p.shape]
        if wrong or sum(key.startswith("parameter.") for key in kept.tensors) != len(values):
            raise TrainingError(
                f"the checkpoint in {self.folder} holds other parameters than those to train"
                + (f": {', '.join(wrong[:3])} missing or of another shape" if wrong else ""),
                hint="It was made by another version; start again without --resume.",
            )
        self._put({name: value for name, value in values.items() if value is not None})
        for name, parameter in self.parameters.items():
            if f"best.{name}" in kept.tensors:
                self.best[name] = kept.tensors[f"best.{name}"].to(parameter.device)
            state: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if (value := kept.tensors.get(f"optimizer.{key}.{name}")) is not None:
                    state[key] = value if key == "step" else value.to(parameter.device)  # AdamW counts on the CPU
            if state:
                self.optimizer.state[parameter] = state
        self.at, self.before, self.saved = kept.position, kept.position.seconds, kept.position.step
        now = circumstances()
        changed = [f"{name} {was} then, {now.get(name)} now" for name, was in kept.made.items() if was != now.get(name)]
        if changed:
            self.progress.note(f"resumed, but the last bits of the result may differ: {'; '.join(changed)}")

    def _record(self, result: TrainingResult) -> None:
        if self.run.folder is None:
            return
        described = {
            name: getattr(result, name) for name in TrainingResult.__slots__ if name not in ("history", "state")
        }
        described |= {"padding": result.padding, "history": self.at.history}
        described |= {"settings": asdict(self.settings), "run": self.identity, "made": circumstances()}
        try:
            write_atomically(self.run.folder / "run.json", json.dumps(described, indent=1) + "\n")
        except StorageError as error:  # the result itself is whole
            self.progress.note(f"the record of the run is lost: {error.message}")

    def _interrupt(self) -> None:
        if self._save():
            where, hint = f"a checkpoint is in {self.folder}", self.run.hint
        elif self.saved is not None:
            where, hint = f"this step could not be saved, the checkpoint of step {self.saved} is kept", self.run.hint
        else:
            where, hint = "no checkpoint could be kept", "Start again; give the run a folder to be able to resume."
        raise TrainingInterrupted(f"stopped after step {self.at.step} of {self.total}; {where}", hint=hint or None)


def _seed(*parts: object) -> int:
    """A 63-bit seed from its parts; ``hash`` would differ from process to process."""
    return random.Random(repr(parts)).getrandbits(63)
