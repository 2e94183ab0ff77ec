"""What is hidden in a block of text, and what is asked for: plain lists of ids, every draw from one generator.

Encoders: span-level masking. 15 % of a block's tokens, in spans of whole words whose lengths are geometric with
p = 0.2, at most 10 words; of the spans 80 % become mask tokens, 10 % random tokens, 10 % stay, each as a whole (SpanBERT,
Joshi et al. 2020, §3.1, without its boundary objective). Words are taken in random order, where SpanBERT draws starts
until 15 % are full: the same kind of spans, without draws that are thrown away. LANER adapts with CrossNER's program
(Liu et al. 2021), which calls span-level what is simpler: 20 % of the tokens are drawn, and every second one of them is
moved beside the next, so that its spans are mostly pairs of tokens; it goes through its text 15 times.

T5: span corruption (Raffel et al. 2020, §3.1.4 and `random_spans_noise_mask` of their code): 15 % of the tokens in
spans of mean length 3, each replaced by one sentinel; the target is each sentinel with what it stands for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["UNASKED", "Masked", "corrupt_spans", "mask_spans", "word_starts"]

#: In :attr:`Masked.goals`: nothing is asked here (what torch's cross-entropy ignores).
UNASKED = -100


@dataclass(frozen=True, slots=True)
class Masked:
    """A block for an encoder.

    Attributes:
        ids: T ids as the model sees them.
        goals: T ids as they were, :data:`UNASKED` where nothing is asked.
    """

    ids: tuple[int, ...]
    goals: tuple[int, ...]


def word_starts(vocabulary: Sequence[str | None]) -> list[bool]:
    """For each id, whether a word begins with it, told from how the vocabulary marks words.

    ``##`` marks what goes on (WordPiece), ``▁`` or ``Ġ`` what begins (SentencePiece, byte-level BPE): whichever most tokens
    have, as each occurs in the others' vocabularies too. Without any, every token is a word.

    Args:
        vocabulary: V tokens; ``None`` for an id without one.
    """
    tokens = [token or "" for token in vocabulary]
    marked = {
        mark: [token.startswith(mark) and len(token) > (mark == "##") * 2 for token in tokens]
        for mark in ("##", "▁", "Ġ")
    }
    mark = max(marked, key=lambda mark: sum(marked[mark]))
    if mark == "##":
        return [not goes_on for goes_on in marked[mark]]
    return marked[mark] if sum(marked[mark]) > 1 else [True] * len(tokens)


def mask_spans(
    ids: Sequence[int],
    *,
    starts: Sequence[bool],
    special: Collection[int],
    mask: int,
    ordinary: Sequence[int],
    share: float,
    span: float,
    longest: int,
    rng: random.Random,
) -> Masked:
    """Hide whole words of a block, in spans.

    As many tokens as ``share`` says are asked for, rounded, at least one, and never more, but that a single word is
    hidden as a whole. Special tokens are never hidden, and no span reaches over one.

    Args:
        ids: T ids.
        starts: for each id of the vocabulary, whether a word begins with it.
        special: ids that are no text.
        mask: the mask token's id.
        ordinary: ids that a random token is drawn from.
        share: of the tokens that are not special.
        span: 1 / p of the geometric distribution of a span's words.
        longest: words of a span, at most.
        rng: decides everything.
    """
    words: list[tuple[int, int]] = []  # first token and the one behind the last
    for place, token in enumerate(ids):
        if token in special:
            continue
        if words and words[-1][1] == place and not starts[token]:
            words[-1] = (words[-1][0], place + 1)
        else:
            words.append((place, place + 1))
    shown, goals = list(ids), [UNASKED] * len(ids)
    left = max(1, round(share * sum(last - first for first, last in words)))
    hidden = [False] * len(words)
    order = list(range(len(words)))
    rng.shuffle(order)
    for word in order:
        if not left:
            break
        chosen = _span(words, hidden, word, _geometric(rng, span, longest), left)
        if not chosen and any(hidden):
            continue
        chosen = chosen or [word]  # a block of one long word
        fate = rng.random()
        for index in chosen:
            hidden[index] = True
            for place in range(*words[index]):
                goals[place] = ids[place]
                if fate < 0.8:
                    shown[place] = mask
                elif fate < 0.9:
                    shown[place] = ordinary[rng.randrange(len(ordinary))]
                left = max(0, left - 1)
    return Masked(tuple(shown), tuple(goals))


def _span(words: Sequence[tuple[int, int]], hidden: Sequence[bool], first: int, count: int, room: int) -> list[int]:
    """Up to ``count`` words from ``first`` on, side by side, that are not hidden and have room together."""
    chosen: list[int] = []
    for index in range(first, min(first + count, len(words))):
        size = words[index][1] - words[index][0]
        apart = bool(chosen) and words[index - 1][1] != words[index][0]
        if hidden[index] or apart or size > room:
            break
        chosen.append(index)
        room -= size
    return chosen


def _geometric(rng: random.Random, span: float, longest: int) -> int:
    """A length from 1 to ``longest``: geometric with p = 1 / span, given that it is no longer (SpanBERT: 3.8 on average for
    p = 0.2 and 10)."""
    if span <= 1:
        return 1
    more = 1 - 1 / span
    drawn = rng.random() * (1 - more**longest)
    return min(longest, 1 + int(math.log1p(-drawn) / math.log(more)))


def corrupt_spans(
    ids: Sequence[int], *, sentinels: Sequence[int], share: float, span: float, rng: random.Random
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """T5's task.

    Args:
        ids: T ≥ 2 ids of text.
        sentinels: ids that stand for spans, in their order; there are never more spans than these.
        share: of the tokens that are hidden, rounded; at least one is, and at least one is not.
        span: mean length.
        rng: decides everything.

    Returns:
        The source, in which sentinels stand for spans, and the target: each sentinel with its span. Neither has an
        end token. As in T5's code the text begins with what is shown and ends with what is hidden.
    """
    noise = min(max(round(share * len(ids)), 1), len(ids) - 1)
    count = min(max(1, round(noise / span)), noise, len(ids) - noise, len(sentinels))
    source: list[int] = []
    target: list[int] = []
    place = 0
    pairs = zip(_parts(len(ids) - noise, count, rng), _parts(noise, count, rng), sentinels, strict=False)
    for shown, hidden, sentinel in pairs:
        source += [*ids[place : place + shown], sentinel]
        target += [sentinel, *ids[place + shown : place + shown + hidden]]
        place += shown + hidden
    return tuple(source), tuple(target)


def _parts(total: int, count: int, rng: random.Random) -> list[int]:
    """``total`` in ``count`` positive parts; every way is equally likely."""
    cuts = [0, *sorted(rng.sample(range(1, total), count - 1)), total]
    return [after - before for before, after in pairwise(cuts)]
