"""Ctrl-C and SIGTERM as a request that the loop answers between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["Stop", "stop_on_signal"]


class Stop:
    """Whether someone asked for a stop."""

    asked = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask for a stop after the current step; a second one stops at once (``KeyboardInterrupt``).

    Only the main thread is told of signals; in another one nothing changes. The handlers that were there come back.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    # A signal that is ignored stays so (a shell's background job ignores Ctrl-C); None is a handler not set by Python.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in ours:
            signal.signal(number, ask)
        yield stop
    finally:
        for number in ours:
            signal.signal(number, before[number])
