"""Texts that are read together: as many as have their domains in memory at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xdner.recognizers.base import Result
from xdner.recognizers.reader import Item, Steered
from xdner.recognizers.residents import size_of
from xdner.recognizers.vote import vote
from xdner.text import Sentence

__all__ = ["Group"]


class Group:
    """Domains that are ready, texts that are read in them, and what an ensemble's members say of each.

    Args:
        budget: bytes that its domains may take together; a single one may take more.
        first: place of its first text.
    """

    def __init__(self, budget: int, first: int = 0) -> None:
        self.end = first
        self._budget, self._used, self._items = budget, 0, 0
        self._inside: dict[str, tuple[Steered, ...]] = {}
        # Of texts that have no result yet: where each item belongs, and what has been read.
        self._owners: dict[int, int] = {}
        self._readings: dict[int, dict[int, Result]] = {}
        self._members: dict[int, int] = {}

    def welcomes(self, domain: str, ready: Sequence[Steered]) -> bool:
        """Whether there is memory for a domain; it is then counted. One that was made ready anew counts once more."""
        ready = tuple(ready)
        known = self._inside.get(domain, ())
        if len(known) == len(ready) and all(a is b for a, b in zip(known, ready, strict=True)):
            return True
        size = size_of(ready)
        if self._inside and self._used + size > self._budget:
            return False
        self._inside[domain] = ready
        self._used += size
        return True

    def add(self, sentence: Sentence, domain: str) -> list[Item]:
        """A text at the next place, once for each prefix of its domain, which is there."""
        ready, place = self._inside[domain], self.end
        self.end += 1
        self._readings[place], self._members[place] = {}, len(ready)
        for _ in ready:
            self._owners[self._items] = place
            self._items += 1
        return [(sentence, one) for one in ready]

    def put(self, item: int, reading: Result) -> Iterator[tuple[int, Result]]:
        """What one prefix says of a text; the text's place and result, if it was the last one."""
        place = self._owners.pop(item)
        readings = self._readings[place]
        readings[item] = reading
        if len(readings) == self._members[place]:
            members = [one for _, one in sorted(readings.items())]
            del self._readings[place], self._members[place]
            yield place, members[0] if len(members) == 1 else vote(members)
