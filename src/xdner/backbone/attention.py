"""Prefix attention (Eq. 2) at every attention site, through one registered attention function.

This is the only file that replaces a part of transformers. A model is *instrumented* once: each of its attention
modules becomes a numbered **site**, and the model's attention implementation is set to :func:`prefix_attention`. A
forward pass then takes a **plan** as keyword argument ``plan=``; it reaches every site, and says what the queries see
besides the keys that the module has just computed: each row's prefix, a shared context, or keys and values of earlier
steps. The plan also owns the mask, because only it knows where everything lies.

Why a plan and not a mask and a cache from transformers: stock mask functions return ``None`` for unpadded input, and
stock attention then crops or misaligns keys once a prefix makes them outnumber the queries, without any error.

Shapes: B rows, T queries of the longest, N in all, H query heads, G key-value heads, d head size, n prefix keys, S keys in
all. Modules see one line of N tokens (``layout.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from xdner.backbone.layout import Block, Layout
from xdner.errors import BackboneError

__all__ = [
    "IMPLEMENTATION",
    "KNOWN",
    "Folded",
    "NoPlanError",
    "Plan",
    "Site",
    "Together",
    "additive",
    "instrument",
    "join",
    "prefix_attention",
    "rows_of",
]

IMPLEMENTATION = "xdner"
#: What to use in the place of a model that cannot be used.
KNOWN = "Use a Llama-, Qwen-, Mistral-, Gemma- or Phi-3-like causal model, or T5, mT5, flan-T5 or umT5."
#: Scores of one layer, at most, that training on a CPU may hold in memory; above it the fused kernel is used.
COMPOSED = 1 << 25
#: Queries of a head, from which on products are faster than the fused kernel where nothing is trained: those of prompts.
LONG = 64
#: Scores of one product, at most: larger tensors are given back to the system by the allocator and come back page by page,
#: which takes longer than what is computed in them (docs/LOG.md).
PIECE = 1 << 21

_WHOLE = Block(slice(None), slice(None))


class NoPlanError(BackboneError):
    """A forward pass that no plan came with, or came through."""


#: By kind of site and window: a mask, and the masks of its blocks.
Folded = dict[tuple[str, int | None], tuple[Tensor, list[Tensor]]]


class Plan(Protocol):
    """What the queries of one forward pass see. Implementations are in ``plans.py``.

    Attributes:
        record: where λ is told, if somebody asked.
        layout: of the tokens.
        folded: the last mask of each kind of site and window, and what became of it for each block of the layout: layers
            share a mask.
    """

    record: dict[str, Tensor] | None
    layout: Layout
    folded: Folded

    def attend(
        self, site: Site, key: Tensor, value: Tensor, query: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Keys and values [B, G, S, d] and an additive mask [B or 1, 1 or H, T, S] for one site.

        ``key`` and ``value`` come as the module made them, [1, G, N, d]; ``query`` is spread already. The last number is
        how many of the S keys, the first ones, are prefix keys.
        """
        ...


class Positioned(Plan, Protocol):
    """A plan that knows where its tokens stand."""

    def positions(self) -> Tensor:
        """[1, N]: where every token stands in its row's text."""
        ...


@dataclass(frozen=True, eq=False)
class Site:
    """One attention module of the backbone.

    Attributes:
        index: position among all sites; prefixes are ordered by it.
        name: ``self.3``, ``encoder.0``, ``decoder.0`` or ``cross.0``.
        heads: key-value heads G, from the module itself (never d_model // heads).
        head_dim: d.
        module: the attention module.
        window: how many tokens back its configuration lets it see, ``None`` without such a bound.
    """

    index: int
    name: str
    heads: int
    head_dim: int
    module: nn.Module
    window: int | None = None

    @property
    def kind(self) -> str:
        """``self``, ``encoder``, ``decoder`` or ``cross``."""
        return self.name.partition(".")[0]


