"""What a person sees while training: one line with loss, dev score and time left."""

from __future__ import annotations

import time
from typing import Any, Protocol

__all__ = ["Progress", "RichProgress", "SilentProgress"]


class Progress(Protocol):
    """Told by the loop what happens."""

    def start(self, steps: int, done: int) -> None:
        """Training begins (or goes on after ``done`` of ``steps`` optimizer steps)."""

    def step(self, done: int, loss: float) -> None:
        """An optimizer step was made."""

    def evaluating(self) -> None:
        """The dev split is being scored."""

    def epoch(self, epoch: int, loss: float, dev: float | None, best: float | None) -> None:
        """An epoch is over."""

    def finish(self) -> None:
        """Training is over, well or not."""


class SilentProgress:
    """Shows nothing."""

    def start(self, steps: int, done: int) -> None:
        return None

    def step(self, done: int, loss: float) -> None:
        return None

    def evaluating(self) -> None:
        return None

    def epoch(self, epoch: int, loss: float, dev: float | None, best: float | None) -> None:
        return None

    def finish(self) -> None:
        return None


class RichProgress:
    """A bar on standard error; where that is not a terminal, one plain line an epoch.

    Args:
        title: stands before the bar.
    """

    def __init__(self, title: str = "training") -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._title, self._smooth, self._dev, self._began = title, None, "", 0.0  # type: ignore[var-annotated]
        self._bar: Any = None
        self._task: Any = None

    def start(self, steps: int, done: int) -> None:
        self._began = time.monotonic()
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=steps, completed=done, facts="")

    def step(self, done: int, loss: float) -> None:
        self._smooth = loss if self._smooth is None else 0.9 * self._smooth + 0.1 * loss
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=f"loss {self._smooth:.3f}{self._dev}")

    def evaluating(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, facts=f"loss {self._smooth or 0:.3f}{self._dev}  scoring dev…")

    def epoch(self, epoch: int, loss: float, dev: float | None, best: float | None) -> None:
        self._dev = "" if dev is None else f"  dev F1 {dev:.3f} (best {best:.3f})"
        if self._bar is None:
            seconds = time.monotonic() - self._began
            self._console.print(
                f"{self._title}: epoch {epoch}  loss {loss:.3f}{self._dev}  {seconds:.0f} s", highlight=False
            )

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
