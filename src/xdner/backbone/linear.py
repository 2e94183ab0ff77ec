"""Linear layers whose weights lie as a processor's matrix product wants them.

A decoding step multiplies a few rows with every weight of the model. On a CPU, a product of few rows with weights as they are
stored ([out, in]) spends half of its time on bringing them into order; oneDNN can do that once. Only frozen weights are
packed, when they are first read with, and the stored ones stay: whoever trains, saves or fingerprints sees an ordinary layer.
The price is the memory of a second copy.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PackedLinear", "nothing", "pack_linears", "packed_copy", "products"]

# The layout that is good for 64 rows is good for 1 and for 500 (docs/LOG.md).
_ROWS = 64
_PACKED = (torch.float32, torch.bfloat16)


def pack_linears(model: nn.Module, leave: nn.Module | None = None) -> None:
    """Replace the linear layers of a model by packed ones with the same parameters.

    Args:
        model: in place.
        leave: a layer that stays as it is (an output layer of which only a few rows are ever used).
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not leave:
                setattr(parent, name, PackedLinear(child))


def packed_copy(model: nn.Module) -> nn.Module:
    """A copy of a model for reading only, with packed linear layers. Its weights are the model's own, and ask for no gradient, so
    that the model itself can be trained, or used by others, as before."""
    shared: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach(), requires_grad=False) for tensor in model.parameters()
    }
    made = copy.deepcopy(model, shared)
    pack_linears(made)
    return made


def products(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """[…, in] → […, out] by frozen weights [out, in]; where they are packed, the stored ones are not kept."""
    if weight.device.type == "cpu" and _supported(weight.dtype):
        packed = _lay_out(weight)
        return lambda input: _product(input, packed, None)
    return lambda input: nn.functional.linear(input, weight)


class PackedLinear(nn.Linear):
    """``torch.nn.Linear``, faster where nothing is trained and the CPU has a layout of its own.

    Args:
        linear: whose parameters it shares.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        self._packed: tuple[tuple[int, int], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """[…, in] → […, out]."""
        weight = self.weight
        if weight.requires_grad:
            # Whoever trains it may change it without a trace: a fused optimizer does not count as a change in place.
            self._packed = None
            return super().forward(input)
        if torch.is_grad_enabled() or input.dtype != weight.dtype or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        if _is_nothing(input) and self.bias is None:  # no reason to read the weights
            return nothing(input, *input.shape[:-1], self.out_features)
        # Weights that were changed in place (another checkpoint was read into them) are packed again.
        now = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        packed = self._packed
        if packed is None or packed[0] != now:
            if weight.device.type != "cpu" or not _supported(weight.dtype):
                return super().forward(input)
            self._packed = packed = now, _lay_out(weight)
        return _product(input, packed[1], self.bias)

    def __getstate__(self) -> dict[str, Any]:
        """Without the packed copy: it cannot be copied or pickled, and is made again."""
        return {**self.__dict__, "_packed": None}


def nothing(like: Tensor, *shape: int) -> Tensor:
    """A zero that is spread over a shape: a packed layer without a bias answers it with nothing, and reads no weights."""
    return like.new_zeros(()).expand(*shape)


def _is_nothing(input: Tensor) -> bool:
    return not any(input.stride()) and input.numel() > 0 and not input.flatten()[0]


def _lay_out(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)


def _product(input: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise.default(input, packed, bias, "none", [], "")
    return made


@functools.cache
def _supported(dtype: torch.dtype) -> bool:
    """Whether this torch on this machine has the packed product, and it is right. Its operators are not public."""
    if dtype not in _PACKED or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    weight, rows, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((24, 16), (3, 16), (24,)))
    try:
        with torch.no_grad():
            found = _product(rows, _lay_out(weight), bias)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.allclose(found, nn.functional.linear(rows, weight, bias), rtol=2e-2, atol=2e-2)
