"""What the loop computes: the schedule, the steps, the choice of the best epoch, and what it refuses."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xdner.errors import TrainingError
from xdner.settings import TrainingSettings
from xdner.training import loop
from xdner.training.batching import bucketed_batches
from xdner.training.loop import _seed, rate, train
from xdner.training.progress import SilentProgress
from xdner.training.run import Run


class Told(SilentProgress):
    """Remembers what it was told."""

    def __init__(self):
        self.calls, self.notes = [], []

    def start(self, steps, done):
        self.calls.append(("start", steps, done))

    def step(self, done, loss):
        self.calls.append(("step", done))

    def evaluating(self):
        self.calls.append(("evaluating",))

    def epoch(self, epoch, loss, dev, best):
        self.calls.append(("epoch", epoch, dev, best))

    def note(self, text):
        self.notes.append(text)

    def finish(self):
        self.calls.append(("finish",))


def test_the_rate_rises_and_falls_in_straight_lines():
    assert [rate(s, 10, 0.3) for s in range(10)] == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]
    )
    assert rate(10, 10, 0.3) == 0
    assert [rate(s, 4, 0.0) for s in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [rate(s, 4, 1.0) for s in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rate(0, 1, 0.1) == 1


@pytest.mark.parametrize("clip", [0.05, 0.0])
def test_the_steps_are_those_of_adamw_with_clipping_and_schedule(tiny, clip):
    """An oracle written out: torch's own scheduler, clipping and optimizer on the same batches."""
    settings = replace(tiny.SETTINGS, accumulation=1, clip=clip, warmup=0.25, epochs=3)
    task, oracle = tiny.TinyTask(dropout=0.0, scores=None), tiny.TinyTask(dropout=0.0, scores=None)
    result = train(task, settings)

    parameters = list(oracle.parameters().values())
    # Fused as the loop's: its last bits are those of no other kernel.
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate(s, result.steps, 0.25))
    for epoch in (1, 2, 3):
        for batch in bucketed_batches(oracle.lengths(), 4, random.Random(_seed(settings.seed, "epoch", epoch))):
            optimizer.zero_grad()
            oracle.loss(batch, random.Random(0)).backward()
            if clip:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            scheduler.step()
    assert torch.equal(task.first, oracle.first)
    assert torch.equal(task.second, oracle.second)


def test_accumulated_batches_weigh_as_their_items(tiny):
    """Two batches in a step, of 4 and 2 items, are one batch of 6."""
    apart = replace(tiny.SETTINGS, batch_size=4, accumulation=2, epochs=5)
    together = replace(tiny.SETTINGS, batch_size=6, accumulation=1, epochs=5)
    tasks = [tiny.TinyTask(6, dropout=0.0, scores=None) for _ in range(2)]
    for task in tasks:
        task.lengths = lambda: [50] * 6
    results = [train(task, settings) for task, settings in zip(tasks, (apart, together), strict=True)]
    assert [r.steps for r in results] == [5, 5]
    torch.testing.assert_close(tasks[0].first, tasks[1].first)
    assert [r.loss for r in results[0].history] == pytest.approx([r.loss for r in results[1].history])


def test_a_run_learns_and_tells(tiny):
    told, task = Told(), tiny.TinyTask(60, dropout=0.0)
    settings = TrainingSettings(epochs=30, learning_rate=5e-2, patience=0, evaluate_from=1, evaluate_every=1)
    result = train(task, settings, Run(progress=told))
    assert result.history[-1].loss < 0.1 * result.history[0].loss
    assert result.best_dev == max(r.dev for r in result.history)
    assert (result.epochs_run, result.stopped, result.steps) == (30, "finished", result.history[-1].steps)
    assert [r.epoch for r in result.history] == list(range(1, 31))
    assert 0 <= result.padding < 0.15
    assert result.seconds > 0
    steps = result.steps // 30
    assert told.calls[0] == ("start", result.steps, 0)
    assert told.calls[1 : steps + 3] == [
        *(("step", s) for s in range(1, steps + 1)),
        ("evaluating",),
        ("epoch", 1, result.history[0].dev, result.history[0].dev),
    ]
    assert told.calls[-1] == ("finish",)
    assert told.notes == []


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tiny):
    outcomes = []
    for seed in (1, 1, 2):
        task = tiny.TinyTask()
        outcomes.append(tiny.outcome(train(task, replace(tiny.SETTINGS, seed=seed)), task))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["bits"] != outcomes[2]["bits"]


