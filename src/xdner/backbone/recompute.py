"""Gradient checkpointing: what is inside a model's layers is computed again in the backward pass instead of being kept.

Memory then grows with the layers' inputs only, and every layer is computed twice. ``torch.utils.checkpoint`` does the work.
The switch that transformers has for it is not used: it asks for a layer in training mode, and ours are in evaluation mode,
because a frozen model has no dropout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from xdner.errors import BackboneError

__all__ = ["recomputed"]


@contextlib.contextmanager
def recomputed(model: nn.Module, on: bool = True) -> Iterator[None]:
    """Forward passes within keep no more of a layer than its inputs; gradients are the same.

    A layer may read trained tensors that are not its arguments (a prefix), and hand tensors out on the side (the keys and
    values of a context): gradients flow through both.

    Args:
        model: a model of transformers, or a network around one.
        on: without it, nothing changes.

    Raises:
        BackboneError: the model has no layers that can be computed again.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)] if on else []
    if on and not layers:
        raise BackboneError(
            f"{type(model).__name__} has no layers that can be computed again in the backward pass",
            hint="Leave training.gradient_checkpointing out.",
        )
    for layer in layers:
        layer.forward = _recomputing(layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


def _recomputing(layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        modes = [(module, module.training) for module in layer.modules()]
        return checkpoint(
            forward, *args, use_reentrant=False, preserve_rng_state=any(on for _, on in modes),
            context_fn=lambda: (contextlib.nullcontext(), _in_modes(modes)), **kwargs,
        )  # fmt: skip

    return run


@contextlib.contextmanager
def _in_modes(modes: list[tuple[nn.Module, bool]]) -> Iterator[None]:
    """Dropout as it was in the forward pass: the backward pass comes when it may be off again."""
    now = [(module, module.training) for module, _ in modes]
    for module, training in modes:
        module.training = training
    try:
        yield
    finally:
        for module, training in now:
            module.training = training
