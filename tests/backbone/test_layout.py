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


def test_padding_passes_no_gradient() -> None:
    layout = Layout([1, 3], CPU)
    flat = torch.ones(1, 1, 4, 2, requires_grad=True)
    layout.collect(layout.spread(flat) * 2).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.full_like(flat, 2.0))
