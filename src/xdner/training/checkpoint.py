"""A run on disk, so that one that was killed goes on as if nothing had happened.

A checkpoint is a folder of two files: ``state-<step>-<token>.safetensors`` (parameters, best parameters, AdamW's
moments and step counts) and ``state.json`` (where the run is, and which tensors belong to it). The tensors are written
first, under a new name; then ``state.json`` is replaced, which the system does in one step; then the older tensors go.
Whenever the process dies, the folder holds one whole checkpoint, the older one or the newer one. (Replacing a whole
folder takes two renames; a process killed between them would leave none.)

Random states need no place in it: everything random in a step is drawn from generators seeded with (seed, epoch) or
(seed, step), so the position is the state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from xdner.errors import StorageError, TrainingError
from xdner.files import write_atomically

__all__ = ["Checkpoint", "Position", "circumstances", "identity", "read_checkpoint", "write_checkpoint"]

FORMAT = 2


@dataclass
class Position:
    """Where a run is. Its numbers survive JSON exactly: Python writes a float with as many digits as it takes.

    Attributes:
        epoch: of the next batch, from 1.
        batch: index of the next batch in that epoch.
        step: optimizer steps made.
        epoch_loss: sum of the losses of this epoch's items.
        seconds: spent so far.
        best: best dev score, or ``None``; ``best_epoch`` its epoch.
        waited: dev evaluations since the best one.
        stopped: why the run is over (``finished`` or ``patience``), empty while it is not.
        history: one record an epoch.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    epoch_loss: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    stopped: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Checkpoint:
    """What :func:`write_checkpoint` kept; ``made`` are the :func:`circumstances` then."""

    position: Position
    tensors: dict[str, Tensor]
    made: dict[str, Any]


def identity(*parts: Any) -> str:
    """A short name for a run, from plain values that say all it depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def circumstances() -> dict[str, Any]:
    """What the last bits of a result depend on besides the run's own data and settings."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}


def write_checkpoint(folder: Path, position: Position, run: str, tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint in ``folder``.

    Args:
        folder: holds this checkpoint and nothing else.
        position: where the run is.
        run: the run's :func:`identity`.
        tensors: any names, shapes and devices.

    Raises:
        StorageError: it cannot be written; the older one stays.
    """
    file = folder / f"state-{position.step:08d}-{secrets.token_hex(4)}.safetensors"
    state = {
        "format": FORMAT,
        "run": run,
        "tensors": file.name,
        "made": circumstances(),
        "position": asdict(position),
    }
    write_atomically(file, to_safetensors({name: _own(tensor) for name, tensor in tensors.items()}))
    try:
        write_atomically(folder / "state.json", json.dumps(state, indent=1) + "\n")
    except StorageError:
        file.unlink(missing_ok=True)
        raise
    _sweep(folder, file.name)


def _sweep(folder: Path, tensors: str) -> None:
    """Remove older tensors, and what a killed process left half-written. What cannot be removed now goes the next time."""
    with contextlib.suppress(OSError):
        for other in folder.iterdir():
            if other.name not in (tensors, "state.json") and other.suffix in (".safetensors", ".part"):
                other.unlink(missing_ok=True)


def read_checkpoint(folder: Path, run: str) -> Checkpoint:
    """Read a checkpoint of the same run, which goes on from it and is the only one to use the folder.

    Raises:
        TrainingError: there is none, it is broken, or it belongs to another run (other data, settings or backbone).
    """
    again = "Start again without --resume."
    try:
        text = (folder / "state.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TrainingError(f"there is no checkpoint in {folder}", hint=again) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the checkpoint in {folder} cannot be read: {error}", hint=again) from None
    try:
        state = json.loads(text)
        if state["format"] != FORMAT:
            raise TrainingError(
                f"the checkpoint in {folder} has format {state['format']}, this version reads {FORMAT}", hint=again
            )
        if state["run"] != run:
            raise TrainingError(
                f"the checkpoint in {folder} belongs to another run ({state['run'][:8]}, this one is {run[:8]}): "
                "data, settings, seed or backbone differ",
                hint="Resume with exactly what the run began with, or start again without --resume.",
            )
        position = _position(state["position"])
        loaded = load_file(folder / Path(state["tensors"]).name)
        # Copies, because the loaded tensors may be windows on a file that the next checkpoint removes.
        kept = Checkpoint(position, {name: tensor.clone() for name, tensor in loaded.items()}, dict(state["made"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise TrainingError(f"the checkpoint in {folder} is broken: {error!r}", hint=again) from None
    _sweep(folder, Path(state["tensors"]).name)  # a run that had ended already writes no further checkpoint
    return kept


def _position(values: Mapping[str, Any]) -> Position:
    known = {f.name for f in fields(Position)}
    if set(values) != known:
        raise ValueError(f"the position has {sorted(values)}, not {sorted(known)}")
    return Position(**values)


def _own(tensor: Tensor) -> Tensor:
    """The tensor on the CPU in a storage of its own: safetensors takes no views of a shared one."""
    alone = tensor.detach().cpu().contiguous()
    return alone if alone.untyped_storage().nbytes() == alone.nbytes else alone.clone()
