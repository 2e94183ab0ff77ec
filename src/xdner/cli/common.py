"""What the commands share: consoles, errors without tracebacks, and common options."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from xdner.cli.visible import unstyled
from xdner.errors import DataError, EndpointInterrupted, SettingsError, XdnerError, is_out_of_memory
from xdner.groups import parse_value

__all__ = [
    "BackboneOption",
    "BeamOption",
    "ConfigOption",
    "DeviceOption",
    "DtypeOption",
    "EncoderOption",
    "FormatOption",
    "JsonOption",
    "LibraryOption",
    "ResumeOption",
    "SeedOption",
    "SetOption",
    "SourceOption",
    "ablations",
    "chosen_over",
    "counting",
    "guarded",
    "in_library",
    "pairs",
    "print_json",
    "read_lines",
    "say",
    "say_done",
    "say_note",
    "split_names",
    "stderr",
    "stdout",
    "transfer_overrides",
    "unread_answer",
]

_ANSWER = 200  # characters of an answer that are shown

#: What a disk that takes nothing more says.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader of a pipe went away (`xdner predict … | head`): nothing is wrong."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()  # turns the stream away, so that nothing fails once more at the end
        raise SystemExit(0)


stdout = _Console()
stderr = _Console(stderr=True)

BackboneOption = Annotated[
    str | None,
    typer.Option(
        "--backbone", "-b", help="Alias, hub id or folder of the model (xdner backbones list).", show_default=False
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", help="Alias, hub id or folder of the encoder that embeds words (default: that of the index, "
                 "or minilm-l6).", show_default=False),
]  # fmt: skip
LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", "-l", help="Folder of trained domains (default: $XDNER_LIBRARY or ./xdner-library).",
                 show_default=False),
]  # fmt: skip
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting, e.g. --set epochs=10 (repeatable).", show_default=False),
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="columns, spans or tokens (default: by content).", show_default=False),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of everything random (1, or the one in --config).", show_default=False),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", show_default=False)]
DtypeOption = Annotated[str, typer.Option("--dtype", help="Of the frozen weights: float32, bfloat16, float16 or auto.")]
BeamOption = Annotated[
    int | None,
    typer.Option("--beam", help="laner: hypotheses to keep while reading (default: the domain's own).", show_default=False),
]  # fmt: skip
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, …")]
SourceOption = Annotated[
    list[Path], typer.Option("--source", help="Labelled sentences of a source domain (repeatable).", show_default=False)
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")]


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Errors that we raise on purpose end a command with one clear message and exit code 1."""
    try:
        yield
    except (KeyboardInterrupt, EndpointInterrupted):
        stderr.print("interrupted")
        raise typer.Exit(130) from None
    except XdnerError as error:
        _say_error(error.message, error.hint)
        raise typer.Exit(1) from None
    except BrokenPipeError:
        sys.stderr.close()  # as the consoles do; this is JSON's
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort):
        raise
    except OSError as error:
        if error.errno not in _FULL:
            _report_bug(error)
        _say_error(f"cannot write: {error.strerror}", "Free some space, or send the output somewhere else.")
        raise typer.Exit(1) from None
    except Exception as error:
        if not is_out_of_memory(error):
            _report_bug(error)
        less = "Take smaller batches (--set training.batch_size=2, when reading --set decoding.batch_size=2)"
        _say_error("out of memory", f"{less}, train with --set gradient_checkpointing=true, or use a smaller backbone.")
        raise typer.Exit(1) from None


def _report_bug(error: Exception) -> NoReturn:
    """What nobody foresaw.

    Raises:
        Exit: or with ``XDNER_DEBUG`` the error itself.
    """
    if os.environ.get("XDNER_DEBUG"):
        raise error
    told = f"{type(error).__name__}: {error}"
    _say_error(told, "This is a bug in xdner. XDNER_DEBUG=1 shows where; please report it.")
    raise typer.Exit(70) from None


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A line on standard error that counts, in a terminal; silent elsewhere.

    Args:
        what: what is counted, e.g. ``"windows read"``.
    """
    if not stderr.is_terminal:
        yield lambda _done: None
        return
    with stderr.status(what) as status:
        yield lambda done: status.update(f"{done:,} {what}")


def say(text: object, style: str = "") -> None:
    """A line on standard error."""
    stderr.print(unstyled(text, style), soft_wrap=True)


def say_done(text: object) -> None:
    """What was done, on standard error."""
    stderr.print(Text.assemble(("✓ ", "green"), unstyled(text)), soft_wrap=True)


def say_note(text: object) -> None:
    """Something that the user should know, on standard error."""
    stderr.print(Text.assemble(("note: ", "yellow"), unstyled(text)), soft_wrap=True)


def _say_error(text: object, hint: object = "") -> None:
    """What went wrong, and the next step."""
    stderr.print(Text.assemble(("error: ", "bold red"), unstyled(text)), soft_wrap=True)
    if hint:
        stderr.print(Text.assemble(("→ ", "cyan"), unstyled(hint)), soft_wrap=True)


def in_library(folder: Path | None) -> str:
    """The option of a next command that finds the same library."""
    return "" if folder is None else f" --library {shlex.quote(str(folder))}"


def unread_answer(answer: str, why: str) -> str:
    """A language model's answer in one short line, and why nothing could be read in it; nothing in it can steer a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in answer).split())
    quoted = f"{line[:_ANSWER]}…" if len(line) > _ANSWER else line
    return f"{quoted!r}: {why}" if line else why


