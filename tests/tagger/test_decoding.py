"""Decoding has the history that training had, gives legal sequences, and a beam finds what is more likely."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdner.backbone.words import Encoded
from xdner.tagger.crf import CRF
from xdner.tagger.decoding import decode
from xdner.tagger.network import TaggerNetwork

Make = Callable[..., TaggerNetwork]
Windows = Callable[..., list[Encoded]]
AUTOREGRESSIVE = [
    {}, {"history": "forward"}, {"label_context": False}, {"label_background": False},
    {"label_context": False, "history": "forward"}, {"word_shape": True, "pooling": "mean"},
]  # fmt: skip


def legal(network: TaggerNetwork, tags: list[int], continues: bool) -> bool:
    before = [len(network.tags) + continues, *tags[:-1]]
    return all(bool(network.legal[a, b]) for a, b in zip(before, tags, strict=True))


@pytest.mark.parametrize("variant", AUTOREGRESSIVE, ids=str)
@pytest.mark.parametrize("beam", [1, 4])
def test_the_history_of_training_is_that_of_decoding(
    network: Make, windows: Windows, variant: dict[str, object], beam: int
) -> None:
    """Teacher-forced on what was decoded, training gives every tag the probability that decoding gave it."""
    made = network(**variant)
    items = windows((6, 1, 9, 4), seed=5)
    items[2] = replace(items[2], continues=True)
    found = decode(made, items, beam=beam)
    again = [replace(item, tags=tuple(tags)) for item, (tags, _) in zip(items, found, strict=True)]
    with torch.no_grad():
        scores = iter(made(again))
    for item, (tags, probabilities) in zip(items, found, strict=True):
        assert legal(made, tags, item.continues)
        previous = len(made.tags) + item.continues
        for tag, probability in zip(tags, probabilities, strict=True):
            allowed = next(scores).masked_fill(~made.legal[previous], -math.inf).softmax(0)
            assert float(allowed[tag]) == pytest.approx(probability, abs=1e-5)
            if beam == 1:
                assert tag == int(allowed.argmax())
            previous = tag


@given(st.integers(0, 10_000), st.integers(2, 4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_wide_beam_finds_the_best_sequence(network: Make, windows: Windows, seed: int, count: int) -> None:
    made = network(("O", "B-x", "I-x"), seed=seed, louder=5.0)
    (item,) = windows((count,), seed=seed, tags=3)
    paths = [list(p) for p in itertools.product(range(3), repeat=count) if legal(made, list(p), False)]

    def likelihood(path: list[int]) -> float:
        with torch.no_grad():
            scores = made([replace(item, tags=tuple(path))])
        rows = [3, *path[:-1]]
        allowed = scores.masked_fill(~made.legal[rows], -math.inf).log_softmax(1)
        return float(allowed[torch.arange(count), path].sum())

    best = max(paths, key=likelihood)
    ((tags, probabilities),) = decode(made, [item], beam=3**count)
    assert likelihood(tags) == pytest.approx(likelihood(best), abs=1e-4)
    assert sum(map(math.log, probabilities)) == pytest.approx(likelihood(best), abs=1e-3)


def test_padding_is_masked_in_both_attentions(network: Make, windows: Windows) -> None:
    """A padded sub-word or word that changes must change nothing."""
    made = network()
    short, long = windows((2, 8), seed=2)
    batch = made.batch([short, long])
    ids = batch.ids.clone()
    ids[0, len(short.ids) :] = 7
    with torch.no_grad():
        one, two = made(batch), made(replace(batch, ids=ids))
    assert torch.allclose(one[:2], two[:2], atol=1e-6)


# -- the CRF -------------------------------------------------------------------------------------------------------------

TAGS = ("O", "B-x", "I-x")


def crf(seed: int) -> CRF:
    made = CRF(TAGS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def path_score(
    made: CRF, emissions: torch.Tensor, path: tuple[int, ...], continues: bool, goes_on: bool = False
) -> float:
    before = [3 + continues, *path[:-1]]
    if not all(bool(made.legal[a, b]) for a, b in zip(before, path, strict=True)):
        return -math.inf
    steps = sum(float(made.steps[a, b]) for a, b in itertools.pairwise(path))
    own = sum(float(emissions[w, t]) for w, t in enumerate(path))
    begin, end = (0.0 if continues else float(made.begin[path[0]])), (0.0 if goes_on else float(made.end[path[-1]]))
    return own + steps + begin + end


@given(st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_crf_equals_the_sum_over_all_sequences(
    seed: int, counts: list[int], continues: bool, goes_on: bool
) -> None:
    made = crf(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    emissions = torch.randn(len(counts), max(counts), 3, generator=generator)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    borders = torch.full((len(counts),), continues), torch.full((len(counts),), goes_on)
    with torch.no_grad():
        total = made.partition(emissions, mask, *borders)
        best = made.best(emissions, mask, *borders)
        shares = made.marginals(emissions, mask, *borders)
        for row, count in enumerate(counts):
            scored = {
                p: path_score(made, emissions[row], p, continues, goes_on)
                for p in itertools.product(range(3), repeat=count)
            }
            values = torch.tensor(list(scored.values()))
            assert float(total[row]) == pytest.approx(float(values.logsumexp(0)), abs=1e-4)
            winner = max(scored, key=scored.__getitem__)
            assert scored[tuple(best[row, :count].tolist())] == pytest.approx(scored[winner], abs=1e-4)
            weight = sum(math.exp(s - float(total[row])) for p, s in scored.items() if p[0] == 1)
            assert float(shares[row, 0, 1]) == pytest.approx(weight, abs=1e-4)
            gold = torch.zeros(1, max(counts), dtype=torch.long)
            gold[0, :count] = torch.tensor(winner)
            loss = made.loss(emissions[row : row + 1], mask[row : row + 1], gold, *(b[row : row + 1] for b in borders))
            assert float(loss) == pytest.approx(float(total[row]) - scored[winner], abs=1e-4)


def test_borders_of_windows_are_none_of_the_sentence(network: Make, windows: Windows) -> None:
    """What sentences begin and end with says nothing about the words at which a long one is cut."""
    made = network(TAGS, head="crf")
    assert made.crf is not None
    (item,) = windows((6,), seed=4, tags=len(TAGS))
    inner = replace(item, continues=True, goes_on=True)
    before = decode(made, [item, inner])
    with torch.no_grad():
        made.crf.begin[TAGS.index("B-x")] = made.crf.end[TAGS.index("B-x")] = 1000.0
    (whole, _), within = decode(made, [item, inner])
    assert (whole[0], whole[-1]) == (1, 1)
    assert within[0] == before[1][0]
    assert within[1] == pytest.approx(before[1][1], abs=1e-5)
    made.train().zero_grad()
    for border, name in ((replace(inner, goes_on=False), "begin"), (replace(inner, continues=False), "end")):
        made.zero_grad()
        made.loss([replace(border, tags=(1, 2, 0, 1, 2, 0))]).backward()
        gradients = {n: bool(getattr(made.crf, n).grad.any()) for n in ("begin", "end")}
        assert gradients == {n: n != name for n in ("begin", "end")}


def test_a_crf_head_gives_legal_tags(network: Make, windows: Windows) -> None:
    made = network(head="crf")
    for tags, probabilities in decode(made, windows((7, 3, 1), seed=9)):
        assert legal(made, tags, False)
        assert all(0 <= p <= 1 + 1e-5 for p in probabilities)
