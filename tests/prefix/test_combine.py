from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xdner.errors import PrefixMismatchError
from xdner.geometry import PrefixGeometry, SiteShape
from xdner.prefix.combine import LearnedMixture, merge, mix, weights_of
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import Selection, SourceSimilarity, softmax_weights

GEOMETRY = PrefixGeometry((SiteShape("self.0", 2, 4), SiteShape("cross.0", 1, 6)))


def prefix(seed: int, *, length: int = 3, backbone: str = "sha256:b", initial: str = "sha256:i") -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (
        tuple(torch.randn(s.heads, length, s.head_dim, generator=generator) for s in GEOMETRY.sites) for _ in range(2)
    )
    return Prefix(GEOMETRY, keys, values, backbone, initial, {"domain": f"d{seed}"})


def test_a_mixture_is_the_weighted_sum_at_every_site() -> None:
    a, b = prefix(1), prefix(2)
    mixed = mix([a, b], [0.25, 0.75])
    for name, tensor in mixed.tensors().items():
        torch.testing.assert_close(tensor, 0.25 * a.tensors()[name] + 0.75 * b.tensors()[name])
    assert (mixed.backbone, mixed.initial, mixed.notes) == ("sha256:b", "sha256:i", {})


def test_one_source_with_weight_one_is_that_source() -> None:
    assert mix([prefix(1)], [1.0]).hash() == prefix(1).hash()


def test_merging_is_the_mean_of_target_and_source() -> None:
    a, b = prefix(1), prefix(2)
    merged = merge(a, b)
    for name, tensor in merged.tensors().items():
        torch.testing.assert_close(tensor, (a.tensors()[name] + b.tensors()[name]) / 2)
    assert merge(a, a).hash() == a.hash()
    # Another share than the paper's.
    for name, tensor in merge(a, b, 0.8).tensors().items():
        torch.testing.assert_close(tensor, 0.2 * a.tensors()[name] + 0.8 * b.tensors()[name])
    assert merge(a, b, 1.0).hash() == b.hash()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (prefix(2, length=4), "shape"),
        (prefix(2, backbone="sha256:x"), "backbone"),
        (prefix(2, initial="sha256:x"), "initial prefix"),
    ],
)
def test_prefixes_that_do_not_belong_together_are_refused(other: Prefix, what: str) -> None:
    with pytest.raises(PrefixMismatchError, match=f"'d1' and 'd2' differ in {what}"):
        mix([prefix(1), other], [0.5, 0.5])


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_learned_mixture_starts_as_the_fixed_one_and_trains_alpha_and_the_target_only(share: float) -> None:
    target, sources = prefix(0), [prefix(1), prefix(2)]
    entity, direction = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5])
    learned = LearnedMixture(target, sources, lambda a: (a * entity + (1 - a) * direction).softmax(0), 0.5, share)
    weights = torch.tensor([0.5, 0.25]).softmax(0).tolist()
    expected = merge(target, mix(sources, weights), share)
    keys, values = learned.collapse()
    for got, wanted in zip((*keys, *values), (*expected.keys, *expected.values), strict=True):
        torch.testing.assert_close(got, wanted)
    assert set(dict(learned.named_parameters())) == {"target.delta", "logit"}
    keys, values = learned()
    sum((t**2).sum() for t in (*keys, *values)).backward()
    assert learned.logit.grad is not None
    assert float(learned.logit.grad.abs()) > 0
    before = learned.alpha
    with torch.no_grad():
        learned.logit += 1
    assert learned.alpha > before
    assert not torch.equal(learned.collapse()[0][0], expected.keys[0])


@pytest.mark.parametrize("temperature", [0.1, 1e-320])
def test_weights_of_a_learned_alpha_are_those_of_the_selection(temperature: float) -> None:
    sources = tuple(
        SourceSimilarity(name, entity, direction, {}, 0.5, (entity + direction) / 2, 0.0, ())
        for name, entity, direction in (("a", 0.9, 0.1), ("b", 0.8, 0.4))
    )
    selection = Selection("t", sources, "tuned", temperature, "softmax")
    alpha = torch.tensor(0.5, requires_grad=True)
    weights = weights_of(selection)(alpha)
    torch.testing.assert_close(weights.detach(), torch.tensor(softmax_weights([s.total for s in sources], temperature)))
    weights[0].backward()
    assert alpha.grad is not None
    assert bool(alpha.grad.isfinite())


def test_a_learned_mixture_refuses_strangers() -> None:
    with pytest.raises(PrefixMismatchError):
        LearnedMixture(prefix(0), [replace(prefix(1), initial="other")], lambda a: a.expand(1), alpha=0.5)
