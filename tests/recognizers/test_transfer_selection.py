"""How sources are weighed, and what is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from xdner.errors import SettingsError
from xdner.library.entry import DomainEntry
from xdner.prefix.combine import LearnedMixture
from xdner.recognizers import sources as sources_module
from xdner.recognizers import transfer as transfer_module
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.reader import Reader
from xdner.recognizers.warmup import WarmUp
from xdner.testing.known_domains import DATA, EQ_10, SOURCES, causal, run, settings, t5, trained


@pytest.fixture(scope="module")
def known() -> CPNER:
    return trained(causal())


def test_without_warm_up_only_the_names_choose(known: CPNER) -> None:
    made = run(known, settings("strategy=collaborative", "warmup_share=0"))
    assert [p.name for p in made.phases] == ["target"]
    assert made.selection is not None
    assert all(s.alpha == 1.0 and s.total == s.entity for s in made.selection.sources)
    assert made.steps == 4 * 2


def test_a_learned_alpha_moves_and_leaves_an_ordinary_prefix(known: CPNER, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LearnedMixture] = []

    class Spy(LearnedMixture):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)  # type: ignore[arg-type]
            seen.append(self)

    monkeypatch.setattr(transfer_module, "LearnedMixture", Spy)
    made = run(known, settings("strategy=collaborative", "learn_alpha=true", *EQ_10))
    assert seen[0].alpha != pytest.approx(0.5, abs=1e-6)
    assert made.selection is not None
    assert [s.alpha for s in made.selection.sources] == pytest.approx([seen[0].alpha] * 3)
    assert made.selection.weights == pytest.approx(seen[0].mixture().tolist()), "told as they were used"
    assert [s["alpha"] for s in made.entry.prefix.notes["transfer"]["sources"]] == pytest.approx([seen[0].alpha] * 3)
    assert made.entry.prefix.length == 3
    known.add(made.entry)
    assert known.predict("the Elbe", domain="rivers")


def test_a_learned_alpha_mixes_the_best_k_only(known: CPNER) -> None:
    made = run(known, settings("strategy=collaborative", "learn_alpha=true", "top_k=1", *EQ_10))
    assert made.selection is not None
    assert sorted(made.selection.weights) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("overrides", "alphas", "problem"),
    [
        (["warmup_share=0", "selector.alpha=0"], {}, "without a warm-up"),
        (["warmup_share=0"], {"seas": 0.25}, "without a warm-up"),
        (["warmup_share=0", "learn_alpha=true"], {}, "needs a warm-up"),
        (["learn_alpha=true", "weighting=sum"], {}, "weighting=sum has none"),
        (["learn_alpha=true"], {"seas": 0.25}, "single sources have none"),
        (["learn_alpha=true", "reparametrization=mlp"], {}, "would have no part in it"),
        (["warmup_share=0", "selector.alpha=0.3"], {}, "α is 1"),
        (["epochs=1", "selector.alpha=0.3"], {}, "α is 1"),
        (["weighting=loss"], {"seas": 0.25}, "an α has no part in it"),
    ],
)
def test_what_would_be_passed_over_is_refused(
    known: CPNER, overrides: Sequence[str], alphas: dict[str, float], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        run(known, settings("strategy=collaborative", *overrides), alphas=alphas)


def test_alphas_of_nobody_are_refused_and_the_selector_alone_knows_no_loss(known: CPNER) -> None:
    with pytest.raises(SettingsError, match="'seas', which is no source"):
        run(known, settings("strategy=none"), [], alphas={"seas": 0.5})
    with pytest.raises(SettingsError, match="weighting=loss"):
        known.select("seas", ["people"], settings=settings("weighting=loss"))


@pytest.mark.parametrize(
    ("strategy", "names", "job"),
    [
        ("collaborative", ["seas"], "training a domain with one source"),
        ("single", ["seas"], "training a domain with one source"),
        ("chain", SOURCES, "the strategy chain"),
        ("ensemble", SOURCES, "the strategy ensemble"),
    ],
)
def test_an_alpha_of_a_source_is_refused_where_nothing_chooses_and_settings_for_all_strategies_are_not(
    known: CPNER, strategy: str, names: Sequence[str], job: str
) -> None:
    with pytest.raises(SettingsError, match=f"{job}.* makes no use of an α for seas"):
        run(known, settings(f"strategy={strategy}"), names, alphas={"seas": 0.25})
    # As the benchmarks do: what is compared has one value of settings, whatever each strategy uses of it.
    for_all = settings(f"strategy={strategy}", "selector.alpha=0.25", "mode=paper", "top_k=1", "source_share=0.25")
    plain = settings(f"strategy={strategy}", *(["source_share=0.25"] if strategy != "chain" else []))
    assert run(known, for_all, names).entry.prefix.hash() == run(known, plain, names).entry.prefix.hash()


def test_settings_of_the_selector_arrive_there(known: CPNER, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def spy(target: object, sources: object, **how: object) -> None:
        given.update(how)

    monkeypatch.setattr(sources_module, "select", spy)
    how = settings("mode=paper", "selector.alpha=0.25", "top_k=2", "pool=max", "weighting=sum")
    start = known.initial_prefix(how.prefix)
    seas, people = known._entry("seas"), known._entry("people")
    sources_module.choose(
        known.reader, seas.domain, seas.prefix, [people], initial=start, settings=how, alphas={"people": 1.0}
    )
    assert given == {
        "origin": start, "mode": "paper", "alpha": 0.25, "alphas": {"people": 1.0}, "temperature": 1.0, "top_k": 2,
        "pool": "max", "weighting": "sum",
    }  # fmt: skip
    assert settings().selector.effective_temperature == 0.1
    assert settings("temperature=0.7").selector.effective_temperature == 0.7


def test_a_types_embedding_is_the_mean_over_its_pieces(known: CPNER) -> None:
    made = sources_module.candidate(known.reader, DATA["seas"][0], known._entry("seas").prefix)
    weights = known.backbone.model.get_input_embeddings().weight
    for row, label in enumerate(DATA["seas"][0].labels):
        ids = list(known.reader.encoder.label(label.verbalization))
        torch.testing.assert_close(made.embeddings[row], weights[ids].mean(0).detach())


def test_weights_from_the_loss_on_the_targets_own_sentences(known: CPNER) -> None:
    made = run(known, settings("strategy=collaborative", "weighting=loss", "temperature=1"))
    assert made.selection is not None
    target = WarmUp(known.reader, *DATA["rivers"], (), settings())
    losses = torch.tensor([target.mean_loss(known._entry(n).prefix) for n in SOURCES])
    assert made.selection.weights == pytest.approx((-losses).softmax(0).tolist(), abs=1e-5)
    assert sum(made.selection.weights) == pytest.approx(1.0)


def test_weights_from_the_loss_are_those_of_dev_where_there_is_one(known: CPNER) -> None:
    domain, sentences = DATA["rivers"]
    made = run(known, settings("strategy=collaborative", "weighting=loss", "temperature=1"), dev=sentences[:2])
    assert made.selection is not None
    target = WarmUp(known.reader, domain, sentences[:2], (), settings())
    losses = torch.tensor([target.mean_loss(known._entry(n).prefix) for n in SOURCES])
    assert made.selection.weights == pytest.approx((-losses).softmax(0).tolist(), abs=1e-5)


@pytest.mark.parametrize("likelihood", ["grammar", "vocabulary"])
def test_the_loss_of_a_source_is_a_mean_over_decisions_whatever_the_batches(known: CPNER, likelihood: str) -> None:
    prefix = known._entry("people").prefix
    losses = [
        WarmUp(known.reader, *DATA["rivers"], (), settings(f"likelihood={likelihood}", f"training.batch_size={size}"))
        .mean_loss(prefix) for size in (1, 2, 3)
    ]  # fmt: skip
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_the_loss_of_a_source_is_without_dropout() -> None:
    how = settings("backbone_dropout=true")
    backbone = t5()
    backbone.model.apply(lambda m: setattr(m, "p", 0.5) if isinstance(m, torch.nn.Dropout) else None)
    target = WarmUp(Reader(backbone, how.decoding), *DATA["rivers"], (), how)
    assert len({target.mean_loss(target.initial) for _ in range(3)}) == 1


def test_the_manifest_tells_where_a_prefix_comes_from(known: CPNER, tmp_path: Path) -> None:
    made = run(known, settings("strategy=collaborative"), alphas={"seas": 0.25})
    made.entry.save(tmp_path / "rivers")
    told = DomainEntry.load(tmp_path / "rivers").prefix.notes["transfer"]
    assert told["strategy"] == "collaborative"
    assert told["initial"] == known.initial_prefix(settings().prefix).hash()
    assert [s["name"] for s in told["sources"]] == list(SOURCES)
    assert [s["hash"] for s in told["sources"]] == [known._entry(n).prefix.hash() for n in SOURCES]
    assert [s["alpha"] for s in told["sources"]] == [0.5, 0.25, 0.5]
    assert sum(s["weight"] for s in told["sources"]) == pytest.approx(1.0, abs=1e-5)
    assert {"mode", "temperature", "effective_sources"} <= set(told)


def test_the_selector_can_be_asked_without_training(known: CPNER) -> None:
    chosen = known.select("seas", ["people", "stars"], alphas={"people": 1.0})
    assert [s.name for s in chosen.sources] == ["people", "stars"]
    people = chosen.sources[0]
    assert people.total == pytest.approx(people.entity)
    assert any(m.same and m.target == "place" for m in people.matches)
    with pytest.raises(SettingsError, match="from 0 to 1"):
        known.select("seas", ["people"], alphas={"people": 2.0})
