"""Seconds that count: after the device has done its work; and what several rounds say together."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Clock", "rate"]


@dataclass(frozen=True)
class Clock:
    """Tells the time once everything that was asked of the device is done."""

    device: torch.device

    def now(self) -> float:
        """Seconds from some fixed moment."""
        if self.device.type == "cuda":  # kernels run on after Python went on
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def rate(items: int, seconds: Sequence[float]) -> dict[str, float]:
    """Items a second over several rounds: ``median``, and ``low`` and ``high``, the slowest and the fastest round."""
    rates = sorted(items / s for s in seconds)
    return {"median": statistics.median(rates), "low": rates[0], "high": rates[-1]}
