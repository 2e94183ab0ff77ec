"""Where a training run keeps what it needs to go on after an interruption, and who watches it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from xdner.errors import TrainingError
from xdner.files import check_replaceable, storage_errors
from xdner.training.progress import Progress, SilentProgress

__all__ = ["Run"]

_LOCK = ".lock"
#: What stands in a run's folder, or in that of one of its parts: checkpoints and the record (``loop.py``), and of continued
#: pre-training the text as tokens and the new weights (``token_store.py``, ``adapt.py``).
_FILES = frozenset({_LOCK, "run.json", "tokens.json", "tokens.bin", "tokens.part"})
_FOLDERS = frozenset({"checkpoint", "adapter", "made"})


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

    def forget(self) -> None:
        """Unless the run goes on from them, remove the checkpoints that an older one left: once this one is resumed, those
        of parts that it had not reached would be taken for its own."""
        if self.folder is not None and not self.resume:
            with storage_errors(self.folder):
                for state in list(self.folder.rglob("checkpoint/state.json")):
                    shutil.rmtree(state.parent, ignore_errors=True)

    def check(self) -> None:
        """Ask before long work whether the folder is free, or an older run's: at the end it is removed.

        Raises:
            StorageError: it holds something else.
        """
        if self.folder is not None:
            check_replaceable(self.folder, _only_of_runs)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep others out: two trainings in one folder would delete each other's checkpoints. The system frees the folder
        however a process ends.

        Raises:
            TrainingError: another process trains in this folder.
            StorageError: it cannot be written.
        """
        if self.folder is None:
            yield
            return
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise TrainingError(
                    f"another process is training in {self.folder}",
                    hint="Wait until it has ended, or choose another name.",
                ) from None
        try:
            yield
        finally:
            if [path.name for path in self.folder.glob("*")] == [_LOCK]:  # it came to no checkpoint
                self.remove()
            lock.release()

    def remove(self) -> None:
        """Take away what the run has written, once its result is safe."""
        if self.folder is not None:
            with storage_errors(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)


def _only_of_runs(folder: Path) -> bool:
    """Whether a folder has nothing in it but what training runs and their parts write, half-written files of killed ones
    included: at the end all of it is removed."""
    return all(
        path.name in _FILES
        or (path.name.startswith(".") and path.name.endswith((".part", ".old")))
        or (path.is_dir() and not path.is_symlink() and (path.name in _FOLDERS or _only_of_runs(path)))
        for path in folder.iterdir()
    )
