"""What a person sees while training: one line with loss, dev score and time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "RichProgress", "SilentProgress"]


class Progress(Protocol):
    """Told by the loop what happens."""

    def phase(self, name: str) -> None:
        """A named part of a longer run comes next."""

    def start(self, steps: int, done: int) -> None:
        """Training begins (or goes on after ``done`` of ``steps`` optimizer steps)."""

    def step(self, done: int, loss: float) -> None:
        """An optimizer step was made."""

    def evaluating(self) -> None:
        """The dev split is being scored."""

    def epoch(self, epoch: int, loss: float, dev: float | None, best: float | None) -> None:
        """An epoch is over."""

    def note(self, text: str) -> None:
        """Something went wrong that does not end the run."""

    def finish(self) -> None:
        """Training is over, well or not."""


class SilentProgress:
    """Shows nothing."""

    def phase(self, name: str) -> None:
        return None

    def start(self, steps: int, done: int) -> None:
        return None

    def step(self, done: int, loss: float) -> None:
        return None

    def evaluating(self) -> None:
        return None

    def epoch(self, epoch: int, loss: float, dev: float | None, best: float | None) -> None:
        return None

    def note(self, text: str) -> None:
        return None

    def finish(self) -> None:
        return None


class RichProgress:
    """A bar on standard error; where that is not a terminal, one plain line an epoch.

    The loss on the bar is smoothed (a tenth of each new step's); the loss of an epoch's line is the epoch's mean.

    Args:
        title: stands before the bar.
        console: where to write, if not on standard error.
    """

    def __init__(self, title: str = "training", console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._name = self._title = title
        self._smooth: float | None = None
        self._dev = ""
        self._steps = self._first = self._done = 0
        self._began = 0.0
        self._bar: Any = None  # rich.progress.Progress, and the task's id in it
        self._task: Any = None

    def phase(self, name: str) -> None:
        self._title = f"{self._name}, {name}"

    def start(self, steps: int, done: int) -> None:
        self._began, self._steps, self._first, self._done = time.monotonic(), steps, done, done
        self._smooth, self._dev = None, ""
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=steps, completed=done, facts="")

    def step(self, done: int, loss: float) -> None:
        self._done = done
        self._smooth = loss if self._smooth is None else 0.9 * self._smooth + 0.1 * loss
        self._show(completed=done)

    def evaluating(self) -> None:
        self._show("  scoring dev…")

    def epoch(self, epoch: int, loss: float, dev: float | None, best: float | None) -> None:
        if dev is not None:
            self._dev = f"  dev F1 {dev:.3f}" + ("" if best is None else f" (best {best:.3f})")
        if self._bar is not None:
            self._show()
            return
        seconds = time.monotonic() - self._began
        left = seconds / max(1, self._done - self._first) * (self._steps - self._done)
        score = "" if dev is None else self._dev
        self._print(f"{self._title}: epoch {epoch}  loss {loss:.3f}{score}  {seconds:.0f} s, {left:.0f} s left")

    def note(self, text: str) -> None:
        self._print(f"{self._title}: {text}")

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, doing: str = "", **fields: Any) -> None:
        if self._bar is not None:
            loss = "" if self._smooth is None else f"loss {self._smooth:.3f}"
            self._bar.update(self._task, facts=loss + self._dev + doing, **fields)

    def _print(self, line: str) -> None:
        # Where it is no terminal, rich would break a line at 80 characters.
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
