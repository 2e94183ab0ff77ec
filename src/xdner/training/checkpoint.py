"""A run on disk, so that one that was killed goes on as if nothing had happened.

A checkpoint is a folder of two files, replaced as one: ``state.safetensors`` (parameters, best parameters, AdamW's
moments and step counts) and ``state.json`` (where the run is). Random states need no place in it: everything random
in a step is drawn from generators seeded with (seed, epoch) or (seed, step), so the position is the state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xdner.errors import TrainingError
from xdner.files import replace_folder, write_atomically

__all__ = ["Checkpoint", "Position", "read_checkpoint", "write_checkpoint"]

FORMAT = 1


@dataclass
class Position:
    """Where a run is. Losses are kept as hexadecimal text in the file: every bit returns.

    Attributes:
        epoch: of the next batch, from 1.
        batch: index of the next batch in that epoch.
        step: optimizer steps made.
        epoch_loss: sum of the losses of this epoch's batches.
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
    """What :func:`write_checkpoint` keeps."""

    position: Position
    fingerprint: str
    tensors: dict[str, Tensor]


def write_checkpoint(folder: Path, position: Position, fingerprint: str, tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint in ``folder``.

    Raises:
        StorageError: it cannot be written; the older one stays.
    """
    described = asdict(position) | {"epoch_loss": float(position.epoch_loss).hex()}
    state = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "position": described,
    }
    with replace_folder(folder) as fresh:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, fresh / "state.safetensors")
        write_atomically(fresh / "state.json", json.dumps(state, indent=1) + "\n")


def read_checkpoint(folder: Path, fingerprint: str) -> Checkpoint:
    """Read a checkpoint of the same run.

    Raises:
        TrainingError: there is none, it is broken, or it belongs to another run (other data, settings or backbone).
    """
    again = "Start again without --resume."
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
    except FileNotFoundError:
        raise TrainingError(f"there is no checkpoint in {folder}", hint=again) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError) as error:
        raise TrainingError(f"the checkpoint in {folder} is broken: {error}", hint=again) from None
    if state.get("format") != FORMAT:
        raise TrainingError(f"the checkpoint in {folder} has format {state.get('format')}", hint=again)
    if state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"the checkpoint in {folder} belongs to another run: data, settings, seed or backbone differ",
            hint="Resume with exactly what the run began with, or start again without --resume.",
        )
    position = Position(**(state["position"] | {"epoch_loss": float.fromhex(state["position"]["epoch_loss"])}))
    return Checkpoint(position, fingerprint, tensors)
