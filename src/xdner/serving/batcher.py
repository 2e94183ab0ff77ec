"""One reader for many callers: their texts wait in line, and are read in batches that mix callers and domains.

A recognizer computes on all cores as it is, so two calls at a time would only take turns, each with a batch that is not full. One
thread reads; whoever asks gets a future for each text. Callers take turns too: one with ten thousand texts has no more of the
next batch than one with a single sentence.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from xdner.errors import XdnerError
from xdner.recognizers.base import Request, Result

__all__ = ["Batcher", "BusyError", "Read"]

#: Reads requests, and gives each result with its request's place as soon as it is there, or what was in its way.
Read = Callable[[Sequence[Request]], Iterable[tuple[int, Result | Exception]]]


class BusyError(XdnerError):
    """More texts wait than may, or nothing is read any more."""


@dataclass(eq=False)
class _Ticket:
    request: Request
    future: Future[Result] = field(default_factory=Future)


class Batcher:
    """Reads texts in the order of their callers' turns, on a thread of its own.

    Args:
        read: called by that thread alone. An exception that it gives is that of one text; one that it raises may be, so the texts
            that have no result yet are then read one by one.
        most: texts of a batch: a caller who comes in the middle of one waits for its end.
        waiting: texts that may wait; above it callers are turned away.
    """

    def __init__(self, read: Read, *, most: int = 16, waiting: int = 10_000) -> None:
        self._read, self._most, self._limit = read, most, waiting
        self._callers: deque[deque[_Ticket]] = deque()
        self._waiting = 0
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="xdner-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that nobody has begun to read."""
        return self._waiting

    def submit(self, requests: Sequence[Request]) -> list[Future[Result]]:
        """Put a caller's texts in line; a future that is canceled before its text is begun saves the reading.

        Raises:
            BusyError: too many texts wait, or the batcher is closed.
        """
        tickets = [_Ticket(request) for request in requests]
        with self._change:
            if self._closed:
                raise BusyError("the server is stopping", hint="Ask again when it runs.")
            if self._waiting + len(tickets) > self._limit:
                raise BusyError(
                    f"{self._waiting} texts are waiting already", hint="Ask again later, or with fewer texts."
                )
            if tickets:
                self._callers.append(deque(tickets))
                self._waiting += len(tickets)
                self._change.notify()
        return [ticket.future for ticket in tickets]

    def close(self, *, at_once: bool = False) -> None:
        """Take no more texts. Those that wait are still read, or with ``at_once`` their futures are canceled."""
        with self._change:
            self._closed = True
            left = [ticket for caller in self._callers for ticket in caller] if at_once else []
            if at_once:
                self._callers.clear()
                self._waiting = 0
            self._change.notify()
        for ticket in left:
            ticket.future.cancel()

    def join(self, timeout: float | None = None) -> None:
        """Wait until a closed batcher has read what it had."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while batch := self._next():
            self._take(batch)

    def _next(self) -> list[_Ticket]:
        """The next batch, one text of each caller in turn; empty once the batcher is closed and nothing is left."""
        batch: list[_Ticket] = []
        with self._change:
            while not batch:
                self._change.wait_for(lambda: self._callers or self._closed)
                if not self._callers:
                    return []
                while self._callers and len(batch) < self._most:
                    caller = self._callers.popleft()
                    ticket = caller.popleft()
                    self._waiting -= 1
                    if ticket.future.set_running_or_notify_cancel():
                        batch.append(ticket)
                    if caller:
                        self._callers.append(caller)
        return batch

    def _take(self, batch: list[_Ticket]) -> None:
        left = dict(enumerate(batch))
        failure: BaseException = RuntimeError("the recognizer gave no result for a text")
        try:
            for place, outcome in self._read([ticket.request for ticket in batch]):
                future = left.pop(place).future
                if isinstance(outcome, Result):
                    future.set_result(outcome)
                else:
                    future.set_exception(outcome)
        except BaseException as error:  # a thread that ended would leave everybody waiting
            failure = error
        for ticket in left.values():
            if len(batch) > 1:
                self._take([ticket])  # one text's trouble is not its neighbors'
            else:
                ticket.future.set_exception(failure)
