"""``xdner adapt`` as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xdner.testing.commands import interrupted, refused, run
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.models import save_tiny_backbone

PLAIN = ["--set", "block=32", "--set", "learning_rate=3e-3"]
QUICK = [*PLAIN, "--set", "head_steps=4"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny") / "encoder")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sea.txt"
    path.write_text("the ship sails in the north sea\nthe wind of the sea\n" * 80)
    return path


def test_an_encoder_is_adapted(encoder: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("adapt", "--corpus", str(text), "--backbone", str(encoder), "--out", str(out), *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "adapt, output layer: epoch 1" in result.stderr
    assert "adapt, the model: epoch 1" in result.stderr
    assert "loss on text that was held out:" in result.stderr
    assert json.loads((out / "xdner-backbone.json").read_text())["made"]["by"] == "xdner adapt"
    message = refused("adapt", "--corpus", str(text), "--backbone", str(encoder), "--out", str(out), *QUICK)
    assert "is there already" in message


def test_what_stands_beside_is_not_deleted(encoder: Path, text: Path, tmp_path: Path) -> None:
    for name in ("thesis.txt", "tf/checkpoint"):
        mine = tmp_path / "out-run" / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("years of work")
        message = refused(
            "adapt", "--corpus", str(text), "--backbone", str(encoder), "--out", str(tmp_path / "out"), *QUICK
        )
        assert "out-run: the folder holds something else" in message
        assert mine.read_text() == "years of work"
        mine.unlink()


def test_an_adapted_model_takes_prefixes(text: Path, tmp_path: Path) -> None:
    base = save_tiny_backbone(tmp_path / "base")
    out = tmp_path / "out"
    adapt = ["adapt", "--corpus", str(text), "--backbone", str(base), "--out", str(out)]
    assert "all weights of a causal model makes no use of adapt.head_steps" in refused(*adapt, *QUICK)
    assert run(*adapt, *PLAIN).exit_code == 0
    train = tmp_path / "train.txt"
    train.write_text("Ann\tB-person\nin\tO\nRome\tB-city\n\nBob\tB-person\n" * 2)
    made = run(
        "train", "towns", "--train", str(train), "--backbone", str(out), "--library", str(tmp_path / "library"),
        "--set", "epochs=1", "--set", "length=3",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr


def test_little_text_is_told(encoder: Path, text: Path, tmp_path: Path) -> None:
    little = tmp_path / "little.txt"
    little.write_text("the ship sails in the north sea\n" * 30)
    command = ["adapt", "--backbone", str(encoder), *QUICK, "--corpus"]
    made = run(*command, str(little), "--out", str(tmp_path / "one"))
    assert made.exit_code == 0, made.stderr
    facts = json.loads((tmp_path / "one" / "xdner-backbone.json").read_text())["made"]
    tokens, blocks = facts["text"]["tokens"], facts["blocks"]["trained"]
    assert facts["blocks"]["held_out"] == 0 < blocks < 20
    told = " ".join(made.stderr.split())
    assert f"{tokens:,} tokens of text are {blocks} blocks; of fewer than 20 none is held out" in told
    assert facts["steps"] == 1
    assert "the model makes 1 optimizer step in all, which teaches it little: give more text" in told
    assert "more epochs (--set epochs=100)" in told
    assert "held out:" not in told
    more = ["--set", "training.batch_size=2", "--set", "epochs=8", "--set", "max_blocks=24"]
    enough = run(*command, str(text), *more, "--out", str(tmp_path / "two"))
    assert enough.exit_code == 0, enough.stderr
    told = " ".join(enough.stderr.split())
    assert "none is held out" not in told
    assert "the model makes 96 optimizer steps in all, which teaches it little: give more blocks" in told
    more[-1] = "max_blocks=10000"  # there are no more
    again = run(*command, str(text), *more, "--set", "epochs=2", "--out", str(tmp_path / "three"))
    assert "which teaches it little: give more text" in " ".join(again.stderr.split())
    quiet = run(*command, str(text), *more[:-1], "max_blocks=26", "--out", str(tmp_path / "three"))
    assert "teaches it little" not in quiet.stderr


def test_mistakes_are_one_message(encoder: Path, text: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"fine\n\0\n")
    common = ["--backbone", str(encoder), "--out", str(tmp_path / "out")]
    for corpus, more, message in [
        (tmp_path / "none.txt", [], "none.txt: there is no such file"),
        (broken, [], "broken.txt:2: a NUL character"),
        (text, ["--set", "span=0.5"], "adapt.span must be 0 or from 1 to 100"),
        (text, ["--set", "dev_limit=3"], "continued pre-training makes no use of training.dev_limit"),
        (text, ["--set", "training.drop_options=0.5"], "continued pre-training makes no use of training.drop_options"),
        (text, ["--resume"], "there is no checkpoint in"),
    ]:
        assert message in refused("adapt", "--corpus", str(corpus), *common, *more), message
        assert not (tmp_path / "out").exists()


def test_ctrl_c_and_resume_give_the_same_bits(encoder: Path, text: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    long = [*QUICK, "--set", "epochs=40", "--set", "training.batch_size=2"]
    base = ["adapt", "--corpus", str(text), "--backbone", str(encoder), *long]
    command = [*base, "--out", str(tmp_path / "one")]
    errors = interrupted(*command, step=10)
    assert "Run the same command again with --resume." in errors
    state = json.loads((tmp_path / "one-run" / "main" / "checkpoint" / "state.json").read_text())
    assert state["position"]["step"] == 10
    for rest in ([*command, "--resume"], [*base, "--out", str(tmp_path / "two")]):
        subprocess.run([sys.executable, "-m", "xdner", *rest], check=True, env=environment, capture_output=True)
    resumed, whole = (tmp_path / n / "model.safetensors" for n in ("one", "two"))
    assert resumed.read_bytes() == whole.read_bytes()