def test_every_step_and_batch_draws_other_numbers(tiny):
    seen = []
    task = tiny.TinyTask(scores=None)
    inner = task.loss
    task.loss = lambda indices, rng: (seen.append((rng.random(), torch.rand(1).item())), inner(indices, rng))[1]
    train(task, tiny.SETTINGS)
    assert len({python for python, _ in seen}) == len({drawn for _, drawn in seen}) == len(seen)


# -- the best epoch ------------------------------------------------------------------------------------------------------


def test_the_best_epoch_comes_back_and_patience_ends_the_run(tiny):
    task = tiny.TinyTask(scores=[0.1, 0.5, 0.5, 0.4, 0.9])
    states = []
    inner = task.evaluate
    task.evaluate = lambda: (states.append(task.first.detach().clone()), inner())[1]
    result = train(task, replace(tiny.SETTINGS, epochs=9, evaluate_from=1, patience=2))
    assert (result.best_epoch, result.best_dev, result.epochs_run, result.stopped) == (2, 0.5, 4, "patience")
    assert torch.equal(task.first, states[1])
    assert torch.equal(result.state["first"], states[1])
    with torch.no_grad():
        task.first.zero_()
    assert torch.equal(result.state["first"], states[1]), "the state is a copy"


def test_evaluations_come_when_they_are_due_and_at_the_end(tiny):
    result = train(tiny.TinyTask(), replace(tiny.SETTINGS, epochs=8, evaluate_from=3, evaluate_every=2))
    assert [r.epoch for r in result.history if r.dev is not None] == [3, 5, 7, 8]
    result = train(tiny.TinyTask(), replace(tiny.SETTINGS, epochs=2, evaluate_from=5))
    assert [r.epoch for r in result.history if r.dev is not None] == [2]


def test_without_dev_the_last_epoch_is_kept(tiny):
    task = tiny.TinyTask(scores=None)
    result = train(task, replace(tiny.SETTINGS, patience=1))
    assert (result.best_epoch, result.best_dev, result.epochs_run, result.stopped) == (4, None, 4, "finished")
    assert torch.equal(result.state["second"], task.second)
    assert result.state["second"].data_ptr() != task.second.data_ptr()


# -- the caller's world --------------------------------------------------------------------------------------------------


def test_the_callers_random_numbers_go_on_as_if_nothing_had_happened(tiny):
    torch.manual_seed(3)
    random.seed(3)
    wanted = (torch.rand(1).item(), random.random())
    torch.manual_seed(3)
    random.seed(3)
    train(tiny.TinyTask(), tiny.SETTINGS)
    assert (torch.rand(1).item(), random.random()) == wanted


def test_gradients_left_by_the_caller_are_not_used(tiny):
    clean, dirty = tiny.TinyTask(), tiny.TinyTask()
    dirty.loss(range(4), random.Random(1)).backward()
    outcomes = [tiny.outcome(train(t, tiny.SETTINGS), t) for t in (clean, dirty)]
    assert outcomes[0] == outcomes[1]


def test_the_record_of_a_run(tiny, tmp_path):
    task = tiny.TinyTask()
    result = train(task, tiny.SETTINGS, Run(tmp_path))
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"] == asdict(tiny.SETTINGS)
    assert record["history"] == [asdict(r) for r in result.history]
    assert (record["stopped"], record["best_epoch"], record["steps"]) == ("finished", result.best_epoch, result.steps)
    assert record["made"]["threads"] == 1


