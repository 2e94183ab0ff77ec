"""Instruction tuning from end to end on tiny models: what is recorded, what is resumed, and what it may overwrite."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from xdner.backbone.causal import CausalBackbone
from xdner.backbone.load import load_backbone
from xdner.corpora import write_corpus
from xdner.domain import Domain
from xdner.errors import BackboneNotFoundError, StorageError, TrainingError, TrainingInterrupted
from xdner.recognizers.cp_ner import CPNER
from xdner.settings import Settings
from xdner.testing.models import save_tiny_backbone, tiny_causal
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.text import Entity, Sentence
from xdner.training.instruct import instruct
from xdner.training.progress import SilentProgress
from xdner.training.run import Run
from xdner.training.sources import LabelledSource
from xdner.workflows import JobOptions, instruct_backbone

PEOPLE = Domain.from_labels("people", ["person", "place"])
SENTENCES = [
    Sentence.from_text("Ann in Rome", [(0, 3, "person"), (7, 11, "place")], id="a"),
    Sentence.from_text("no one", id="b"),
    Sentence.from_text("Bob and Eve", [(0, 3, "person"), (8, 11, "person")], id="c"),
    Sentence.from_text("Oslo, the city", [(0, 4, "place")], id="d"),
]
QUICK = ("epochs=2", "training.batch_size=2", "rank=4")


def tiny() -> CausalBackbone:
    return CausalBackbone(tiny_causal(), byte_level_tokenizer(), name="tiny")


def quick(*overrides: str) -> Settings:
    return Settings.build(overrides=[*QUICK, "learning_rate=0.001", *overrides])


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    write_corpus(SENTENCES, tmp_path / "people.jsonl", format="spans")
    return tmp_path / "people.jsonl"


class Stop(SilentProgress):
    """Ctrl-C after the first step."""

    def step(self, done: int, loss: float) -> None:
        signal.raise_signal(signal.SIGINT)


def test_the_record_tells_what_was_used(tmp_path: Path) -> None:
    made = instruct(tiny(), [LabelledSource(PEOPLE, SENTENCES)], tmp_path / "factors", settings=quick("per_source=3"))
    record = json.loads((made.folder / "instruct.json").read_text())
    assert record["sources"] == [{"domain": "people", "sentences": 3}]
    assert record["steps"] == made.result.steps == 4


@pytest.mark.parametrize("backbone_dropout", [False, True])
def test_the_factors_dropout_does_not_wait_for_the_backbones(
    tmp_path: Path, backbone_dropout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are in training mode when they are used, or only the factors' own."""
    seen: dict[str, set[bool]] = {"own": set(), "factors": set()}
    forward = nn.Dropout.forward

    def watched(module: nn.Dropout, values: torch.Tensor) -> torch.Tensor:
        seen["factors" if module.p == 0.375 else "own"].add(module.training)
        return forward(module, values)

    monkeypatch.setattr(nn.Dropout, "forward", watched)
    settings = quick("lora_dropout=0.375", f"backbone_dropout={str(backbone_dropout).lower()}")
    folder = save_tiny_backbone(tmp_path / "t5", "t5")
    backbone = load_backbone(folder)
    seen["own"].clear()  # the self-check of a backbone passes through its dropout, too
    instruct(backbone, [LabelledSource(PEOPLE, SENTENCES)], tmp_path / "factors", settings=settings)
    assert seen == {"own": {backbone_dropout}, "factors": {True}}
    assert not backbone.model.training


def test_dropout_of_the_factors_changes_what_is_learned(tmp_path: Path) -> None:
    losses = []
    for number, overrides in enumerate(([], ["lora_dropout=0.5"])):
        made = instruct(tiny(), [LabelledSource(PEOPLE, SENTENCES)], tmp_path / str(number), settings=quick(*overrides))
        losses.append([epoch.loss for epoch in made.result.history])
    assert losses[0] != losses[1]


def test_a_run_on_other_labels_is_not_resumed(tmp_path: Path) -> None:
    changed = [s.with_entities([Entity(e.start, e.end, "place") for e in s.entities]) for s in SENTENCES]
    run = Run(tmp_path / "run", progress=Stop())
    backbone = tiny()
    with pytest.raises(TrainingInterrupted):
        instruct(backbone, [LabelledSource(PEOPLE, SENTENCES)], tmp_path / "factors", settings=quick(), run=run)
    assert not any("lora" in name for name, _ in backbone.model.named_modules()), "the model is given back as it was"
    resumed = Run(tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="belongs to another run"):
        instruct(tiny(), [LabelledSource(PEOPLE, changed)], tmp_path / "factors", settings=quick(), run=resumed)
    instruct(tiny(), [LabelledSource(PEOPLE, SENTENCES)], tmp_path / "factors", settings=quick(), run=resumed)


