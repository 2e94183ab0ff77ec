from __future__ import annotations

import time
from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.codec.windows import Window, cores, merge_windows, split_between, split_windows


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=300),
    window=st.integers(4, 40),
    overlap=st.integers(0, 20),
    max_pieces=st.integers(8, 200),
)
def test_every_word_is_in_a_window_and_windows_keep_their_bounds(
    lengths: list[int], window: int, overlap: int, max_pieces: int
) -> None:
    windows = split_windows(lengths, window=window, overlap=min(overlap, window // 2), max_pieces=max_pieces)
    assert {i for w in windows for i in range(w.first, w.last)} == set(range(len(lengths)))
    for w in windows:
        assert 0 < w.last - w.first <= window
        assert sum(lengths[w.first : w.last]) <= max_pieces or w.last - w.first == 1
    for a, b in pairwise(windows):
        assert a.first < b.first <= a.last < b.last


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=120),
    sizes=st.lists(st.integers(1, 6), max_size=120),
    mentions=st.sets(st.integers(0, 119)),
    max_pieces=st.integers(1, 60),
)
def test_windows_side_by_side_cut_no_mention_that_fits(
    lengths: list[int], sizes: list[int], mentions: set[int], max_pieces: int
) -> None:
    edges = [0, *accumulate(sizes)]
    spans = [s for i, s in enumerate(pairwise(edges)) if i in mentions and s[1] <= len(lengths)]
    windows = split_between(lengths, spans, max_pieces=max_pieces)
    assert [i for w in windows for i in range(w.first, w.last)] == list(range(len(lengths)))
    for w in windows:
        assert sum(lengths[w.first : w.last]) <= max_pieces or w.last - w.first == 1
    for begin, end in spans:
        whole = any(w.first <= begin and end <= w.last for w in windows)
        assert whole or sum(lengths[begin:end]) > max_pieces


def test_a_hundred_thousand_words_take_a_moment() -> None:
    spans = [(i, i + 2) for i in range(0, 100_000, 3)]
    assert split_between([1] * 100_000, spans, max_pieces=100)[-1].last == 100_000
    windows = split_windows([1] * 100_000, window=80, overlap=16, max_pieces=1000)
    assert windows[-1].last == 100_000


def test_an_entity_counts_once_from_the_window_that_holds_its_middle() -> None:
    windows = [Window(0, 10), Window(6, 16)]
    assert merge_windows(windows, [[(7, 8, "x", 0.5)], [(7, 8, "x", 0.9)]]) == [(7, 8, "x", 0.5)]
    assert merge_windows(windows, [[(8, 9, "x", 0.5)], [(8, 9, "x", 0.9)]]) == [(8, 9, "x", 0.9)]
    assert merge_windows([], []) == []


spans_found = st.tuples(
    st.integers(0, 60), st.integers(1, 8), st.sampled_from("xyz"), st.none() | st.sampled_from([0.25, 0.5, 1.0])
).map(lambda e: (e[0], min(e[0] + e[1], 64), *e[2:]))


@settings(max_examples=200, deadline=None)
@given(found=st.lists(st.lists(spans_found, max_size=40), min_size=10, max_size=10))
def test_neighbors_are_enough_to_compare_with(found: list[list[tuple[int, int, str, float | None]]]) -> None:
    windows = split_windows([1] * 64, window=12, overlap=6, max_pieces=100)
    assert len(windows) == len(found)
    kept = [
        e
        for (begin, end), entities in zip(cores(windows), found, strict=True)
        for e in entities
        if begin <= (e[0] + e[1] - 1) // 2 < end
    ]
    surest: list[tuple[int, int, str, float | None]] = []
    for entity in sorted(kept, key=lambda e: (-(1.0 if e[3] is None else e[3]), e[:3])):
        if all(entity[1] <= other[0] or other[1] <= entity[0] for other in surest):
            surest.append(entity)
    assert merge_windows(windows, found) == sorted(surest, key=lambda e: e[:3])


def test_many_entities_of_a_long_text_take_a_moment() -> None:
    windows = split_windows([1] * 100_000, window=80, overlap=16, max_pieces=1000)
    found = [[(i, i + 2, "x", 0.5) for i in range(w.first, w.last - 1, 3)] for w in windows]
    begun = time.process_time()
    merged = merge_windows(windows, found)
    assert time.process_time() - begun < 2, "comparing all with all takes a hundred times as long"
    assert len(merged) > 25_000


def test_of_two_that_overlap_across_a_border_the_surer_stays() -> None:
    windows = [Window(0, 10), Window(6, 16)]
    first, second = (5, 9, "x", 0.4), (8, 10, "y", 0.6)
    assert merge_windows(windows, [[first], [second]]) == [second]
