"""Eq. 3: all prefixes in one call are what a loop over words gives, and no word sees its own label."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from xdner.tagger.label_encoder import LabelEncoder

K, D = 5, 4


def encoder(*, bidirectional: bool = True, seed: int = 0) -> LabelEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LabelEncoder(K, D, bidirectional=bidirectional)


def naive(made: LabelEncoder, labels: list[int], word: int) -> Tensor:
    """A real BiLSTM of torch, with the same weights, over the history of one word: [word + 1, 2D]."""
    both = nn.LSTM(D, D, batch_first=True, bidirectional=True)
    assert made.back is not None
    weights = dict(made.ahead.named_parameters()) | {f"{n}_reverse": p for n, p in made.back.named_parameters()}
    both.load_state_dict({name: value.detach() for name, value in weights.items()})
    history = torch.tensor([made.start, *labels[:word]])
    with torch.no_grad():
        return both(made.table(history)[None])[0][0]


@given(st.lists(st.lists(st.integers(0, K - 1), min_size=1, max_size=7), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_one_batched_call_equals_the_loop_over_words(rows: list[list[int]], seed: int) -> None:
    made, count = encoder(seed=seed), max(map(len, rows))
    # What stands behind a window's last word is anything.
    labels = torch.tensor([row + [K - 1] * (count - len(row)) for row in rows])
    mask = torch.arange(count) < torch.tensor([[len(row)] for row in rows])
    with torch.no_grad():
        ahead, back, last = made.prefixes(labels, mask)
        alone = made.prefixes(labels, mask, every=False)
    assert back is not None
    assert alone[1] is None
    for b, row in enumerate(rows):
        for i in range(len(row)):
            wanted = naive(made, row, i)
            assert torch.allclose(torch.cat([ahead[b, : i + 1], back[b, i, : i + 1]], 1), wanted, atol=1e-6)
            assert torch.allclose(last[b, i], wanted[-1], atol=1e-6)
            assert torch.allclose(alone[2][b, i], wanted[-1], atol=1e-6)
            assert not back[b, i, i + 1 :].any()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_word_sees_the_labels_before_it_only(bidirectional: bool) -> None:
    made = encoder(bidirectional=bidirectional)
    mask = torch.ones(1, 5, dtype=torch.bool)
    before, after = torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([[0, 1, 3, 3, 4]])  # word 2 has another label
    with torch.no_grad():
        one, two = (made.prefixes(labels, mask)[2] for labels in (before, after))
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3], two[:, 3])


def test_the_first_word_has_the_start_symbol_alone_and_outside_has_a_live_embedding() -> None:
    made = encoder()
    assert made.history(torch.tensor([[2, 3, 0]])).tolist() == [[made.start, 2, 3]]
    assert made.table.padding_idx is None
    labels = torch.zeros(1, 4, dtype=torch.long)  # nothing but O
    made.prefixes(labels, torch.ones(1, 4, dtype=torch.bool))[2].square().sum().backward()
    gradient = made.table.weight.grad
    assert gradient is not None
    assert gradient[0].abs().sum() > 0
    assert gradient[made.start].abs().sum() > 0
    assert gradient[1:K].abs().sum() == 0


def test_the_forward_variant_has_no_backward_half() -> None:
    made = encoder(bidirectional=False)
    assert (made.width, encoder().width) == (D, 2 * D)
    assert made.back is None
