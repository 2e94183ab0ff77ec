"""Two small tokenizers of the kinds that real backbones have, made in memory."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

__all__ = ["byte_level_tokenizer", "t5_like_tokenizer"]


@cache
def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT-2, Llama 3 and SmolLM2: ``<pad>`` 0, ``<eos>`` 1, all bytes, some merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1} | {symbol: i + 2 for i, symbol in enumerate(alphabet)}
    merges = [("Ġ", "t"), ("Ġ", "a"), ("e", "r"), ("i", "n"), ("o", "n"), ("Ġt", "h"), ("Ġth", "e"), ("Ġ", "p")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


@cache
def t5_like_tokenizer(words: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Unigram with T5's habits: NFKC, ``▁``, an unknown token, sentinels, ``</s>`` after a text.

    Args:
        words: further words that are one piece each.
    """
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(chr(c), -5.0) for c in range(33, 127)]
    pieces += [(f"▁{word}", -4.0) for word in ("the", "a", "person", "place", "Types", "Sentence", "in", "of")]
    pieces += [(f"▁{word}", -4.0) for word in words]
    pieces += [("er", -4.5), ("ing", -4.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<extra_id_0>", "<extra_id_1>"],
    )
