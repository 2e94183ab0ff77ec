"""Which recognizer reads a domain: loaded when it is first asked for, one for all prefixes of a backbone.

All that is computed here is computed on one thread, in batches that mix callers and domains. Only endpoints have a thread each:
whoever waits for an answer from elsewhere keeps nobody from reading. Taggers have weights of their own, domains of examples a
language model: of those, the last few that were used are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xdner.domain import Domain
from xdner.errors import EndpointError, UnknownDomainError, XdnerError
from xdner.library.bundled import bundled_libraries
from xdner.library.entry import DomainEntry
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.kinds import Entry, recognizer_of
from xdner.library.reading import identity
from xdner.library.store import Library
from xdner.recognizers.base import Recognizer, Request, Result
from xdner.recognizers.cp_ner import CPNER
from xdner.serving.batcher import Batcher, BusyError
from xdner.workflows.reading import open_domain, open_prefixes

__all__ = ["KEPT", "Desk", "Known"]

#: Recognizers of single domains that stay in memory; those of backbones all do.
KEPT = 4

Outcome = tuple[int, Result | Exception]


@dataclass(frozen=True, slots=True)
class Known:
    """A domain that can be asked for.

    Attributes:
        name: of the domain.
        recognizer: ``cp-ner``, ``laner`` or ``if-wraner``.
        labels: names of its types.
        shipped: whether it came with xdner, and is not of the library.
    """

    name: str
    recognizer: str
    labels: tuple[str, ...]
    shipped: bool


@dataclass(frozen=True)
class _Route:
    """Where the texts of a domain go.

    Attributes:
        stamp: its folder as it was; a domain that is trained again has another.
        key: of its recognizer: a backbone's fingerprint, or the domain's name and stamp.
        dtype: of the frozen weights.
        batcher: in whose line its texts wait.
    """

    stamp: Hashable
    key: Hashable
    dtype: str
    batcher: Batcher


class Desk:
    """Reads texts in the domains of a library, and in those that ship.

    Args:
        library: a folder of domains; ``None`` is the default one.
        backbone: another place to load the backbone of prefixes from; ``None``: where it was loaded from in training.
        device, dtype: of the frozen weights.
        most, waiting: of a :class:`~xdner.serving.batcher.Batcher`.
    """

    def __init__(
        self,
        library: str | Path | None = None,
        *,
        backbone: str | Path | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        most: int = 16,
        waiting: int = 10_000,
    ) -> None:
        self._stores = (Library(library), *bundled_libraries())
        self._backbone, self._device, self._dtype = backbone, device, dtype
        self._bounds: dict[str, int] = {"most": most, "waiting": waiting}
        self._here = Batcher(self._read, **self._bounds)
        self._routes: dict[str, _Route] = {}
        self._listed: dict[str, tuple[Hashable, Known]] = {}
        self._lock = threading.Lock()
        # Of the thread that computes, and nobody else's.
        self._shared: dict[Hashable, CPNER] = {}
        self._single: OrderedDict[str, tuple[Hashable, Recognizer[Any]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Texts that nobody has begun to read."""
        return sum(batcher.waiting for batcher in self._batchers())

    def known(self) -> list[Known]:
        """All domains by name, read from their ``domain.toml`` alone; folders that have no sound one are left out."""
        found: dict[str, Known | None] = {}
        for store in self._stores:
            for name in store:
                if name not in found:  # a damaged domain, too, goes before the one of its name that ships
                    found[name] = self._look(store, name)
        return sorted((one for one in found.values() if one is not None), key=lambda one: one.name)

    def submit(self, requests: Sequence[Request]) -> list[Future[Result]]:
        """Put texts in line; one future for each.

        Raises:
            UnknownDomainError: there is no such domain; nothing is read.
            XdnerError: a domain is damaged.
            BusyError: too many texts wait.
        """
        futures: dict[int, Future[Result]] = {}
        with self._lock:
            routes = {name: self._route(name) for name in dict.fromkeys(request.domain for request in requests)}
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
        """Read nothing more; texts that wait are given up."""
        for batcher in self._batchers():
            batcher.close(at_once=True)

    # -- where a domain is ---------------------------------------------------------------------------------------------

    def _batchers(self) -> list[Batcher]:
        return list(dict.fromkeys([self._here, *(route.batcher for route in self._routes.copy().values())]))

    def _store(self, name: str) -> Library:
        for store in self._stores:
            if name in store:
                return store
        raise UnknownDomainError(f"there is no domain {name!r} here", hint="GET /domains lists those that are.")

    def _look(self, store: Library, name: str) -> Known | None:
        path = store.path(name)
        stamp = (path, identity(path))
        if self._listed.get(name, (None,))[0] != stamp:
            try:
                labels = Domain.read(path / "domain.toml").label_names
                known = Known(name, recognizer_of(path), labels, store is not self._stores[0])
            except XdnerError:
                return None
            self._listed[name] = stamp, known
        return self._listed[name][1]

    def _route(self, name: str) -> _Route:
        store = self._store(name)
        stamp = (store.folder, identity(store.path(name)))
        former = self._routes.get(name)
        if former is not None and former.stamp == stamp:
            return former
        entry = store.get(name)
        if former is not None and former.batcher is not self._here:
            former.batcher.close()  # what waits there is still read as it was asked
        self._routes[name] = _Route(stamp, *self._lane(entry, (name, stamp)))
        return self._routes[name]

    def _lane(self, entry: Entry, own: Hashable) -> tuple[Hashable, str, Batcher]:
        if isinstance(entry, DomainEntry):
            return entry.prefix.backbone, self._dtype, self._here
        if not isinstance(entry, ExamplesEntry):
            return own, "float32", self._here  # a tagger is read in 32 bits, whatever language models are
        if entry.llm["kind"] != "endpoint":
            return own, self._dtype, self._here
        return own, self._dtype, Batcher(_Remote(partial(self._open, entry.domain.name, self._dtype)), **self._bounds)

    def _open(self, name: str, dtype: str) -> Recognizer[Any]:
        return open_domain(name, library=self._stores[0].folder, device=self._device, dtype=dtype)

    # -- on the thread that computes -----------------------------------------------------------------------------------

    def _read(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        groups: dict[Hashable, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._routes[request.domain].key, []).append(place)
        for places in groups.values():
            own = [requests[place] for place in places]
            try:
                recognizer = self._ready(own[0].domain)
            except Exception as error:  # it would be the same for each of them
                yield from ((place, error) for place in places)
                continue
            if isinstance(recognizer, CPNER):
                found = recognizer.stream([one.text for one in own], domain=[one.domain for one in own])
                yield from ((places[i], result) for i, result in found)
            else:
                yield from zip(places, recognizer.recognize(own), strict=True)

    def _ready(self, name: str) -> Recognizer[Any]:
        route = self._routes[name]
        if isinstance(route.key, str):
            if route.key not in self._shared:
                self._shared[route.key] = open_prefixes(
                    name, self._stores, backbone=self._backbone, dtype=route.dtype, device=self._device
                )
            return self._shared[route.key]
        if name not in self._single or self._single[name][0] != route.key:
            self._single.pop(name, None)
            while len(self._single) >= KEPT:
                self._single.popitem(last=False)
            self._single[name] = route.key, self._open(name, route.dtype)
        self._single.move_to_end(name)
        return self._single[name][1]


class _Remote:
    """Asks an endpoint. What it does not answer is not asked again for each text: its own patience has been used up by then."""

    def __init__(self, open_: Callable[[], Recognizer[Any]]) -> None:
        self._open = open_
        self._recognizer: Recognizer[Any] | None = None

    def __call__(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        try:
            self._recognizer = self._recognizer or self._open()
        except Exception as error:
            yield from ((place, error) for place in range(len(requests)))
            return
        try:
            yield from enumerate(self._recognizer.recognize(requests))
        except EndpointError as error:  # what was answered before is paid for
            yield from enumerate(result or error for result in error.finished or [None] * len(requests))
