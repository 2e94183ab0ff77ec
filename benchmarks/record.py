"""What every measurement says about itself: commit, machine, versions; and JSON that is written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xdner.errors import DataError
from xdner.files import write_atomically

__all__ = [
    "WAITING",
    "circumstances",
    "commit",
    "machine",
    "read_json",
    "refuse_other_options",
    "versions",
    "write_json",
]

ROOT = Path(__file__).resolve().parents[1]
#: How threads that have nothing to do wait: spinning ones are faster, and take a core.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PACKAGES = ("xdner", "torch", "transformers", "tokenizers", "peft", "numpy")


def circumstances() -> dict[str, Any]:
    """When, from which commit, where and with what: ``date``, ``commit``, ``machine``, ``versions``."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": now, "commit": commit(), "machine": machine(), "versions": versions()}


def commit() -> str:
    """The commit that is checked out, ``+changes`` if tracked files differ from it; ``unknown`` outside a checkout."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head[:12] + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def machine() -> dict[str, Any]:
    """Processor, cores, threads that torch uses and how they wait, memory in GiB, and the GPU if there is one."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        **{name: os.environ.get(name) for name in WAITING},
        "memory_gib": _memory(),
        "gpu": gpu,
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result can depend on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step, a line for each key of an object; an interrupted program leaves the old file or none.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict) and value:  # small enough to be kept under version control, and two runs can be compared
        lines = (f"{json.dumps(str(key))}: {json.dumps(one, ensure_ascii=False)}" for key, one in value.items())
        text = "{\n" + ",\n".join(lines) + "\n}"
    write_atomically(path, text + "\n")


def writable(folder: Path) -> None:
    """Make a folder, and ask whether files can be written into it: before a run of an hour, not after it.

    Raises:
        StorageError: they cannot.
    """
    probe = folder / ".probe"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file cannot be read or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Remove the file and run the measurement again.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no JSON object", hint="Remove the file and run the measurement again.")
    return value


def refuse_other_options(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The run in a file, if it was made with these options (its ``asked``): what was measured otherwise is not mixed in.

    Raises:
        DataError: it was made with other options, or cannot be read.
    """
    run = read_json(path)
    there = run.get("asked") or {}
    keys = sorted(there.keys() | asked.keys())
    differ = [f"{k} was {there.get(k)!r}, now {asked.get(k)!r}" for k in keys if there.get(k) != asked.get(k)]
    if differ:
        raise DataError(
            f"{path} was made with other options: {'; '.join(differ)}",
            hint="Choose another --out, or give the same options as before.",
        )
    return run


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout: the caller says "unknown"
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not a system that tells
        return None
