"""T5, mT5, flan-T5 and umT5: prefixes at encoder self-, decoder self- and cross-attention.

The encoder reads context and source together, so a context is only its ids here. T5 has no absolute positions; its
relative position bias is computed from logical positions, because the places of the store are not those of the text,
and a prefix key has bias zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from xdner.backbone.attention import Site
from xdner.backbone.base import Backbone, Extent, Ids, Prompts, Session, in_line
from xdner.backbone.layout import Layout
from xdner.backbone.linear import nothing
from xdner.backbone.plans import Crossed, CrossedStore, Fresh, Stored
from xdner.backbone.store import Context, PrefixRows, Store
from xdner.errors import BackboneError

__all__ = ["T5Backbone"]

#: The decoder's kinds of attention.
KINDS = ("decoder", "cross")


class RelativeBias:
    """T5's relative position bias for any positions; one object a pass.

    The first layer of a stack owns the table and the others share what it gave (T5, mT5), or every layer has its own
    (umT5).
    """

    def __init__(self) -> None:
        self._shared: dict[str, Tensor] = {}

    def __call__(self, site: Site, queries: Tensor, keys: Tensor) -> Tensor | None:
        module = site.module
        if hasattr(module, "relative_attention_bias"):
            relative = keys[:, None, :] - queries[:, :, None]
            bidirectional = site.kind == "encoder"
            if "bidirectional" in inspect.signature(module._relative_position_bucket).parameters:  # type: ignore[arg-type]
                buckets = module._relative_position_bucket(  # type: ignore[operator]
                    relative,
                    bidirectional=bidirectional,
                    num_buckets=module.relative_attention_num_buckets,
                    max_distance=module.relative_attention_max_distance,
                )
            else:  # umT5 keeps these as attributes
                buckets = module._relative_position_bucket(relative)  # type: ignore[operator]
            self._shared[site.kind] = module.relative_attention_bias(buckets).permute(0, 3, 1, 2)  # type: ignore[operator]
        return self._shared[site.kind]


class T5Backbone(Backbone):
    """An encoder-decoder of the T5 family; see :class:`~xdner.backbone.base.Backbone`."""

    kind = "seq2seq"
    # The encoder sees right context at the first reading.
    suited: ClassVar[Mapping[str, Any]] = {"codec": {"repeats": 1}}

    @property
    def max_tokens(self) -> int:
        return 1_000_000  # relative positions have no bound

    def _scale_states(self, states: Tensor) -> Tensor:
        config = self.model.config
        family = config.model_type
        scaled = {"t5": getattr(config, "scale_decoder_outputs", False), "umt5": config.tie_word_embeddings}
        return states * config.d_model**-0.5 if scaled.get(family, False) else states

    def _own_logits(self, source: Ids, target: Ids) -> Tensor:
        inputs = torch.tensor(self._inputs([source], [None]), device=self.device)
        tokens = torch.tensor([[self._start_token(), *target[:-1]]], device=self.device)
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=inputs, decoder_input_ids=tokens, use_cache=False).logits[0]
        return logits

    def _end(self) -> int:
        return self._needed(self.tokenizer.eos_token_id, "eos_token", "tokenizer_config.json")

    def _start_token(self) -> int:
        return self._needed(self.model.config.decoder_start_token_id, "decoder_start_token_id", "config.json")

    def _needed(self, token: int | None, what: str, file: str) -> int:
        if token is None:
            raise BackboneError(f"{self.name} has no {what}", hint=f"Add it to {file}, or copy the model again.")
        return int(token)

    def _encode(
        self,
        inputs: Sequence[Ids],
        prefix: PrefixRows,
        capture: dict[int, tuple[Tensor, Tensor]] | None = None,
        record: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Layout]:
        """Encoder states [1, N, d] of complete inputs, row after row, and where each belongs."""
        layout = Layout([len(i) for i in inputs], self.device)
        plan = Fresh(prefix, layout, causal=False, bias=RelativeBias(), capture=capture)
        plan.record = record
        states = self.model.get_encoder()(input_ids=in_line(inputs, self.device), plan=plan).last_hidden_state
        return states, layout

    def _decode(self, tokens: Sequence[Ids], encoded: Tensor, plan: Fresh | Stored) -> Tensor:
        """[N, d], row after row."""
        decoder, ids = self.model.get_decoder(), in_line(tokens, self.device)
        out = decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False, plan=plan)
        return out.last_hidden_state[0]

    def _inputs(self, sources: Sequence[Ids], contexts: Sequence[Context | None]) -> list[list[int]]:
        return [[*(c.ids if c else ()), *s, self._end()] for s, c in zip(sources, contexts, strict=True)]

    def read_context(self, ids: Ids, prefix: PrefixRows) -> Context:
        return Context(tuple(ids))

    def read_keys_values(self, ids: Ids) -> list[tuple[Tensor, Tensor]]:
        captured: dict[int, tuple[Tensor, Tensor]] = {}
        empty = self.empty_prefix()
        with torch.no_grad():
            encoded, layout = self._encode([ids], empty, captured)
            plan = Fresh(empty, layout, bias=RelativeBias(), capture=captured, crossed=Crossed(empty, layout))
            self._decode([ids], encoded, plan)
        pairs = [captured[s.index] for s in self.sites]
        return [(k[0], v[0]) for k, v in pairs]

    def _teacher_forcing(
        self,
        sources: Sequence[Ids],
        targets: Sequence[Ids],
        prefix: PrefixRows,
        context: Context | None,
        record: dict[str, Tensor] | None = None,
    ) -> Tensor:
        inputs = self._inputs(sources, [context] * len(sources))
        encoded, read = self._encode(inputs, prefix, record=record)
        tokens = [[self._start_token(), *t[:-1]] for t in targets]
        layout = Layout([len(t) for t in tokens], self.device)
        plan = Fresh(prefix, layout, bias=RelativeBias(), crossed=Crossed(prefix, read))
        plan.record = record
        return self._decode(tokens, encoded, plan)

    def target_states(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None = None
    ) -> Tensor:
        return self._teacher_forcing(sources, targets, prefix, context)

    def prefix_mass(
        self, source: Ids, target: Ids, prefix: PrefixRows, context: Context | None = None
    ) -> dict[str, Tensor]:
        record: dict[str, Tensor] = {}
        with torch.no_grad():
            self._teacher_forcing([source], [target], prefix, context, record)
        return {name: mass[0] for name, mass in record.items()}

    def begin(self, extent: Extent) -> Session:
        return _T5Session(self, extent)


class _T5Session(Session):
    def __init__(self, backbone: T5Backbone, extent: Extent) -> None:
        self._backbone = backbone
        like = backbone.model.get_input_embeddings().weight
        shapes = {kind: {s.index: (s.heads, s.head_dim) for s in backbone.sites if s.kind == kind} for kind in KINDS}
        # A place for the start token; and the encoder reads context, prompt and an end token.
        self._store = Store(shapes["decoder"], extent.rows, extent.prefix, extent.room + 1, like)
        self._crossed = Store(shapes["cross"], extent.rows, extent.prefix, extent.context + extent.source + 1, like)
        self._start, self._read = (torch.zeros(extent.rows, dtype=torch.long, device=backbone.device) for _ in range(2))
        # Once their projections are kept, the cross-attention modules still want something to project.
        self._something = nothing(like, 1, 1, like.shape[1])

    def admit(self, prompts: Prompts) -> Tensor:
        encoded, read, new = self._enter(prompts)
        return self._feed([[self._backbone._start_token()]] * read.count, new, encoded, read)

    def step(self, tokens: Sequence[Ids]) -> Tensor:
        return self._feed(tokens, slice(0, self._store.count), self._something, None)

    def turn(self, tokens: Sequence[Ids], prompts: Prompts) -> Tensor:
        encoded, read, new = self._enter(prompts)
        fed = [*tokens, *[[self._backbone._start_token()]] * read.count]
        return self._feed(fed, slice(0, new.stop), encoded, read)

    def _enter(self, prompts: Prompts) -> tuple[Tensor, Layout, slice]:
        """New rows take their slots; their encoder states, where each belongs, and the slots."""
        inputs = self._backbone._inputs(prompts.sources, prompts.contexts)
        encoded, read = self._backbone._encode(inputs, prompts.prefix)
        rows = self._store.admit(prompts.prefix, len(inputs))
        self._crossed.admit(prompts.prefix, len(inputs))
        self._start[rows], self._read[rows] = 0, read.lengths
        return encoded, read, rows

    def _feed(self, tokens: Sequence[Ids], rows: slice, encoded: Tensor, read: Layout | None) -> Tensor:
        layout = Layout([len(t) for t in tokens], self._backbone.device)
        crossed = CrossedStore(self._crossed, rows, self._read[rows], read)
        plan = Stored(self._store, rows, self._start[rows], layout, bias=RelativeBias(), crossed=crossed)
        states = self._backbone._decode(tokens, encoded, plan)
        self._start[rows] += layout.lengths
        return states

    def take_back(self, counts: Sequence[int]) -> None:
        # What stands behind a row's start is not seen, and is written over.
        self._start[: len(counts)] -= torch.tensor(counts, device=self._start.device)

    def leave(self, row: int) -> None:
        last = self._store.count - 1
        self._store.leave(row, int(self._start[last]))
        self._crossed.leave(row, int(self._read[last]))
        self._start[row], self._read[row] = self._start[last].clone(), self._read[last].clone()
