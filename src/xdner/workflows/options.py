"""What every job has: where its domains are, how it is computed, and what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xdner.errors import SettingsError, TrainingError
from xdner.library.store import Library
from xdner.training.progress import Progress, SilentProgress
from xdner.training.run import Run

__all__ = ["JobOptions"]

#: For the message after Ctrl-C.
_RESUME = "Run the same command again with --resume."


@dataclass(frozen=True)
class JobOptions:
    """Of a job that trains something.

    Attributes:
        library: folder of trained domains; ``None``: the user's own.
        seed: of everything random; ``None``: that of the settings.
        config: TOML file with settings.
        overrides: settings over those of the file, ``name=value``.
        dtype, device: of frozen weights.
        resume: go on after an interruption.
        progress: what is shown.
        again: what to do after Ctrl-C.
    """

    library: str | Path | None = None
    seed: int | None = None
    config: str | Path | None = None
    overrides: Sequence[str] = ()
    dtype: str = "float32"
    device: str = "cpu"
    resume: bool = False
    progress: Progress = field(default_factory=SilentProgress)
    again: str = _RESUME

    @property
    def chosen(self) -> list[str]:
        """The settings that were chosen one by one, the seed among them.

        Raises:
            SettingsError: there are two seeds.
        """
        if self.seed is None:
            return list(self.overrides)
        if any(o.partition("=")[0].strip() in ("seed", "training.seed") for o in self.overrides):
            raise SettingsError(["the seed is given twice: by --seed and by --set"], hint="Leave one of them out.")
        return [*self.overrides, f"training.seed={self.seed}"]

    def store(self) -> Library:
        """The library."""
        return Library(self.library)

    def run(self, folder: Path) -> Run:
        """The training, with its checkpoints in this folder."""
        return Run(folder, self.resume, self.again, self.progress)

    def domain_run(self, name: str) -> Run:
        """The training of a domain, with its checkpoints in the library's own folder for them; they go once the domain is stored.

        Raises:
            TrainingError: there is nothing to resume: the domain is trained, and its checkpoints are gone.
        """
        store = self.store()
        made = self.run(store.folder / ".runs" / name)
        if made.resume and not made.begun and name in store:
            raise TrainingError(
                f"domain {name!r} of {store.folder} is trained already, and no run of it was interrupted",
                hint=f'Read with it: xdner predict --domain {name} "your text". To train it anew, leave --resume out.',
            )
        return made
