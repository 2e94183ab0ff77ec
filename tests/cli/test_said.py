"""What commands say: names and paths are no markup, and steer no terminal."""

from __future__ import annotations

import pytest

from xdner.cli.common import say, say_done, say_note
from xdner.testing.commands import run


@pytest.mark.parametrize("say_it", [say, say_done, say_note])
def test_brackets_stay_and_control_characters_do_not(say_it, capsys: pytest.CaptureFixture[str]) -> None:
    say_it("no type [/B] in corpus[v2].txt: pip install -e '.[plots]' \x1b[2J\ud800\\[x]")
    assert "no type [/B] in corpus[v2].txt: pip install -e '.[plots]' \ufffd[2J\ufffd\\[x]" in capsys.readouterr().err


def test_an_error_keeps_its_brackets() -> None:
    result = run("inspect", "corpus[/v2].txt")
    assert result.exit_code == 1
    assert "corpus[/v2].txt" in result.stderr
    assert "bug" not in result.stderr
