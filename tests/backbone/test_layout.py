from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from xdner.backbone.layout import Layout

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(LENGTHS)
def test_every_token_has_its_row_and_place(lengths: list[int]) -> None:
    layout = Layout(lengths, CPU)
    expected = [(row, place) for row, n in enumerate(lengths) for place in range(n)]
    assert list(zip(layout.rows.tolist(), layout.places.tolist(), strict=True)) == expected
    assert layout.starts() == [expected.index((row, 0)) for row in range(len(lengths))]
    assert layout.ends.tolist() == [expected.index((row, n - 1)) for row, n in enumerate(lengths)]


@given(LENGTHS)
def test_spreading_and_collecting_gives_the_line_again(lengths: list[int]) -> None:
    layout = Layout(lengths, CPU)
    flat = torch.randn(1, 2, sum(lengths), 3)
    spread = layout.spread(flat)
    assert spread.shape == (len(lengths), 2, max(lengths), 3)
    for row, (start, n) in enumerate(zip(layout.starts(), lengths, strict=True)):
        assert torch.equal(spread[row, :, :n], flat[0, :, start : start + n])
    assert torch.equal(layout.collect(spread), flat.transpose(1, 2))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_blocks_hold_every_token_once(lengths: list[int]) -> None:
    layout = Layout(lengths, CPU)
    times = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for block in layout.blocks:
        times[block.rows, block.tokens] += 1
    for row, n in enumerate(lengths):
        assert (times[row, :n] == 1).all()
    assert int(times.sum()) <= len(lengths) * max(lengths)


def test_a_long_row_does_not_pad_the_others() -> None:
    first, rest = Layout([2, 3, 1, 90, 2, 80, 3, 2], CPU).blocks
    assert (first.rows, first.tokens) == (slice(0, 8), slice(0, 3))
    assert isinstance(rest.rows, torch.Tensor)
    assert (rest.rows.tolist(), rest.tokens) == ([3, 5], slice(3, 90))


def test_rows_side_by_side_need_no_copy() -> None:
    """Rows come in from long to short, so the longer ones are the first."""
    first, rest = Layout([90, 85, 30, 29, 28, 27], CPU).blocks
    assert (first.rows, first.tokens) == (slice(0, 6), slice(0, 30))
    assert (rest.rows, rest.tokens) == (slice(0, 2), slice(30, 90))


def test_rows_of_like_length_are_one_block() -> None:
    for lengths in ([4], [3, 3, 3], [100, 98, 97], [1, 2, 3, 1]):
        assert [(b.rows, b.tokens) for b in Layout(lengths, CPU).blocks] == [
            (slice(0, len(lengths)), slice(0, max(lengths)))
        ]


def test_padding_passes_no_gradient() -> None:
    layout = Layout([1, 3], CPU)
    flat = torch.ones(1, 1, 4, 2, requires_grad=True)
    layout.collect(layout.spread(flat) * 2).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.full_like(flat, 2.0))
