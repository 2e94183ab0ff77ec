"""Tiny backbones of every kind beside the stock model with the same weights, and prefixes for them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.store import PrefixRows
from xdner.backbone.t5 import T5Backbone
from xdner.testing.models import CAUSAL, SEQ2SEQ, tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer

__all__ = ["ALL", "EXACT", "SOURCES", "TARGETS", "make", "random_prefix", "rows"]

#: How far logits of two ways to compute the same may be apart.
EXACT = 2e-5
ALL = CAUSAL + SEQ2SEQ


def make(architecture: str) -> tuple[Backbone, nn.Module]:
    """A backbone and the stock model with the same weights."""
    if architecture in CAUSAL:
        stock = tiny_causal(architecture)
        return CausalBackbone(copy.deepcopy(stock), byte_level_tokenizer()), stock
    stock = tiny_t5(architecture)
    return T5Backbone(copy.deepcopy(stock), t5_like_tokenizer()), stock


def random_prefix(backbone: Backbone, length: int, seed: int, scale: float = 1.0) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values of every site, [heads, length, head_dim]."""
    generator = torch.Generator().manual_seed(seed)
    shape = [(s.heads, length, s.head_dim) for s in backbone.sites]
    keys = [torch.randn(s, generator=generator) * scale for s in shape]
    values = [torch.randn(s, generator=generator) * scale for s in shape]
    return keys, values


def rows(prefix: tuple[list[Tensor], list[Tensor]], repeat: int = 1) -> PrefixRows:
    """The same prefix for so many rows."""
    return PrefixRows.stack([prefix], [0] * repeat)


SOURCES = [[11, 12, 13, 14, 15, 16, 17, 18, 19], [21, 22, 23], [31]]
TARGETS = [[41, 42, 43, 1], [51, 1], [61, 62, 63, 64, 65, 66, 1]]
