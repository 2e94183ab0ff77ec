"""Passes without padding: the tokens of all rows stand in one line, and only attention sees rows.

Linear layers, norms and embeddings treat each token by itself; a batch padded to its longest row would make them work for
nothing. So a pass is one line of N tokens, row after row; :class:`Layout` knows where each belongs, and spreads queries
and keys over rows where attention needs them.

Shapes: B rows, T tokens of the longest row, N tokens in all, H heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Layout"]


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
        self.count, self.longest = len(lengths), max(lengths)
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
