"""Continued pre-training of tiny models of all kinds, on a text of four phrases."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.models import save_tiny_backbone
from xdner.training.adapt import Adapted
from xdner.workflows import JobOptions, adapt_backbone

__all__ = ["HEAD", "KINDS", "QUICK", "run", "save_bases", "write_text"]

KINDS = ("bare", "whole", "causal", "t5")
QUICK = ("block=32", "learning_rate=3e-3", "checkpoint_every=3", "held_out=4")
HEAD = ("head_steps=8",)  # only an encoder may need an output layer


def save_bases(folder: Path) -> dict[str, Path]:
    """A folder of each kind: an encoder without and with an output layer, a Llama and a T5."""
    return {
        "bare": save_tiny_encoder(folder / "bare"),
        "whole": save_tiny_encoder(folder / "whole", output_layer=True),
        "causal": save_tiny_backbone(folder / "causal"),
        "t5": save_tiny_backbone(folder / "t5", "t5"),
    }


def write_text(path: Path) -> Path:
    """120 lines."""
    rng = random.Random(0)
    parts = ("the wind", "the ship sails", "north of the sea", "in the sea")
    path.write_text("\n".join(" ".join(rng.choice(parts) for _ in range(6)) for _ in range(120)) + "\n")
    return path


def run(base: dict[str, Path], kind: str, text: Path, out: Path, *more: str, **options: Any) -> Adapted:
    """A short run on ``text``, of the base of this kind."""
    head = HEAD if kind in ("bare", "whole") else ()
    return adapt_backbone([text], out, JobOptions(overrides=[*QUICK, *head, *more], **options), backbone=base[kind])