@pytest.mark.parametrize(
    ("every", "saved"), [(0, [0, 4, 8, 12, 16]), (1, [*range(17), 16]), (9, [0, 9, 16]), (50, [0, 16])]
)
def test_checkpoints_are_as_far_apart_as_they_are_asked_to_be(tiny, tmp_path, monkeypatch, every, saved):
    """The end of an epoch is no reason: those of few sentences are short."""
    written = []
    monkeypatch.setattr(loop, "write_checkpoint", lambda folder, at, *_: written.append(at.step))
    train(tiny.TinyTask(), replace(tiny.SETTINGS, checkpoint_every=every), Run(tmp_path))
    assert written == saved


@pytest.mark.parametrize(
    ("every", "saved"),
    [(50, [*range(0, 17, 2), 16]), (3, [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 16]), (0, [0, 4, 8, 12, 16])],
)
def test_long_steps_bring_checkpoints_nearer_together(tiny, tmp_path, monkeypatch, every, saved):
    """Six minutes a step, so two of them are more than may be lost, unless checkpoints are wanted at ends of epochs only."""
    clock, task, written = [1000.0], tiny.TinyTask(), []
    inner = task.loss

    def slow(indices, rng):
        clock[0] += 180.0
        return inner(indices, rng)

    monkeypatch.setattr(task, "loss", slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop, "write_checkpoint", lambda folder, at, *_: written.append(at.step))
    train(task, replace(tiny.SETTINGS, checkpoint_every=every), Run(tmp_path))
    assert written == saved


def test_the_checkpoint_of_a_run_that_ended_stays(tiny, tmp_path):
    train(tiny.TinyTask(), tiny.SETTINGS, Run(tmp_path))
    assert (tmp_path / "checkpoint").exists()
    assert (tmp_path / "run.json").exists()


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number(tiny, bad):
    told, task = Told(), tiny.TinyTask()
    inner, calls = task.loss, []
    task.loss = lambda indices, rng: inner(indices, rng) * (bad if len(calls) == 4 else calls.append(1) or 1)
    with pytest.raises(TrainingError) as caught:
        train(task, tiny.SETTINGS, Run(progress=told))
    assert caught.value.message == f"the loss became {bad} at step 3 of 16; it should be a finite number"
    assert "Lower the learning rate (now 0.03), e.g. --set learning_rate=0.003" in caught.value.hint
    assert told.calls[-1] == ("finish",)


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_no_number_does_not_reach_the_parameters(tiny, clip):
    task = tiny.TinyTask(dropout=0.0)
    # The slope of a root at zero is infinite, its value is not.
    task.loss = lambda indices, rng: (task.first - task.first.detach()).abs().sum().sqrt()
    before = task.first.detach().clone()
    with pytest.raises(TrainingError, match="the gradient's norm became nan at step 1"):
        train(task, replace(tiny.SETTINGS, clip=clip))
    assert torch.equal(task.first, before)


def test_weights_that_are_no_numbers_after_the_last_step_are_no_result(tiny):
    task = tiny.TinyTask(items=1, scores=None)
    with pytest.raises(TrainingError, match="the weights became nan at step 1 of 1"):
        train(task, replace(tiny.SETTINGS, epochs=1, learning_rate=3e38, weight_decay=9.0))


def test_a_dev_score_that_is_no_number(tiny):
    with pytest.raises(TrainingError, match="the dev score of epoch 2 is nan"):
        train(tiny.TinyTask(scores=[math.nan]), tiny.SETTINGS)


def test_nothing_to_train(tiny):
    with pytest.raises(TrainingError, match="0 items"):
        train(tiny.TinyTask(0), tiny.SETTINGS)
    task = tiny.TinyTask()
    task.parameters = dict
    with pytest.raises(TrainingError, match="0 parameters"):
        train(task, tiny.SETTINGS)
    task.parameters = lambda: {"a": task.first, "b": task.first}
    with pytest.raises(TrainingError, match="under two names"):
        train(task, tiny.SETTINGS)
