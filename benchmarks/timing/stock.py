"""Arms (a) and (b): ``generate`` of transformers with prefix tuning of peft, as a user would write them today.

They share the backbone's weights in memory; only the modules are another copy, with transformers' own attention and torch's
own linear layers. One prefix is loaded at a time, so the sentences are sorted by domain, and by length within it: as little
padding as there can be. A T5 of peft has its prefix in the decoder's self-attention only.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList

from benchmarks.timing.clock import Clock
from benchmarks.timing.forced import ForcedTokens
from benchmarks.timing.passes import Items, Pass
from benchmarks.timing.workload import Case, Workload
from xdner.backbone.attention import Site
from xdner.backbone.base import Backbone
from xdner.backbone.linear import PackedLinear
from xdner.codec.grammar import Grammar, GrammarState

__all__ = ["GenerateArm", "Stock", "prefix_model"]


def prefix_model(backbone: Backbone, length: int, *, trained: bool = False) -> PeftModel:
    """The backbone's weights, the very same tensors, in a stock model with a prefix of peft.

    Args:
        backbone: whose weights they are.
        length: prefix keys at each site.
        trained: whether the prefix will be trained.
    """
    weights = {id(p): p for p in backbone.model.parameters()}
    model = copy.deepcopy(backbone.model, weights)
    _unpack(model)
    model.set_attn_implementation("sdpa")
    sites = _sites(backbone)
    config = PrefixTuningConfig(
        task_type=TaskType.CAUSAL_LM if backbone.kind == "causal" else TaskType.SEQ_2_SEQ_LM,
        inference_mode=not trained,
        num_virtual_tokens=length,
        num_layers=len(sites),
        # Key-value heads, not query heads: peft leaves these numbers alone if they are given, except with grouped heads.
        num_attention_heads=_config_heads(backbone, sites[0].heads),
        token_dim=_config_heads(backbone, sites[0].heads) * sites[0].head_dim,
    )
    with warnings.catch_warnings():  # peft still asks transformers for an attribute by its old name
        warnings.simplefilter("ignore", FutureWarning)
        made = get_peft_model(model, config)
    return made.train() if trained else made.eval()


def _unpack(model: nn.Module) -> None:
    """The layers that our backbone made faster become torch's own again, with the same parameters."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PackedLinear):
                plain = nn.Linear(child.in_features, child.out_features, child.bias is not None, device="meta")
                plain.weight, plain.bias = child.weight, child.bias
                setattr(parent, name, plain.train(child.training))


def _sites(backbone: Backbone) -> list[Site]:
    """The sites that a prefix of peft reaches, layer by layer."""
    return [s for s in backbone.sites if s.kind in ("self", "decoder")]


def _config_heads(backbone: Backbone, heads: int) -> int:
    # peft divides by the query heads and multiplies by the key-value heads, so it must be told the query heads.
    return int(getattr(backbone.model.config, "num_attention_heads", heads)) if backbone.kind == "causal" else heads


@dataclass
class _Counts:
    calls: int = 0
    row_steps: int = 0


class Stock:
    """A stock model and the prefixes of a stream in peft's form.

    Args:
        backbone: whose weights are used.
        workload: what is read.
    """

    def __init__(self, backbone: Backbone, workload: Workload) -> None:
        self.backbone, self.workload = backbone, workload
        self.clock = Clock(backbone.device)
        self.model = prefix_model(backbone, workload.prefix.length)
        self.counts = _Counts()
        self._table: dict[int, Tensor] = {}
        self._loaded: int | None = None
        self.model.get_base_model().register_forward_pre_hook(self._count, with_kwargs=True)
        known = backbone.tokenizer.pad_token_id
        self.pad = workload.end if known is None else int(known)

    def prepare(self, domains: Sequence[int]) -> float:
        """Put the prefixes of these domains, and of no others, into peft's form.

        Returns:
            Seconds that it took, without making the prefixes up.
        """
        total = 0.0
        self._table, self._loaded = {}, None
        for domain in domains:
            keys, values = self.workload.keys_values(domain)
            began = self.clock.now()
            self._table[domain] = self.flat(keys, values)
            total += self.clock.now() - began
        return total

    def flat(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
        """[n, layers × 2 × heads × head size], as peft stores a prefix."""
        columns = [
            t.transpose(0, 1).flatten(1) for s in _sites(self.backbone) for t in (keys[s.index], values[s.index])
        ]
        return torch.cat(columns, dim=1).to(self.backbone.device)

    def use(self, domain: int) -> None:
        """Load a domain's prefix, unless it is the one that is loaded."""
        if domain != self._loaded:
            self.model.prompt_encoder[self.model.active_adapter].load_prompt_embeddings(self._table[domain])
            self._loaded = domain

    def batch(self, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Padded inputs: on the left for a causal model, on the right for an encoder."""
        causal = self.backbone.kind == "causal"
        if not causal:
            prompts = [(*prompt, self.workload.end) for prompt in prompts]
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            place = slice(width - len(prompt), width) if causal else slice(len(prompt))
            ids[row, place], mask[row, place] = torch.tensor(prompt), 1
        device = self.backbone.device
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("decoder_input_ids")
        self.counts.calls += 1
        self.counts.row_steps += len(kwargs["input_ids"] if ids is None else ids)


class GenerateArm:
    """``generate``, greedily.

    Args:
        name: in tables.
        stock: the model.
        grammar: if given, only what it allows is written; without, at most as many tokens as the longest gold target
            of a batch has.
        forced: whether the gold targets are written (:mod:`benchmarks.timing.forced`).
    """

    def __init__(self, name: str, stock: Stock, grammar: Grammar | None, *, forced: bool) -> None:
        self.name, self.stock, self.grammar, self.forced = name, stock, grammar, forced

    @torch.inference_mode()
    def read(self, items: Items, batch: int) -> Pass:
        """Read all sentences."""
        stock, clock = self.stock, self.stock.clock
        stock.counts = _Counts()
        outputs: dict[int, tuple[int, ...]] = {}
        began = clock.now()
        first, read = 0.0, 0
        for domain, places in _batches(items, batch):
            stock.use(domain)
            cases = [items[place][0] for place in places]
            inputs = stock.batch([case.prompt for case in cases])
            read += inputs["input_ids"].numel()
            outputs |= dict(zip(places, self._generate(cases, inputs), strict=True))
            first = first or clock.now() - began
        seconds = clock.now() - began
        written = [outputs[place] for place in range(len(items))]
        ended = sum(ids[-1:] == (stock.workload.end,) for ids in written)
        return Pass(seconds, first, stock.counts.calls, stock.counts.row_steps, read, written, ended)

    def _generate(self, cases: Sequence[Case], inputs: dict[str, Tensor]) -> list[tuple[int, ...]]:
        stock = self.stock
        # A decoder of its own begins with a start token.
        start = inputs["input_ids"].shape[1] if stock.backbone.kind == "causal" else 1
        longest = max(len(case.gold) for case in cases)
        room = longest if self.grammar is None or self.forced else max(case.room for case in cases)
        limits = GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=room, eos_token_id=stock.workload.end, pad_token_id=stock.pad,
            decoder_start_token_id=getattr(stock.backbone.model.config, "decoder_start_token_id", None),
        )  # fmt: skip
        more: dict[str, Any] = {}
        if self.grammar is not None:
            more["prefix_allowed_tokens_fn"] = _Allowed(self.grammar, cases, start, stock.workload.end)
        if self.forced:
            more["logits_processor"] = LogitsProcessorList([ForcedTokens([case.gold for case in cases], start)])
        made = stock.model.generate(**inputs, generation_config=limits, **more)
        return [_until(row, stock.workload.end) for row in made[:, start:].tolist()]


class _Allowed:
    """Our grammar as ``prefix_allowed_tokens_fn``; each row's state goes on with the row's last token."""

    def __init__(self, grammar: Grammar, cases: Sequence[Case], start: int, end: int) -> None:
        self._states: list[GrammarState] = [grammar.start(case.words) for case in cases]
        self._start, self._end = start, end

    def __call__(self, row: int, ids: Tensor) -> list[int]:
        state = self._states[row]
        if len(ids) > self._start + state.tokens and not state.done:
            state.advance(int(ids[-1]))
        return [self._end] if state.done else list(state.legal())


def _batches(items: Items, size: int) -> Iterator[tuple[int, list[int]]]:
    """Places of the stream with their domain, long prompts first."""
    order = sorted(range(len(items)), key=lambda i: (items[i][1], -len(items[i][0].prompt), i))
    for domain, places in groupby(order, key=lambda i: items[i][1]):
        own = list(places)
        for first in range(0, len(own), size):
            yield domain, own[first : first + size]


def _until(ids: Sequence[int], end: int) -> tuple[int, ...]:
    """Up to the first end, which is kept."""
    return tuple(ids[: ids.index(end) + 1]) if end in ids else tuple(ids)
