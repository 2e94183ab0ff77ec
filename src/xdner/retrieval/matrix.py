"""The rows of an index in memory: an explicit cache of what Milvus holds, asked exactly and many times faster than a
local Milvus Lite file answers.

It is kept beside the index as one file that is mapped, and names the revision it was made of: another one is never read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from xdner.backbone.linear import products
from xdner.backbone.load import native_bfloat16
from xdner.files import write_atomically
from xdner.retrieval.embedder import Vectors

__all__ = ["Matrix"]

_AT_ONCE = 128  # words of queries that one product compares with all rows, at most
_NUMBERS = 1 << 26  # of such a product, at most
_MANY = 8192  # rows from which on two looks are faster than one
_BLOCK = 32
#: What 16 bits make of a cosine differs from it by at most this: 2⁻⁸ by rounding both vectors, 2⁻⁹ by rounding the product.
_ROUNDED = 0.006


class Matrix:
    """Rows that can be asked for the nearest.

    Where the processor multiplies 16-bit numbers natively, many rows are compared in 16 bits first, which takes a third of
    the time, and the best of them again in 32 bits. A word for which this does not prove the nearest is compared with all
    rows in 32 bits.

    Args:
        keys: [N], ascending.
        vectors: [N, d], of length one.
    """

    def __init__(self, keys: NDArray[np.int64], vectors: Vectors) -> None:
        self.keys, self.vectors = keys, vectors
        self._table = torch.from_numpy(vectors)
        self._coarse: Callable[[Tensor], Tensor] | None = None  # products with all rows, in 16 bits

    def __len__(self) -> int:
        return len(self.keys)

    def search(self, vectors: Vectors, limit: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The nearest rows of each vector [n, d]: keys [n, limit], -1 where there are no more, and cosines [n, limit]."""
        keys = np.full((len(vectors), limit), -1, dtype=np.int64)
        cosines = np.zeros((len(vectors), limit), dtype=np.float32)
        most = min(limit, len(self.keys))
        if not most:
            return keys, cosines
        coarse = len(self.keys) >= _MANY and native_bfloat16("cpu")
        if coarse and self._coarse is None:
            self._coarse = products(self._table.to(torch.bfloat16))
        step = max(1, min(_AT_ONCE, _NUMBERS // len(self.keys)))
        with torch.inference_mode():
            for at in range(0, len(vectors), step):
                some = torch.from_numpy(np.ascontiguousarray(vectors[at : at + step]))
                best, places = (self._twice if coarse else self._once)(some, most)
                keys[at : at + step, :most] = self.keys[places.numpy()]
                cosines[at : at + step, :most] = best.numpy()
        return keys, cosines

    def _once(self, some: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Cosines and places of the nearest rows, both [n, most]."""
        return torch.topk(some @ self._table.T, most, dim=1)

    def _twice(self, some: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """:meth:`_once`, but all rows in 16 bits, and twice as many as are wanted in 32 bits."""
        assert self._coarse is not None
        rough = self._coarse(some.to(torch.bfloat16)).float()
        wide = min(2 * most, rough.shape[1])
        full = rough.shape[1] // _BLOCK * _BLOCK
        # Whatever is among the best is in a block whose greatest number is among the greatest. Pooling finds that number five
        # times as fast as a maximum over an axis.
        greatest = F.max_pool1d(rough[None], _BLOCK)[0]
        chosen = torch.topk(greatest, min(wide, greatest.shape[1]), dim=1).indices
        inner = (chosen[..., None] * _BLOCK + torch.arange(_BLOCK)).flatten(1)
        rest = torch.arange(full, rough.shape[1]).expand(len(some), -1)
        places = torch.cat([inner, rest], 1)
        kept, at = torch.topk(rough.gather(1, places), wide, dim=1)
        places = places.gather(1, at)
        near = self._table.index_select(0, places.flatten()).view(len(some), wide, -1)
        best, order = torch.topk(torch.bmm(near, some[:, :, None])[..., 0], most, dim=1)
        places = places.gather(1, order)
        # All other rows were below these in 16 bits.
        unsure = best[:, -1] < kept[:, -1] + _ROUNDED
        if wide < rough.shape[1] and unsure.any():
            best[unsure], places[unsure] = self._once(some[unsure], most)
        return best, places

    def pick(self, chosen: NDArray[Any]) -> Matrix:
        """Some of the rows, by a mask [N]."""
        return self if chosen.all() else Matrix(self.keys[chosen], self.vectors[chosen])

    def write(self, path: Path, of: Mapping[str, Any]) -> None:
        """Keep it as a file.

        Args:
            path: of the file.
            of: what it was made of; :meth:`read` asks for the same.

        Raises:
            StorageError: it cannot be written.
        """
        data = {"keys": self.keys, "vectors": np.ascontiguousarray(self.vectors)}
        write_atomically(path, save(data, metadata={"of": json.dumps(of, sort_keys=True)}))

    @classmethod
    def read(cls, path: Path, of: Mapping[str, Any], rows: int, dimension: int) -> Matrix | None:
        """What :meth:`write` kept; ``None`` if it is not there, damaged, or made of something else."""
        try:
            with safe_open(path, framework="pt") as file:  # maps; "numpy" would copy
                if (file.metadata() or {}).get("of") != json.dumps(of, sort_keys=True):
                    return None
                keys, vectors = file.get_tensor("keys").numpy(), file.get_tensor("vectors").numpy()
        except (OSError, SafetensorError):
            return None
        if keys.shape != (rows,) or vectors.shape != (rows, dimension) or vectors.dtype != np.float32:
            return None
        return cls(keys, vectors)
