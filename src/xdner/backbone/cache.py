"""What the rows of a batch attend to: prefixes, contexts, and the store of keys and values of earlier steps.

Three plans for :func:`~xdner.backbone.attention.prefix_attention`:

* :class:`Fresh` - every key is computed in this pass or handed over whole; gradients flow (training, encoders).
* :class:`Stored` - keys go into a preallocated store and stay there (generation).
* :class:`Crossed`, :class:`CrossedStore` - cross-attention to an encoder's keys (T5's decoder), in one pass or kept.

In a store, row b holds its prefix in the first ``n`` places and its text behind it, place ``n + i`` for the text's
position i: no holes, so the causal mask is a comparison of positions. Rows come and go (in-flight batching): a new row
takes the next slot, and when one leaves, the last one moves into its place.

A pass is one line of tokens without padding (``layout.py``); only attention spreads them over rows.

Shapes: B rows, T queries, G key-value heads, d head size, n prefix keys, C context keys, L text places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from xdner.backbone.attention import Site, additive, join, rows_of
from xdner.backbone.layout import Layout

__all__ = ["Context", "Crossed", "CrossedStore", "Fresh", "PrefixRows", "Store", "Stored"]


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


class Bias(Protocol):
    """A relative position bias, for models that have one (T5)."""

    def __call__(self, site: Site, queries: Tensor, keys: Tensor) -> Tensor | None:
        """[B or 1, H, T, K] for query positions [B or 1, T] and key positions [B or 1, K]; ``None`` without bias."""
        ...


@dataclass
class _Masks:
    """Additive masks, computed once per pass and window, shared by all layers; T5's bias is added per site."""

    bias: Bias | None = None
    made: dict[int | None, Tensor] = field(default_factory=dict)
    biased: tuple[Tensor, Tensor] | None = None

    def get(
        self,
        site: Site,
        window: int | None,
        queries: Tensor,
        keys: Tensor,
        visible: Tensor,
        prefix: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """[B or 1, 1 or H, T, n + K].

        Args:
            queries, keys: logical positions [B or 1, T] and [B or 1, K].
            visible: [B or 1, T, K].
            prefix: [B or 1, n], or ``None`` where there is no prefix.
        """
        base = self.made.get(window)
        if base is None:
            seen = visible
            if window is not None:
                seen = seen & (queries[:, :, None] - keys[:, None, :] < window)
            if prefix is not None:
                rows = max(seen.shape[0], prefix.shape[0])
                wide = prefix[:, None, :].expand(-1, queries.shape[1], -1)
                seen = torch.cat([rows_of(wide, rows), rows_of(seen, rows)], dim=2)
            base = self.made[window] = additive(seen, dtype)[:, None]
        bias = None if self.bias is None else self.bias(site, queries, keys)
        if bias is None:
            return base
        if self.biased is None or self.biased[0] is not bias:  # T5's layers share one bias, umT5's have their own
            extra = 0 if prefix is None else prefix.shape[1]
            # A prefix key has no position: its bias is zero.
            wide = torch.cat([bias.new_zeros(*bias.shape[:3], extra), bias], dim=3) if extra else bias
            self.biased = (bias, base + wide.to(dtype))
        return self.biased[1]


class Fresh:
    """Prefix, context and this pass's own keys, concatenated; nothing is kept but what ``capture`` asks for.

    Args:
        prefix: rows of prefixes.
        layout: of the tokens.
        context: keys and values that stand before the text, or ``None``.
        causal: whether a query sees only itself and what is before it.
        bias: relative position bias.
        capture: if given, every site's own keys and values are put there, by site index.
        crossed: what cross-attention sees, in a decoder.
    """

    def __init__(
        self,
        prefix: PrefixRows,
        layout: Layout,
        *,
        context: Context | None = None,
        causal: bool = True,
        bias: Bias | None = None,
        capture: dict[int, tuple[Tensor, Tensor]] | None = None,
        crossed: Crossed | None = None,
    ) -> None:
        self.prefix, self.layout, self.context = prefix, layout, context
        self.capture, self.crossed = capture, crossed
        self.record: dict[str, Tensor] | None = None
        self.folded: tuple[Tensor, Tensor] | None = None
        device, length = prefix.lengths.device, layout.longest
        before = context.length if context is not None else 0
        self.queries = torch.arange(before, before + length, device=device)[None]
        self.keys = torch.arange(before + length, device=device)[None]
        if causal:
            self.visible = self.keys[:, None, :] <= self.queries[:, :, None]
        elif not layout.full:
            self.visible = (self.keys < layout.lengths[:, None])[:, None, :].expand(-1, length, -1)
        else:
            self.visible = torch.ones(1, length, length, dtype=torch.bool, device=device)
        self._prefix_visible = prefix.visible() if prefix.width else None
        self._masks = _Masks(bias)

    def positions(self) -> Tensor:
        """[1, N]: where every token stands in its row's text, context included and prefix not."""
        return (self.layout.places + self.queries[0, 0])[None]

    def attend(
        self, site: Site, key: Tensor, value: Tensor, query: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        if self.capture is not None:
            self.capture[site.index] = (key, value)
        if site.kind == "cross":
            assert self.crossed is not None
            return self.crossed.attend(site, key, value, query, window)
        key, value, rows = self.layout.spread(key), self.layout.spread(value), self.layout.count
        has_context = self.context is not None and self.context.length > 0
        keys = [self.prefix.keys[site.index], self.context.keys[site.index] if has_context else None, key]  # type: ignore[union-attr]
        values = [self.prefix.values[site.index], self.context.values[site.index] if has_context else None, value]  # type: ignore[union-attr]
        mask = self._masks.get(site, window, self.queries, self.keys, self.visible, self._prefix_visible, query.dtype)
        return join(keys, rows), join(values, rows), mask, self.prefix.width


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
        self.width, self.count = width, 0
        self.lengths = torch.zeros(slots, dtype=torch.long, device=like.device)
        self.visible = torch.zeros(slots, width, dtype=torch.bool, device=like.device)
        # Zeros, not uninitialized: a masked place still enters the weighted sum, and 0 * nan is nan.
        # Places before heads: what a token writes is then one run of memory.
        self.keys, self.values = (
            {site: like.new_zeros(slots, width + capacity, heads, dim) for site, (heads, dim) in shapes.items()}
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

    def write(self, site: int, key: Tensor, value: Tensor, rows: Tensor, places: Tensor) -> None:
        """Put [1, G, N, d] at the text places [N] of the rows [N]."""
        for table, new in ((self.keys[site], key), (self.values[site], value)):
            _, size, heads, dim = table.shape
            flat = new[0].transpose(0, 1).reshape(-1, heads * dim)
            table.view(-1, heads * dim).index_copy_(0, rows * size + self.width + places, flat)

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


class Stored:
    """One step of some rows of a :class:`Store`: each row's new tokens, from place ``start[b]`` on.

    Args:
        store: where keys and values stay.
        rows: which rows, side by side.
        start: [B], the first new text place of each.
        layout: of the new tokens.
        bias: relative position bias.
        crossed: what cross-attention sees, in a decoder.
    """

    def __init__(
        self,
        store: Store,
        rows: slice,
        start: Tensor,
        layout: Layout,
        *,
        bias: Bias | None = None,
        crossed: CrossedStore | None = None,
    ) -> None:
        self.store, self.rows, self.layout, self.crossed = store, rows, layout, crossed
        self.record: dict[str, Tensor] | None = None
        self.folded: tuple[Tensor, Tensor] | None = None
        self.places = start[layout.rows] + layout.places
        self._slots = layout.rows + rows.start
        self.reach = int(self.places.max()) + 1
        self.queries = start[:, None] + torch.arange(layout.longest, device=start.device)
        self.keys = torch.arange(self.reach, device=start.device)[None]
        self.visible = self.keys[:, None, :] <= self.queries[:, :, None]
        self._masks = _Masks(bias)

    def positions(self) -> Tensor:
        """[1, N]: where every token stands in its row's text, prefix not counted."""
        return self.places[None]

    def attend(
        self, site: Site, key: Tensor, value: Tensor, query: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        if site.kind == "cross":
            assert self.crossed is not None
            return self.crossed.attend(site, key, value, query, window)
        store = self.store
        store.write(site.index, key, value, self._slots, self.places)
        keys, values = store.read(site.index, self.rows, self.reach)
        prefix = store.visible[self.rows] if store.width else None
        mask = self._masks.get(site, window, self.queries, self.keys, self.visible, prefix, query.dtype)
        return keys, values, mask, store.width


class CrossedStore:
    """Cross-attention of rows that come and go: prefix keys, then the encoder's, written in a row's first pass.

    Args:
        store: of the cross-attention sites; its text places are those of the encoder's input.
        rows: which rows this pass is for.
        lengths: [R], of their encoder inputs.
        fresh: the layout of those inputs in the rows' first pass, whose projections are kept.
    """

    def __init__(self, store: Store, rows: slice, lengths: Tensor, fresh: Layout | None) -> None:
        self.store, self.rows, self.fresh = store, rows, fresh
        self.reach = int(lengths.max())
        seen = torch.arange(self.reach, device=lengths.device) < lengths[:, None]
        self._seen = torch.cat([store.visible[rows], seen], dim=1) if store.width else seen
        self._mask: Tensor | None = None

    def attend(
        self, site: Site, key: Tensor, value: Tensor, query: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        if self.fresh is not None:
            self.store.write(site.index, key, value, self.fresh.rows + self.rows.start, self.fresh.places)
        keys, values = self.store.read(site.index, self.rows, self.reach)
        if self._mask is None:
            mask = additive(self._seen, query.dtype)[:, None, None, :]
            self._mask = mask.expand(-1, -1, query.shape[2], -1)
        return keys, values, self._mask, self.store.width


class Crossed:
    """Cross-attention of one pass over whole targets: prefix keys, then the encoder's, which stand in ``layout``."""

    def __init__(self, prefix: PrefixRows, layout: Layout) -> None:
        self.prefix, self.layout = prefix, layout
        self._mask: dict[tuple[int, torch.dtype], Tensor] = {}

    def attend(
        self, site: Site, key: Tensor, value: Tensor, query: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None, int]:
        rows, layout = query.shape[0], self.layout
        keys = join([self.prefix.keys[site.index], layout.spread(key)], rows)
        values = join([self.prefix.values[site.index], layout.spread(value)], rows)
        at = (query.shape[2], query.dtype)
        if at not in self._mask:
            seen = torch.arange(layout.longest, device=query.device) < layout.lengths[:, None]
            if self.prefix.width:
                seen = torch.cat([rows_of(self.prefix.visible(), rows), seen], dim=1)
            self._mask[at] = additive(seen, query.dtype)[:, None, None, :].expand(-1, -1, query.shape[2], -1)
        return keys, values, self._mask[at], self.prefix.width
