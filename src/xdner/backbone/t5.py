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
from xdner.backbone.base import Backbone, Ids, Session, lengths_of, padded, target_rows
from xdner.backbone.cache import Context, Crossed, Fresh, PrefixRows, Store, Stored

__all__ = ["T5Backbone"]


class RelativeBias:
    """T5's relative position bias for any positions; one object a pass.

    The first layer of a stack owns the table and the others share what it gave (T5, mT5), or every layer has its own
    (umT5).
    """

    def __init__(self) -> None:
        self._shared: dict[str, Tensor] = {}

    def __call__(self, site: Site, queries: Tensor, keys: Tensor) -> Tensor | None:
        module = site.module
        if module.has_relative_attention_bias:
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

    def _end(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def _start_token(self) -> int:
        return int(self.model.config.decoder_start_token_id)

    def _encode(
        self,
        sources: Sequence[Ids],
        prefix: PrefixRows,
        capture: dict[int, tuple[Tensor, Tensor]] | None = None,
        record: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encoder states [B, S, d] and lengths [B] of complete inputs."""
        ids, lengths = padded(sources, self.device), lengths_of(sources, self.device)
        plan = Fresh(
            prefix, len(sources), ids.shape[1], lengths=lengths, causal=False, bias=RelativeBias(), capture=capture
        )
        plan.record = record
        states = self.model.get_encoder()(input_ids=ids, plan=plan).last_hidden_state
        return states, lengths

    def _decode(self, ids: Tensor, encoded: Tensor, plan: Fresh | Stored) -> Tensor:
        decoder = self.model.get_decoder()
        out = decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False, plan=plan)
        return out.last_hidden_state

    def _inputs(self, sources: Sequence[Ids], contexts: Sequence[Context | None]) -> list[list[int]]:
        return [[*(c.ids if c else ()), *s, self._end()] for s, c in zip(sources, contexts, strict=True)]

    def read_context(self, ids: Ids, prefix: PrefixRows) -> Context:
        return Context(tuple(ids))

    def read_keys_values(self, ids: Ids) -> list[tuple[Tensor, Tensor]]:
        captured: dict[int, tuple[Tensor, Tensor]] = {}
        empty = self.empty_prefix()
        with torch.no_grad():
            encoded, lengths = self._encode([ids], empty, captured)
            crossed = Crossed(empty, lengths, len(ids))
            plan = Fresh(empty, 1, len(ids), bias=RelativeBias(), capture=captured, crossed=crossed)
            self._decode(padded([ids], self.device), encoded, plan)
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
        encoded, lengths = self._encode(inputs, prefix, record=record)
        ids = padded([[self._start_token(), *t[:-1]] for t in targets], self.device)
        crossed = Crossed(prefix, lengths, encoded.shape[1])
        plan = Fresh(prefix, len(targets), ids.shape[1], bias=RelativeBias(), crossed=crossed)
        plan.record = record
        return self._decode(ids, encoded, plan)

    def target_states(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None = None
    ) -> Tensor:
        states = self._teacher_forcing(sources, targets, prefix, context)
        return states[target_rows([0] * len(targets), [len(t) for t in targets], self.device)]

    def prefix_mass(
        self, source: Ids, target: Ids, prefix: PrefixRows, context: Context | None = None
    ) -> dict[str, Tensor]:
        record: dict[str, Tensor] = {}
        with torch.no_grad():
            self._teacher_forcing([source], [target], prefix, context, record)
        return {name: mass[0] for name, mass in record.items()}

    def begin(
        self, sources: Sequence[Ids], prefix: PrefixRows, contexts: Sequence[Context], room: Sequence[int]
    ) -> Session:
        return _T5Session(self, self._inputs(sources, contexts), prefix, room)


class _T5Session(Session):
    def __init__(self, backbone: T5Backbone, inputs: Sequence[Ids], prefix: PrefixRows, room: Sequence[int]) -> None:
        self._backbone = backbone
        rows, device = len(inputs), backbone.device
        self._encoded, lengths = backbone._encode(inputs, prefix)
        self._crossed = Crossed(prefix, lengths, self._encoded.shape[1])
        self._capacity = max(room) + 1
        decoder = [s.index for s in backbone.sites if s.kind == "decoder"]
        self._store = Store(prefix, decoder, rows, self._capacity + 1)
        self._start = torch.zeros(rows, dtype=torch.long, device=device)
        self.states = self.step([[backbone._start_token()]] * rows)[:, 0]
        # From now on the cross-attention keys are kept. The modules still want something to project: one state a row.
        self._encoded = self._encoded[:, :1]

    def step(self, tokens: Sequence[Ids]) -> Tensor:
        ids = padded(tokens, self._backbone.device)
        plan = Stored(
            self._store, self._start, ids.shape[1], last=self._capacity, bias=RelativeBias(), crossed=self._crossed
        )
        states = self._backbone._decode(ids, self._encoded, plan)
        self._start = self._start + lengths_of(tokens, self._backbone.device)
        return states

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(list(rows), dtype=torch.long, device=self._backbone.device)
        self._start, self._encoded = self._start[index], self._encoded[index]
        self._store.keep(index)
        self._crossed.keep(index)
