"""One reader for many callers: their texts wait in line, and are read in batches that mix callers and domains.

A recognizer computes on all cores as it is, so two calls at a time would only take turns, each with a batch that is not full. One
thread reads; whoever asks gets a future for each text. A text that comes while a batch is read joins it as soon as there is room,
where the recognizer can do that. Callers take turns too: one with ten thousand texts has no more of a batch than one with a
single sentence.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from xdner.errors import XdnerError
from xdner.recognizers.base import Joining, Request, Result

__all__ = ["Batcher", "BusyError", "GoneError", "Read", "Watch"]

#: Called by what reads, as often as it likes, with whatever counts there; raises :class:`GoneError` when nobody waits any more.
Watch = Callable[[int], None]
#: Reads requests, and those that it lets join them; gives each result with its request's place as soon as it is there, or what
#: was in its way.
Read = Callable[[Sequence[Request], Watch, Joining], Iterable[tuple[int, Result | Exception]]]


class BusyError(XdnerError):
    """More texts wait than may, or nothing is read any more."""


class GoneError(XdnerError):
    """Nobody waits any more for what is being read."""


@dataclass(eq=False)
class _Ticket:
    request: Request
    future: Future[Result] = field(default_factory=Future)

    def settle(self, outcome: Result | BaseException) -> None:
        # A future stays cancelable while its text is read, so its caller may just have gone.
        if self.future.set_running_or_notify_cancel():
            if isinstance(outcome, Result):
                self.future.set_result(outcome)
            else:
                self.future.set_exception(outcome)


class Batcher:
    """Reads texts in the order of their callers' turns, on a thread of its own.

    Args:
        read: called by that thread alone. An exception that it gives is that of one text; one that it raises may be, so the texts
            that have no result yet are then read one by one.
        most: texts that are read together.
        waiting: texts that may wait; above it callers are turned away.
    """

    def __init__(self, read: Read, *, most: int = 16, waiting: int = 10_000) -> None:
        self._read, self._most, self._limit = read, most, waiting
        self._callers: deque[deque[_Ticket]] = deque()
        self._batch: list[_Ticket] = []
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="xdner-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that somebody waits for and nobody has begun to read."""
        with self._change:
            return self._count()

    @property
    def reading(self) -> int:
        """Texts that are being read and have no result yet."""
        with self._change:
            return sum(not ticket.future.done() for ticket in self._batch)

    @property
    def alive(self) -> bool:
        """Whether there is, or may come, something to read."""
        return self._thread.is_alive()

    def submit(self, requests: Sequence[Request]) -> list[Future[Result]]:
        """Put a caller's texts in line. A future may be canceled at any time: a text that is not begun is then not read, and a
        batch that nobody waits for ends early.

        Raises:
            BusyError: too many texts wait, or the batcher is closed.
        """
        tickets = [_Ticket(request) for request in requests]
        with self._change:
            if self._closed:
                raise BusyError("the server is stopping", hint="Ask again when it runs.")
            if (count := self._count()) + len(tickets) > self._limit:
                raise BusyError(f"{count} texts are waiting already", hint="Ask again later, or with fewer texts.")
            if tickets:
                self._callers.append(deque(tickets))
                self._change.notify()
        return [ticket.future for ticket in tickets]

    def close(self, *, at_once: bool = False) -> None:
        """Take no more texts. Those that wait are still read, or with ``at_once`` all futures are canceled."""
        with self._change:
            self._closed = True
            left = [*self._batch, *(ticket for caller in self._callers for ticket in caller)] if at_once else []
            self._change.notify()
        for ticket in left:
            ticket.future.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until a closed batcher has read what it had; whether it has."""
        self._thread.join(timeout)
        return not self.alive

    def _count(self) -> int:
        """Drop what was canceled; how much is left."""
        kept = (deque(t for t in caller if not t.future.cancelled()) for caller in self._callers)
        self._callers = deque(caller for caller in kept if caller)
        return sum(map(len, self._callers))

    def _work(self) -> None:
        while self._next():
            self._take(self._batch)

    def _next(self) -> bool:
        """Choose the next batch, one text of each caller in turn; ``False`` once the batcher is closed and nothing is left."""
        with self._change:
            self._batch = []
            self._change.wait_for(lambda: self._closed or self._count())
            while self._callers and len(self._batch) < self._most:
                self._batch.append(self._pop())
            return bool(self._batch)

    def _pop(self) -> _Ticket:
        """The text that is next."""
        caller = self._callers.popleft()
        ticket = caller.popleft()
        if caller:
            self._callers.append(caller)
        return ticket

    def _peek(self) -> _Ticket | None:
        with self._change:
            return self._callers[0][0] if self._count() else None

    def _join(self, ticket: _Ticket) -> None:
        """The text that :meth:`_peek` gave is read from now on."""
        with self._change:
            if self._callers and self._callers[0][0] is ticket:  # else it was canceled since, and dropped
                self._pop()
            self._batch = [one for one in self._batch if not one.future.done()] + [ticket]

    def _take(self, batch: Sequence[_Ticket], *, alone: bool = False) -> None:
        left = dict(enumerate(ticket for ticket in batch if not ticket.future.cancelled()))
        line = _Line(self, left, alone)
        failure: BaseException = RuntimeError("the recognizer gave no result for a text")

        def watch(count: int = 0) -> None:
            if all(ticket.future.cancelled() for ticket in left.values()):
                raise GoneError("nobody waits any more")

        with suppress(GoneError):
            try:
                watch()
                for place, outcome in self._read([ticket.request for ticket in left.values()], watch, line):
                    left.pop(place).settle(outcome)
            except GoneError:
                raise
            except BaseException as error:  # a thread that ended would leave everybody waiting
                failure = error
            for ticket in left.values():
                if line.count > 1:
                    self._take([ticket], alone=True)  # one text's trouble is not its neighbors'
                else:
                    ticket.settle(failure)


class _Line:
    """Texts that may join a batch.

    Args:
        batcher: whose.
        left: the batch's texts that have no result yet, by place.
        alone: nobody may join.
    """

    def __init__(self, batcher: Batcher, left: dict[int, _Ticket], alone: bool) -> None:
        self._batcher, self._left, self._alone = batcher, left, alone
        self._next: _Ticket | None = None
        self.count = len(left)

    def peek(self) -> Request | None:
        full = self._alone or len(self._left) >= self._batcher._most
        self._next = None if full else self._batcher._peek()
        return None if self._next is None else self._next.request

    def take(self) -> None:
        assert self._next is not None
        self._batcher._join(self._next)
        self._left[self.count] = self._next
        self.count += 1
