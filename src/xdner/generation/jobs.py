"""What the engine is given, what it gives back, and the line in which jobs wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from xdner.backbone.base import Extent, Ids
from xdner.backbone.store import Context
from xdner.codec.grammar import GrammarState, Mention

__all__ = ["Generated", "Job", "Line", "More", "Steering", "extent_of", "length_of"]

#: Asked for further jobs whenever nobody waits for the places that are free, with their number; it gives at most so many.
More = Callable[[int], Sequence["Job"]]


@dataclass(frozen=True, eq=False)
class Steering:
    """What a domain brings to the backbone: its prefix and its context, read once.

    Attributes:
        keys, values: the prefix, per site [heads, n, head_dim].
        context: instruction and options, read under that prefix.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    context: Context

    @property
    def bytes(self) -> tuple[int, int]:
        """Of the prefix, and of the context."""
        prefix, context = ((*self.keys, *self.values), (*self.context.keys, *self.context.values))
        return sum(t.nbytes for t in prefix), sum(t.nbytes for t in context)


@dataclass(frozen=True, eq=False)
class Job:
    """One sentence to be read.

    Attributes:
        source: its prompt.
        state: the grammar's start state for it; the engine works on a copy.
        steering: its domain's.
        room: tokens it may write at most.
        names: of each word, whether it looks like part of a name: a hint for drafts, without effect on the result.
    """

    source: Ids
    state: GrammarState
    steering: Steering
    room: int
    names: Sequence[bool] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """What a job wrote.

    Attributes:
        ids: target tokens, the end included unless the room was used up.
        probabilities: of each token over its legal set; forced tokens have 1.
        mentions: what the grammar read in them.
        complete: whether the end was written.
    """

    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    mentions: tuple[Mention, ...]
    complete: bool

    def score(self, mention: Mention) -> float:
        """The probability of a mention: the product over the tokens that decided it."""
        return prod(self.probabilities[mention.start_token : mention.end_token])


@dataclass
class Line:
    """Jobs with their numbers, and those that join them.

    Attributes:
        waiting: for a place in this session.
        more: asked for further ones; ``None`` where nobody may join.
        count: jobs so far: the number of the next one.
        late: that came and have no room in the session that is going on. From then on nobody joins it, so that it ends.
    """

    waiting: deque[tuple[int, Job]]
    more: More | None
    count: int
    late: list[tuple[int, Job]] = field(default_factory=list)

    def join(self, places: int, extent: Extent) -> None:
        """Ask for as many jobs as there are places that nobody waits for."""
        if self.more is None or self.late or places <= len(self.waiting):
            return
        for job in self.more(places - len(self.waiting)):
            to = self.waiting if _fits(job, extent) else self.late
            to.append((self.count, job))
            self.count += 1


def length_of(job: Job) -> int:
    return job.steering.context.length + len(job.source) + job.room


def extent_of(jobs: Sequence[Job], rows: int, least: int) -> Extent:
    """What these jobs need; at least so many places of each kind, where others may join them."""
    return Extent(
        rows=rows,
        prefix=max(job.steering.keys[0].shape[1] for job in jobs),
        context=max(least, *(len(job.steering.context.ids) for job in jobs)),
        source=max(least, *(len(job.source) for job in jobs)),
        text=max(2 * least, *map(length_of, jobs)),
        room=max(least, *(job.room for job in jobs)),
    )


def _fits(job: Job, extent: Extent) -> bool:
    own = extent_of([job], extent.rows, 0)
    return (
        own.prefix <= extent.prefix
        and own.context <= extent.context
        and own.source <= extent.source
        and own.text <= extent.text
        and own.room <= extent.room
    )
