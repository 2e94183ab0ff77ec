"""The life of a batch: admit, step, verify, retire.

A :class:`Job` is one sentence under one domain. The engine reads a batch of prompts, then goes round until all rows
are done::

    admit   prompts are read in one pass, each row under its own prefix and context
    choose  each row's legal tokens are scored (and nothing else), the best is taken
    run     tokens that are then forced join it: the whole run is fed in one pass (jump-forward)
    retire  rows that wrote their end leave the batch; the rest is fed

Rows are independent: a job's result does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xdner.backbone.base import Backbone, Ids
from xdner.backbone.cache import Context, PrefixRows
from xdner.codec.grammar import GrammarState, Mention

__all__ = ["Engine", "Generated", "Job", "Steering", "score_legal"]


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


@dataclass(frozen=True, eq=False)
class Job:
    """One sentence to be read.

    Attributes:
        source: its prompt.
        state: the grammar's start state for it; the engine works on a copy.
        steering: its domain's.
        room: tokens it may write at most.
    """

    source: Ids
    state: GrammarState
    steering: Steering
    room: int


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


@dataclass
class Counts:
    """What the engine did: model calls, rows in them, tokens fed and decisions scored."""

    calls: int = 0
    row_steps: int = 0
    prompt_tokens: int = 0
    target_tokens: int = 0
    decisions: int = 0


@dataclass
class _Row:
    """One job in the batch."""

    index: int
    state: GrammarState
    room: int
    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)

    def take(self, token: int, probability: float) -> None:
        """Write a chosen token and everything that is then forced."""
        self.pending = []
        self._write(token, probability)
        if not self.state.done:
            for forced in self.state.forced():
                self._write(forced, 1.0)

    def _write(self, token: int, probability: float) -> None:
        if len(self.ids) >= self.room:
            return
        self.state.advance(token)
        self.ids.append(token)
        self.probabilities.append(probability)
        self.pending.append(token)

    @property
    def finished(self) -> bool:
        return self.state.done or len(self.ids) >= self.room

    def result(self) -> Generated:
        return Generated(
            tuple(self.ids), tuple(self.probabilities), tuple(self.state.mentions()), complete=self.state.done
        )


class Engine:
    """Greedy generation under a grammar, for rows of any mix of domains.

    Args:
        backbone: the frozen model.
        batch_size: rows at a time.
    """

    def __init__(self, backbone: Backbone, *, batch_size: int = 16) -> None:
        self.backbone, self.batch_size = backbone, batch_size
        self.counts = Counts()

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job], *, done: Callable[[int], None] | None = None) -> list[Generated]:
        """Read all jobs.

        Args:
            jobs: in any order and of any length; neighbours in length share a batch.
            done: called with the number of jobs finished so far.

        Returns:
            One result a job, in the order of the jobs.
        """
        results: list[Generated | None] = [None] * len(jobs)
        order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i].source) + jobs[i].steering.context.length, i))
        finished = 0
        for first in range(0, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            for index, generated in zip(chosen, self._batch([jobs[i] for i in chosen]), strict=True):
                results[index] = generated
            finished += len(chosen)
            if done is not None:
                done(finished)
        return [r for r in results if r is not None]

    def _batch(self, jobs: Sequence[Job]) -> list[Generated]:
        rows = [_Row(i, job.state.copy(), job.room) for i, job in enumerate(jobs)]
        alive = rows
        session = self.backbone.begin(
            [job.source for job in jobs],
            _gather(jobs),
            [job.steering.context for job in jobs],
            [job.room for job in jobs],
        )
        states = session.states
        self._count(len(jobs), sum(len(job.source) for job in jobs), 0)
        while alive:
            choices = score_legal(self.backbone, states, [row.state.legal() for row in alive])
            self.counts.decisions += len(alive)
            for row, (token, probability) in zip(alive, choices, strict=True):
                row.take(token, probability)
            keep = [i for i, row in enumerate(alive) if not row.finished]
            if not keep:
                break
            if len(keep) < len(alive):
                session.keep(keep)
                alive = [alive[i] for i in keep]
            fed = session.step([row.pending for row in alive])
            self._count(len(alive), 0, sum(len(row.pending) for row in alive))
            last = torch.tensor([len(row.pending) - 1 for row in alive], device=fed.device)
            states = fed[torch.arange(len(alive), device=fed.device), last]
        return [row.result() for row in rows]

    def _count(self, rows: int, prompt: int, target: int) -> None:
        self.counts.calls += 1
        self.counts.row_steps += rows
        self.counts.prompt_tokens += prompt
        self.counts.target_tokens += target


def score_legal(backbone: Backbone, states: Tensor, legal: Sequence[Ids]) -> list[tuple[int, float]]:
    """The best legal token of each row and its probability over the row's legal set.

    Args:
        states: [B, d].
        legal: B non-empty sets of ids.
    """
    union = sorted({token for ids in legal for token in ids})
    place = {token: i for i, token in enumerate(union)}
    logits = backbone.logits(states, union)
    width = max(len(ids) for ids in legal)
    index = torch.tensor([[place[t] for t in ids] + [0] * (width - len(ids)) for ids in legal], device=logits.device)
    real = (
        torch.arange(width, device=logits.device) < torch.tensor([len(x) for x in legal], device=logits.device)[:, None]
    )
    scores = logits.gather(1, index).masked_fill(~real, float("-inf"))
    best = scores.argmax(1)
    probability = scores.softmax(1).gather(1, best[:, None])[:, 0]
    return [(legal[b][i], p) for b, (i, p) in enumerate(zip(best.tolist(), probability.tolist(), strict=True))]


def _gather(jobs: Sequence[Job]) -> PrefixRows:
    """One prefix a row; each distinct one is stacked once."""
    seen: dict[int, int] = {}
    distinct: list[tuple[Sequence[Tensor], Sequence[Tensor]]] = []
    rows = []
    for job in jobs:
        key = id(job.steering)
        if key not in seen:
            seen[key] = len(distinct)
            distinct.append((job.steering.keys, job.steering.values))
        rows.append(seen[key])
    return PrefixRows.stack(distinct, rows)