def print_json(value: Any) -> None:
    """Clean JSON on standard output; lone surrogates are escaped."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, indent=2) + "\n")
    sys.stdout.flush()


def split_names(text: str | None, option: str = "--from") -> list[str]:
    """``"a, b,c"`` → ``["a", "b", "c"]``.

    Raises:
        SettingsError: the option was given, and names nothing.
    """
    names = [name for part in (text or "").split(",") if (name := part.strip())]
    if text is not None and not names:
        raise SettingsError([f"{option} names no domain"], hint=f"Name some ({option} a,b), or leave it out.")
    return names


def pairs(options: list[str] | None, option: str, form: str) -> dict[str, str]:
    """Repeated ``NAME=VALUE`` options.

    Raises:
        SettingsError: one without ``=``, with its form.
    """
    found = {}
    for text in options or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise SettingsError([f"{option} {text!r} is not of the form {form}"], hint=f"Write {option} {form}.")
        if name in found:
            raise SettingsError([f"{option} is given twice for {name!r}"], hint="Leave one of the two out.")
        found[name] = value
    return found


def transfer_overrides(
    strategy: str | None, alpha: list[str] | None, without: list[str] | None, set_: list[str] | None
) -> tuple[dict[str, float], list[str]]:
    """α of single sources, and the settings that ``--strategy``, ``--alpha``, ``--without`` and ``--set`` stand for.

    Raises:
        SettingsError: an α that is no number or given twice, or something that cannot be left out.
    """
    from xdner.workflows import ABLATIONS

    overrides = [] if strategy is None else [f"transfer.strategy={strategy}"]
    overrides += ablations(without, ABLATIONS)
    if alpha and any(setting.startswith("selector.alpha=") for setting in overrides):
        raise SettingsError(
            [f"--without {' '.join(without or [])} is an α, and --alpha gives another"],
            hint="Leave one of the two out.",
        )
    alphas = {}
    for text in alpha or []:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise SettingsError([f"--alpha {text!r}: {value!r} is no number"], hint="Write 0.5 or music=0.8.") from None
        if name in alphas or (not equals and any(o.startswith("selector.alpha=") for o in overrides)):
            raise SettingsError([f"--alpha is given twice{f' for {name!r}' if equals else ''}"], hint="Leave one out.")
        if equals:
            alphas[name] = number
        else:
            overrides.append(f"selector.alpha={number!r}")
    return alphas, chosen_over(overrides, set_)


def chosen_over(overrides: list[str], set_: list[str] | None) -> list[str]:
    """The settings that options stand for, and those of ``--set``.

    Raises:
        SettingsError: one says something else than the other.
    """
    said = dict(setting.split("=", 1) for setting in overrides)
    for setting in set_ or []:
        key, _, value = (part.strip() for part in setting.partition("="))
        other = next((k for k in said if key in (k, k.partition(".")[2])), None)
        if other is not None and parse_value(said[other]) != parse_value(value):
            raise SettingsError(
                [f"--set {setting} says something else than another option asks for ({other}={said[other]})"],
                hint="Leave one of the two out.",
            )
    return [*overrides, *(set_ or [])]


def ablations(without: list[str] | None, known: Mapping[str, str]) -> list[str]:
    """The settings that ``--without`` stands for.

    Raises:
        SettingsError: something that cannot be left out, or not together with another.
    """
    for name in without or []:
        if name not in known:
            raise SettingsError([f"nothing is called {name!r}"], hint=f"--without takes: {', '.join(known)}.")
    chosen = list(dict.fromkeys(known[name] for name in without or []))
    keys = [setting.partition("=")[0] for setting in chosen]
    if len(set(keys)) < len(keys):  # as with both similarities: nothing would be left to choose by
        raise SettingsError(
            [f"{' and '.join(without or [])} cannot be left out together"], hint="Leave out one at a time."
        )
    return chosen


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, or of standard input for ``-``.

    Raises:
        DataError: the file is missing, a folder, or not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="Give a text file, one text a line.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            hint="Convert it, for example with `iconv -f latin1 -t utf-8`.",
        ) from None
    # CRLF too; a carriage return inside a line stays, as offsets count it.
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]
