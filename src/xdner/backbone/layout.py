"""Passes without padding: the tokens of all rows stand in one line, and only attention sees rows.

Linear layers, norms and embeddings treat each token by itself; a batch padded to its longest row would make them work for
nothing. So a pass is one line of N tokens, row after row; :class:`Layout` knows where each belongs, and spreads queries
and keys over rows where attention needs them.

Shapes: B rows, T tokens of the longest row, N tokens in all, H heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Block", "Layout"]

# What attention costs on a processor, in products of a query with a row's keys (docs/LOG.md): reading a row's keys, copying them
# out of their table, and beginning another block.
_READ, _COPY, _BEGIN = 3, 3, 24


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """Some tokens of some rows.

    Attributes:
        rows: which; as a slice, they need no copy of their keys.
        tokens: from which place in its row to which; rows that end before have padding there.
    """

    rows: slice | Tensor
    tokens: slice


class Layout:
    """Where the tokens of a pass belong.

    Args:
        lengths: tokens of each row, none zero.
        device: where its index tensors live.

    Attributes:
        count: B.
        longest: T.
        rows: [N], each token's row.
        places: [N], its place in its row.
        ends: [B], the place of each row's last token in the line.
        lengths: [B].
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.count, self.longest, self._each = len(lengths), max(lengths), tuple(lengths)
        self.lengths = torch.tensor(list(lengths), device=device)
        self.ends = self.lengths.cumsum(0) - 1
        self.rows = torch.repeat_interleave(torch.arange(self.count, device=device), self.lengths)
        self.places = torch.arange(sum(lengths), device=device) - (self.ends + 1 - self.lengths)[self.rows]
        self.full = min(lengths) == self.longest
        if not self.full:
            # Padding repeats the row's last token: as a query its result is not collected, as a key it is masked.
            inside = torch.arange(self.longest, device=device).expand(self.count, -1)
            first = (self.ends + 1 - self.lengths)[:, None]
            self._out = (first + torch.minimum(inside, self.lengths[:, None] - 1)).reshape(-1)
            self._back = self.rows * self.longest + self.places

    @cached_property
    def blocks(self) -> list[Block]:
        """Blocks that hold every token once, with as little padding as is worth while; one for rows of like length."""
        rows, done, blocks = list(range(self.count)), 0, []
        while rows:
            cut, later = self._cut(rows, done)
            blocks.append(Block(self._index(rows), slice(done, cut)))
            rows, done = later, cut
        return blocks

    def _cut(self, rows: Sequence[int], done: int) -> tuple[int, list[int]]:
        """Where a block of these rows, of which ``done`` tokens are in others, ends; and the rows that go on behind it."""
        longest = max(self._each[row] for row in rows)
        best, choice = len(rows) * (longest - done), (longest, list[int]())
        for cut in sorted({self._each[row] for row in rows})[:-1]:
            later = [row for row in rows if self._each[row] > cut]
            extra = _READ if _side_by_side(later) else _READ + _COPY
            cost = len(rows) * (cut - done) + len(later) * (longest - cut + extra) + _BEGIN
            if cost < best:
                best, choice = cost, (cut, later)
        return choice

    def _index(self, rows: list[int]) -> slice | Tensor:
        return slice(rows[0], rows[-1] + 1) if _side_by_side(rows) else torch.tensor(rows, device=self.lengths.device)

    def starts(self) -> list[int]:
        """The place of each row's first token in the line."""
        return (self.ends + 1 - self.lengths).tolist()

    def spread(self, flat: Tensor) -> Tensor:
        """[1, H, N, d] → [B, H, T, d]."""
        _, heads, _, dim = flat.shape
        line = flat[0] if self.full else flat[0].index_select(1, self._out)
        return line.view(heads, self.count, self.longest, dim).transpose(0, 1)

    def collect(self, spread: Tensor) -> Tensor:
        """[B, H, T, d] → [1, N, H, d]."""
        _, heads, _, dim = spread.shape
        line = spread.transpose(1, 2).reshape(-1, heads, dim)
        return (line if self.full else line.index_select(0, self._back))[None]


def _side_by_side(rows: Sequence[int]) -> bool:
    return rows[-1] - rows[0] + 1 == len(rows)
