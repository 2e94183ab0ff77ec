from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.arms import Corpora
from benchmarks.tagger_baseline import SourceStage, TaggerArm, tags_of
from xdner.errors import BackboneError
from xdner.training.progress import SilentProgress


def test_the_arm_learns_the_sources_first_and_is_reproducible(data: Path, encoder: Path, tmp_path: Path) -> None:
    corpora = Corpora(data)
    few = ("epochs=2", "training.batch_size=2")
    stage = SourceStage(corpora, tmp_path / "stages", epochs=1, rate=1e-3)
    with_sources = TaggerArm("minilm-sources", str(encoder), (1e-3,), stage, few)
    plain = TaggerArm("minilm", str(encoder), (1e-3,), overrides=few)
    target = corpora.target("ai")
    first, again, other = (arm.run(target, 1, 1e-3, SilentProgress()) for arm in (with_sources, with_sources, plain))
    assert [r["loss"] for r in first.history] == [r["loss"] for r in again.history]
    assert [r["loss"] for r in first.history] != [r["loss"] for r in other.history]
    assert [s["sentences"] for s in first.facts["sources"]] == [2, 1, 1, 1]
    assert other.facts["sources"] == []
    assert len(first.report["sentence_counts"]) == 3
    assert [row[2] for row in first.report["sentence_counts"]] == [2, 1, 0]  # gold entities
    assert first.facts["backbone"] == other.facts["backbone"]
    assert first.facts["settings"]["training"]["learning_rate"] == 1e-3
    assert (first.facts["epochs_run"], first.facts["settings"]["training"]["patience"]) == (2, 0)


def test_the_sources_tagger_is_made_once_for_all_targets_rates_and_seeds(
    data: Path, encoder: Path, tmp_path: Path
) -> None:
    corpora = Corpora(data)
    stage = SourceStage(corpora, tmp_path / "stages", epochs=1)
    arm = TaggerArm("minilm-sources", str(encoder), (1e-3, 2e-3), stage, ("epochs=1",))
    for name, seed, rate in (("ai", 1, 1e-3), ("ai", 2, 2e-3), ("science", 1, 1e-3)):
        arm.run(corpora.target(name), seed, rate, SilentProgress())
    (record,) = stage.folder.glob("*.json")
    assert [p.name for p in sorted(stage.folder.iterdir())] == [record.name, record.with_suffix(".safetensors").name]
    before = record.stat().st_mtime_ns
    network, facts = stage.ready(str(encoder), SilentProgress())
    assert record.stat().st_mtime_ns == before
    assert (facts["steps"], facts["asked"], len(network.tags)) == (2, stage.asked(), 11)
    # What else it depends on makes another one.
    other, _ = replace(stage, rate=1e-2).ready(str(encoder), SilentProgress())
    assert len(list(stage.folder.glob("*.json"))) == 2
    assert not torch.equal(other.head.weight, network.head.weight)
    again, _ = stage.ready(str(encoder), SilentProgress())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_a_tagger_learns_what_can_be_learned(encoder: Path, data: Path) -> None:
    arm = TaggerArm("minilm", str(encoder), (3e-2,), overrides=("epochs=60", "training.batch_size=3"))
    assert arm.run(Corpora(data).target("ai"), 1, 3e-2, SilentProgress()).report["micro"]["f1"] == 1.0


def test_a_language_model_is_no_encoder(backbone: Path, data: Path) -> None:
    arm = TaggerArm("minilm", str(backbone), (1e-3,))
    with pytest.raises(BackboneError, match="is a causal model; the tagger needs an encoder"):
        arm.run(Corpora(data).target("ai"), 1, 1e-3, SilentProgress())


def test_tags_of_several_domains(data: Path) -> None:
    corpora = Corpora(data)
    tags = tags_of([corpora.target("ai"), corpora.source("music", 600)])
    assert tags == ["O", "B-band", "I-band", "B-person", "I-person", "B-place", "I-place"]
