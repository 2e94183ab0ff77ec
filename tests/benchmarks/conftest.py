"""Small corpora, a tiny encoder and hand-made runs; the programs' folder is not a package that is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xdner.testing.models import save_tiny_backbone
from xdner.testing.taggers import save_letter_encoder

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
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 16 positions: longer sentences need windows."""
    return save_letter_encoder(tmp_path_factory.mktemp("benchmarks") / "encoder", positions=16)


def _hand_made(
    arm: str, seed: int, counts: list[list[int]], *, rate: float = 0.01, target: str = "ai", **other: Any
) -> dict[str, Any]:
    """``counts``: right, predicted and gold entities of each sentence."""
    right, predicted, gold = (sum(column) for column in zip(*counts, strict=True))
    f1 = 2 * right / (predicted + gold)
    training = {"epochs": 15, "patience": 3, "seed": seed, "learning_rate": rate}
    run: dict[str, Any] = {
        "benchmark": "quality", "arm": arm, "target": target, "seed": seed, "first_seed": 1, "rate": rate, "rates": [0.01, 0.02],
        "limit": None, "data": {f"{target}/dev.txt": "aa"}, "error": None, "trained_weights": 115200,
        "dev": {"micro": {"f1": f1}, "sentence_counts": counts}, "settings": {"training": training},
        "commit": "abc", "machine": {"cores": 2}, "versions": {"torch": "2"},
        "backbone": {"name": arm, "fingerprint": f"sha256:{arm.partition('-')[2]}"}, "dtype": "float32",
    }  # fmt: skip
    if not arm.startswith("minilm"):
        run["settings"] |= {"codec": {"form": "lines"}, "decoding": {"window": 80}}
    return run | other


@pytest.fixture
def hand_made() -> Callable[..., dict[str, Any]]:
    """Makes a run as the program writes it, with only what tables read."""
    return _hand_made


# -- transfer between domains --------------------------------------------------------------------------------------------

NAMES = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lou", "Mia", "Ned", "Ola", "Pia")


def _corpus(lines: list[str]) -> str:
    """Sentences such as ``Ann/person is here``: a word with its type, words without."""
    sentences = []
    for line in lines:
        pairs = [word.partition("/") for word in line.split()]
        sentences.append("\n".join(f"{word}\t{'B-' + label if label else 'O'}" for word, _, label in pairs))
    return "\n\n".join(sentences) + "\n"


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    """A data folder with the sources, two targets with a dev file and one without; literature shares one with science."""
    texts = {
        "conll2003/train": [f"{n}/person went to Oslo/location" for n in NAMES[:6]],
        "politics/train": ["Ann/politician won Rome/location", "the Reds/party lost", "Bo/politician left"],
        "politics/dev": ["the Greens/party won", "Cy/politician left Oslo/location"],
        "literature/train": ["Kim/writer wrote Waves/book", "the old Waves/book", "a theory of Mia/writer"],
        "music/train": ["Abba/band sang in Rome/location", "the Reds/band", "Lou/singer sang"],
        "ai/train": [f"{n}/researcher built a robot/product" for n in NAMES[:5]],
        "ai/dev": ["Pia/researcher built Waves/product", "Ola/researcher went to Rome/location", "no one came"],
        "science/train": ["a theory of Mia/scientist", "Ned/scientist saw Vega/star", "bright Vega/star"],
        "science/dev": ["Ed/scientist saw Vega/star", "Kim/scientist left"],
        "mit-movie/train": [
            *(f"films with {name}/actor" for name in NAMES),
            *(f"the {name}show/title of {1980 + place}/year" for place, name in enumerate(NAMES)),
        ],
    }  # fmt: skip
    folder = tmp_path / "domains"
    for name, lines in texts.items():
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_corpus(lines))
    return folder


def _made(
    method: str, seed: int, counts: list[list[int]], *, target: str = "ai", k: int | str = "all", **other: Any
) -> dict[str, Any]:
    """A run as the programs about transfer write it; ``counts``: right, predicted and gold of each sentence."""
    right, predicted, gold = (sum(column) for column in zip(*counts, strict=True))
    strategy = method.split("-")[0]
    asked = {
        "track": "raw", "backbone": "tiny", "sources": ["conll2003", "politics", "literature", "music"], "steps": 200,
        "source_steps": 250, "conll_cap": 2000, "dev_cap": 300, "initial": "instruction", "epoch": "last",
        "drop_shared": True, "overrides": [], "dtype": "float32", "limit": None,
    }  # fmt: skip
    run: dict[str, Any] = {
        "track": "raw", "initial": "instruction", "target": target, "k": k, "strategy": strategy, "seed": seed,
        "sources": asked["sources"] if strategy == "collaborative" else [], "without": "", "method": method,
        "alpha": 0.5 if strategy == "collaborative" else None, "asked": asked, "data": {f"{target}/train.txt": "aa"},
        "dev_ids": [f"{target}:{n}" for n in range(len(counts))],
        "steps": {"planned": 208}, "error": None, "dropped": {}, "commit": "abc", "machine": {"cores": 2},
        "backbone": {"name": "tiny", "fingerprint": "ff"}, "versions": {"torch": "2"},
        "dev": {"micro": {"f1": 2 * right / (predicted + gold)}, "sentence_counts": counts}, "dev_sentences": len(counts),
        "seconds": {"target": 60.0 * seed, "reading": 4.0, "sources": {"initial": 0.0}},
    }  # fmt: skip
    return run | other


@pytest.fixture
def made_run() -> Callable[..., dict[str, Any]]:
    """Makes a run with only what tables read."""
    return _made
