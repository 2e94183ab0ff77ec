"""A model that was trained as a whole becomes an ordinary folder, like the one it came from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from xdner.backbone.aliases import MANIFEST
from xdner.errors import StorageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["save_like", "stored_dtype"]

# Weights in any format, and lists of their parts: they would be those of the old model.
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ckpt"}


def stored_dtype(folder: Path) -> torch.dtype:
    """The type of a folder's weights: that of its first floating tensor."""
    import torch
    from safetensors import safe_open

    names = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                if (kind := file.get_slice(key).get_dtype()) in names:
                    return names[kind]
    return torch.float32


def save_like(model: PreTrainedModel, source: Path, fresh: Path) -> None:
    """Write a model's weights and, from the folder that it came from, everything that is not weights.

    Args:
        model: its weights are written in the type that they have.
        source: configuration and tokenizer are copied from here.
        fresh: a folder that nobody reads yet (:func:`xdner.files.replace_folder`).

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError

    try:
        model.save_pretrained(fresh)
        for path in sorted(source.iterdir()):
            weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
            if path.is_file() and not weights and path.name != MANIFEST:
                shutil.copyfile(path, fresh / path.name)
        # safetensors makes files that only their owner may read; a backbone can be shared.
        for path in fresh.glob("*.safetensors"):
            shutil.copymode(fresh / "config.json", path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write {fresh.parent}: {error}",
            hint="Free some space or choose another folder; nothing half-written was left behind.",
        ) from error
