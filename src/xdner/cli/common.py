"""What the commands share: consoles, errors without tracebacks, and common options."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from xdner.errors import DataError, SettingsError, XdnerError

__all__ = [
    "ConfigOption",
    "DeviceOption",
    "DtypeOption",
    "EncoderOption",
    "FormatOption",
    "ResumeOption",
    "SeedOption",
    "BackboneOption",
    "BeamOption",
    "JsonOption",
    "LibraryOption",
    "SetOption",
    "SourceOption",
    "ablations",
    "counting",
    "guarded",
    "pairs",
    "print_json",
    "say_note",
    "split_names",
    "stderr",
    "stdout",
    "transfer_overrides",
    "unread_answer",
]

_ANSWER = 200  # characters of an answer that are shown

stdout = Console()
stderr = Console(stderr=True)

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
DtypeOption = Annotated[str, typer.Option("--dtype", help="Of the frozen weights: float32, bfloat16 or auto.")]
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
    except XdnerError as error:
        stderr.print(f"[bold red]error:[/] {_safe(error.message)}", highlight=False, soft_wrap=True)
        if error.hint:
            stderr.print(f"[cyan]→[/] {_safe(error.hint)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        stderr.print("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader of a pipe went away (`xdner predict … | head`): nothing is wrong.
        sys.stderr.close()
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort):
        raise
    except MemoryError:
        stderr.print("[bold red]error:[/] out of memory", highlight=False)
        stderr.print("[cyan]→[/] Lower --set batch_size, or use a smaller backbone.", highlight=False)
        raise typer.Exit(1) from None
    except Exception as error:
        if os.environ.get("XDNER_DEBUG"):
            raise
        stderr.print(
            f"[bold red]error:[/] {type(error).__name__}: {_safe(str(error))}", highlight=False, soft_wrap=True
        )
        stderr.print("[cyan]→[/] This is a bug in xdner. XDNER_DEBUG=1 shows where; please report it.", highlight=False)
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


def _safe(text: str) -> str:
    """Markup characters and lone surrogates must not break an error message."""
    return text.replace("[", "\\[").encode("utf-8", "replace").decode("utf-8")


def say_note(text: str) -> None:
    """Something that the user should know, on standard error."""
    stderr.print(f"[yellow]note:[/] {_safe(text)}", highlight=False, soft_wrap=True)


def unread_answer(answer: str, why: str) -> str:
    """A language model's answer in one short line, and why nothing could be read in it; nothing in it can steer a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in answer).split())
    quoted = f"{line[:_ANSWER]}…" if len(line) > _ANSWER else line
    return f"{quoted!r}: {why}" if line else why


def print_json(value: Any) -> None:
    """Clean JSON on standard output; lone surrogates are escaped."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, indent=2) + "\n")
    sys.stdout.flush()


def split_names(text: str | None) -> list[str]:
    """``"a, b,c"`` → ``["a", "b", "c"]``."""
    return [name for part in (text or "").split(",") if (name := part.strip())]


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
        if equals:
            alphas[name] = number
        else:
            overrides.append(f"selector.alpha={number!r}")
    return alphas, [*overrides, *(set_ or [])]


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
