"""``xdner doctor``: is this installation fit for work, and if not, what is the next step?"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from xdner.cli.common import JsonOption, guarded, print_json, stderr, stdout
from xdner.errors import XdnerError, install_hint

__all__ = ["Finding", "diagnose", "doctor"]

_MARKS = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "error": "[bold red]✗[/]"}
_ROOM = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``step`` says what to do, where something is to be done."""

    what: str
    state: Literal["ok", "note", "error"]
    found: str
    step: str = ""


def doctor(
    verify: Annotated[bool, typer.Option("--verify", help="Hash the pulled backbones' files again.")] = False,
    json_: JsonOption = False,
) -> None:
    """Look at versions, machine, cache and backbones; exit code 1 if something essential is wrong."""
    with guarded():
        findings = list(diagnose(verify=verify))
        errors = [f for f in findings if f.state == "error"]
        if json_:
            print_json({"ok": not errors, "findings": [asdict(f) for f in findings]})
        else:
            table = Table("", Column("what", overflow="fold"), Column("what was found", overflow="fold"))
            for f in findings:
                step = f"\n[cyan]→ {escape(f.step)}[/]" if f.step else ""
                table.add_row(_MARKS[f.state], f.what, escape(f.found) + step)
            stdout.print(table)
        if errors:
            stderr.print(f"{len(errors)} essential {'thing is' if len(errors) == 1 else 'things are'} wrong:")
            for f in errors:
                stderr.print(f"  {f.what}: {f.step}", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(1)


def diagnose(*, verify: bool = False) -> Iterator[Finding]:
    """Everything that ``xdner doctor`` shows. With ``verify``, the pulled backbones' files are hashed again."""
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _packages()
    yield from _machine()
    yield _cache()
    yield from _backbones(verify)


#: Parts that can be left out, and what is not there without them.
_EXTRAS = {
    "instruct": "tuning with LoRA: xdner instruct, xdner adapt, IF-WRANER's --source",
    "retrieval": "IF-WRANER and its indexes",
    "plots": "heat maps and figures",
    "serve": "xdner serve",
}

# -- packages -------------------------------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    """What xdner's own metadata asks for, against what is there."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("xdner") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("xdner", "note", "runs from its source, not installed", "pip install -e .")
        return
    yield Finding("xdner", "ok", importlib.metadata.version("xdner"))
    shown = ("torch", "transformers", "peft", "bm25s", "pymilvus", "fastapi")
    for requirement in wanted:
        marker = requirement.marker
        extra = ""
        if marker is not None and not marker.evaluate({"extra": ""}):
            extra = next((name for name in _EXTRAS if marker.evaluate({"extra": name})), "")
            if not extra:
                continue
        finding = _package(requirement.name, str(requirement.specifier), extra)
        if requirement.name in shown or finding.state != "ok":
            yield finding


def _package(name: str, specifier: str, extra: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if extra:
            return Finding(name, "note", f"not installed (for {_EXTRAS[extra]})", install_hint(extra))
        return Finding(name, "error", f"not installed; xdner needs {specifier}", f"pip install '{name}{specifier}'")
    if not SpecifierSet(specifier).contains(version, prereleases=True):
        return Finding(name, "error", f"{version}; xdner needs {specifier}", f"pip install '{name}{specifier}'")
    if name in ("torch", "transformers"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library that is missing or of another machine
            found = f"{version} cannot be imported: {error}"
            return Finding(name, "error", found, f"pip install --force-reinstall '{name}{specifier}'")
    return Finding(name, "ok", f"{version} (xdner needs {specifier})")


# -- the machine ----------------------------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", "ok", str(cores))
    policy = os.environ.get("OMP_WAIT_POLICY")
    if policy and policy.upper() == "PASSIVE":
        yield Finding("OMP_WAIT_POLICY", "ok", policy)
    else:
        yield Finding(
            "OMP_WAIT_POLICY",
            "note",
            policy or "not set: waiting threads spin, which can slow down a small machine by several times",
            "export OMP_WAIT_POLICY=PASSIVE, before torch is imported",
        )
    total, free = _memory()
    if total:
        few = free < _ROOM
        yield Finding(
            "memory",
            "note" if few else "ok",
            f"{free / 1e9:.1f} of {total / 1e9:.1f} GB available",
            "Training needs about 2 GB: close other programs, or use a smaller batch." if few else "",
        )


def _memory() -> tuple[int, int]:
    """(total, available) bytes; zeros where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines)}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0, 0
    return total, total


# -- backbones ------------------------------------------------------------------------------------------------------


def _cache() -> Finding:
    from xdner.backbone.aliases import cache_folder

    folder = cache_folder()
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    another = "Set XDNER_CACHE to a folder that you can write."
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding("cache", "error", f"{folder} cannot be written", another)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("cache", "error", f"{folder}: {error}", another)
    step = "Free some space, or set XDNER_CACHE to a folder on another disk." if free < _ROOM else ""
    return Finding("cache", "note" if step else "ok", f"{folder}, {free / 1e9:.1f} GB free", step)


def _backbones(verify: bool) -> Iterator[Finding]:
    from xdner.backbone import aliases as table

    for name, alias in table.aliases().items():
        what = f"backbone {name}" + (" (default)" if name == table.DEFAULT_BACKBONE else "")
        if not table.is_pulled(alias):
            yield Finding(what, "note", "not pulled", f"xdner backbones pull {name}")
            continue
        if not verify:
            yield Finding(what, "ok", "pulled")
            continue
        try:
            table.verify(alias)
        except XdnerError as error:
            yield Finding(what, "error", error.message, error.hint or "")
        else:
            yield Finding(what, "ok", "pulled; every file has its hash")
