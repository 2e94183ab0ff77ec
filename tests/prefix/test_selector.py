from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xdner.errors import PrefixMismatchError, SettingsError
from xdner.geometry import PrefixGeometry, SiteShape
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import (
    Candidate,
    entity_similarity,
    layer_similarities,
    match_types,
    select,
    softmax_weights,
    sum_weights,
)

GEOMETRY = PrefixGeometry((SiteShape("self.0", 2, 4), SiteShape("self.1", 1, 6)))


def prefix(seed: int, *, scale: float = 1.0, base: Prefix | None = None, length: int = 3) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (
        tuple(torch.randn(s.heads, length, s.head_dim, generator=generator) * scale for s in GEOMETRY.sites)
        for _ in range(2)
    )
    if base is None:
        return Prefix(GEOMETRY, keys, values, "sha256:backbone")
    return Prefix(
        GEOMETRY,
        tuple(a + b for a, b in zip(base.keys, keys, strict=True)),
        tuple(a + b for a, b in zip(base.values, values, strict=True)),
        "sha256:backbone",
        base.hash(),
    )


ORIGIN = prefix(0, scale=5.0)


def candidate(name: str, seed: int, types: tuple[str, ...] = ("person", "place")) -> Candidate:
    generator = torch.Generator().manual_seed(seed)
    return Candidate(name, types, torch.randn(len(types), 8, generator=generator), prefix(seed, scale=0.1, base=ORIGIN))


def test_entity_similarity_is_the_cosine_of_the_pooled_types() -> None:
    source, target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    assert entity_similarity(source, target) == pytest.approx(math.sqrt(0.5))
    assert entity_similarity(source, target, "max") == pytest.approx(math.sqrt(0.5))
    assert entity_similarity(source, source) == pytest.approx(1.0)
    uneven = torch.tensor([[1.0, 0.0], [-0.4, 0.1]])
    assert entity_similarity(uneven, target) == pytest.approx(0.3 / math.hypot(0.3, 0.05))
    assert entity_similarity(uneven, target, "max") == pytest.approx(1 / math.hypot(1, 0.1))


