"""Which recognizer reads a domain: loaded when it is first asked for, one for all prefixes of a backbone.

All that is computed here is computed on one thread, in batches that mix callers and domains. Only endpoints have a thread each:
whoever waits for an answer from elsewhere keeps nobody from reading. Taggers have weights of their own, domains of examples a
language model: of those, the last few that were used are kept.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xdner.errors import EndpointError, LibraryError, UnknownDomainError, XdnerError
from xdner.library.entry import DomainEntry
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.kinds import Entry
from xdner.recognizers.base import Joining, Recognizer, Request, Result
from xdner.recognizers.cp_ner import CPNER
from xdner.serving.batcher import Batcher, BusyError, Watch
from xdner.serving.shelves import Known, Shelves
from xdner.workflows.reading import open_domain, open_prefixes

__all__ = ["KEPT", "Desk"]

#: Recognizers of single domains that stay in memory; those of backbones all do.
KEPT = 4
#: Seconds for which what cannot be loaded is not tried again.
AGAIN = 10.0

Outcome = tuple[int, Result | Exception]


@dataclass(frozen=True)
class _Route:
    """Where the texts of a domain go.

    Attributes:
        entry: the domain.
        stamp: its folder as it was; a domain that is trained again has another.
        key: of its recognizer: a backbone's fingerprint, or the domain's name and stamp.
        batcher: in whose line its texts wait.
    """

    entry: Entry
    stamp: Hashable
    key: Hashable
    batcher: Batcher


class Desk:
    """Reads texts in the domains of a library, and in those that ship.

    Args:
        library: a folder of domains; ``None`` is the default one.
        backbone: another place to load the backbone of prefixes from; ``None``: where it was loaded from in training.
        device, dtype: of the frozen weights.
        endpoints: addresses that domains which were imported may send texts to.
        most, waiting: of a :class:`~xdner.serving.batcher.Batcher`.
    """

    def __init__(
        self,
        library: str | Path | None = None,
        *,
        backbone: str | Path | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        endpoints: Sequence[str] = (),
        most: int = 16,
        waiting: int = 10_000,
    ) -> None:
        self.shelves = Shelves(library)
        self._backbone, self._device, self._dtype, self._endpoints = backbone, device, dtype, tuple(endpoints)
        self._bounds: dict[str, int] = {"most": most, "waiting": waiting}
        self._here = Batcher(self._read, **self._bounds)
        self._elsewhere: list[Batcher] = []
        self._routes: dict[str, _Route] = {}
        self._lock = threading.RLock()
        # Of the thread that computes, and nobody else's.
        self._shared: dict[Hashable, CPNER] = {}
        self._single: OrderedDict[str, tuple[Hashable, Recognizer[Any]]] = OrderedDict()
        self._failed: dict[Hashable, tuple[float, Exception]] = {}

    @property
    def waiting(self) -> int:
        """Texts that somebody waits for and nobody has begun to read."""
        with self._lock:
            return sum(batcher.waiting for batcher in (self._here, *self._elsewhere))

    @property
    def reading(self) -> int:
        """Texts that are being read and have no result yet."""
        with self._lock:
            return sum(batcher.reading for batcher in (self._here, *self._elsewhere))

    def known(self) -> list[Known]:
        """All domains by name; see :meth:`Shelves.known`."""
        return self.shelves.known()

    def submit(self, requests: Sequence[Request]) -> list[Future[Result]]:
        """Put texts in line; one future for each.

        Raises:
            UnknownDomainError: there is no such domain; nothing is read.
            LibraryError: a domain is damaged.
            BusyError: too many texts wait.
        """
        routes = {name: self._route(name) for name in dict.fromkeys(request.domain for request in requests)}
        futures: dict[int, Future[Result]] = {}
        with self._lock:
            try:
                for batcher in dict.fromkeys(route.batcher for route in routes.values()):
                    places = [i for i, request in enumerate(requests) if routes[request.domain].batcher is batcher]
                    own = batcher.submit([requests[i] for i in places])
                    futures.update(zip(places, own, strict=True))
            except BusyError:  # nobody will come for the rest
                for future in futures.values():
                    future.cancel()
                raise
        return [futures[i] for i in range(len(requests))]

    def close(self) -> None:
        """Read nothing more; texts that wait, or are being read, are given up."""
        with self._lock:
            batchers = [self._here, *self._elsewhere]
        for batcher in batchers:
            batcher.close(at_once=True)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until a closed desk computes nothing more; whether it has come to that."""
        return self._here.join(timeout)

    def forget(self) -> None:
        """Delete the files of domains that left memory, of a process that ends without ending this desk's thread."""
        for recognizer in self._shared.values():
            recognizer.residents.discard_files()

    # -- where a domain's texts go -------------------------------------------------------------------------------------

    def _route(self, name: str) -> _Route:
        try:
            stamp = self.shelves.stamp(name)
        except UnknownDomainError:
            with self._lock:
                self._leave(self._routes.pop(name, None))
            raise
        former = self._routes.get(name)
        if former is not None and former.stamp == stamp:
            return former
        try:
            entry = self.shelves.get(name)
        except UnknownDomainError:
            raise
        except XdnerError as error:  # not the caller's to mend
            raise LibraryError(f"domain {name!r} cannot be read: {error.message}", hint=error.hint) from None
        with self._lock:
            former = self._routes.get(name)
            if former is None or former.stamp != stamp:
                self._leave(former)
                former = self._routes[name] = self._new(name, entry, stamp)
            return former

    def _new(self, name: str, entry: Entry, stamp: Hashable) -> _Route:
        if isinstance(entry, DomainEntry):
            return _Route(entry, stamp, entry.prefix.backbone, self._here)
        if not isinstance(entry, ExamplesEntry) or entry.llm["kind"] != "endpoint":
            return _Route(entry, stamp, (name, stamp), self._here)
        batcher = Batcher(_Remote(partial(self._open, name, entry)), **self._bounds)
        self._elsewhere.append(batcher)
        return _Route(entry, stamp, (name, stamp), batcher)

    def _leave(self, route: _Route | None) -> None:
        """What waits for an endpoint of before is still read as it was asked."""
        if route is not None and route.batcher is not self._here:
            route.batcher.close()
        self._elsewhere = [batcher for batcher in self._elsewhere if batcher.alive]

    def _open(self, name: str, entry: Entry) -> Recognizer[Any]:
        if not isinstance(entry, ExamplesEntry):  # a tagger is read in 32 bits, whatever language models are
            return open_domain(name, library=self.shelves.own.folder, device=self._device)
        url = entry.llm.get("url")
        if entry.notes.get("imported") and url and url not in self._endpoints:
            raise LibraryError(
                f"domain {name!r} was imported, and sends texts to {url}",
                hint=f"If that is where they may go, start the server with --endpoint {url}",
            )
        return open_domain(name, library=self.shelves.own.folder, backbone=url, device=self._device, dtype=self._dtype)

    # -- on the thread that computes -----------------------------------------------------------------------------------

    def _read(self, requests: Sequence[Request], watch: Watch, joining: Joining) -> Iterator[Outcome]:
        groups: dict[Hashable, list[int]] = {}
        routes = self._routes.copy()
        for place, request in enumerate(requests):
            if request.domain in routes:
                groups.setdefault(routes[request.domain].key, []).append(place)
            else:
                yield place, UnknownDomainError(f"the domain {request.domain!r} was removed")
        # Prefixes come last: texts go on joining them, and nobody else of the batch may wait for that.
        order = sorted(groups, key=lambda key: isinstance(routes[requests[groups[key][0]].domain].entry, DomainEntry))
        for key, places in ((key, groups[key]) for key in order):
            own = [requests[place] for place in places]
            try:
                recognizer = self._ready(own[0].domain, routes[own[0].domain])
            except Exception as error:  # it would be the same for each of them
                yield from ((place, error) for place in places)
                continue
            if isinstance(recognizer, CPNER):
                texts, domains = [one.text for one in own], [one.domain for one in own]
                line = _Same(joining, partial(self._goes_to, key)) if key == order[-1] else None
                for i, result in recognizer.stream(texts, domain=domains, done=watch, joining=line):
                    yield places[i] if i < len(own) else len(requests) + i - len(own), result
            else:
                yield from zip(places, recognizer.recognize(own, done=watch), strict=True)

    def _goes_to(self, key: Hashable, request: Request) -> bool:
        route = self._routes.get(request.domain)
        return route is not None and route.key == key

    def _ready(self, name: str, route: _Route) -> Recognizer[Any]:
        key, now = route.key, time.monotonic()
        self._failed = {k: (at, error) for k, (at, error) in self._failed.items() if now - at < AGAIN}
        if key in self._failed:
            raise self._failed[key][1]
        try:
            if isinstance(route.entry, DomainEntry):
                if key not in self._shared:
                    self._shared[key] = open_prefixes(
                        route.entry, self.shelves, backbone=self._backbone, dtype=self._dtype, device=self._device
                    )
                return self._shared[key]
            if name not in self._single or self._single[name][0] != key:
                self._single.pop(name, None)
                while len(self._single) >= KEPT:
                    self._single.popitem(last=False)
                self._single[name] = key, self._open(name, route.entry)
        except Exception as error:
            self._failed[key] = now, error
            raise
        self._single.move_to_end(name)
        return self._single[name][1]


class _Same:
    """A line in which only texts for one recognizer move up: another one's turn comes when the batch has ended."""

    def __init__(self, line: Joining, belongs: Callable[[Request], bool]) -> None:
        self._line, self._belongs = line, belongs

    def peek(self) -> Request | None:
        request = self._line.peek()
        return request if request is not None and self._belongs(request) else None

    def take(self) -> None:
        self._line.take()


class _Remote:
    """Asks an endpoint. What it does not answer is not asked again for each text: its own patience has been used up by then."""

    def __init__(self, open_: Callable[[], Recognizer[Any]]) -> None:
        self._open = open_
        self._recognizer: Recognizer[Any] | None = None

    def __call__(self, requests: Sequence[Request], watch: Watch, joining: Joining) -> Iterator[Outcome]:
        try:
            self._recognizer = self._recognizer or self._open()
        except Exception as error:
            yield from ((place, error) for place in range(len(requests)))
            return
        try:
            yield from enumerate(self._recognizer.recognize(requests))
        except EndpointError as error:  # what was answered before is paid for
            yield from enumerate(result or error for result in error.finished or [None] * len(requests))