def test_an_instructed_t5_is_asked_as_t5_is(tmp_path: Path, source_file: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "t5", "t5")
    options = JobOptions(overrides=QUICK)
    made = instruct_backbone([source_file], tmp_path / "made", options, backbone=folder)
    assert made.result.steps > 0
    manifest = json.loads((tmp_path / "made" / "xdner-backbone.json").read_text())
    assert manifest["recommended"]["codec"]["repeats"] == 1
    assert manifest["made"]["settings"]["codec"]["repeats"] == 1
    assert manifest["made"]["settings"]["training"]["learning_rate"] == 5e-4, "the rate of instructing stays"
    before, after = load_backbone(folder), load_backbone(tmp_path / "made")
    assert after.recommended["codec"] == manifest["recommended"]["codec"]
    assert after.fingerprint != before.fingerprint
    entry = CPNER(after, settings=Settings.build(overrides=["length=2", "epochs=1"], base=after.recommended)).train(
        PEOPLE, SENTENCES
    )
    assert entry.entry.settings.codec.repeats == 1
    told = instruct_backbone(
        [source_file], tmp_path / "told", JobOptions(overrides=(*QUICK, "repeats=2")), backbone=folder
    )
    assert told.result.steps > 0
    assert load_backbone(tmp_path / "told").recommended["codec"]["repeats"] == 2, "what was asked for counts more"


def test_nothing_of_the_users_is_overwritten(tmp_path: Path, source_file: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    options = JobOptions(overrides=("epochs=1", "rank=2"))
    for name in ("out", "out-adapter", "out-run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
        with pytest.raises(StorageError, match=rf"{name}: the folder holds something else"):
            instruct_backbone([source_file], tmp_path / "out", options, backbone=folder)
        assert (tmp_path / name / "thesis.txt").read_text() == "years of work"
        (tmp_path / name).rename(tmp_path / f"kept-{name}")
    (tmp_path / "out").write_text("x")
    with pytest.raises(StorageError, match="it is a file"):
        instruct_backbone([source_file], tmp_path / "out", options, backbone=folder)
    (tmp_path / "out").unlink()
    for _ in range(2):  # its own work is replaced
        instruct_backbone([source_file], tmp_path / "out", options, backbone=folder)
    assert load_backbone(tmp_path / "out").name == "out"
    assert not (tmp_path / "out-run").exists()
    with pytest.raises(StorageError, match="out is the backbone that is instructed"):
        instruct_backbone([source_file], tmp_path / "out", options, backbone=tmp_path / "out")
    # A backbone that was made in another way is not.
    manifest = tmp_path / "out" / "xdner-backbone.json"
    manifest.write_text(manifest.read_text().replace('"xdner instruct"', '"xdner adapt"'))
    with pytest.raises(StorageError, match="the folder holds something else"):
        instruct_backbone([source_file], tmp_path / "out", options, backbone=folder)


def test_weights_in_several_files_are_refused_before_the_work(tmp_path: Path, source_file: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    load_backbone(folder).model.save_pretrained(folder, max_shard_size="20kB")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneNotFoundError, match="model has its weights in several files") as caught:
        instruct_backbone([source_file], tmp_path / "out", JobOptions(overrides=("epochs=1",)), backbone=folder)
    assert caught.value.hint.startswith("Save the model as one")
    assert not list(tmp_path.glob("out*"))


def test_a_run_of_another_precision_is_not_resumed(tmp_path: Path, source_file: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model")
    options = JobOptions(overrides=(*QUICK, "checkpoint_every=1"), dtype="bfloat16")
    with pytest.raises(TrainingInterrupted):
        instruct_backbone([source_file], tmp_path / "out", replace(options, progress=Stop()), backbone=folder)
    again = replace(options, dtype="float32", resume=True)
    with pytest.raises(TrainingError, match="belongs to another run"):
        instruct_backbone([source_file], tmp_path / "out", again, backbone=folder)
