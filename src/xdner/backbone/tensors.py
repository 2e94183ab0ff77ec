"""Tensors as bytes: the fingerprint of weights, and writing them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from xdner.errors import StorageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fingerprint", "save_tensors"]

_CHUNK = 1 << 24


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """``sha256:…`` over names, dtypes, shapes and bytes of all tensors, whatever their order, strides and device.

    The bytes are hashed in chunks by several threads, and then the chunks' digests. Tensors that share their memory,
    such as tied embeddings, are read once and count under each of their names.
    """
    import torch

    same: dict[tuple[object, ...], Tensor] = {}
    places: dict[str, tuple[object, ...]] = {}
    for name, tensor in state.items():
        memory = (tensor.device, tensor.data_ptr() or name, tensor.dtype, tuple(tensor.shape), tensor.stride())
        same.setdefault(memory, tensor)
        places[name] = memory

    def digest(tensor: Tensor, pool: ThreadPoolExecutor) -> bytes:
        # Bytes, because numpy has no bfloat16; flat first, because a scalar has no bytes view.
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        chunks = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
        return b"".join(pool.map(lambda chunk: hashlib.sha256(chunk).digest(), chunks))

    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as outer,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as inner,
    ):
        digests = dict(zip(same, outer.map(lambda tensor: digest(tensor, inner), same.values()), strict=True))
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        total.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        total.update(hashlib.sha256(digests[places[name]]).digest())
    return f"sha256:{total.hexdigest()}"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors into a folder that nobody reads yet (see :func:`xdner.files.replace_folder`).

    Straight to the file: :func:`xdner.files.write_atomically` would need the whole model in memory a second time.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
        # safetensors makes files that only their owner may read; a cache can be shared.
        path.with_suffix(".mode").touch()
        shutil.copymode(path.with_suffix(".mode"), path)
        path.with_suffix(".mode").unlink()
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write {path}: {error}", hint="Free some space or choose another folder; nothing was left behind."
        ) from error
