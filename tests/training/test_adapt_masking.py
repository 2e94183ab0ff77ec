"""What is hidden and what is asked for, exactly."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.training.masking import UNASKED, corrupt_spans, mask_spans, word_starts

BOUNDED = settings(max_examples=300, deadline=None)
CLS, SEP, MASK = 0, 1, 2
STARTS = [True] * 20 + [False] * 20  # ids 20 to 39 go on with a word
ORDINARY = range(3, 40)


def masked(ids: list[int], seed: int, share: float = 0.15, span: float = 5.0, longest: int = 10):
    return mask_spans(
        ids, starts=STARTS, special={CLS, SEP, MASK}, mask=MASK, ordinary=ORDINARY, share=share, span=span,
        longest=longest, rng=random.Random(seed),
    )  # fmt: skip


def words_of(ids: list[int]) -> list[list[int]]:
    """Places of each word."""
    words: list[list[int]] = []
    for place, token in enumerate(ids):
        if token in (CLS, SEP):
            continue
        if not STARTS[token] and words and words[-1][-1] == place - 1:
            words[-1].append(place)
        else:
            words.append([place])
    return words


TEXT = st.lists(st.integers(3, 39), min_size=1, max_size=60)
LINES = st.lists(TEXT, min_size=1, max_size=4).map(lambda lines: [CLS, *(t for line in lines for t in [*line, SEP])])


@given(LINES, st.integers(0, 10**6), st.floats(0.05, 0.9), st.integers(1, 12))
@BOUNDED
def test_masks_hide_whole_words_and_ask_for_what_was_there(
    ids: list[int], seed: int, share: float, longest: int
) -> None:
    made = masked(ids, seed, share, longest=longest)
    asked = {place for place, goal in enumerate(made.goals) if goal != UNASKED}
    assert all(made.goals[place] == ids[place] for place in asked)
    assert all(made.ids[place] == ids[place] for place in range(len(ids)) if place not in asked)
    assert not any(ids[place] in (CLS, SEP) for place in asked)
    words = words_of(ids)
    assert all(set(word) <= asked or not set(word) & asked for word in words)
    budget = max(1, round(share * sum(map(len, words))))
    hidden = [word for word in words if word[0] in asked]
    assert hidden
    assert len(asked) <= budget or len(hidden) == 1
    assert all(made.ids[place] == MASK or made.ids[place] in ORDINARY for place in asked)
    if min(map(len, words)) == 1 == max(map(len, words)):
        assert len(asked) == budget, "single-token words fill the share exactly"


@given(LINES, st.integers(0, 99))
@BOUNDED
def test_the_same_seed_hides_the_same(ids: list[int], seed: int) -> None:
    assert masked(ids, seed) == masked(ids, seed)


def test_spans_have_the_lengths_and_fates_that_the_paper_says() -> None:
    ids = [CLS, *([3] * 4000), SEP]  # 4,000 words of one token; id 3 is what stays
    runs: list[str] = []
    for seed in range(40):
        made = masked(ids, seed, share=0.02)
        run = ""
        for shown, goal in zip(made.ids, made.goals, strict=True):
            if goal != UNASKED:
                run += "m" if shown == MASK else "k" if shown == goal else "r"
            elif run:
                runs.append(run)
                run = ""
    # A random token is the old one now and then: such a span is not counted as mixed.
    assert sum(len({*run} - {"k"}) > 1 for run in runs) < 0.05 * len(runs), "a span has one fate"
    lengths = [len(run) for run in runs]
    assert max(lengths) <= 20, "10, or two side by side"
    assert 3.6 < sum(lengths) / len(lengths) < 4.1, "geometric with p = 0.2, none longer than 10: 3.8 on average"
    shares = {fate: sum(fate in run for run in runs) / len(runs) for fate in "mr"}
    assert 0.75 < shares["m"] < 0.85
    assert 0.05 < shares["r"] < 0.15


def test_a_block_of_one_long_word_is_hidden_as_a_whole() -> None:
    assert masked([CLS, 3, 20, 20, 20, SEP], 1).goals == (UNASKED, 3, 20, 20, 20, UNASKED)


@pytest.mark.parametrize(
    ("vocabulary", "begins"),
    [
        (["[CLS]", "sea", "##s", "##", None], [True, True, False, True, True]),
        (["</s>", "▁sea", "s", "▁"], [False, True, False, True]),
        (["<eos>", "Ġsea", "s", "Ġ"], [False, True, False, True]),
        (["a", "b"], [True, True]),
        # Byte-level vocabularies have "##" as ordinary text, and word pieces may hold another one's mark.
        (["<eos>", "Ġa", "Ġsea", "s", "###"], [False, True, True, False, False]),
        (["[CLS]", "sea", "##s", "##e", "▁"], [True, True, False, False, True]),
    ],
)
def test_where_words_begin(vocabulary: list[str | None], begins: list[bool]) -> None:
    assert word_starts(vocabulary) == begins


SENTINELS = [100, 101, 102, 103, 104]


@given(st.lists(st.integers(3, 90), min_size=2, max_size=80), st.integers(0, 10**6), st.floats(0.05, 0.9),
       st.floats(1, 6))  # fmt: skip
@BOUNDED
def test_source_and_target_together_are_the_text(ids: list[int], seed: int, share: float, span: float) -> None:
    source, target = corrupt_spans(ids, sentinels=SENTINELS, share=share, span=span, rng=random.Random(seed))
    noise = min(max(round(share * len(ids)), 1), len(ids) - 1)
    count = min(max(1, round(noise / span)), noise, len(ids) - noise, len(SENTINELS))
    assert [t for t in source if t >= 100] == SENTINELS[:count] == [t for t in target if t >= 100]
    assert len(target) == noise + count
    spans: dict[int, list[int]] = {}
    for token in target:
        if token >= 100:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    assert all(spans.values()), "no span is empty"
    assert source[0] < 100, "begins with what is shown"
    assert all(a < 100 or b < 100 for a, b in pairwise(source)), "spans do not touch"
    assert [t for s in source for t in (spans[s] if s >= 100 else [s])] == ids
