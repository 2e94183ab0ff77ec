"""Small corpora, a tiny encoder and hand-made runs; the programs' folder is not a package that is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from xdner.testing.models import save_tiny_backbone

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SENTENCES = {
    "ai": "Ann B-person\nLee I-person\nin O\nRome B-place\n\nRome B-place\n\nno O\none O\n",
    "science": "Oslo B-place\nand O\nAnn B-person\n\nBo B-person\nran O\n",
    "conll2003": "Bo B-person\n, O\nRome B-location\n\nnone O\n",
    "politics": "Ann B-politician\n",
    "music": "Abba B-band\n",
    "literature": "Ann B-writer\nLee I-writer\n",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two targets and the four sources."""
    folder = tmp_path / "data"
    for name, text in SENTENCES.items():
        (folder / name).mkdir(parents=True)
        for split in ("train", "dev"):
            (folder / name / f"{split}.txt").write_text(text.replace(" ", "\t"))
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_backbone(tmp_path_factory.mktemp("benchmarks") / "language-model")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, word_pieces: PreTrainedTokenizerBase) -> Path:
    """A random BERT of 16 positions: longer sentences need windows."""
    folder = tmp_path_factory.mktemp("benchmarks") / "encoder"
    config = BertConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    word_pieces.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def word_pieces() -> PreTrainedTokenizerBase:
    """Letters and ``##`` letters, lower-cased; a tilde has no piece at all."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), ","]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("~", "")])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def _hand_made(
    arm: str, seed: int, counts: list[list[int]], *, rate: float = 0.01, target: str = "ai", **other: Any
) -> dict[str, Any]:
    """``counts``: right, predicted and gold entities of each sentence."""
    right, predicted, gold = (sum(column) for column in zip(*counts, strict=True))
    f1 = 2 * right / (predicted + gold)
    training = {"epochs": 15, "patience": 3, "seed": seed, "learning_rate": rate}
    run: dict[str, Any] = {
        "arm": arm, "target": target, "seed": seed, "first_seed": 1, "rate": rate, "rates": [0.01, 0.02],
        "limit": None, "data": {f"{target}/dev.txt": "aa"}, "error": None, "trained_weights": 115200,
        "dev": {"micro": {"f1": f1}, "sentence_counts": counts}, "settings": {"training": training},
        "commit": "abc", "machine": {"cores": 2}, "versions": {"torch": "2"},
    }  # fmt: skip
    if not arm.startswith("minilm"):
        run["settings"] |= {"codec": {"form": "lines"}, "decoding": {"window": 80}}
    return run | other


@pytest.fixture
def hand_made() -> Callable[..., dict[str, Any]]:
    """Makes a run as the program writes it, with only what tables read."""
    return _hand_made