class Together:
    """Several plans of self-attention in one pass, each for its own stretch of the line. Rows that are read can so share the
    linear layers with rows that go on, and are not padded to each other in attention.

    Args:
        plans: in the order of their tokens.
        layout: of all rows.
    """

    def __init__(self, plans: Sequence[Positioned], layout: Layout) -> None:
        self.plans, self.layout = plans, layout
        self.sizes = [len(plan.layout.rows) for plan in plans]

    def positions(self) -> Tensor:
        """[1, N], as the plans have them."""
        return torch.cat([plan.positions() for plan in self.plans], 1)


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: Plan | Together | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Eq. 2: attention over the plan's keys (prefix first) and the module's own.

    Args:
        module: an instrumented attention module.
        query: [1, H, N, d], all rows' tokens in one line.
        key, value: [1, G, N, d], of the tokens of this pass (cross-attention: of the encoder's).
        attention_mask: ignored; the plan owns the mask.
        plan: see :class:`Plan` and :class:`Together`.
        scaling: factor of the scores; 1/sqrt(d) if none.
        dropout: of the attention weights, as the module asks for it.
        sliding_window: of this layer, if it has one.
        softcap: soft bound of the scores (Gemma 2).

    Returns:
        [1, N, H, d] and ``None``.

    Raises:
        BackboneError: the model was called without a plan, or keeps its window to itself.
    """
    if plan is None:
        raise NoPlanError(
            "the backbone was called without a plan, so nobody knows which prefix belongs to which row",
            hint="Call it through xdner (Backbone.target_states, Backbone.begin), not directly.",
        )
    if isinstance(plan, Together):
        own: dict[str, Any] = {
            "scaling": scaling,
            "dropout": dropout,
            "sliding_window": sliding_window,
            "softcap": softcap,
        }
        parts = zip(plan.plans, *(t.split(plan.sizes, 2) for t in (query, key, value)), strict=True)
        return torch.cat([prefix_attention(module, q, k, v, None, plan=p, **own)[0] for p, q, k, v in parts], 1), None
    site: Site = module.xdner_site  # type: ignore[assignment]
    if site.window is not None and sliding_window is None:
        raise BackboneError(
            f"{type(module).__name__} sees {site.window} tokens back at {site.name}, and says so only in its masks",
            hint="xdner makes the masks itself, and would let it see everything. Choose another architecture.",
        )
    query = plan.layout.spread(query)
    key, value, mask, n = plan.attend(site, key, value, query, sliding_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if plan.record is not None or softcap is not None:
        out = _explicit(site, plan, query, key, value, mask, n, scale, dropout, softcap)
    else:
        out = _fused(plan, (site.kind, sliding_window), query, key, value, mask, scale, dropout)
    return plan.layout.collect(out), None


def _fused(
    plan: Plan,
    which: tuple[str, int | None],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    dropout: float,
) -> Tensor:
    """Rows of unlike length in blocks (``layout.py``), so that a long one does not pad the others; in training all at once,
    since batches have like lengths there, and on a GPU, where a call costs more than padding."""
    apart = not torch.is_grad_enabled() and query.device.type == "cpu" and len(plan.layout.blocks) > 1
    blocks = plan.layout.blocks if apart else [_WHOLE]
    known = plan.folded.get(which)
    # A layer that is computed again for its gradients may have been read in blocks before, under the same mask.
    if known is None or known[0] is not mask or len(known[1]) != len(blocks):
        known = mask, [_mask_of(block, mask, query.shape[1] // key.shape[1]) for block in blocks]
        plan.folded[which] = known
    masks = known[1]
    if not apart:
        return _grouped(query, key, value, masks[0], scale, dropout)
    out = torch.empty_like(query)  # what is no token's is not collected
    for block, own in zip(blocks, masks, strict=True):
        seen = block.rows, slice(None), slice(own.shape[3])
        part = _grouped(query[block.rows, :, block.tokens], key[seen], value[seen], own, scale, dropout)
        out[block.rows, :, block.tokens] = part
    return out


def _mask_of(block: Block, mask: Tensor, share: int) -> Tensor:
    """The mask of a block's queries, as far as any of them sees, once for each of the heads that share a key head."""
    if block is not _WHOLE:
        mask = (mask if mask.shape[0] == 1 else mask[block.rows])[:, :, block.tokens]
        seen = (mask > torch.finfo(mask.dtype).min / 2).flatten(0, 2).any(0)
        mask = mask[..., : int(seen.nonzero().max()) + 1]
    return mask if share == 1 else mask.repeat(1, 1, share, 1)


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, dropout: float) -> Tensor:
    rows, heads, length, dim = query.shape
    groups = key.shape[1]
    if groups == heads:
        return _attend(query, key, value, mask, scale, dropout)
    # Grouped heads: the queries of a group become further queries of its one key head. Repeating keys instead would
    # copy the whole cache at every step.
    folded = query.reshape(rows, groups, heads // groups * length, dim)
    return _attend(folded, key, value, mask, scale, dropout).reshape(rows, heads, length, dim)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, dropout: float) -> Tensor:
    scores = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    worth = scores <= COMPOSED if torch.is_grad_enabled() else query.shape[2] >= LONG
    if worth and query.dtype == torch.bfloat16 and query.device.type == "cpu" and not dropout:
        # In 16 bits the fused kernel takes 1.5 times as long on a CPU as these products, its backward pass three times.
        query, size = query * scale, max(1, PIECE * query.shape[0] // scores)
        pieces = [slice(i, i + size) for i in range(0, query.shape[0], size)]
        masks = [mask if mask.shape[0] == 1 else mask[p] for p in pieces]
        return torch.cat([_composed(query[p], key[p], value[p], m) for p, m in zip(pieces, masks, strict=True)])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


def _composed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    weights = torch.matmul(query, key.transpose(2, 3)).add_(mask).softmax(-1)
    return torch.matmul(weights, value)


def _explicit(
    site: Site,
    plan: Plan,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    n: int,
    scale: float,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """The same with the weights in the open, for soft-capped models and for reading λ (Eq. 2) per query."""
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = (scores + mask).softmax(-1, dtype=torch.float32)
    if plan.record is not None:
        plan.record[site.name] = weights[..., :n].sum(-1).mean(1).detach()
    return torch.matmul(F.dropout(weights, dropout, training=dropout > 0).to(value.dtype), value)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The plan owns the mask."""


def _no_bias(*args: Any, **kwargs: Any) -> Tensor:
    """The plan has the bias."""
    return torch.zeros(1, 1, 1, 1)


AttentionInterface.register(IMPLEMENTATION, prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)


def instrument(model: PreTrainedModel) -> tuple[Site, ...]:
    """Make every attention module of ``model`` a site, in a fixed order, and route it through :func:`prefix_attention`.

    Raises:
        BackboneError: the architecture does not let its attention be replaced, or its attention modules are unknown or
            read in chunks.
    """
    sites = tuple(
        Site(index, name, *_shape(module), module, _window(module))
        for index, (name, module) in enumerate(_attention_modules(model))
    )
    if not sites:
        raise BackboneError(
            f"{type(model).__name__} has no attention modules that xdner knows",
            hint=KNOWN,
        )
    layers = getattr(model.config, "num_hidden_layers", None)
    own = sum(site.kind == "self" for site in sites)
    if (
        own and isinstance(layers, int) and own < layers
    ):  # convolutions and recurrences know no rows, and keep no steps here
        raise BackboneError(f"only {own} of {layers} layers of {type(model).__name__} are attention", hint=KNOWN)
    for site in sites:
        site.module.xdner_site = site  # type: ignore[assignment]
        if hasattr(site.module, "compute_bias"):
            # T5's module makes a bias, or zeros if it has no table, for all pairs of tokens of the line, those of different
            # rows too: gigabytes for a large batch, and for nothing, because the plan has the bias.
            site.module.compute_bias = _no_bias  # type: ignore[assignment]
            site.module.has_relative_attention_bias = True  # type: ignore[assignment]
    model.set_attn_implementation(IMPLEMENTATION)
    # set_attn_implementation only warns where it cannot do what it was asked, so look at every module's own config.
    for site in sites:
        chosen = getattr(site.module.config, "_attn_implementation", None)
        if chosen != IMPLEMENTATION:
            raise BackboneError(
                f"{type(model).__name__} keeps its own attention ({chosen}) at {site.name}: a prefix would be ignored",
                hint="This architecture does not take part in transformers' attention interface; choose another.",
            )
    return sites


def _attention_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    stacks: dict[str, list[nn.Module]] = {"self": [], "encoder": [], "decoder": [], "cross": []}
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if name == "self_attn":
            stacks["self"].append(module)
        elif name == "SelfAttention":
            stacks["decoder" if path.startswith("decoder.") else "encoder"].append(module)
        elif name == "EncDecAttention":
            stacks["cross"].append(module)
    for kind, modules in stacks.items():
        for index, module in enumerate(modules):
            yield f"{kind}.{index}", module


def _shape(module: nn.Module) -> tuple[int, int]:
    if hasattr(module, "key_value_proj_dim"):  # T5: d_kv is free of d_model
        return int(module.n_heads), int(module.key_value_proj_dim)  # type: ignore[arg-type]
    dim = int(module.head_dim)  # type: ignore[arg-type]
    if hasattr(module, "k_proj"):
        return int(module.k_proj.weight.shape[0]) // dim, dim  # type: ignore[union-attr, index]
    return int(module.config.num_key_value_heads), dim  # type: ignore[union-attr, arg-type]  # Phi-3: queries, keys, values in one


def _window(module: nn.Module) -> int | None:
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    kind = kinds[layer] if kinds and layer is not None else None
    if kind == "chunked_attention":
        raise BackboneError(
            f"{type(module).__name__} reads in chunks, which xdner does not know",
            hint=KNOWN,
        )
    return None if kind == "full_attention" else getattr(config, "sliding_window", None) or None


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as an additive one: 0 where visible, the lowest number elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)


def rows_of(tensor: Tensor, rows: int) -> Tensor:
    """[1 or B, ...] as [B, ...] without a copy."""
    return tensor if tensor.shape[0] == rows else tensor.expand(rows, *tensor.shape[1:])


def join(parts: Sequence[Tensor | None], rows: int) -> Tensor:
    """Concatenate [1 or B, G, *, d] along the keys; absent parts are skipped."""
    present = [rows_of(part, rows) for part in parts if part is not None and part.shape[2]]
    return present[0] if len(present) == 1 else torch.cat(present, dim=2)
