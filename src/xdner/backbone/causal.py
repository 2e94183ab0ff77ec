"""Causal language models: Llama-, Qwen-, Mistral- and Gemma-like.

The stream of a row is context, source, target. Prefix keys carry no rotation of their own, so the text's positions
start at n, the row's prefix length: then an instruction's keys and values, used as a prefix, are the same as reading
the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xdner.backbone.attention import Plan
from xdner.backbone.base import Backbone, Extent, Ids, Session, lengths_of, padded, target_rows
from xdner.backbone.cache import Context, Fresh, PrefixRows, Store, Stored, rows_of

__all__ = ["CausalBackbone"]


class CausalBackbone(Backbone):
    """A decoder-only language model; see :class:`~xdner.backbone.base.Backbone`."""

    kind = "causal"

    def _scale_logits(self, logits: Tensor) -> Tensor:
        cap = getattr(self.model.config, "final_logit_softcapping", None)  # Gemma 2
        scale = getattr(self.model.config, "logit_scale", None)  # Cohere
        division = getattr(self.model.config, "logits_scaling", None)  # Granite
        logits = logits * scale if scale is not None else logits
        logits = logits / division if division is not None else logits
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _run(self, ids: Tensor, positions: Tensor, plan: Plan) -> Tensor:
        """[B, T, d] of the last layer, after the final norm."""
        out = self.model.base_model(input_ids=ids, position_ids=positions, use_cache=False, plan=plan)
        return out.last_hidden_state

    def read_context(self, ids: Ids, prefix: PrefixRows) -> Context:
        if not len(ids):
            return Context(())
        captured: dict[int, tuple[Tensor, Tensor]] = {}
        plan = Fresh(prefix, 1, len(ids), capture=captured)
        self._run(padded([ids], self.device), plan.queries + prefix.lengths[:, None], plan)
        pairs = [captured[s.index] for s in self.sites]
        return Context(tuple(ids), [k for k, _ in pairs], [v for _, v in pairs])

    def read_keys_values(self, ids: Ids) -> list[tuple[Tensor, Tensor]]:
        with torch.no_grad():
            context = self.read_context(ids, self.empty_prefix())
        return [(k[0], v[0]) for k, v in zip(context.keys, context.values, strict=True)]

    def _teacher_forcing(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None
    ) -> tuple[Tensor, Fresh]:
        rows = [[*s, *t[:-1]] for s, t in zip(sources, targets, strict=True)]
        ids = padded(rows, self.device)
        plan = Fresh(prefix, len(rows), ids.shape[1], context=context)
        return ids, plan

    def target_states(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None = None
    ) -> Tensor:
        ids, plan = self._teacher_forcing(sources, targets, prefix, context)
        positions = rows_of(plan.queries + prefix.lengths[:, None], ids.shape[0])
        states = self._run(ids, positions, plan)
        # The last prompt token predicts the first target token.
        index = target_rows([len(s) - 1 for s in sources], [len(t) for t in targets], self.device)
        return states[index]

    def prefix_mass(
        self, source: Ids, target: Ids, prefix: PrefixRows, context: Context | None = None
    ) -> dict[str, Tensor]:
        ids, plan = self._teacher_forcing([source], [target], prefix, context)
        plan.record = {}
        with torch.no_grad():
            self._run(ids, plan.queries + prefix.lengths[:, None], plan)
        return {name: mass[0] for name, mass in plan.record.items()}

    def begin(self, extent: Extent) -> Session:
        return _CausalSession(self, extent)


class _CausalSession(Session):
    def __init__(self, backbone: CausalBackbone, extent: Extent) -> None:
        self._backbone, self._last = backbone, extent.text
        shapes = {s.index: (s.heads, s.head_dim) for s in backbone.sites}
        like = backbone.model.get_input_embeddings().weight
        # One place more than anybody needs: a row's padding may end up there.
        self._store = Store(shapes, extent.rows, extent.prefix, extent.text + 1, like)
        self._start = torch.zeros(extent.rows, dtype=torch.long, device=backbone.device)

    def admit(
        self, sources: Sequence[Ids], prefix: PrefixRows, contexts: Sequence[Context], room: Sequence[int]
    ) -> Tensor:
        rows = self._store.admit(prefix, len(sources))
        for row, context in enumerate(contexts, start=rows.start):
            self._store.put_context(row, context)
        device = self._backbone.device
        self._start[rows] = torch.tensor([c.length for c in contexts], dtype=torch.long, device=device)
        states = self._feed(sources, rows)
        return states[torch.arange(len(sources), device=device), lengths_of(sources, device) - 1]

    def step(self, tokens: Sequence[Ids]) -> Tensor:
        return self._feed(tokens, slice(0, self._store.count))

    def _feed(self, tokens: Sequence[Ids], rows: slice) -> Tensor:
        ids = padded(tokens, self._backbone.device)
        plan = Stored(self._store, rows, self._start[rows], ids.shape[1], last=self._last)
        states = self._backbone._run(ids, plan.places + self._store.lengths[rows, None], plan)
        self._start[rows] += lengths_of(tokens, self._backbone.device)
        return states

    def leave(self, row: int) -> None:
        last = self._store.count - 1
        self._store.leave(row, int(self._start[last]))
        self._start[row] = self._start[last].clone()
