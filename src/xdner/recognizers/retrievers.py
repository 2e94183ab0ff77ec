"""From a pool of examples and settings to a retriever: the one place that knows the retrievers by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from xdner.errors import SettingsError
from xdner.prompting.settings import WranerSettings
from xdner.retrieval.base import Example, Hit, Retriever
from xdner.text import Sentence

__all__ = ["make_retriever"]


class NoRetriever:
    """Shows nothing: a baseline."""

    def retrieve(self, queries: Sequence[Sentence], k: int) -> list[tuple[Hit, ...]]:
        return [() for _ in queries]


class RandomRetriever:
    """Any examples, drawn for each query from its text and a seed: a baseline that does not depend on the batch."""

    def __init__(self, pool: Sequence[Example], seed: int) -> None:
        self.pool, self.seed = list({e.sentence.text: e for e in pool}.values()), seed

    def retrieve(self, queries: Sequence[Sentence], k: int) -> list[tuple[Hit, ...]]:
        made = []
        for query in queries:
            drawn = random.Random(repr((self.seed, query.text))).sample(self.pool, min(k + 1, len(self.pool)))
            others = [example for example in drawn if example.sentence.text != query.text]
            made.append(tuple(Hit(example, 0.0) for example in others[:k]))
        return made


_METHODS: dict[str, Callable[[Sequence[Example], WranerSettings], Retriever]] = {
    "none": lambda pool, settings: NoRetriever(),
    "random": lambda pool, settings: RandomRetriever(pool, settings.retrieval.seed),
}


def make_retriever(examples: Sequence[Example], settings: WranerSettings) -> Retriever:
    """The retriever that the settings name, over these examples.

    Raises:
        SettingsError: there is none of that name.
    """
    method = settings.retrieval.method
    if method not in _METHODS:
        raise SettingsError([f"there is no retriever {method!r}"], hint=f"retrieval.method is: {', '.join(_METHODS)}.")
    return _METHODS[method](examples, settings)
