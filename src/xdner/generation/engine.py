"""The life of a batch: admit, choose, run, retire.

A :class:`Job` is one sentence under one domain. Jobs wait in a line; the engine goes round until it is empty and all
rows are done::

    admit   free slots are given to waiting jobs, whose prompts are read in one pass, each under its own prefix and context
    choose  each row's legal tokens are scored (and nothing else), the best is taken
    run     tokens that are then forced join it (jump-forward), and a guess of what comes then (``draft.py``)
    feed    the runs of all rows in one pass; back to choose, at every decision of the run: the part of a guess that the
            model would not have written is taken back
    retire  rows that wrote their end leave the batch at once, and their slots are free (in-flight batching)

Jobs may still join the line while it is worked off (``more``), as texts do that callers of a server send meanwhile. Rows are
independent: a job's result does not depend on what else is in the batch, or when it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from xdner.backbone.base import Backbone, Ids, Prompts, Session
from xdner.backbone.store import PrefixRows
from xdner.codec.grammar import GrammarState
from xdner.generation.draft import Decision, draft
from xdner.generation.jobs import Generated, Job, Line, More, extent_of, length_of

__all__ = ["Chooser", "Engine", "score_legal"]

#: From states [N, d] and N legal sets, a token of each and its probability (:func:`score_legal`).
Chooser = Callable[[Backbone, Tensor, Sequence[Ids]], list[tuple[int, float]]]
#: Tokens of prompts that one pass reads on a processor, at most, if they are several: in a pass of a thousand, what layers hand
#: on leaves the caches, and the allocator gives it back to the system each time.
PASS = 512
#: Places that every slot may have, however short the jobs are: below it, lengths are not told apart.
SMALL = 512


@dataclass
class Counts:
    """What the engine did.

    Attributes:
        calls: of the model.
        row_steps: rows in them, summed.
        prompt_tokens: of the sentences; contexts are read elsewhere, once a domain.
        fed_tokens: of the targets, guesses included.
        target_tokens: written.
        decisions: scored, at forks that turned out not to be reached too.
        drafted, accepted: guesses, and those the model agreed with.
    """

    calls: int = 0
    row_steps: int = 0
    prompt_tokens: int = 0
    fed_tokens: int = 0
    target_tokens: int = 0
    decisions: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class _Row:
    """One job in the batch.

    Attributes:
        run: the tokens to feed next: the chosen one, forced ones, the draft.
        decisions: to be taken in the states that feeding them gives.
    """

    index: int
    state: GrammarState
    room: int
    names: Sequence[bool]
    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    run: list[int] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def settle(self, choices: Sequence[tuple[int, float]]) -> tuple[int, int]:
        """Take the model's choices as far as they agree with the draft, and the first that does not; draft again.

        Returns:
            How many of the fed tokens are to be taken back, and how many guesses were right.
        """
        fed, right = len(self.run), 0
        for (token, probability), decision in zip(choices, self.decisions, strict=True):
            written = self._write(token, probability)
            if token != decision.guess:
                self._plan(written)
                return max(0, fed - 1 - decision.place), right
            right += 1
        return 0, right  # the draft was right to the end of the target

    def _write(self, token: int, probability: float) -> list[int]:
        """Write a chosen token and everything that is then forced."""
        before = len(self.ids)
        self._put(token, probability)
        if not self.state.done:
            for forced in self.state.forced():
                self._put(forced, 1.0)
        return self.ids[before:]

    def _put(self, token: int, probability: float) -> None:
        if len(self.ids) < self.room:
            self.state.advance(token)
            self.ids.append(token)
            self.probabilities.append(probability)

    def _plan(self, written: list[int]) -> None:
        if not self.finished:
            guessed, self.decisions = draft(self.state, self.names, len(written), self.room - len(self.ids))
            self.run = written + guessed

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
        choose: takes the decisions; another rule than the best legal token (a benchmark's, that writes given targets).
    """

    def __init__(self, backbone: Backbone, *, batch_size: int = 16, choose: Chooser | None = None) -> None:
        self.backbone, self.batch_size, self.choose = backbone, batch_size, choose or score_legal
        self.counts = Counts()

    def run(self, jobs: Sequence[Job], *, done: Callable[[int], None] | None = None) -> list[Generated]:
        """Read all jobs.

        Args:
            jobs: in any order and of any length; neighbours in length share a batch.
            done: called with the number of jobs finished so far.

        Returns:
            One result a job, in the order of the jobs.
        """
        results: dict[int, Generated] = {}
        for index, generated in self.stream(jobs):
            results[index] = generated
            if done is not None:
                done(len(results))
        return [results[i] for i in range(len(jobs))]

    @torch.inference_mode()
    def stream(self, jobs: Sequence[Job], *, more: More | None = None) -> Iterator[tuple[int, Generated]]:
        """Read all jobs, and give each with its place in ``jobs`` as soon as it has ended; long ones are begun first.

        Args:
            jobs: in any order and of any length.
            more: brings jobs that join those that are being read; their places follow on ``jobs``, as they came.
        """
        left, count = list(enumerate(jobs)), len(jobs)
        while left:
            places = [self._places(job) for _, job in left]
            order = sorted(range(len(left)), key=lambda i: (-places[i], i))
            parts = [[left[i] for i in part] for part in _alike(order, places)]
            left = []
            for number, part in enumerate(parts, start=1):
                # Who joins may go on joining: only in the last part does nobody wait for its end.
                line = Line(deque(part), more if number == len(parts) else None, count)
                yield from self._session(line)
                left, count = line.late, line.count

    def _places(self, job: Job) -> int:
        """What a job takes of its slot: on a processor, room that is not written is no memory (``store.py``)."""
        return length_of(job) - (job.room if self.backbone.device.type == "cpu" else 0)

    def _session(self, line: Line) -> Iterator[tuple[int, Generated]]:
        """Jobs of like extent, and those that join them, through one set of slots."""
        waiting = line.waiting
        slots = self.batch_size if line.more else min(self.batch_size, len(waiting))
        extent = extent_of([job for _, job in waiting], slots, least=SMALL if line.more else 0)
        session = self.backbone.begin(extent)
        alive: list[_Row] = []
        while waiting or alive:
            line.join(slots - len(alive), extent)
            # A few at a time: a pass over one prompt costs nearly as much as one over several.
            enter = not alive or slots - len(alive) >= max(1, slots // 4)
            new = self._enter(waiting, slots - len(alive)) if enter else []
            states = self._pass(session, [row.run for row in alive], [job for _, job in new])
            first = [0, *accumulate([*(len(row.run) for row in alive), *(1 for _ in new)])]
            rows = [_Row(i, job.state.copy(), job.room, job.names) for i, job in new]
            for row in rows:
                row.decisions = [Decision(0, row.state.legal())]
            alive += rows
            self._choose(session, alive, states, first[:-1])
            yield from self._retire(session, alive)

    def _enter(self, waiting: deque[tuple[int, Job]], places: int) -> list[tuple[int, Job]]:
        """The next jobs: as many as there are places, or as fill a pass; others come in while these go on."""
        most = PASS if self.backbone.device.type == "cpu" else None
        new: list[tuple[int, Job]] = []
        tokens = 0
        while waiting and len(new) < places:
            tokens += _to_read(waiting[0][1])
            if new and most is not None and tokens > most:
                break
            new.append(waiting.popleft())
        return new

    def _pass(self, session: Session, runs: Sequence[Ids], new: Sequence[Job]) -> Tensor:
        """One call of the model: rows that are there take their runs, and new jobs are read."""
        self._count(len(runs) + len(new), sum(len(job.source) for job in new), sum(map(len, runs)))
        if not new:
            return session.step(runs)
        prompts = Prompts([job.source for job in new], _gather(new), [job.steering.context for job in new])
        return session.turn(runs, prompts) if runs else session.admit(prompts)

    def _choose(self, session: Session, rows: Sequence[_Row], states: Tensor, first: Sequence[int]) -> None:
        """Take the decisions of all rows, whose states begin at ``first``."""
        where = [begin + d.place for row, begin in zip(rows, first, strict=True) for d in row.decisions]
        legal = [d.legal for row in rows for d in row.decisions]
        choices = iter(self.choose(self.backbone, states[torch.tensor(where, device=states.device)], legal))
        back = []
        for row in rows:
            self.counts.decisions += len(row.decisions)
            self.counts.drafted += sum(d.guess is not None for d in row.decisions)
            wrong, right = row.settle([next(choices) for _ in row.decisions])
            self.counts.accepted += right
            back.append(wrong)
        if any(back):
            session.take_back(back)

    def _retire(self, session: Session, alive: list[_Row]) -> list[tuple[int, Generated]]:
        """The rows that have ended leave; what they wrote."""
        ended = []
        for place in reversed(range(len(alive))):
            if alive[place].finished:
                self.counts.target_tokens += len(alive[place].ids)
                ended.append((alive[place].index, alive[place].result()))
                session.leave(place)
                last = alive.pop()  # it takes the free place, in the session and here
                if place < len(alive):
                    alive[place] = last
        return ended

    def _count(self, rows: int, prompt: int, fed: int) -> None:
        self.counts.calls += 1
        self.counts.row_steps += rows
        self.counts.prompt_tokens += prompt
        self.counts.fed_tokens += fed


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


def _to_read(job: Job) -> int:
    """Tokens of a prompt that are not read yet: an encoder reads the context with every sentence."""
    return len(job.source) + len(job.steering.context.ids) - job.steering.context.length


def _alike(order: Sequence[int], places: Sequence[int]) -> Iterator[list[int]]:
    """Jobs from long to short, in parts whose longest needs at most twice the places of the shortest: every slot has
    room for the longest. The short ones come last, so that the last slots are soon done."""
    part: list[int] = []
    for index in order:
        if part and places[part[0]] > max(SMALL, 2 * places[index]):
            yield part
            part = []
        part.append(index)
    if part:
        yield part


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
