"""Keys and values that are there before a pass: prefixes, contexts, and the store of earlier steps.

In a store, row b holds its prefix in the first ``n`` places and its text behind it, place ``n + i`` for the text's
position i: no holes, so the causal mask is a comparison of positions. Rows come and go (in-flight batching): a new row
takes the next slot, and when one leaves, the last one moves into its place.

Shapes: B rows, G key-value heads, d head size, n prefix keys, C context keys, L text places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from xdner.backbone.attention import rows_of

__all__ = ["Context", "PrefixRows", "Store"]


@dataclass(frozen=True, eq=False)
class PrefixRows:
    """One prefix for each row of a batch, or one for all of them.

    Attributes:
        keys, values: per site [B or 1, G, n, d]; shorter prefixes are padded at the front.
        lengths: [B or 1], each row's own n.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    lengths: Tensor

    @property
    def width(self) -> int:
        """n of the longest prefix."""
        return self.keys[0].shape[2] if len(self.keys) else 0

    def visible(self) -> Tensor:
        """[B or 1, n]: which keys are real."""
        n = self.width
        return torch.arange(n, device=self.lengths.device) >= (n - self.lengths)[:, None]

    @classmethod
    def empty(cls, shapes: Sequence[tuple[int, int]], like: Tensor) -> PrefixRows:
        """No prefix at all, for sites of these (heads, head size)."""
        nothing = [like.new_zeros(1, heads, 0, dim) for heads, dim in shapes]
        return cls(nothing, nothing, torch.zeros(1, dtype=torch.long, device=like.device))

    @classmethod
    def stack(cls, prefixes: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]], rows: Sequence[int]) -> PrefixRows:
        """Rows that each take one of a few distinct prefixes: ``prefixes[i] = (keys, values)`` per site [G, n_i, d]."""
        lengths = [keys[0].shape[1] for keys, _ in prefixes]
        width = max(lengths)
        device = prefixes[0][0][0].device
        index = torch.tensor(list(rows), device=device)

        def table(part: int, site: int) -> Tensor:
            tensors = [p[part][site] for p in prefixes]
            padded = [
                t if t.shape[1] == width else torch.cat([t.new_zeros(t.shape[0], width - t.shape[1], t.shape[2]), t], 1)
                for t in tensors
            ]
            return torch.stack(padded)[index]

        sites = range(len(prefixes[0][0]))
        return cls(
            [table(0, s) for s in sites], [table(1, s) for s in sites], torch.tensor(lengths, device=device)[index]
        )


@dataclass(frozen=True, eq=False)
class Context:
    """The part of the prompt that all sentences of a domain share (instruction and options), already read.

    Attributes:
        ids: its tokens.
        keys, values: per site [1, G, C, d], given the domain's prefix; empty for an encoder-decoder model, whose
            encoder reads context and sentence together.
    """

    ids: tuple[int, ...]
    keys: Sequence[Tensor] = ()
    values: Sequence[Tensor] = ()

    @property
    def length(self) -> int:
        """C: keys that need not be computed again."""
        return self.keys[0].shape[2] if len(self.keys) else 0


class Store:
    """Preallocated keys and values for rows that come and go; the rows that are there are always the first ones.

    Args:
        shapes: (heads, head size) of each stored site, by its index.
        slots: rows at most.
        width: prefix places; a shorter prefix stands at their end.
        capacity: text places per row.
        like: gives type and device.
    """

    def __init__(
        self, shapes: Mapping[int, tuple[int, int]], slots: int, width: int, capacity: int, like: Tensor
    ) -> None:
        self.width, self.capacity, self.count = width, capacity, 0
        self.lengths = torch.zeros(slots, dtype=torch.long, device=like.device)
        self.visible = torch.zeros(slots, width, dtype=torch.bool, device=like.device)
        # Zeros, not uninitialized: a masked place still enters the weighted sum, and 0 * nan is nan.
        # Places before heads: what a token writes is then one run of memory.
        self.keys, self.values = (
            {site: _zeros((slots, width + capacity, heads, dim), like) for site, (heads, dim) in shapes.items()}
            for _ in range(2)
        )

    def admit(self, prefix: PrefixRows, rows: int) -> slice:
        """Give the next ``rows`` slots to new rows, with these prefixes.

        Returns:
            Where they are.
        """
        place = slice(self.count, self.count + rows)
        self.count += rows
        start = self.width - prefix.width
        for table, source in ((self.keys, prefix.keys), (self.values, prefix.values)):
            for site, tensor in table.items():
                tensor[place, start : self.width] = rows_of(source[site], rows).transpose(1, 2)
        self.lengths[place] = prefix.lengths
        self.visible[place] = torch.arange(self.width, device=self.lengths.device) >= (
            self.width - self.lengths[place, None]
        )
        return place

    def put_context(self, row: int, context: Context) -> None:
        """Copy a domain's context into the first text places of ``row``."""
        if context.length:
            end = self.width + context.length
            for site in self.keys:
                self.keys[site][row, self.width : end] = context.keys[site][0].transpose(0, 1)
                self.values[site][row, self.width : end] = context.values[site][0].transpose(0, 1)

    def locate(self, rows: Tensor, places: Tensor) -> Tensor:
        """[N]: where the text places [N] of the rows [N] are, for :meth:`write`; the same at every site."""
        return rows * (self.width + self.capacity) + self.width + places

    def write(self, site: int, key: Tensor, value: Tensor, where: Tensor) -> None:
        """Put [1, G, N, d] at the places that :meth:`locate` gave."""
        for table, new in ((self.keys[site], key), (self.values[site], value)):
            each = table.shape[2] * table.shape[3]
            table.view(-1, each).index_copy_(0, where, new[0].transpose(0, 1).reshape(-1, each))

    def read(self, site: int, rows: slice, reach: int) -> tuple[Tensor, Tensor]:
        """Keys and values [R, G, n + reach, d] of the prefix and the first ``reach`` text places; no copy."""
        end = self.width + reach
        return self.keys[site][rows, :end].transpose(1, 2), self.values[site][rows, :end].transpose(1, 2)

    def leave(self, row: int, reach: int) -> None:
        """Free a slot: the last row, of which ``reach`` text places are written, moves into it."""
        self.count -= 1
        if row != self.count:
            end = self.width + reach
            for table in (*self.keys.values(), *self.values.values()):
                table[row, :end] = table[self.count, :end]
            self.lengths[row], self.visible[row] = self.lengths[self.count].clone(), self.visible[self.count].clone()


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """On a processor, memory that the system only clears, and counts, where it is touched: few targets take all the room
    they might (docs/LOG.md)."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(prod(shape) * like.element_size(), np.uint8)).view(like.dtype).view(shape)
