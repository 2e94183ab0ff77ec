"""Packed linear layers: the same products as ordinary ones, and ordinary layers for everybody who does not only read."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from xdner.backbone import linear
from xdner.backbone.linear import PackedLinear, nothing, pack_linears, packed_copy, products

needs_packing = pytest.mark.skipif(not linear._supported(torch.float32), reason="this torch has no packed product")


def pair(dtype: torch.dtype = torch.float32, bias: bool = True) -> tuple[nn.Linear, PackedLinear]:
    torch.manual_seed(0)
    plain = nn.Linear(48, 80, bias=bias).to(dtype).requires_grad_(False)
    return plain, PackedLinear(plain)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (3, 48), (200, 48), (2, 5, 48), (0, 48)])
def test_the_same_products(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    if not linear._supported(dtype):
        pytest.skip("this machine has no packed product in this type")
    plain, packed = pair(dtype, bias)
    rows = torch.randn(shape).to(dtype)
    with torch.inference_mode():
        found, wanted = packed(rows), plain(rows)
    assert packed._packed is not None
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@needs_packing
def test_nothing_gives_nothing_and_reads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = pair(bias=False)
    _, with_bias = pair(bias=True)
    with torch.inference_mode():
        packed(torch.randn(1, 1, 48))
        assert torch.equal(with_bias(nothing(plain.weight, 1, 1, 48))[0, 0], with_bias.bias), "a bias is something"
        assert torch.allclose(packed(torch.ones(()).expand(2, 48)), plain(torch.ones(2, 48)), atol=1e-5), "so is a one"

        def unread(*args: object) -> Tensor:
            raise AssertionError("weights were read")

        monkeypatch.setattr(linear, "_product", unread)
        found = packed(nothing(plain.weight, 1, 1, 48))
        with pytest.raises(AssertionError, match="were read"):
            packed(torch.zeros(1, 1, 48))
    assert found.shape == (1, 1, 80)
    assert torch.equal(found.view(1, 1, 5, 16), torch.zeros(1, 1, 5, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packs", [True, False])
def test_products_by_weights_alone(dtype: torch.dtype, packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if packs and not linear._supported(dtype):
        pytest.skip("this machine has no packed product in this type")
    monkeypatch.setattr(linear, "_supported", lambda dtype: packs)
    weight, rows = torch.randn(80, 48).to(dtype), torch.randn(3, 48).to(dtype)
    wanted = nn.functional.linear(rows, weight)
    with torch.inference_mode():
        found = products(weight)(rows)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_the_parameters_are_shared_and_keep_their_names() -> None:
    plain, packed = pair()
    assert packed.weight is plain.weight
    assert dict(packed.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert packed.state_dict().keys() == plain.state_dict().keys()


def test_gradients_go_the_ordinary_way() -> None:
    plain, packed = pair()
    rows = torch.randn(4, 48)
    gradients = []
    for layer in (plain, packed):
        inputs = rows.clone().requires_grad_()
        layer(inputs).square().sum().backward()
        assert inputs.grad is not None
        gradients.append(inputs.grad)
    assert torch.equal(*gradients)
    assert packed._packed is None, "training needs no second copy"


def test_weights_that_are_trained_are_never_packed() -> None:
    _, packed = pair()
    packed.requires_grad_(True)
    with torch.inference_mode():
        packed(torch.randn(2, 48))
    assert packed._packed is None


@needs_packing
def test_weights_that_a_fused_optimizer_changed_are_packed_again() -> None:
    plain, packed = pair()
    rows = torch.randn(3, 48)
    with torch.inference_mode():
        packed(rows)
    packed.requires_grad_(True)
    optimizer = torch.optim.AdamW(packed.parameters(), lr=0.5, fused=True)
    packed(rows).square().sum().backward()
    optimizer.step()
    packed.requires_grad_(False)
    with torch.inference_mode():
        torch.testing.assert_close(packed(rows), plain(rows))


@needs_packing
def test_changed_weights_are_packed_again() -> None:
    plain, packed = pair()
    rows = torch.randn(3, 48)
    with torch.inference_mode():
        packed(rows)
    with torch.no_grad():
        plain.weight.mul_(-2.0)
    with torch.inference_mode():
        torch.testing.assert_close(packed(rows), plain(rows))
    packed.weight = nn.Parameter(torch.ones(80, 48), requires_grad=False)
    with torch.inference_mode():
        torch.testing.assert_close(packed(rows), nn.functional.linear(rows, torch.ones(80, 48), plain.bias))


@needs_packing
def test_autocast_and_other_types_go_the_ordinary_way() -> None:
    plain, packed = pair()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(packed(torch.ones(2, 48)), plain(torch.ones(2, 48)))
    assert packed._packed is None


@needs_packing
@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_pack_for_themselves(again) -> None:
    _, packed = pair()
    rows = torch.randn(2, 48)
    with torch.inference_mode():
        wanted = packed(rows)
        other = again(packed)
        assert other._packed is None
        assert torch.equal(other(rows), wanted)


def test_without_the_operators_layers_are_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(weight: Tensor) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

    linear._supported.cache_clear()
    monkeypatch.setattr(linear, "_lay_out", gone)
    try:
        plain, packed = pair()
        rows = torch.randn(2, 48)
        with torch.inference_mode():
            assert torch.equal(packed(rows), plain(rows))
    finally:
        linear._supported.cache_clear()


def test_a_wrong_product_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    linear._supported.cache_clear()
    monkeypatch.setattr(linear, "_product", lambda rows, packed, bias: torch.zeros(3, 24))
    try:
        assert not linear._supported(torch.float32)
    finally:
        linear._supported.cache_clear()


def test_all_layers_of_a_model_but_the_one_that_is_left() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(4, 9))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pack_linears(model, leave=model[2])
    assert [type(m) for m in (model[0], model[1][0], model[2])] == [PackedLinear, PackedLinear, nn.Linear]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    pack_linears(model)
    assert isinstance(model[1][0], PackedLinear)


@needs_packing
def test_a_packed_copy_reads_with_the_models_own_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 80), nn.GELU(), nn.Linear(80, 48), nn.LayerNorm(48))
    made, rows = packed_copy(model), torch.randn(7, 48)
    assert [type(layer) for layer in model] == [nn.Linear, nn.GELU, nn.Linear, nn.LayerNorm]
    assert all(p.requires_grad for p in model.parameters())
    pairs = list(zip(made.parameters(), model.parameters(), strict=True))
    assert all(a.data_ptr() == b.data_ptr() and not a.requires_grad for a, b in pairs)
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(made(rows), model(rows), rtol=1e-5, atol=1e-5)
        assert made.get_submodule("0")._packed is not None
        with torch.no_grad():  # whoever trains the model after all
            model.get_submodule("0").weight.mul_(1.5)
