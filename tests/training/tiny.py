"""A task small enough to train hundreds of times in a test, with every kind of randomness a real one has.

Run as a program, it is the driver of the test that kills a run: ``python tiny.py FOLDER`` trains once undisturbed, then
again and again in processes that die by SIGKILL, and prints what became of them as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xdner.settings import TrainingSettings
from xdner.training.loop import TrainingResult, train
from xdner.training.progress import SilentProgress
from xdner.training.run import Run

# 30 items in batches of 4, two batches a step: a step of one short batch at the end of each epoch; dev from epoch 2 on.
SETTINGS = TrainingSettings(
    epochs=4, batch_size=4, accumulation=2, learning_rate=3e-2, weight_decay=0.01, patience=0, evaluate_from=2, evaluate_every=1,
    checkpoint_every=3, seed=7,
)  # fmt: skip

CALLS = 18  # changes of the disk at which a run is killed: those of the first checkpoints


class TinyTask:
    """A two-layer regression with dropout from torch's generator and noise from the loop's."""

    def __init__(self, items: int = 30, *, dropout: float = 0.3, scores: Sequence[float | None] | None = ()) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(items, 6, generator=generator)
        self.wanted = self.inputs[:, :1].sin() + self.inputs[:, 1:2]
        self.first = nn.Parameter(torch.randn(6, 5, generator=generator))
        self.second = nn.Parameter(torch.randn(5, 1, generator=generator))
        self.dropout, self.scores, self.evaluations = dropout, scores, 0

    def parameters(self) -> dict[str, nn.Parameter]:
        return {"first": self.first, "second": self.second}

    def lengths(self) -> list[int]:
        return [20 + 7 * i % 50 for i in range(len(self.inputs))]

    def groups(self) -> None:
        return None

    def predicted(self, inputs: Tensor) -> Tensor:
        return torch.tanh(nn.functional.dropout(inputs @ self.first, self.dropout)) @ self.second

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        noise = 0.1 * rng.gauss(0, 1) if self.dropout else 0.0
        return (self.predicted(self.inputs[list(indices)] + noise) - self.wanted[list(indices)]).square().mean()

    def evaluate(self) -> float | None:
        """The next of ``scores``; without scores a real one; ``scores=None`` is a task without a dev split."""
        self.evaluations += 1
        if self.scores is None:
            return None
        if self.scores:
            return self.scores[self.evaluations - 1]
        with torch.no_grad():
            torch.rand(3)  # an evaluation that draws numbers must not disturb the training
            hidden = torch.tanh(self.inputs @ self.first)
            return -float((hidden @ self.second - self.wanted).square().mean())


def outcome(result: TrainingResult, task: TinyTask) -> dict[str, Any]:
    """Everything about a run that must not depend on interruptions: the bits of the parameters and the records."""
    digest = hashlib.sha256()
    for tensor in (*task.parameters().values(), *result.state.values()):
        digest.update(tensor.detach().numpy().tobytes())
    history = [[r.epoch, r.loss, r.dev, r.steps, r.padding] for r in result.history]
    best = [result.best_epoch, result.best_dev, result.epochs_run, result.steps, result.stopped]
    return {"bits": digest.hexdigest(), "history": history, "best": best}


# -- processes that die --------------------------------------------------------------------------------------------------


class Pipe(SilentProgress):
    """Writes a byte for every step and evaluation, so that the killer knows where the run is, and needs one for each: however
    late the killer comes, the run is not over before."""

    def __init__(self, end: int, begun: Path, leave: int | None) -> None:
        self.end, self.begun, self.leave = end, begun, leave

    def start(self, steps: int, done: int) -> None:
        self.begun.touch()

    def step(self, done: int, loss: float) -> None:
        self._tell(b"s")

    def evaluating(self) -> None:
        self._tell(b"e")

    def _tell(self, what: bytes) -> None:
        os.write(self.end, what)
        if self.leave is not None:
            os.read(self.leave, 1)


def session(folder: Path, end: int, prepare: Callable[[], None] = lambda: None, leave: int | None = None) -> int:
    """Fork a process that starts or resumes the run, and writes its outcome if it lives so long. Gives its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        prepare()
        task = TinyTask()
        begun = folder / "begun"
        # Once it has begun, a run must resume: to start afresh in silence would hide a checkpoint that was lost.
        result = train(
            task, SETTINGS, Run(folder, resume=begun.exists(), progress=Pipe(end, begun, leave)), fingerprint="data"
        )
        (folder / "outcome.json").write_text(json.dumps(outcome(result, task)))
        code = 0
    except BaseException as error:
        (folder / "error.txt").write_text(str(error))
    finally:
        os._exit(code)  # no cleaning up of what belongs to the parent


def killed_at_random(folder: Path, rng: random.Random) -> dict[str, Any]:
    """Kill the run some time after a step or evaluation drawn at random, until it has come through."""
    kills, deadline = 0, time.monotonic() + 600
    while time.monotonic() < deadline:
        (receive, send), (leave, give) = os.pipe(), os.pipe()
        patience = rng.randint(0, 5)
        os.write(give, b"." * (patience + 2))
        child = session(folder, send, leave=leave)
        os.close(send)
        while patience and os.read(receive, 1):
            patience -= 1
        time.sleep(rng.random() * 0.004)
        os.kill(child, signal.SIGKILL)
        for end in (receive, leave, give):
            os.close(end)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            return {"kills": kills, "code": os.WEXITSTATUS(status)}
        kills += 1
    return {"kills": kills, "code": "never finished"}


def killed_at_call(folder: Path, number: int, after: bool) -> dict[str, Any]:
    """Kill the run just before or just after its n-th change of the disk; then let it resume."""

    def prepare() -> None:
        left = [number]

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    return call(*args, **kwargs)
                finally:
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            return wrapped

        for name in ("fsync", "replace", "mkdir", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))

    sink = os.open(os.devnull, os.O_WRONLY)
    status = os.waitpid(session(folder, sink, prepare), 0)[1]
    killed = os.WIFSIGNALED(status)
    code = os.WEXITSTATUS(os.waitpid(session(folder, sink), 0)[1]) if killed else os.WEXITSTATUS(status)
    os.close(sink)
    return {"killed": killed, "code": code}


def main(root: Path) -> None:
    torch.set_num_threads(1)
    train(TinyTask(), SETTINGS)  # the children inherit what torch imports late
    sink = os.open(os.devnull, os.O_WRONLY)
    undisturbed = root / "undisturbed"
    os.waitpid(session(undisturbed, sink), 0)
    runs: dict[str, Any] = {}
    for seed in range(3):
        folder = root / f"random-{seed}"
        runs[folder.name] = killed_at_random(folder, random.Random(seed))
    for after in (False, True):
        for number in range(1, CALLS + 1):
            folder = root / f"call-{number}-{'after' if after else 'before'}"
            runs[folder.name] = killed_at_call(folder, number, after)
    for name, facts in runs.items():
        file = root / name / "outcome.json"
        facts["same"] = file.exists() and file.read_text() == (undisturbed / "outcome.json").read_text()
        facts["files"] = sorted(os.listdir(root / name / "checkpoint"))
    print(json.dumps({"runs": runs, "rich": "rich" in sys.modules}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
