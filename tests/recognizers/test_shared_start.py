from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xdner.backbone.causal import CausalBackbone
from xdner.backbone.load import load_backbone
from xdner.domain import Domain
from xdner.errors import PrefixMismatchError, TrainingError, TrainingInterrupted
from xdner.library import bundled
from xdner.library.store import Library
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.shared_start import shipped_start, train_shared_start
from xdner.recognizers.warmup import WarmUp, initial_prefix
from xdner.settings import Settings
from xdner.testing.models import save_tiny_backbone, tiny_causal
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.text import Sentence
from xdner.training.progress import SilentProgress
from xdner.training.run import Run
from xdner.training.sources import LabelledSource

SETTINGS = Settings.build(
    overrides=["epochs=3", "training.batch_size=2", "length=3", "patience=0", "learning_rate=0.05", "drop_options=0.3"]
)
PEOPLE = Domain.from_labels("people", ["person", "place"])
SEAS = Domain.from_labels("seas", ["sea"])
SOURCES = [
    LabelledSource(PEOPLE, [Sentence.from_text("Ann in Rome", [(0, 3, "person"), (7, 11, "place")])] * 4),
    LabelledSource(SEAS, [Sentence.from_text("the Baltic sea", [(4, 10, "sea")])] * 3),
]


def make() -> CPNER:
    return CPNER(CausalBackbone(tiny_causal("llama"), byte_level_tokenizer(), name="tiny"), settings=SETTINGS)


def test_a_shared_start_learns_from_all_sources_and_leaves_the_backbone_alone() -> None:
    recognizer = make()
    before = recognizer.backbone.compute_fingerprint()
    longer = Settings.build(base=SETTINGS.to_dict(), overrides=["epochs=20", "drop_options=0.0", "add_options=0.0"])
    prefix, result = train_shared_start(recognizer.reader, SOURCES, longer)
    assert recognizer.backbone.compute_fingerprint() == before == prefix.backbone
    assert prefix.hash() != initial_prefix(recognizer.reader, SETTINGS.prefix).hash()
    assert result.steps == 20 * (2 + 2), "batches hold one domain each"
    assert result.history[-1].loss < 0.8 * result.history[0].loss
    assert [s["domain"] for s in prefix.notes["sources"]] == ["people", "seas"]
    assert train_shared_start(make().reader, SOURCES, longer)[0].hash() == prefix.hash()


def test_domains_start_from_it_and_remember_it() -> None:
    recognizer = make()
    prefix, _ = train_shared_start(recognizer.reader, SOURCES, SETTINGS)
    started = CPNER(recognizer.backbone, settings=SETTINGS, initial=prefix)
    for source in SOURCES:
        entry = started.train(source.domain, source.sentences).entry
        assert entry.prefix.initial == prefix.hash()
    run = WarmUp(started.reader, SEAS, SOURCES[1].sentences, (), SETTINGS, initial=prefix)
    assert run.start == prefix.hash()
    started.train(
        Domain.from_labels("towns", ["town"]), [Sentence.from_text("Kiel", [(0, 4, "town")])], sources=["seas"]
    )
    elsewhere = CPNER(recognizer.backbone, settings=SETTINGS)
    elsewhere.add(started._entry("seas"))
    with pytest.raises(PrefixMismatchError, match="started from another initial prefix"):
        elsewhere.train(PEOPLE, SOURCES[0].sentences, sources=["seas"])


def test_of_each_source_at_most_so_many_sentences() -> None:
    few = Settings.build(base=SETTINGS.to_dict(), overrides=["per_source=2", "epochs=1"])
    prefix, result = train_shared_start(make().reader, SOURCES, few)
    assert [s["sentences"] for s in prefix.notes["sources"]] == [2, 2], "what was used, not what was given"
    assert result.steps == 2


def test_without_sources_there_is_nothing_to_share() -> None:
    with pytest.raises(TrainingError, match="needs source domains"):
        train_shared_start(make().reader, [], SETTINGS)


def test_an_interrupted_run_gives_the_same_prefix(tmp_path: Path) -> None:
    whole, _ = train_shared_start(make().reader, SOURCES, SETTINGS)

    class Interrupts(SilentProgress):
        def step(self, done: int, loss: float) -> None:
            if done == 5:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        train_shared_start(make().reader, SOURCES, SETTINGS, Run(tmp_path, progress=Interrupts()))
    relabelled = [LabelledSource(PEOPLE, [Sentence.from_text("Ann in Rome", [(0, 3, "place")])] * 4), SOURCES[1]]
    with pytest.raises(TrainingError, match="another"):
        train_shared_start(make().reader, relabelled, SETTINGS, Run(tmp_path, resume=True))
    halved = make()
    halved.backbone.model.to(torch.bfloat16)
    with pytest.raises(TrainingError, match="another"):  # the same weights, in another precision
        train_shared_start(halved.reader, SOURCES, SETTINGS, Run(tmp_path, resume=True))
    again, _ = train_shared_start(make().reader, SOURCES, SETTINGS, Run(tmp_path, resume=True))
    assert again.hash() == whole.hash()


def test_python_starts_from_what_ships_as_the_command_line_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_backbone(tmp_path / "backbone")
    backbone = load_backbone(folder)
    usual = Settings.build(base=backbone.recommended)
    noise = replace(usual.prefix, init="noise")
    shipped = CPNER(backbone).initial_prefix(noise)
    monkeypatch.setattr(bundled, "DATA", tmp_path / "data")
    Library(tmp_path / "data" / "tiny" / "domains").set_initial(shipped)
    assert CPNER.from_pretrained(folder).initial_prefix().hash() == shipped.rounded().hash()
    own = CPNER.from_pretrained(folder, initial=CPNER(backbone).initial_prefix())
    assert own.initial_prefix().hash() == CPNER(backbone).initial_prefix().hash() != shipped.rounded().hash()
    for same in ({"reparametrization": "mlp"}, {"hidden": 9}, {"noise": 0.5}):  # noise is of init=noise alone
        how = replace(usual, prefix=replace(usual.prefix, **same))
        assert CPNER.from_pretrained(folder, settings=how).initial_prefix().hash() == shipped.rounded().hash(), same
    asked = replace(usual, prefix=noise)
    assert shipped_start(backbone, asked) is None
    asked = replace(usual, prefix=replace(usual.prefix, length=usual.prefix.length + 1))
    assert CPNER.from_pretrained(folder, settings=asked).initial_prefix().length == usual.prefix.length + 1
