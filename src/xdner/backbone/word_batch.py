"""Windows side by side as tensors.

Words stand in one line of M, window after window; where attention needs them, they are spread to [B, N].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xdner.backbone.words import Encoded

__all__ = ["Batch"]


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows of at most T ids and N words, M words in all.

    Attributes:
        ids, attention: [B, T].
        rows, words, places: [M], each word's window, its index in it, and the place of its first sub-word.
        ends: [M], one past its last sub-word.
        mask: [B, N], true for words.
        shapes, tags: [M], or ``None`` where they are not known.
        counted: [M], whether the word is of its window's core; ``None``: all are.
        continues, goes_on: [B], whether the window begins, and ends, within its sentence.
    """

    ids: Tensor
    attention: Tensor
    rows: Tensor
    words: Tensor
    places: Tensor
    ends: Tensor
    mask: Tensor
    shapes: Tensor | None
    tags: Tensor | None
    counted: Tensor | None
    continues: Tensor
    goes_on: Tensor

    @classmethod
    def of(cls, items: Sequence[Encoded], *, pad: int, device: torch.device) -> Batch:
        """Put windows side by side; each has at least one word."""

        def line(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)

        width = max(len(item.ids) for item in items)
        ids = torch.tensor([[*i.ids, *([pad] * (width - len(i.ids)))] for i in items], device=device)
        lengths = line([len(i.ids) for i in items])
        counts = line([len(i.places) for i in items])
        ends = [end for item in items for end in (*item.places[1:], len(item.ids) - 1)]
        core = [item.counted[0] <= w < item.counted[1] for item in items for w in range(len(item.places))]
        return cls(
            ids,
            (torch.arange(width, device=device) < lengths[:, None]).long(),
            line([row for row, item in enumerate(items) for _ in item.places]),
            line([word for item in items for word in range(len(item.places))]),
            line([place for item in items for place in item.places]),
            line(ends),
            torch.arange(int(counts.max()), device=device) < counts[:, None],
            line([s for i in items for s in i.shapes]) if all(i.shapes for i in items) else None,
            line([t for i in items for t in i.tags]) if all(i.tags for i in items) else None,
            None if all(core) else torch.tensor(core, device=device),
            torch.tensor([item.continues for item in items], device=device),
            torch.tensor([item.goes_on for item in items], device=device),
        )

    def pooled(self, states: Tensor, how: str) -> Tensor:
        """One state a word: that of its ``first`` sub-word, or the ``mean`` or ``max`` of all. [B, T, d] → [M, d]."""
        if how == "first":
            return states[self.rows, self.places]
        if how == "mean":
            places = torch.arange(states.shape[1], device=states.device)
            inside = (places >= self.places[:, None]) & (places < self.ends[:, None])
            shares = self.spread(inside / inside.sum(1, keepdim=True))  # [B, N, T]
            return (shares @ states)[self.rows, self.words]
        if how != "max":
            raise ValueError(f"pooling is first, mean or max, not {how!r}")
        counts = self.ends - self.places
        word = torch.repeat_interleave(torch.arange(len(counts), device=states.device), counts)
        first = counts.cumsum(0) - counts
        place = self.places[word] + torch.arange(len(word), device=states.device) - first[word]
        made = states.new_full((len(counts), states.shape[2]), -torch.inf)
        inner = states[self.rows[word], place]
        return made.scatter_reduce(0, word[:, None].expand_as(inner), inner, "amax")

    def spread(self, flat: Tensor) -> Tensor:
        """[M, …] → [B, N, …], zero where there is no word."""
        made = flat.new_zeros(*self.mask.shape, *flat.shape[1:])
        made[self.rows, self.words] = flat
        return made
