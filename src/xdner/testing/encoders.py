"""A tiny random encoder, with or without an output layer for tokens, and its WordPiece tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

__all__ = ["save_tiny_encoder", "word_piece_tokenizer"]


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """Letters and ``##`` letters, lower-cased, a few words, and BERT's special tokens.

    As MiniLM's, its file asks for truncation and padding, which each call sets anew.
    """
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["the", "of", "in", "sea", "ship", "sails", "north", "wind", "##ing", "##er"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words, ",", "."]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def save_tiny_encoder(folder: Path, *, output_layer: bool = False, positions: int = 64) -> Path:
    """A BERT of two layers as a folder; without ``output_layer`` it is a bare encoder with a pooler, as MiniLM-L6."""
    config = BertConfig(
        vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=positions,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (BertForMaskedLM(config) if output_layer else BertModel(config)).save_pretrained(folder)
    word_piece_tokenizer().save_pretrained(folder)
    return folder
