"""A tiny random encoder for taggers, and small sentences that can be learned."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from xdner.tagger.settings import LanerSettings
from xdner.text import Sentence

__all__ = ["SEAS", "TOWNS", "letter_tokenizer", "quick", "save_letter_encoder"]

#: Persons and cities, told by their words alone; two of them long.
TOWNS = tuple(
    Sentence.from_words(words.split(), spans, id=f"t{number}")
    for number, (words, spans) in enumerate(
        [
            ("Ann Lee in Rome", [(0, 2, "person"), (3, 4, "city")]),
            ("Rome", [(0, 1, "city")]),
            ("no one", []),
            ("Bob saw Oslo and Rome", [(0, 1, "person"), (2, 3, "city"), (4, 5, "city")]),
            ("Oslo is old", [(0, 1, "city")]),
            ("Ann Lee", [(0, 2, "person")]),
        ]
    )
)

#: Of another domain, which shares a type.
SEAS = (
    Sentence.from_words(["Ann", "saw", "Baltic"], [(0, 1, "person"), (2, 3, "sea")]),
    Sentence.from_words(["Bob", "Lee", "saw", "no", "one"], [(0, 2, "person")]),
)


def quick(*overrides: str) -> LanerSettings:
    """Settings of a training that takes a second."""
    few = (
        "epochs=2",
        "training.batch_size=3",
        "label_size=8",
        "evaluate_from=1",
        "evaluate_every=1",
        "learning_rate=0.01",
        "warmup=0",
    )
    return LanerSettings.build(None, [*few, "source_epochs=1", *overrides])


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """Letters and ``##`` letters, lower-cased; a tilde has no piece at all."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), ","]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("~", "")])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_letter_encoder(folder: Path, *, positions: int = 64, seed: int = 0) -> Path:
    """A BERT of one layer as a folder, with a pooler, as MiniLM-L6 has one."""
    config = BertConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=positions,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder
