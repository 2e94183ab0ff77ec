"""Gradient checkpointing: the same gradients from less that is kept."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.recompute import recomputed
from xdner.backbone.store import PrefixRows
from xdner.backbone.t5 import T5Backbone
from xdner.errors import BackboneError
from xdner.testing.models import SEQ2SEQ, tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer

SOURCES, TARGETS = [[5, 6, 7, 8], [9, 10]], [[11, 12, 1], [13, 14, 15, 1]]


def backbone_of(kind: str) -> Backbone:
    if kind in SEQ2SEQ:
        return T5Backbone(tiny_t5(kind), t5_like_tokenizer())
    return CausalBackbone(tiny_causal(kind), byte_level_tokenizer())


def learn(
    backbone: Backbone, on: bool, *, weights: bool = False, dropout: bool = False
) -> tuple[dict[str, Tensor], list[int]]:
    """Gradients of a prefix under which a context is read, and of the weights if they are trained; and the numbers of elements
    of what was kept for the backward pass."""
    generator = torch.Generator().manual_seed(0)
    trained: dict[str, Tensor] = {}
    for site in backbone.sites:
        for part in ("keys", "values"):
            made = torch.randn(1, site.heads, 3, site.head_dim, generator=generator)
            trained[f"{site.name}.{part}"] = made.requires_grad_(True)
    keys, values = ([trained[f"{s.name}.{part}"] for s in backbone.sites] for part in ("keys", "values"))
    prefix = PrefixRows(keys, values, torch.tensor([3]))
    if weights:
        backbone.model.requires_grad_(True)
        trained |= {name: p for name, p in backbone.model.named_parameters() if "lm_head" not in name}
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with backbone.dropout(dropout), recomputed(backbone.model, on):
            context = backbone.read_context([20, 21, 22, 23, 24], prefix)
            states = backbone.target_states(SOURCES, TARGETS, prefix, context)
        direction = torch.randn(states.shape, generator=generator)
        loss = (states * direction).sum()
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    backbone.freeze()
    return {name: g for name, g in zip(trained, found, strict=True) if g is not None}, kept


@pytest.mark.parametrize("kind", ["llama", "gemma3", "t5", "umt5"])
@pytest.mark.parametrize(("weights", "dropout"), [(False, False), (True, False), (False, True)])
def test_gradients_are_the_same_and_less_is_kept(kind: str, weights: bool, dropout: bool) -> None:
    backbone = backbone_of(kind)
    expected, all_kept = learn(backbone, False, weights=weights, dropout=dropout)
    found, kept = learn(backbone, True, weights=weights, dropout=dropout)
    assert found.keys() == expected.keys()
    assert len(found) >= 2 * len(backbone.sites)
    for name, gradient in expected.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert len(kept) < len(all_kept) / 4
    assert sum(kept) < sum(all_kept) / 2
    if dropout and kind in SEQ2SEQ:  # so that the draws were repeated, not left out
        still, _ = learn(backbone, True)
        assert any(not torch.allclose(still[name], found[name]) for name in found)


def test_a_model_is_as_before_when_it_is_over() -> None:
    backbone = backbone_of("llama")
    layers = [m for m in backbone.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert len(layers) == 3
    with contextlib.suppress(KeyError), recomputed(backbone.model):
        assert all("forward" in vars(layer) for layer in layers)
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)
    with recomputed(backbone.model, False):
        assert not any("forward" in vars(layer) for layer in layers)


def test_a_model_without_such_layers_is_refused() -> None:
    with (
        pytest.raises(
            BackboneError, match=r"Linear has no layers .*\n  → Leave training\.gradient_checkpointing out\."
        ),
        recomputed(nn.Linear(1, 1)),
    ):
        pass
