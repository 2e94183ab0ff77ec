"""Causal language models: Llama-, Qwen-, Mistral-, Gemma- and Phi-3-like.

The stream of a row is context, source, target. Prefix keys carry no rotation of their own, so the text's positions
start at n, the row's prefix length: then an instruction's keys and values, used as a prefix, are the same as reading
the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xdner.backbone.attention import Together
from xdner.backbone.base import Backbone, Extent, Ids, Prompts, Session, in_line, runs
from xdner.backbone.layout import Layout
from xdner.backbone.plans import Fresh, Stored
from xdner.backbone.store import Context, PrefixRows, Store

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

    def _own_logits(self, source: Ids, target: Ids) -> Tensor:
        ids = torch.tensor([[*source, *target[:-1]]], device=self.device)
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits[0, len(source) - 1 :]
        return logits

    def _run(self, tokens: Sequence[Ids], plan: Fresh | Stored | Together, before: Tensor) -> Tensor:
        """[N, d] of the last layer, after the final norm, row after row.

        Args:
            tokens: B lists.
            plan: what they see.
            before: [B or 1], each row's prefix length: positions start there.
        """
        own = before if before.shape[0] == 1 else before[plan.layout.rows]
        out = self.model.base_model(
            input_ids=in_line(tokens, self.device), position_ids=plan.positions() + own, use_cache=False, plan=plan
        )
        return out.last_hidden_state[0]

    def read_context(self, ids: Ids, prefix: PrefixRows) -> Context:
        if not len(ids):
            return Context(())
        captured: dict[int, tuple[Tensor, Tensor]] = {}
        plan = Fresh(prefix, Layout([len(ids)], self.device), capture=captured)
        self._run([ids], plan, prefix.lengths)
        pairs = [captured[s.index] for s in self.sites]
        return Context(tuple(ids), [k for k, _ in pairs], [v for _, v in pairs])

    def read_keys_values(self, ids: Ids) -> list[tuple[Tensor, Tensor]]:
        with torch.no_grad():
            context = self.read_context(ids, self.empty_prefix())
        return [(k[0], v[0]) for k, v in zip(context.keys, context.values, strict=True)]

    def _teacher_forcing(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None
    ) -> tuple[list[list[int]], Fresh]:
        rows = [[*s, *t[:-1]] for s, t in zip(sources, targets, strict=True)]
        return rows, Fresh(prefix, Layout([len(r) for r in rows], self.device), context=context)

    def target_states(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None = None
    ) -> Tensor:
        rows, plan = self._teacher_forcing(sources, targets, prefix, context)
        states = self._run(rows, plan, prefix.lengths)
        # The last prompt token predicts the first target token.
        first = [start + len(s) - 1 for start, s in zip(plan.layout.starts(), sources, strict=True)]
        return states[runs(first, [len(t) for t in targets], self.device)]

    def prefix_mass(
        self, source: Ids, target: Ids, prefix: PrefixRows, context: Context | None = None
    ) -> dict[str, Tensor]:
        rows, plan = self._teacher_forcing([source], [target], prefix, context)
        plan.record = {}
        with torch.no_grad():
            self._run(rows, plan, prefix.lengths)
        return {name: mass[0] for name, mass in plan.record.items()}

    def begin(self, extent: Extent) -> Session:
        return _CausalSession(self, extent)


class _CausalSession(Session):
    def __init__(self, backbone: CausalBackbone, extent: Extent) -> None:
        self._backbone = backbone
        shapes = {s.index: (s.heads, s.head_dim) for s in backbone.sites}
        like = backbone.model.get_input_embeddings().weight
        self._store = Store(shapes, extent.rows, extent.prefix, extent.text, like)
        self._start = torch.zeros(extent.rows, dtype=torch.long, device=backbone.device)

    def admit(self, prompts: Prompts) -> Tensor:
        layout, plan = self._plan(prompts.sources, self._enter(prompts))
        return self._feed(prompts.sources, layout, plan, plan.rows)[layout.ends]

    def step(self, tokens: Sequence[Ids]) -> Tensor:
        layout, plan = self._plan(tokens, slice(0, self._store.count))
        return self._feed(tokens, layout, plan, plan.rows)

    def turn(self, tokens: Sequence[Ids], prompts: Prompts) -> Tensor:
        sources, new = prompts.sources, self._enter(prompts)
        (going, on), (read, fresh) = self._plan(tokens, slice(0, new.start)), self._plan(sources, new)
        layout = Layout([len(t) for t in (*tokens, *sources)], self._backbone.device)
        states = self._feed([*tokens, *sources], layout, Together([on, fresh], layout), slice(0, new.stop))
        old, begun = states.split([len(going.rows), len(read.rows)])
        return torch.cat([old, begun[read.ends]])

    def _enter(self, prompts: Prompts) -> slice:
        """New rows take their slots, with prefixes and contexts."""
        contexts = prompts.contexts
        rows = self._store.admit(prompts.prefix, len(contexts))
        for row, context in enumerate(contexts, start=rows.start):
            self._store.put_context(row, context)
        lengths = [c.length for c in contexts]
        self._start[rows] = torch.tensor(lengths, dtype=torch.long, device=self._backbone.device)
        return rows

    def _plan(self, tokens: Sequence[Ids], rows: slice) -> tuple[Layout, Stored]:
        layout = Layout([len(t) for t in tokens], self._backbone.device)
        return layout, Stored(self._store, rows, self._start[rows], layout)

    def _feed(self, tokens: Sequence[Ids], layout: Layout, plan: Stored | Together, rows: slice) -> Tensor:
        states = self._backbone._run(tokens, plan, self._store.lengths[rows])
        self._start[rows] += layout.lengths
        return states

    def take_back(self, counts: Sequence[int]) -> None:
        # What stands behind a row's start is not seen, and is written over.
        self._start[: len(counts)] -= torch.tensor(counts, device=self._start.device)

    def leave(self, row: int) -> None:
        last = self._store.count - 1
        self._store.leave(row, int(self._start[last]))
        self._start[row] = self._start[last].clone()
