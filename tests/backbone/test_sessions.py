"""Rows that come, go on together and leave: states step by step are those of one pass over everything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from xdner.backbone.base import Extent, Prompts
from xdner.backbone.layout import Layout
from xdner.backbone.store import Context, PrefixRows
from xdner.testing.backbones import ALL, EXACT, SOURCES, TARGETS, make, random_prefix, rows

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("chunks", [[1, 1, 1, 1, 1, 1], [2, 1, 3], [6]])
def test_cached_steps_equal_one_pass(architecture: str, chunks: list[int], together: bool) -> None:
    """One and several tokens a step, rows of different lengths and domains, contexts of different lengths."""
    backbone, _ = make(architecture)
    prefixes = [random_prefix(backbone, n, seed=n) for n in (2, 5, 3)]
    contexts_ids = [[71, 72, 73, 74], [], [81]]
    contexts = [backbone.read_context(c, rows(p)) for c, p in zip(contexts_ids, prefixes, strict=True)]
    extent = Extent(rows=3, prefix=6, context=4, source=max(map(len, SOURCES)), text=40, room=8)
    session = backbone.begin(extent)
    steps: list[list[Tensor]] = [[], [], []]
    at = [0, 0, 0]
    alive: list[int] = []
    # One row is there before the others come, goes on in the same pass or not, and a row that was done makes place.
    for new in ([1], [0, 2]):
        mixed = PrefixRows.stack([prefixes[r] for r in new], range(len(new)))
        entering = Prompts([SOURCES[r] for r in new], mixed, [contexts[r] for r in new])
        if alive and together:
            fed, at[1] = TARGETS[1][: chunks[0]], chunks[0]
            states = session.turn([fed], entering)
            steps[1].extend(states[: len(fed)])
            admitted = states[len(fed) :]
        else:
            admitted = session.admit(entering)
        for r, state in zip(new, admitted, strict=True):
            steps[r].append(state)
        alive += new
    for size in chunks:
        tokens = [TARGETS[r][at[r] : at[r] + size] for r in alive]
        for i in reversed(range(len(alive))):
            if not tokens[i]:
                session.leave(i)
                for row in (alive, tokens):
                    moved = row.pop()
                    if i < len(row):
                        row[i] = moved
        states = iter(session.step(tokens))
        for r, fed in zip(alive, tokens, strict=True):
            steps[r].extend(next(states) for _ in fed)
            at[r] += len(fed)
    for r in range(3):
        expected = backbone.target_states([SOURCES[r]], [TARGETS[r]], rows(prefixes[r]), contexts[r])
        got = torch.stack(steps[r][: len(TARGETS[r])])
        assert (backbone.logits(got) - backbone.logits(expected)).abs().max() < EXACT


@pytest.mark.parametrize("architecture", ALL)
def test_rows_of_unlike_length_are_read_in_blocks(architecture: str) -> None:
    """One prompt and one run that are much longer than the others, not the first: the same states as alone."""
    backbone, _ = make(architecture)
    sources = [[11, 12, 13], [*range(20, 70)], [14], [15, 16]]
    fed = [[41], [42, 43], [*range(44, 80)], [81, 82, 83]]
    prefixes = [random_prefix(backbone, n, seed=n) for n in (2, 5, 3, 4)]
    blocks = []

    def states(which: list[int]) -> list[Tensor]:
        session = backbone.begin(Extent(rows=len(which), prefix=5, context=0, source=50, text=100, room=40))
        mixed = PrefixRows.stack([prefixes[r] for r in which], range(len(which)))
        first = session.admit(Prompts([sources[r] for r in which], mixed, [Context(())] * len(which)))
        later = session.step([fed[r] for r in which])
        blocks.append(len(Layout([len(fed[r]) for r in which], backbone.device).blocks))
        return [torch.cat([a[None], b]) for a, b in zip(first, later.split([len(fed[r]) for r in which]), strict=True)]

    with torch.inference_mode():
        together, alone = states([0, 1, 2, 3]), [states([r])[0] for r in range(4)]
    assert blocks == [2, 1, 1, 1, 1]
    for a, b in zip(together, alone, strict=True):
        assert (backbone.logits(a) - backbone.logits(b)).abs().max() < EXACT


@pytest.mark.skipif(not STATM.exists(), reason="reads the process's memory where Linux tells it")
def test_room_that_is_not_used_is_no_memory() -> None:
    """A store for long targets is cleared only where it is touched."""
    backbone, _ = make("t5")
    before = resident()
    session = backbone.begin(Extent(rows=8, prefix=5, context=0, source=20, text=300_000, room=300_000))
    first = session.admit(Prompts([[11, 12]], rows(random_prefix(backbone, 5, seed=1)), [Context(())]))
    assert session.step([[41]]).isfinite().all()
    assert first.isfinite().all()
    tables = [*session._store.keys.values(), *session._store.values.values()]  # type: ignore[attr-defined]
    assert resident() - before < sum(t.nbytes for t in tables) / 10
