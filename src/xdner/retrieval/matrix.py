"""The rows of an index in memory: an explicit cache of what Milvus holds, asked exactly and many times faster than a
local Milvus Lite file answers.

It is kept beside the index as one file that is mapped, and names the revision it was made of: another one is never read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xdner.files import write_atomically
from xdner.retrieval.words import Vectors

__all__ = ["Matrix"]

_AT_ONCE = 64  # words of queries that one product compares with all rows


class Matrix:
    """Rows that can be asked for the nearest.

    Args:
        keys: [N], ascending.
        vectors: [N, d], of length one.
    """

    def __init__(self, keys: NDArray[np.int64], vectors: Vectors) -> None:
        self.keys, self.vectors = keys, vectors
        self._table = torch.from_numpy(vectors)

    def __len__(self) -> int:
        return len(self.keys)

    def search(self, vectors: Vectors, limit: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The nearest rows of each vector [n, d]: keys [n, limit], -1 where there are no more, and cosines [n, limit]."""
        keys = np.full((len(vectors), limit), -1, dtype=np.int64)
        cosines = np.zeros((len(vectors), limit), dtype=np.float32)
        most = min(limit, len(self.keys))
        if not most:
            return keys, cosines
        with torch.inference_mode():
            for at in range(0, len(vectors), _AT_ONCE):
                some = torch.from_numpy(np.ascontiguousarray(vectors[at : at + _AT_ONCE]))
                best, places = torch.topk(some @ self._table.T, most, dim=1)
                keys[at : at + _AT_ONCE, :most] = self.keys[places.numpy()]
                cosines[at : at + _AT_ONCE, :most] = best.numpy()
        return keys, cosines

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
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("of") != json.dumps(of, sort_keys=True):
                    return None
                keys, vectors = file.get_tensor("keys"), file.get_tensor("vectors")
        except (OSError, SafetensorError):
            return None
        if keys.shape != (rows,) or vectors.shape != (rows, dimension) or vectors.dtype != np.float32:
            return None
        return cls(keys, vectors)
