"""Peak memory of a piece of work, in a process of its own: what other arms left behind does not count.

On a CPU it is the largest resident set that the system saw (Linux only), on a GPU what torch had allocated at most.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

__all__ = ["peak_memory"]

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(device: str, build: Callable[..., Callable[[], object]], *arguments: Any) -> dict[str, float] | None:
    """MiB at most while the work is done.

    Args:
        device: where it is done.
        build: a function of a module that loads the model and returns the work.
        arguments: of ``build``.

    Returns:
        ``peak``, model included, and ``above_model``, what came on top of it; ``None`` where the system does not tell.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, device, build, arguments).result()


def _measure(
    device: str, build: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]
) -> dict[str, float] | None:
    work = build(*arguments)
    gc.collect()
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        peak = torch.cuda.max_memory_allocated()
        return {"peak": peak / 2**20, "above_model": (peak - before) / 2**20}
    try:
        RESET.write_text("5")  # forgets the peak so far: loading may need more than working
        start = _resident("VmRSS")
        work()
        highest = _resident("VmHWM")
    except (OSError, KeyError):  # not Linux
        return None
    return {"peak": highest, "above_model": max(0.0, highest - start)}


def _resident(name: str) -> float:
    """MiB, by the name of a line of the process's status."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) / 1024
