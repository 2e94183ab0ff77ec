"""What is trained: a prefix's keys and values themselves, or an MLP that emits them.

After training only the emitted keys and values are kept: :meth:`collapse` gives them, and the MLP is forgotten.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xdner.errors import PrefixMismatchError
from xdner.geometry import PrefixGeometry

__all__ = ["DirectParametrization", "MLPParametrization", "Parametrization"]


class Parametrization(nn.Module):
    """Parameters that emit a prefix for every site."""

    geometry: PrefixGeometry

    @abstractmethod
    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values per site, [heads, n, head_dim] each; gradients flow."""

    def collapse(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The emitted keys and values, detached, in 32 bits."""
        with torch.no_grad():
            keys, values = self()
        return tuple(k.detach().float().clone() for k in keys), tuple(v.detach().float().clone() for v in values)


class DirectParametrization(Parametrization):
    """δ itself: one parameter for all keys and values of all sites.

    A single flat parameter keeps AdamW at one kernel a step instead of one for each of 60 to 100 small tensors.

    Args:
        geometry: the sites.
        keys, values: where training starts, per site [heads, n, head_dim].
    """

    def __init__(self, geometry: PrefixGeometry, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        super().__init__()
        self.geometry = geometry
        self._length = keys[0].shape[1]
        _check(geometry, keys, values)
        self.delta = nn.Parameter(torch.cat([t.detach().float().reshape(-1) for t in (*keys, *values)]))

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        return self.parts(self.delta)

    def parts(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values per site, as views of one flat tensor laid out as ``delta`` is."""
        shapes = [(s.heads, self._length, s.head_dim) for s in self.geometry.sites] * 2
        parts = flat.split([h * n * d for h, n, d in shapes])
        tensors = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        half = len(tensors) // 2
        return tensors[:half], tensors[half:]


class MLPParametrization(Parametrization):
    """Embedding → linear → tanh → linear (Li and Liang 2021; hidden 800 in CP-NER's code), one for the whole prefix.

    The last layer starts at zero weight with the given keys and values as its per-position offset, so that training
    begins exactly at the initial prefix.

    Args:
        geometry: the sites.
        keys, values: where training starts, per site [heads, n, head_dim].
        hidden: width of the hidden layer.
        seed: of the embedding and the first layer.
    """

    def __init__(
        self, geometry: PrefixGeometry, keys: Sequence[Tensor], values: Sequence[Tensor], *, hidden: int, seed: int
    ) -> None:
        super().__init__()
        self.geometry = geometry
        _check(geometry, keys, values)
        length = keys[0].shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(length, hidden, generator=generator))
        self.inner = nn.Parameter(torch.randn(hidden, hidden, generator=generator) * hidden**-0.5)
        self.inner_bias = nn.Parameter(torch.zeros(hidden))
        rows = [t.detach().float().transpose(0, 1).reshape(length, -1) for t in (*keys, *values)]
        initial = torch.cat(rows, dim=1)
        self.offset: Tensor
        self.register_buffer("offset", initial)
        self.outer = nn.Parameter(torch.zeros(hidden, initial.shape[1]))
        self.outer_bias = nn.Parameter(torch.zeros(initial.shape[1]))

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        hidden = torch.tanh(self.embedding @ self.inner + self.inner_bias)
        emitted = self.offset + hidden @ self.outer + self.outer_bias
        sites = [*self.geometry.sites, *self.geometry.sites]
        parts = emitted.split([s.heads * s.head_dim for s in sites], dim=1)
        tensors = [p.view(p.shape[0], s.heads, s.head_dim).transpose(0, 1) for p, s in zip(parts, sites, strict=True)]
        half = len(tensors) // 2
        return tensors[:half], tensors[half:]


def _check(geometry: PrefixGeometry, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    length = keys[0].shape[1]
    for site, key, value in zip(geometry.sites, keys, values, strict=True):
        expected = (site.heads, length, site.head_dim)
        if tuple(key.shape) != expected or tuple(value.shape) != expected:
            raise PrefixMismatchError(
                f"at {site.name} the initial prefix has shapes {tuple(key.shape)} and {tuple(value.shape)}, "
                f"expected {expected}",
                hint="Start from a prefix of the same backbone and length.",
            )
