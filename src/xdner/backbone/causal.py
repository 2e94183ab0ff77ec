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
from xdner.backbone.base import Backbone, Ids, Session, lengths_of, padded, target_rows
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

    def begin(
        self, sources: Sequence[Ids], prefix: PrefixRows, contexts: Sequence[Context], room: Sequence[int]
    ) -> Session:
        return _CausalSession(self, sources, prefix, contexts, room)


class _CausalSession(Session):
    def __init__(
        self,
        backbone: CausalBackbone,
        sources: Sequence[Ids],
        prefix: PrefixRows,
        contexts: Sequence[Context],
        room: Sequence[int],
    ) -> None:
        self._backbone = backbone
        device = backbone.device
        rows = len(sources)
        self._capacity = max(c.length + len(s) + r for c, s, r in zip(contexts, sources, room, strict=True))
        # One place more than anybody needs: a row's padding may end up there.
        self._store = Store(prefix, [s.index for s in backbone.sites], rows, self._capacity + 1)
        for row, context in enumerate(contexts):
            self._store.put_context(row, context)
        self._start = torch.tensor([c.length for c in contexts], dtype=torch.long, device=device)
        states = self.step(sources)
        last = lengths_of(sources, device) - 1
        self.states = states[torch.arange(rows, device=device), last]

    def step(self, tokens: Sequence[Ids]) -> Tensor:
        ids = padded(tokens, self._backbone.device)
        plan = Stored(self._store, self._start, ids.shape[1], last=self._capacity)
        positions = plan.places + self._store.lengths[:, None]
        states = self._backbone._run(ids, positions, plan)
        self._start = self._start + lengths_of(tokens, self._backbone.device)
        return states

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(list(rows), dtype=torch.long, device=self._backbone.device)
        self._start = self._start[index]
        self._store.keep(index)
