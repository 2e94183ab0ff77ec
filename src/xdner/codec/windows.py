"""Long sentences as overlapping windows, and their entities put together again.

The rule: windows of at most ``window`` words and ``max_pieces`` sub-word pieces, each sharing ``overlap`` words with
the next (fewer where pieces are short). Each word belongs to the *core* of exactly one window: the overlap is cut in
the middle. An entity counts if its middle word is in the core of the window that found it; of two that then still
overlap, the more confident stays. No word is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["CUT", "Found", "Window", "cores", "merge_windows", "split_between", "split_windows"]

#: Why a gold mention is lost that the target language could express.
CUT = "longer than a window"

Found = tuple[int, int, str, float | None]


@dataclass(frozen=True, slots=True)
class Window:
    """Words ``first`` to ``last``, half-open."""

    first: int
    last: int


def split_windows(lengths: Sequence[int], *, window: int, overlap: int, max_pieces: int) -> list[Window]:
    """Split a sentence.

    Args:
        lengths: pieces of each word.
        window: words in a window, at most.
        overlap: words shared by neighbours, less than ``window``.
        max_pieces: pieces in a window, at most; a single longer word gets a window of its own.

    Returns:
        Windows from left to right that cover all words; none for no words.
    """
    windows: list[Window] = []
    first = 0
    while first < len(lengths):
        last = _reach(lengths, first, window, max_pieces)
        windows.append(Window(first, last))
        if last == len(lengths):
            break
        # Never share more than half a window, or short windows would hardly move.
        first = last - min(overlap, (last - first) // 2)
        # Nor so much that the next word would not fit.
        while first < last and sum(lengths[first : last + 1]) > max_pieces:
            first += 1
    return windows


def split_between(lengths: Sequence[int], spans: Iterable[tuple[int, int]], *, max_pieces: int) -> list[Window]:
    """Split a labelled sentence into windows side by side, between its mentions where that can be.

    Args:
        lengths: pieces of each word.
        spans: the mentions' words, half-open, none inside another. A border within one moves before it, unless the window
            would then be empty: a mention longer than a window is cut.
        max_pieces: pieces in a window, at most; a single longer word gets a window of its own.

    Returns:
        Windows from left to right that cover all words once.
    """
    ordered = sorted(spans)
    begins = [begin for begin, _ in ordered]
    windows: list[Window] = []
    first = 0
    while first < len(lengths):
        last = _reach(lengths, first, len(lengths), max_pieces)
        place = bisect_left(begins, last) - 1
        if place >= 0 and first < begins[place] and last < ordered[place][1]:
            last = begins[place]
        windows.append(Window(first, last))
        first = last
    return windows


def _reach(lengths: Sequence[int], first: int, window: int, max_pieces: int) -> int:
    """Where a window that begins at ``first`` has to end: at least one word, then as many as fit."""
    last, pieces = first + 1, lengths[first]
    while last < len(lengths) and last - first < window and pieces + lengths[last] <= max_pieces:
        pieces += lengths[last]
        last += 1
    return last


def cores(windows: Sequence[Window]) -> list[tuple[int, int]]:
    """The words that belong to each window, half-open: every overlap is cut in the middle."""
    cuts = [(right.first + left.last) // 2 for left, right in pairwise(windows)]
    return list(pairwise([0, *cuts, windows[-1].last])) if windows else []


def merge_windows(windows: Sequence[Window], found: Sequence[Sequence[Found]]) -> list[Found]:
    """Put the entities of overlapping windows together.

    Args:
        windows: as :func:`split_windows` gave them.
        found: per window ``(first, last, label, score)`` in words of the whole sentence.

    Returns:
        The same, sorted, without duplicates or overlaps.
    """
    kept: list[Found] = []
    for (begin, end), entities in zip(cores(windows), found, strict=True):
        kept.extend(entity for entity in entities if begin <= (entity[0] + entity[1] - 1) // 2 < end)
    kept.sort(key=lambda e: (-(e[3] if e[3] is not None else 1.0), e[0], e[1], e[2]))
    final: list[Found] = []
    begins: list[int] = []
    for entity in kept:
        # Those that stay do not overlap, so only the two that it would come between can be in its way.
        place = bisect_left(begins, entity[0])
        before_next = place == len(final) or entity[1] <= begins[place]
        if before_next and (place == 0 or final[place - 1][1] <= entity[0]):
            final.insert(place, entity)
            begins.insert(place, entity[0])
    return final
