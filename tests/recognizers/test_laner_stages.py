"""LANER learns in stages: what the target starts from, and how a run that was stopped goes on in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.encoder import load_encoder
from xdner.domain import Domain, Label
from xdner.errors import (
    BackboneMismatchError,
    DomainError,
    SettingsError,
    TrainingError,
    TrainingInterrupted,
    UnknownDomainError,
)
from xdner.library.entry import sentence_hashes
from xdner.recognizers.laner import LANER
from xdner.recognizers.laner_training import LanerTraining
from xdner.tagger.carry import name_vectors, start_from_names
from xdner.testing.taggers import SEAS, TOWNS, quick, save_letter_encoder
from xdner.training.progress import SilentProgress
from xdner.training.run import Run
from xdner.training.sources import LabelledSource

DOMAIN = Domain.from_corpus("towns", TOWNS)
SOURCE = LabelledSource(Domain.from_corpus("seas", SEAS), SEAS)


def test_a_source_stage_changes_what_the_target_starts_from(letters: Path) -> None:
    recognizer = LANER.from_pretrained(letters, settings=quick())
    before = {n: p.clone() for n, p in recognizer.encoder.model.state_dict().items()}  # type: ignore[union-attr]
    plain, drawn = recognizer.train(DOMAIN, TOWNS), recognizer.train(DOMAIN, TOWNS, sources=[SOURCE])
    assert plain.result.history[0].loss != drawn.result.history[0].loss
    assert drawn.entry.notes["sources"] == [{"name": "seas", "sentences": 2}]
    after = recognizer.encoder.model.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(after[n], p) for n, p in before.items()), "the recognizer's own encoder stays as it came"


def test_a_ready_source_is_the_same_as_its_sentences(letters: Path) -> None:
    recognizer = LANER.from_pretrained(letters, settings=quick())
    recognizer.train(SOURCE.domain, SEAS, settings=quick("epochs=1", "patience=0"))
    ready = recognizer.train(DOMAIN, TOWNS, start="seas")
    direct = recognizer.train(DOMAIN, TOWNS, sources=[SOURCE])
    assert [r.loss for r in ready.result.history] == [r.loss for r in direct.result.history]
    # A recognizer without an encoder can go on from a domain that brings its own.
    other = LANER(settings=quick())
    other.add(recognizer._entry("seas"))
    again = other.train(DOMAIN, TOWNS, start="seas")
    assert [r.loss for r in again.result.history] == [r.loss for r in ready.result.history]


def test_what_cannot_be_started_from(letters: Path, tmp_path: Path, trained: LANER) -> None:
    with pytest.raises(TrainingError, match="no encoder to train"):
        LANER().train(DOMAIN, TOWNS)
    with pytest.raises(UnknownDomainError):
        LANER.from_pretrained(letters).train(DOMAIN, TOWNS, start="nope")
    other = LANER.from_pretrained(save_letter_encoder(tmp_path / "other", seed=1))
    other.add(trained._entry("towns"))
    with pytest.raises(BackboneMismatchError, match="was trained on the encoder"):
        other.train(SOURCE.domain, SEAS, start="towns")
    with pytest.raises(SettingsError, match="built differently"):
        trained.train(SOURCE.domain, SEAS, start="towns", settings=quick("head=crf"))
    with pytest.raises(DomainError, match="labels that domain 'seas' does not"):
        trained.train(SOURCE.domain, TOWNS)


class _Stop(SilentProgress):
    """Ctrl-C, some steps into a stage."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, done: int, loss: float) -> None:
        import signal

        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("steps", [1, 4], ids=["in the source stage", "in the target stage"])
def test_resuming_ends_as_if_nothing_had_happened(letters: Path, tmp_path: Path, steps: int) -> None:
    settings = quick("epochs=4", "source_epochs=2", "checkpoint_every=1", "training.batch_size=2", "new_rows=name")

    def run(where: Path, **options: Any) -> dict[str, torch.Tensor]:
        recognizer = LANER.from_pretrained(letters, settings=settings)
        made = recognizer.train(DOMAIN, TOWNS, TOWNS[:3], sources=[SOURCE], run=Run(where, **options))
        return dict(made.entry.tensors)

    straight = run(tmp_path / "one")
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "two", progress=_Stop(steps))
    resumed = run(tmp_path / "two", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    with pytest.raises(TrainingError, match="no checkpoint"):
        run(tmp_path / "three", resume=True)


def test_what_an_older_run_left_is_not_resumed(letters: Path, tmp_path: Path) -> None:
    """One run ends in its target stage; another one, with other settings, in its source stage, and is resumed."""

    def run(epochs: int, **options: Any) -> None:
        settings = quick(f"epochs={epochs}", "source_epochs=2", "checkpoint_every=1", "training.batch_size=2")
        recognizer = LANER.from_pretrained(letters, settings=settings)
        recognizer.train(DOMAIN, TOWNS, TOWNS[:3], sources=[SOURCE], run=Run(tmp_path, **options))

    for epochs, steps in ((4, 4), (3, 1)):
        with pytest.raises(TrainingInterrupted):
            run(epochs, progress=_Stop(steps))
    run(3, resume=True)


def test_a_run_with_other_words_for_a_sources_types_is_another_one(letters: Path, tmp_path: Path) -> None:
    settings = quick("source_epochs=2", "checkpoint_every=1", "training.batch_size=2", "new_rows=name")
    other = Domain("seas", [Label("person"), Label("sea", "great water")])
    recognizer = LANER.from_pretrained(letters, settings=settings)
    with pytest.raises(TrainingInterrupted):
        recognizer.train(DOMAIN, TOWNS, sources=[SOURCE], run=Run(tmp_path, progress=_Stop(1)))
    with pytest.raises(TrainingError, match="belongs to another run"):
        recognizer.train(DOMAIN, TOWNS, sources=[LabelledSource(other, SEAS)], run=Run(tmp_path, resume=True))


def test_a_domain_says_all_that_it_has_learned_from(letters: Path) -> None:
    recognizer = LANER.from_pretrained(letters, settings=quick("epochs=1"))
    made = recognizer.train(DOMAIN, TOWNS[:2], sources=[SOURCE])
    assert made.entry.seen == sentence_hashes([*TOWNS[:2], *SEAS])
    later = recognizer.train(Domain("later", DOMAIN.labels), TOWNS[2:4], start="towns")
    assert later.entry.seen == sentence_hashes([*TOWNS[:4], *SEAS])


def test_names_are_read_with_the_shapes_that_were_learned(letters: Path) -> None:
    settings = quick("new_rows=name", "word_shape=true")
    encoder = load_encoder(letters)
    training = LanerTraining(encoder, DOMAIN, list(TOWNS), [], settings, sources=[SOURCE])
    before = training._network(encoder.fresh(), ["person", "sea"], None)
    assert before.shape is not None
    with torch.no_grad():
        before.shape.weight.mul_(1000)
    made = training._network(before.encoder, DOMAIN.label_names, before)
    rows = made.head.weight.detach().clone()
    vectors = name_vectors(made, training.pieces, {"city": "city", "person": "person"})
    start_from_names(made, vectors, before.tags, settings.training.seed)
    assert torch.equal(made.head.weight, rows)
