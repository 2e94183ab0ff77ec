"""A run that was stopped, killed or crashed anywhere ends with the same bits as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xdner.errors import TrainingError, TrainingInterrupted
from xdner.training.loop import train
from xdner.training.progress import SilentProgress
from xdner.training.run import Run

STEPS = 16  # of tiny.SETTINGS: 4 epochs of 4 steps


class At(SilentProgress):
    """Does something after a step, or while the n-th dev score is computed; keeps the notes."""

    def __init__(self, act=lambda: None, *, step=0, evaluation=0):
        self.act, self.at_step, self.at_evaluation, self.notes = act, step, evaluation, []

    def step(self, done, loss):
        if done == self.at_step:
            self.act()

    def evaluating(self):
        self.at_evaluation -= 1
        if self.at_evaluation == 0:
            self.act()

    def note(self, text):
        self.notes.append(text)


class Crash(Exception):
    """Not an error that anything expects."""


def crash():
    raise Crash


@pytest.fixture(scope="module")
def undisturbed(tiny):
    torch.set_num_threads(1)
    task = tiny.TinyTask()
    return tiny.outcome(train(task, tiny.SETTINGS), task)


def interrupt(**where):
    """Ctrl-C at a step or an evaluation."""
    return At(lambda: signal.raise_signal(signal.SIGINT), **where)


def finish(tiny, folder, **options):
    task = tiny.TinyTask()
    with torch.no_grad():
        task.first.fill_(9.0)  # nothing of what a new process begins with may matter
    result = train(task, tiny.SETTINGS, Run(folder, resume=True), **options)
    return tiny.outcome(result, task)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_stop_after_any_step(tiny, tmp_path, undisturbed, step, number):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(TrainingInterrupted) as caught:
        train(
            tiny.TinyTask(),
            tiny.SETTINGS,
            Run(tmp_path, hint="Say --resume.", progress=At(lambda: signal.raise_signal(number), step=step)),
        )
    folder = tmp_path / "checkpoint"
    assert str(caught.value) == f"stopped after step {step} of {STEPS}; a checkpoint is in {folder}\n  → Say --resume."
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert finish(tiny, tmp_path) == undisturbed


@pytest.mark.parametrize("evaluation", [1, 2])
def test_a_stop_during_an_evaluation_lets_it_end(tiny, tmp_path, undisturbed, evaluation):
    with pytest.raises(TrainingInterrupted, match=f"stopped after step {4 + 4 * evaluation} of"):
        train(
            tiny.TinyTask(),
            tiny.SETTINGS,
            Run(tmp_path, progress=interrupt(evaluation=evaluation)),
        )
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert len(state["position"]["history"]) == 1 + evaluation, "the score is kept"
    assert finish(tiny, tmp_path) == undisturbed


def test_a_stop_during_the_last_evaluation_is_too_late(tiny, tmp_path, undisturbed):
    task = tiny.TinyTask()
    progress = interrupt(evaluation=3)
    assert tiny.outcome(train(task, tiny.SETTINGS, Run(progress=progress)), task) == undisturbed


@pytest.mark.parametrize("where", [{"step": s} for s in range(1, STEPS + 1)] + [{"evaluation": e} for e in (1, 2, 3)])
def test_a_crash_anywhere(tiny, tmp_path, undisturbed, where):
    with pytest.raises(Crash):
        train(tiny.TinyTask(), tiny.SETTINGS, Run(tmp_path, progress=At(crash, **where)))
    assert finish(tiny, tmp_path) == undisturbed


def test_stops_after_every_step_of_one_run(tiny, tmp_path, undisturbed):
    for step in range(1, STEPS + 1):
        with pytest.raises(TrainingInterrupted):
            train(
                tiny.TinyTask(),
                tiny.SETTINGS,
                Run(tmp_path, resume=step > 1, progress=interrupt(step=step)),
            )
    assert finish(tiny, tmp_path) == undisturbed


def test_patience_counts_on_after_a_stop(tiny, tmp_path):
    settings = replace(tiny.SETTINGS, epochs=9, evaluate_from=1, patience=3)
    scores = [0.3, 0.5, 0.4, 0.4, 0.4]
    whole = tiny.TinyTask(scores=scores)
    wanted = tiny.outcome(train(whole, settings), whole)
    with pytest.raises(TrainingInterrupted):
        train(
            tiny.TinyTask(scores=scores),
            settings,
            Run(tmp_path, progress=interrupt(step=15)),
        )
    task = tiny.TinyTask(scores=scores[3:])
    got = tiny.outcome(train(task, settings, Run(tmp_path, resume=True)), task)
    assert got == wanted
    assert got["best"] == [2, 0.5, 5, 20, "patience"]


def test_a_run_that_had_ended_gives_its_result_again(tiny, tmp_path, undisturbed):
    task = tiny.TinyTask()
    first = train(task, tiny.SETTINGS, Run(tmp_path))
    again = tiny.TinyTask()
    again.loss = again.evaluate = None  # it needs neither
    second = train(again, tiny.SETTINGS, Run(tmp_path, resume=True))
    assert tiny.outcome(second, again) == undisturbed
    assert first == second


# -- signals -------------------------------------------------------------------------------------------------------------


def test_a_second_ctrl_c_stops_at_once(tiny, tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny.TinyTask(), tiny.SETTINGS, Run(tmp_path, progress=At(twice, step=5)))
    assert signal.getsignal(signal.SIGINT) is before
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert state["position"]["step"] == 3, "the last regular checkpoint"


def test_without_a_folder_the_message_says_that_nothing_was_kept(tiny):
    with pytest.raises(TrainingInterrupted) as caught:
        train(
            tiny.TinyTask(),
            tiny.SETTINGS,
            Run(hint="Say --resume.", progress=interrupt(step=2)),
        )
    assert caught.value.message == "stopped after step 2 of 16; no checkpoint could be kept"
    assert caught.value.hint == "Start again; give the run a folder to be able to resume."


def test_in_another_thread_signals_are_left_alone(tiny, undisturbed):
    before, seen, got = signal.getsignal(signal.SIGINT), [], []

    def run():
        task = tiny.TinyTask()
        progress = At(lambda: seen.append(signal.getsignal(signal.SIGINT)), step=3)
        got.append(tiny.outcome(train(task, tiny.SETTINGS, Run(progress=progress)), task))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
    assert got == [undisturbed]


def test_a_signal_that_is_ignored_stays_ignored(tiny, undisturbed):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        task = tiny.TinyTask()
        result = train(task, tiny.SETTINGS, Run(progress=interrupt(step=3)))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert tiny.outcome(result, task) == undisturbed


# -- the disk ------------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_does_not_end_the_run(tiny, tmp_path, undisturbed, monkeypatch):
    fsync = os.fsync

    def full(_):
        raise OSError(28, "No space left on device")

    progress = At(lambda: monkeypatch.setattr(os, "fsync", full), step=7)
    task = tiny.TinyTask()
    result = train(task, tiny.SETTINGS, Run(tmp_path, progress=progress))
    assert tiny.outcome(result, task) == undisturbed
    assert result.failed_checkpoints == 5  # steps 9, 12 twice (after its epoch once more), 15, 16
    first, record = progress.notes
    assert first.startswith("no checkpoint at step 9 (cannot write ")
    assert first.endswith("No space left on device); that of step 6 is kept; training goes on")
    assert record.startswith("the record of the run is lost: cannot write ")
    monkeypatch.setattr(os, "fsync", fsync)
    assert finish(tiny, tmp_path) == undisturbed, "the checkpoint of step 6 is whole"


def test_a_stop_on_a_full_disk_names_the_checkpoint_that_is_kept(tiny, tmp_path, undisturbed, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    def fill_and_stop():
        monkeypatch.setattr(os, "fsync", full)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted) as caught:
        train(tiny.TinyTask(), tiny.SETTINGS, Run(tmp_path, hint="Say --resume.", progress=At(fill_and_stop, step=5)))
    assert caught.value.message.endswith("this step could not be saved, the checkpoint of step 3 is kept")
    assert caught.value.hint == "Say --resume."
    monkeypatch.undo()
    assert finish(tiny, tmp_path) == undisturbed


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tiny, tmp_path, undisturbed):
    (tmp_path / "file").write_text("")
    progress, task = At(), tiny.TinyTask()
    result = train(task, tiny.SETTINGS, Run(tmp_path / "file", progress=progress))
    assert progress.notes[0].startswith("no checkpoint at step 0 (cannot write ")
    assert "there is none yet" in progress.notes[0]
    assert tiny.outcome(result, task) == undisturbed


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tiny, tmp_path):
    with pytest.raises(Crash):
        train(tiny.TinyTask(), tiny.SETTINGS, Run(tmp_path, progress=At(crash, step=5)), fingerprint="data")
    return tmp_path


def test_another_run_is_refused(tiny, stopped):
    for fingerprint, settings, items in (
        ("other", tiny.SETTINGS, 30), ("data", replace(tiny.SETTINGS, batch_size=5), 30), ("data", tiny.SETTINGS, 29),
    ):  # fmt: skip
        with pytest.raises(TrainingError, match="belongs to another run"):
            train(tiny.TinyTask(items), settings, Run(stopped, resume=True), fingerprint=fingerprint)


def test_other_parameters_are_refused(tiny, stopped):
    fewer, wider = tiny.TinyTask(), tiny.TinyTask()
    fewer.parameters = lambda: {"first": fewer.first}
    wider.second = torch.nn.Parameter(torch.zeros(6, 1))
    for task, why in ((fewer, "holds other parameters than those to train"), (wider, ": second missing or of another")):
        with pytest.raises(TrainingError) as caught:
            train(task, tiny.SETTINGS, Run(stopped, resume=True), fingerprint="data")
        assert why in caught.value.message
        assert "start again without --resume" in caught.value.hint


def test_no_folder_no_resume(tiny):
    with pytest.raises(TrainingError, match="without a folder cannot be resumed"):
        train(tiny.TinyTask(), tiny.SETTINGS, Run(resume=True))


def test_no_checkpoint_no_resume(tiny, tmp_path):
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        train(tiny.TinyTask(), tiny.SETTINGS, Run(tmp_path, resume=True))


def test_another_thread_count_is_told(tiny, stopped):
    file = stopped / "checkpoint" / "state.json"
    state = json.loads(file.read_text())
    state["made"]["threads"] = 64
    file.write_text(json.dumps(state))
    progress = At()
    train(tiny.TinyTask(), tiny.SETTINGS, Run(stopped, resume=True, progress=progress), fingerprint="data")
    assert progress.notes == ["resumed, but the last bits of the result may differ: threads 64 then, 1 now"]


# -- SIGKILL -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(tiny, tmp_path):
    """At random moments until it is through, and before and after each change of the disk that checkpoints make."""
    program = Path(__file__).with_name("tiny.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, timeout=1800, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    told = json.loads(done.stdout)
    runs = told["runs"]
    assert {name: facts for name, facts in runs.items() if not facts["same"] or facts["code"]} == {}
    assert len(runs) == 3 + 2 * tiny.CALLS
    assert all(facts.get("killed", True) for facts in runs.values())
    assert sum(facts.get("kills", 0) for facts in runs.values()) >= 5
    assert all(len(facts["files"]) == 2 for facts in runs.values()), "nothing half-written is left behind"
    assert told["rich"] is False, "a silent run does not load rich"


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Run(folder).claimed():
        with pytest.raises(TrainingError, match="another process is training in"), Run(folder).claimed():
            pass
        assert folder.is_dir()
        (folder / "run.json").write_text("{}")
    assert (folder / "run.json").is_file(), "what a stopped run needs stays"
    Run(folder).check()  # and is a run's
    with Run(folder).claimed():
        (folder / "run.json").unlink()
    assert not folder.exists(), "a training that came to no checkpoint leaves nothing"
    with Run().claimed():
        pass
