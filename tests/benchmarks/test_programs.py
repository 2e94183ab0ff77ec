"""What all benchmark programs have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import adaptation, choices, choosing, if_wraner, laner, quality

FOLDER = Path(choosing.__file__).parent
PROGRAMS = sorted(file.stem for file in FOLDER.glob("*.py") if "\ndef parser(" in file.read_text())
#: Prints each program's help, and which of them loaded torch on the way: later ones would find it loaded.
ASKED = """
import contextlib, importlib, io, os, sys
for name in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert "usage:" in said.getvalue(), name
    assert "torch" not in sys.modules, f"{name} loads torch before it has read its options"
    assert "OMP_WAIT_POLICY" in os.environ, f"{name} would load torch before the environment is prepared"
    del os.environ["OMP_WAIT_POLICY"]
"""


def test_help_is_quick_and_torch_finds_its_environment_prepared() -> None:
    assert len(PROGRAMS) >= 14
    asked = subprocess.run(
        [sys.executable, "-c", ASKED, *PROGRAMS], cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr


def test_names_on_the_command_line_are_those_of_the_recognizers() -> None:
    assert tuple(choices.CHOICES) == choosing.NAMES


@pytest.mark.parametrize("text", ["0", "-1e-4", "nan", "inf", "much", ""])
@pytest.mark.parametrize(
    ("program", "option", "form"),
    [(laner, "--rates", "{}"), (laner, "--source-rate", "{}"), (adaptation, "--rates", "{}"), (adaptation, "--source-rate", "{}"),
     (if_wraner, "--rates", "{}"), (quality, "--rates", "prefix=1e-3,{}")],
)  # fmt: skip
def test_a_wrong_rate_is_told_before_anything_runs(
    program: ModuleType, option: str, form: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.parser().parse_args([option, form.format("1e-4")])
    with pytest.raises(SystemExit) as ended:
        program.parser().parse_args([f"{option}={form.format(text)}"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"argument {option}: " in told
    assert f"{text!r} is no learning rate" in told
