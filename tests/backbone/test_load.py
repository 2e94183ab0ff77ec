"""Loading a backbone: whatever is broken in its folder is one clear error, and nothing is ever made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from xdner.backbone.load import load_backbone
from xdner.errors import BackboneError, BackboneNotFoundError, SettingsError
from xdner.settings import Settings
from xdner.testing.models import CAUSAL, SEQ2SEQ, save_tiny_backbone


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", CAUSAL + SEQ2SEQ)
def test_in_16_bits_weights_are_rounded_and_nothing_else(tmp_path: Path, architecture: str, dtype: str) -> None:
    folder = save_tiny_backbone(tmp_path / "model", architecture)
    full, half = load_backbone(folder).model, load_backbone(folder, dtype=dtype).model
    assert {str(weight.dtype) for weight in half.parameters()} == {f"torch.{dtype}"}
    for (name, buffer), (_, rounded) in zip(full.named_buffers(), half.named_buffers(), strict=True):
        assert torch.equal(buffer, rounded), f"{name}: the frequencies of rotary positions stay in 32 bits"
        assert buffer.dtype == rounded.dtype


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("architecture", CAUSAL + SEQ2SEQ)
def test_tied_weights_are_not_missing(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_backbone(tmp_path / "model", architecture)
    assert load_backbone(folder).fingerprint == load_backbone(folder).fingerprint


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("llama", "model.layers.1.self_attn.q_proj.weight"),
        ("t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    ],
)
def test_a_weight_that_is_missing_is_never_drawn_at_random(tmp_path: Path, architecture: str, name: str) -> None:
    folder = save_tiny_backbone(tmp_path / "model", architecture)
    edit_weights(folder, lambda weights: weights.__delitem__(name))
    with pytest.raises(BackboneError, match=f"lacks 1 weights: {name}") as caught:
        load_backbone(folder)
    assert str(folder) in caught.value.message


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    edit(folder / "config.json", intermediate_size=80)
    with pytest.raises(
        BackboneError, match=r"9 weights .* have another shape .*down_proj.weight is \[48, 64\], not \[48, 80\]"
    ):
        load_backbone(folder)


@pytest.mark.parametrize(("architecture", "key"), [("llama", "num_hidden_layers"), ("t5", "num_layers")])
def test_layers_that_the_configuration_does_not_know_are_not_left_out(
    tmp_path: Path, architecture: str, key: str
) -> None:
    folder = save_tiny_backbone(tmp_path / "model", architecture)
    edit(folder / "config.json", **{key: 1, "layer_types": None})
    with pytest.raises(BackboneError, match=r"weights of layers that config\.json does not know: .*\.1\."):
        load_backbone(folder)


def test_other_parts_may_stand_beside_a_model(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    before = load_backbone(folder).fingerprint
    edit_weights(folder, lambda weights: weights.update({"vision.layers.0.weight": torch.zeros(2)}))
    assert load_backbone(folder).fingerprint == before


def test_weights_that_are_no_numbers_are_told_as_such(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    edit_weights(folder, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(BackboneError, match="computes values that are not numbers in float32") as caught:
        load_backbone(folder)
    assert "damaged" in caught.value.hint


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_tokenizer_is_never_made_up(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_backbone(tmp_path / "model", architecture)
    (folder / "tokenizer.json").unlink()
    for _ in range(2):
        with pytest.raises(BackboneNotFoundError, match=r"has no tokenizer\.json") as caught:
            load_backbone(folder)
        assert "spiece.model" in caught.value.hint
        (folder / "tokenizer_config.json").unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["", "{", '{"version": "1.0", "model": 5}', "[]"])
def test_a_broken_tokenizer_is_the_folders_fault(tmp_path: Path, text: str) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(BackboneError, match="cannot load model from") as caught:
        load_backbone(folder)
    assert "tokenizer.json of one model" in caught.value.hint


@pytest.mark.parametrize(
    ("architecture", "change", "reason"),
    [
        ("llama", {"hidden_size": "x"}, r"'hidden_size' expected int, got str"),
        ("llama", {"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ("llama", {"num_attention_heads": 0}, "modulo by zero"),
        ("llama", {"hidden_act": "strange"}, "strange"),
        ("llama", {"dtype": "strange"}, "strange"),
        ("llama", {"rope_parameters": 5}, "rope_parameters"),
        ("t5", {"num_heads": 5}, r"another shape than config\.json says: .*SelfAttention"),
        ("t5", {"num_heads": 0}, "cannot load model from"),
        ("t5", {"num_layers": None}, "'num_layers' expected int"),
        ("t5", {"d_model": -3}, "negative dimension"),
        ("t5", {"decoder_start_token_id": None}, "decoder_start_token_id"),
    ],
)
def test_an_impossible_configuration_is_one_clear_error(
    tmp_path: Path, architecture: str, change: dict[str, Any], reason: str
) -> None:
    folder = save_tiny_backbone(tmp_path / "model", architecture)
    edit(folder / "config.json", **change)
    with pytest.raises(BackboneError, match=reason) as caught:
        load_backbone(folder)
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("[1]", "is not a JSON object"),
        ('{"recommended": 5}', "'recommended' must map groups of settings to settings, not be 5"),
        ('{"recommended": {"codec": 7}}', "'recommended' must map groups"),
    ],
)
def test_a_broken_manifest_is_one_clear_error(tmp_path: Path, text: str, reason: str) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    (folder / "xdner-backbone.json").write_text(text)
    with pytest.raises(BackboneError, match=reason) as caught:
        load_backbone(folder)
    assert "xdner-backbone.json" in caught.value.message


def test_a_group_that_is_no_group_is_told_so() -> None:
    with pytest.raises(SettingsError, match="codec is a group of settings and cannot be 7") as caught:
        Settings.build(base={"codec": 7})
    assert "did you mean" not in caught.value.message


def test_threads_may_load_at_the_same_time(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(load_backbone, [folder] * 12))
    assert len({backbone.exact_fingerprint for backbone in loaded}) == 1
