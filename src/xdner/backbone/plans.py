"""What the queries of a pass see: plans for :func:`~xdner.backbone.attention.prefix_attention`.

* :class:`Fresh` - every key is computed in this pass or handed over whole; gradients flow (training, encoders).
* :class:`Stored` - keys go into a preallocated store and stay there (generation).

A decoder that also attends to an encoder (T5's) has with either what its cross-attention sees, :class:`Crossed` in one pass or
:class:`CrossedStore` kept; the plan hands the sites of that kind on to it.

A pass is one line of tokens without padding (``layout.py``); only attention spreads them over rows.

Shapes: B rows, T queries, G key-value heads, d head size, n prefix keys, C context keys, L text places.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from xdner.backbone.attention import Folded, Site, additive, join, rows_of
from xdner.backbone.layout import Layout
from xdner.backbone.store import Context, PrefixRows, Store

__all__ = ["Crossed", "CrossedStore", "Fresh", "Stored"]


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
        self.folded: Folded = {}
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
    ) -> tuple[Tensor, Tensor, Tensor, int]:
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
        self.folded: Folded = {}
        self.places = start[layout.rows] + layout.places
        self._where = store.locate(layout.rows + rows.start, self.places)
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
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        if site.kind == "cross":
            assert self.crossed is not None
            return self.crossed.attend(site, key, value, query, window)
        store = self.store
        store.write(site.index, key, value, self._where)
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
        fresh: the layout of the inputs of those that are new, the last ones, whose projections are kept.
    """

    def __init__(self, store: Store, rows: slice, lengths: Tensor, fresh: Layout | None) -> None:
        self.store, self.rows = store, rows
        self._where = None if fresh is None else store.locate(fresh.rows + rows.stop - fresh.count, fresh.places)
        self.reach = int(lengths.max())
        seen = torch.arange(self.reach, device=lengths.device) < lengths[:, None]
        self._seen = torch.cat([store.visible[rows], seen], dim=1) if store.width else seen
        self._mask: Tensor | None = None

    def attend(
        self, site: Site, key: Tensor, value: Tensor, query: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        if self._where is not None:
            self.store.write(site.index, key, value, self._where)
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
    ) -> tuple[Tensor, Tensor, Tensor, int]:
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