def test_prefix_similarity_is_taken_site_by_site_over_keys_and_values() -> None:
    a, b = prefix(1), prefix(2)
    expected = {}
    for index, site in enumerate(GEOMETRY.sites):
        one, other = (torch.cat([p.keys[index].reshape(-1), p.values[index].reshape(-1)]) for p in (a, b))
        expected[site.name] = float(torch.nn.functional.cosine_similarity(one, other, dim=0))
    found = layer_similarities(a, b)
    assert list(found) == ["self.0", "self.1"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert layer_similarities(a, a) == pytest.approx({"self.0": 1.0, "self.1": 1.0})


def test_a_shared_start_hides_differences_unless_it_is_taken_away() -> None:
    a, b = prefix(1, scale=0.1, base=ORIGIN), prefix(2, scale=0.1, base=ORIGIN)
    assert min(layer_similarities(a, b).values()) > 0.99
    assert max(layer_similarities(a, b, ORIGIN).values()) < 0.9
    assert layer_similarities(ORIGIN, a, ORIGIN) == {"self.0": 0.0, "self.1": 0.0}, "δ₀ itself has no direction"


def test_prefixes_of_different_lengths_are_not_compared() -> None:
    with pytest.raises(PrefixMismatchError, match=r"length 3.*length 4"):
        layer_similarities(prefix(1), prefix(2, length=4))


def test_weights_follow_equations_7_and_8() -> None:
    target, sources = candidate("t", 9), [candidate(n, i) for i, n in enumerate("abc", start=1)]
    chosen = select(target, sources, origin=ORIGIN, mode="paper", alpha=0.25, temperature=1.0)
    totals = [0.25 * s.entity + 0.75 * s.prefix for s in chosen.sources]
    assert [s.total for s in chosen.sources] == pytest.approx(totals)
    assert chosen.weights == pytest.approx(torch.tensor(totals).softmax(0).tolist(), abs=1e-6)
    assert sum(chosen.weights) == pytest.approx(1.0)
    for source, said in zip(sources, chosen.sources, strict=True):
        assert said.prefix == pytest.approx(sum(layer_similarities(source.prefix, target.prefix).values()) / 2)


def test_the_tuned_mode_compares_what_training_changed() -> None:
    target, source = candidate("t", 9), candidate("a", 1)
    for mode, start in (("tuned", ORIGIN), ("paper", None)):
        said = select(target, [source], origin=ORIGIN, mode=mode).sources[0]  # type: ignore[arg-type]
        assert said.layers == layer_similarities(source.prefix, target.prefix, start)
    with pytest.raises(SettingsError, match="there is none"):
        select(target, [source], origin=None, mode="tuned")


def test_one_source_has_all_the_weight() -> None:
    chosen = select(candidate("t", 9), [candidate("a", 1)], origin=ORIGIN)
    assert chosen.weights == (1.0,)
    assert chosen.effective == pytest.approx(1.0)


def test_alpha_can_be_given_for_single_sources() -> None:
    chosen = select(
        candidate("t", 9), [candidate("a", 1), candidate("b", 2)], origin=ORIGIN, alpha=0.5, alphas={"b": 1.0}
    )
    first, second = chosen.sources
    assert (first.alpha, second.alpha) == (0.5, 1.0)
    assert second.total == pytest.approx(second.entity)
    assert first.total == pytest.approx((first.entity + first.prefix) / 2)


def test_a_low_temperature_chooses_and_a_high_one_levels() -> None:
    totals = [0.9, 0.8, 0.7]
    assert softmax_weights(totals, 0.01)[0] > 0.99
    assert softmax_weights(totals, 100.0) == pytest.approx((1 / 3,) * 3, abs=1e-3)
    assert softmax_weights(totals, 1e-320) == (1.0, 0.0, 0.0), "numbers, however low it is"


def test_top_k_leaves_the_others_out() -> None:
    weights = softmax_weights([0.1, 0.9, 0.9, 0.2], 1.0, top_k=2)
    assert weights == pytest.approx((0.0, 0.5, 0.5, 0.0))
    assert softmax_weights([0.3, 0.3, 0.3], 1.0, top_k=1) == (1.0, 0.0, 0.0), "of equal ones the first"


def test_the_sum_of_the_authors_code() -> None:
    assert sum_weights([0.6, 0.2, -0.5]) == pytest.approx((0.75, 0.25, 0.0))
    assert sum_weights([-1.0, -2.0]) == (0.5, 0.5)
    assert sum_weights([0.6, 0.2, 0.3], top_k=2) == pytest.approx((2 / 3, 0, 1 / 3))
    chosen = select(candidate("t", 9), [candidate("a", 1), candidate("b", 2)], origin=ORIGIN, weighting="sum")
    assert chosen.weights == sum_weights([s.total for s in chosen.sources])


def test_the_effective_number_of_sources() -> None:
    chosen = select(candidate("t", 9), [candidate(n, 1) for n in "abcd"], origin=ORIGIN)
    assert chosen.effective == pytest.approx(4.0), "equal sources count alike"
    assert (
        1.0
        <= select(candidate("t", 9), [candidate("a", 9), candidate("b", 2)], origin=ORIGIN, temperature=1e-3).effective
        < 1.01
    )


def test_equal_types_match_by_name_and_others_by_meaning() -> None:
    target = Candidate("t", ("Person", "song"), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), ORIGIN)
    source = Candidate("s", ("track", "person", "band"), torch.tensor([[0.1, 2.0], [-1.0, 0.0], [1.0, 0.1]]), ORIGIN)
    person, song = match_types(source, target)
    assert (person.target, person.source, person.same) == ("Person", "person", True)
    assert person.cosine == pytest.approx(-1.0), "the words decide, not the cosine"
    assert (song.source, song.same) == ("track", False)
    assert song.cosine == pytest.approx(2 / math.hypot(0.1, 2.0))


def test_what_cannot_be_selected_from_is_refused() -> None:
    target, good = candidate("t", 9), candidate("a", 1)
    stranger = replace(good, name="stranger", prefix=replace(good.prefix, initial="sha256:another"))
    with pytest.raises(PrefixMismatchError, match=r"'stranger' started from another initial prefix"):
        select(target, [good, stranger], origin=ORIGIN)
    with pytest.raises(SettingsError, match=r"from 0 to 1, not 1\.5"):
        select(target, [good], origin=ORIGIN, alpha=1.5)
    with pytest.raises(SettingsError, match=r"not -0.1.*") as caught:
        select(target, [good], origin=ORIGIN, alphas={"a": -0.1, "nobody": 0.5})
    assert len(caught.value.problems) == 2
    assert "'nobody'" in caught.value.problems[0]
    with pytest.raises(SettingsError, match="no source"):
        select(target, [], origin=ORIGIN)


def test_the_record_is_plain_and_complete() -> None:
    import json

    chosen = select(candidate("t", 9), [candidate("a", 1), candidate("b", 2)], origin=ORIGIN)
    described = json.loads(json.dumps(chosen.to_dict()))
    assert described["target"] == "t"
    assert [s["name"] for s in described["sources"]] == ["a", "b"]
    assert set(described["sources"][0]) == {"name", "entity", "prefix", "alpha", "total", "weight", "layers", "matches"}
    assert set(described["sources"][0]["layers"]) == {"self.0", "self.1"}


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=9),
    st.floats(0.01, 10),
    st.integers(0, 9),
)
def test_weights_are_a_distribution_that_keeps_the_order(totals: list[float], temperature: float, top_k: int) -> None:
    weights = softmax_weights(totals, temperature, top_k)
    assert sum(weights) == pytest.approx(1.0)
    assert all(w >= 0 for w in weights)
    if top_k:
        assert sum(w > 0 for w in weights) <= min(top_k, len(totals))
    best = max(range(len(totals)), key=totals.__getitem__)
    assert weights[best] == max(weights)
