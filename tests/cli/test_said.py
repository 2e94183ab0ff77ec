"""What commands say: names and paths are no markup, and steer no terminal."""

from __future__ import annotations

import pytest
import torch
import typer

from xdner.cli.common import chosen_over, guarded, say, say_done, say_note
from xdner.cli.visible import visible
from xdner.errors import SettingsError
from xdner.testing.commands import run


@pytest.mark.parametrize("say_it", [say, say_done, say_note])
def test_brackets_stay_and_control_characters_do_not(say_it, capsys: pytest.CaptureFixture[str]) -> None:
    say_it("no type [/B] in corpus[v2].txt: pip install -e '.[plots]' \x1b[2J\ud800\\[x]")
    assert "no type [/B] in corpus[v2].txt: pip install -e '.[plots]' \ufffd[2J\ufffd\\[x]" in capsys.readouterr().err


def test_ordinary_text_is_shown_as_it_is() -> None:
    french, joined = "dit\u202f: «\u00a0Paris\u00a0»", "soft\u00ad\u200chyphen \u3000\u200fabc"
    assert visible(french) == french
    assert visible(joined) == joined
    assert visible("a\x1b\x85\u2028\u202e\ud800b\n\t") == "a" + 5 * "\ufffd" + "b\n\t"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."),
     RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried …")],
)  # fmt: skip
def test_too_little_memory_is_no_bug(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, guarded():
        raise error
    told = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert "out of memory" in told
    assert "training.batch_size" in told
    assert "bug" not in told


def test_an_error_keeps_its_brackets() -> None:
    result = run("inspect", "corpus[/v2].txt")
    assert result.exit_code == 1
    assert "corpus[/v2].txt" in result.stderr
    assert "bug" not in result.stderr


def test_what_is_said_twice_may_be_written_in_two_ways() -> None:
    said = ["transfer.warmup_share=0.0", "transfer.strategy=single"]
    more = ["warmup_share=0", 'transfer.strategy="single"', "epochs=3"]
    assert chosen_over(said, more) == [*said, *more]
    with pytest.raises(SettingsError, match=r"--set warmup_share=0.1 says something else"):
        chosen_over(said, ["warmup_share=0.1"])
