"""Where a training run keeps what it needs to go on after an interruption, and who watches it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from xdner.files import storage_errors
from xdner.training.progress import Progress, SilentProgress

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """Of one training run; the default keeps nothing and shows nothing.

    Attributes:
        folder: checkpoints go to ``folder/checkpoint``, on the settings' interval and after every epoch, and the record
            of a run that ended to ``folder/run.json``; ``None``: nothing is written.
        resume: go on from the checkpoint. A run that had ended gives its result again.
        hint: how to resume, for the message after Ctrl-C.
        progress: what is shown meanwhile.
    """

    folder: Path | None = None
    resume: bool = False
    hint: str = ""
    progress: Progress = field(default_factory=SilentProgress)

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from, of the run or of one of its parts."""
        return self.folder is not None and any(self.folder.rglob("checkpoint/state.json"))

    def going_on(self) -> Run:
        """The same run, resumed if it has begun."""
        return replace(self, resume=self.begun)

    def part(self, name: str, *, first: bool) -> Run:
        """One of several trainings of the run, with a sub-folder of its own (no name: the run's).

        The first must have a checkpoint, or there is nothing to resume; later ones may not have begun.
        """
        own = replace(self, folder=self.folder / name if self.folder is not None and name else self.folder)
        return replace(own, resume=self.resume and (first or own.begun))

    def remove(self) -> None:
        """Take away what the run has written, once its result is safe."""
        if self.folder is not None:
            with storage_errors(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
