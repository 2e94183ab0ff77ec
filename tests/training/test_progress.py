"""What a person sees while training."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from xdner.training.progress import Progress, RichProgress, SilentProgress


def play(progress: Progress) -> None:
    """A run of two epochs of two steps, as the loop tells it."""
    progress.start(4, 0)
    for epoch, (dev, best) in enumerate([(0.5, 0.5), (0.25, 0.5)], start=1):
        progress.step(2 * epoch - 1, 2.0)
        progress.step(2 * epoch, 1.0)
        progress.evaluating()
        progress.epoch(epoch, 1.5, dev, best)
    progress.finish()


def test_without_a_terminal_one_plain_line_an_epoch():
    out = io.StringIO()
    play(
        RichProgress(
            "training [red]ai[/red] with a title so long that a line would be broken in two", Console(file=out)
        )
    )
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "[red]ai[/red]" in lines[0]
    assert "\x1b" not in out.getvalue()
    assert "epoch 1  loss 1.500  dev F1 0.500 (best 0.500)  0 s, 0 s left" in lines[0]
    assert "epoch 2  loss 1.500  dev F1 0.250 (best 0.500)" in lines[1]


def test_time_left_counts_only_the_steps_of_this_session(monkeypatch):
    clock = iter([0.0, 10.0])
    # This module's clock only: whatever else runs in this process may look at the real one.
    monkeypatch.setattr("xdner.training.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    out = io.StringIO()
    progress = RichProgress(console=Console(file=out))
    progress.start(100, 50)
    progress.step(60, 1.0)
    progress.epoch(6, 1.0, None, None)
    assert out.getvalue() == "training: epoch 6  loss 1.000  10 s, 40 s left\n"


def test_on_a_terminal_one_bar_with_loss_and_dev():
    out = io.StringIO()
    play(RichProgress("ai", Console(file=out, force_terminal=True, width=160, color_system=None)))
    last = [line for line in out.getvalue().splitlines() if "ai" in line][-1]
    assert "4/4" in last
    # 2, 1, 2, 1, each counting a tenth.
    assert "loss 1.819" in last
    assert "dev F1 0.250 (best 0.500)" in last
    assert "epoch" not in out.getvalue()


def test_a_note_does_not_end_the_bar():
    out = io.StringIO()
    progress = RichProgress("ai", Console(file=out, force_terminal=True, width=160, color_system=None))
    progress.start(4, 0)
    progress.note("no checkpoint [1]")
    progress.step(4, 1.0)
    progress.finish()
    assert "ai: no checkpoint [1]" in out.getvalue()
    assert "4/4" in out.getvalue()


def test_the_default_is_standard_error(capsys):
    play(RichProgress())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2


@pytest.mark.parametrize("make", [RichProgress, SilentProgress])
def test_finish_may_come_before_start_and_twice(make):
    progress = make()
    progress.finish()
    progress.finish()


def test_silent_is_silent(capsys):
    progress = SilentProgress()
    play(progress)
    progress.note("something")
    assert capsys.readouterr() == ("", "")
