"""Tiny random models of the real architectures: every oracle runs on them in milliseconds, without weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma3TextConfig,
    LlamaConfig,
    MT5Config,
    Phi3Config,
    PreTrainedModel,
    Qwen3Config,
    T5Config,
    UMT5Config,
)

from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer

__all__ = ["CAUSAL", "SEQ2SEQ", "save_tiny_backbone", "tiny_causal", "tiny_t5"]

CAUSAL = ("llama", "qwen3", "gemma3", "phi3")
SEQ2SEQ = ("t5", "mt5", "umt5")
_SCORING = {"q_proj", "k_proj", "qkv_proj", "q", "k", "relative_attention_bias"}


def tiny_causal(architecture: str = "llama", *, vocabulary: int = 300, seed: int = 0) -> PreTrainedModel:
    """A random causal model of three layers with grouped heads; ``gemma3`` has layers with a sliding window of 6, ``phi3`` makes
    queries, keys and values in one product."""
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    if architecture == "gemma3":
        config = Gemma3TextConfig(
            **shape, sliding_window=6, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
        )
    else:
        config = {"llama": LlamaConfig, "qwen3": Qwen3Config, "phi3": Phi3Config}[architecture](**shape)
    torch.manual_seed(seed)
    return _louder(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa"))


def tiny_t5(
    architecture: str = "t5", *, vocabulary: int = 300, seed: int = 0, tied: bool | None = None
) -> PreTrainedModel:
    """A random encoder-decoder of two and two layers, with a head size that is not d_model / heads."""
    shape = {
        "vocab_size": vocabulary,
        "d_model": 32,
        "d_kv": 12,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "dropout_rate": 0.1,
    }
    if tied is not None:
        shape["tie_word_embeddings"] = tied
    config = {"t5": T5Config, "mt5": MT5Config, "umt5": UMT5Config}[architecture](**shape)
    torch.manual_seed(seed)
    return _louder(AutoModelForSeq2SeqLM.from_config(config, attn_implementation="sdpa"))


def _louder(model: PreTrainedModel) -> PreTrainedModel:
    """Attention of a freshly made model is almost uniform, and then no mask error shows; make its scores matter."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and name.split(".")[-2] in _SCORING:
                weight.mul_(8.0 if "proj" in name else 1.5)
    return model.eval()


def save_tiny_backbone(folder: Path, architecture: str = "llama", *, seed: int = 0) -> Path:
    """A tiny backbone as a folder that every command takes as ``--backbone``."""
    model = (tiny_causal if architecture in CAUSAL else tiny_t5)(architecture, seed=seed)
    model.save_pretrained(folder)
    (byte_level_tokenizer() if architecture in CAUSAL else t5_like_tokenizer()).save_pretrained(folder)
    return folder
