"""Merging factors: as peft does it, and with the same bits whatever the order of the sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xdner.backbone.lora import merge_factors, merge_lora
from xdner.errors import BackboneMismatchError, BackboneNotFoundError
from xdner.testing.models import tiny_causal

RANK = 4


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    model = tiny_causal()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "xdner-backbone.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.parametrize("prefix", ["base_model.model.", "model.", ""])
def test_merges_by_the_formula(model_folder, tmp_path, prefix, write_adapter):
    before = load_file(model_folder / "model.safetensors")
    write_adapter(before, tmp_path / "adapter", prefix=prefix)
    merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(after) == set(before)
    for name, weight in before.items():
        if "_proj" in name:
            path = prefix + name.removesuffix(".weight")
            change = factors[f"{path}.lora_B.weight"].float() @ factors[f"{path}.lora_A.weight"].float()
            torch.testing.assert_close(after[name], weight + 12 / RANK * change)
            assert not torch.equal(after[name], weight)
        else:
            assert torch.equal(after[name], weight)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"
    assert not (tmp_path / "out" / "xdner-backbone.json").exists()


@pytest.mark.parametrize("stabilized", [False, True])
def test_agrees_with_peft(model_folder, tmp_path, stabilized):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(
        r=8, lora_alpha=24, target_modules="all-linear", init_lora_weights=False, use_rslora=stabilized
    )
    adapted = peft.get_peft_model(tiny_causal(), config)
    adapted.save_pretrained(tmp_path / "adapter")
    merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    expected = adapted.merge_and_unload()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, atol=1e-6, rtol=1e-5)
    ids = torch.tensor([[3, 99, 4, 7]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, expected(ids).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("begun", [True, False, "gaussian", "orthogonal", "pissa", "olora"])
def test_factors_that_belong_to_a_part_of_the_weights_are_refused_and_others_merged(model_folder, tmp_path, begun):
    """What peft itself makes of a beginning: those that are merged give peft's own weights, from the same base."""
    peft = pytest.importorskip("peft")
    base = tiny_causal()
    untouched = {name: weight.clone() for name, weight in base.state_dict().items()}
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=begun))
    kept = torch.equal(
        next(w for n, w in adapted.state_dict().items() if n.endswith("q_proj.base_layer.weight")),
        next(w for n, w in untouched.items() if n.endswith("q_proj.weight")),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    if not kept:
        with pytest.raises(BackboneMismatchError, match=f"init_lora_weights = {begun}"):
            merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
        return
    merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    merged = adapted.merge_and_unload().state_dict()
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(weight, merged[name], atol=1e-6, rtol=1e-5)
    assert begun in (True, False, "gaussian", "orthogonal")


def test_the_bits_do_not_depend_on_the_order_of_the_sum():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 80, generator=generator)
    down, up = torch.randn(64, 80, generator=generator).half(), torch.randn(96, 64, generator=generator).half()
    merged = merge_factors(weight, down, up, 1 / 3)
    for seed in range(5):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(merge_factors(weight, down[order], up[:, order], 1 / 3), merged)
    by_rows = torch.cat([merge_factors(w[None], down, u[None], 1 / 3) for w, u in zip(weight, up, strict=True)])
    assert torch.equal(by_rows, merged)


def test_factors_of_another_model_are_refused(model_folder, tmp_path, write_adapter):
    other = tiny_causal("llama", vocabulary=50).state_dict()
    wider = {name: torch.cat([w, w], 1) if "_proj" in name else w for name, w in other.items()}
    write_adapter(wider, tmp_path / "adapter")
    with pytest.raises(BackboneMismatchError, match=r"\d+ factors of .*adapter do not fit this model: model\.layers"):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    write_adapter({f"deep.{name}": w for name, w in other.items()}, tmp_path / "adapter")
    with pytest.raises(BackboneMismatchError, match="do not fit this model"):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    write_adapter({}, tmp_path / "adapter")
    with pytest.raises(BackboneMismatchError, match="there are none"):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"use_dora": True}, "is not plain LoRA: use_dora"),
        ({"bias": "all"}, "is not plain LoRA: bias"),
        ({"rank_pattern": {"q_proj": 8}}, "is not plain LoRA: rank_pattern"),
        ({"peft_type": "IA3"}, "is not plain LoRA: IA3"),
        ({"use_qalora": True}, "is not plain LoRA: use_qalora"),
        ({"alora_invocation_tokens": [1, 2]}, "is not plain LoRA: alora_invocation_tokens"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "is not plain LoRA: layer_replication"),
        ({"kasa_config": {"beta": 1}}, "is not plain LoRA: kasa_config"),
        *(
            ({"init_lora_weights": i}, f"is not plain LoRA: init_lora_weights = {i}")
            for i in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
        ),
        ({"r": 8}, "says rank 8, but has factors of rank 4"),
        ({"r": None}, "says r = None and lora_alpha"),
        ({"r": "4"}, "says r = '4' and lora_alpha"),
        ({"lora_alpha": [1]}, r"lora_alpha = \[1\]: no rank and no number"),
        ({"init_lora_weights": ["pissa"]}, "is not plain LoRA: init_lora_weights"),
    ],
)
def test_other_kinds_of_adapters_are_refused(model_folder, tmp_path, change, text, write_adapter):
    write_adapter(load_file(model_folder / "model.safetensors"), tmp_path / "adapter", **change)
    with pytest.raises(BackboneMismatchError, match=text):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_factors_of_what_is_no_matrix_are_refused(model_folder, tmp_path, write_adapter):
    weights = load_file(model_folder / "model.safetensors")
    write_adapter(weights, tmp_path / "adapter")
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    norm = next(name for name, weight in weights.items() if weight.dim() == 1).removesuffix(".weight")
    factors |= {f"base_model.model.{norm}.lora_{half}.weight": torch.ones(4) for half in "AB"}
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(BackboneMismatchError, match=f"do not fit this model: {norm}"):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_configuration_that_is_none_is_refused(model_folder, tmp_path, write_adapter, text):
    write_adapter(load_file(model_folder / "model.safetensors"), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BackboneMismatchError, match="adapter cannot be read"):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")


def test_a_missing_file_is_named(model_folder, tmp_path):
    with pytest.raises(BackboneNotFoundError, match=r"adapter_config\.json is missing"):
        merge_lora(model_folder, tmp_path / "adapter", tmp_path / "out")
