from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.t5 import T5Backbone
from xdner.domain import Domain
from xdner.errors import PrefixMismatchError, SettingsError, TrainingError, TrainingInterrupted, UnknownDomainError
from xdner.library.entry import DomainEntry
from xdner.prefix.combine import LearnedMixture, merge, mix
from xdner.prefix.prefix import Prefix
from xdner.recognizers import transfer as transfer_module
from xdner.recognizers.base import Result
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.transfer import Source, Transfer, shared_sentences
from xdner.recognizers.vote import vote
from xdner.recognizers.warmup import WarmUp
from xdner.settings import Settings
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence
from xdner.training.progress import SilentProgress
from xdner.training.run import Run

BASE = ["epochs=4", "training.batch_size=2", "length=3", "patience=0", "evaluate_from=1", "learning_rate=0.05"]
DATA = {
    "people": (Domain.from_labels("people", ["person", "place"]), [
        Sentence.from_text("Ann in Rome", [(0, 3, "person"), (7, 11, "place")]),
        Sentence.from_text("Rome, the city", [(0, 4, "place")]),
    ]),
    "seas": (Domain.from_labels("seas", ["sea", "place"]), [
        Sentence.from_text("the Baltic sea at Kiel", [(4, 10, "sea"), (18, 22, "place")]),
        Sentence.from_text("North sea", [(0, 9, "sea")]),
    ]),
    "stars": (Domain.from_labels("stars", ["star"]), [Sentence.from_text("Vega is bright", [(0, 4, "star")])]),
    "rivers": (Domain.from_labels("rivers", ["river", "place"]), [
        Sentence.from_text("the Elbe at Dresden", [(4, 8, "river"), (12, 19, "place")]),
        Sentence.from_text("Elbe floods", [(0, 4, "river")]),
        Sentence.from_text("nothing here"),
    ]),
}  # fmt: skip
SOURCES = ("people", "seas", "stars")


def causal() -> Backbone:
    return CausalBackbone(tiny_causal("llama"), byte_level_tokenizer(), name="tiny")


def t5() -> Backbone:
    return T5Backbone(tiny_t5(), t5_like_tokenizer(), name="tiny-t5")


def settings(*overrides: str) -> Settings:
    return Settings.build(overrides=[*BASE, *overrides])


def trained(backbone: Backbone) -> CPNER:
    recognizer = CPNER(backbone, settings=settings("epochs=2"))
    for name in SOURCES:
        recognizer.train(*DATA[name])
    return recognizer


@pytest.fixture(scope="module")
def known() -> CPNER:
    return trained(causal())


def entries(recognizer: CPNER, names: Sequence[str] = SOURCES) -> list[Source]:
    return [Source(recognizer._entry(n), DATA[n][1]) for n in names]


def run(
    recognizer: CPNER, how: Settings, names: Sequence[str] = SOURCES, **more: object
) -> transfer_module.Transferred:
    domain, sentences = DATA["rivers"]
    return Transfer(
        recognizer.reader, domain, sentences, (), how, initial=recognizer.initial_prefix(how.prefix),
        sources=entries(recognizer, names), **more,
    ).run()  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("make", [causal, t5])
def test_the_collaborative_prefix_is_made_as_the_paper_says(make: object) -> None:
    recognizer = trained(make())  # type: ignore[operator]
    how = settings("strategy=collaborative", "mode=paper")
    domain, sentences = DATA["rivers"]
    made = run(recognizer, how)
    initial = recognizer.initial_prefix(how.prefix)
    # By hand: warm-up for half of the epochs, Eqs. 5 to 8, Eqs. 9 and 10, and the other half.
    half = replace(how, training=replace(how.training, epochs=2))
    own = WarmUp(recognizer.reader, domain, sentences, (), half, initial=initial).run()[0].prefix
    sources = [recognizer._entry(n) for n in SOURCES]
    said = transfer_module.choose(recognizer.reader, domain, own, sources, initial=initial, settings=how)
    start = merge(own, mix([s.prefix for s in sources], said.weights))
    wanted = WarmUp(recognizer.reader, domain, sentences, (), half, initial=initial, start=start).run()[0].prefix
    assert made.entry.prefix.hash() == wanted.hash()
    assert made.selection == said
    assert [p.name for p in made.phases] == ["warm-up", "target"]


def test_a_source_share_of_one_goes_on_from_the_sources_alone(known: CPNER) -> None:
    how = settings("strategy=collaborative", "source_share=1")
    domain, sentences = DATA["rivers"]
    made = run(known, how)
    assert made.selection is not None
    half = replace(how, training=replace(how.training, epochs=2))
    start = mix([known._entry(n).prefix for n in SOURCES], made.selection.weights)
    wanted = WarmUp(
        known.reader, domain, sentences, (), half, initial=known.initial_prefix(how.prefix), start=start
    ).run()[0].prefix  # fmt: skip
    assert made.entry.prefix.hash() == wanted.hash()
    assert made.entry.prefix.notes["transfer"]["source_share"] == 1
    with pytest.raises(SettingsError, match="source_share=1 starts from the sources alone"):
        run(known, settings("strategy=collaborative", "source_share=1", "learn_alpha=true"))


def test_one_source_is_the_same_path_with_weight_one(known: CPNER) -> None:
    single = run(known, settings("strategy=single"), ["seas"])
    collaborative = run(known, settings("strategy=collaborative"), ["seas"])
    assert single.entry.prefix.hash() == collaborative.entry.prefix.hash()
    assert single.selection is not None
    assert single.selection.weights == (1.0,)


def test_every_strategy_gives_the_target_equally_many_steps(known: CPNER) -> None:
    steps = {
        strategy: run(known, settings(f"strategy={strategy}"), names).steps
        for strategy, names in (("none", []), ("single", ["seas"]), ("collaborative", SOURCES), ("chain", SOURCES),
                                ("ensemble", SOURCES))
    }  # fmt: skip
    assert set(steps.values()) == {steps["none"]}, steps
    assert steps["none"] == 4 * 2


def test_a_chain_goes_through_the_sources_in_turn(known: CPNER) -> None:
    how = settings("strategy=chain")
    made = run(known, how)
    assert [p.name for p in made.phases] == ["chain: seas", "chain: stars", "target"]
    initial, prefix = known.initial_prefix(how.prefix), known._entry("people").prefix
    for name in ("seas", "stars", "rivers"):
        prefix = WarmUp(known.reader, *DATA[name], (), how, initial=initial, start=prefix).run()[0].prefix
    assert made.entry.prefix.hash() == prefix.hash()


def test_an_ensemble_votes_and_is_saved_and_mixed_with_other_domains(known: CPNER, tmp_path: Path) -> None:
    made = run(known, settings("strategy=ensemble"))
    assert len(made.entry.prefixes) == 3
    assert len({p.hash() for p in made.entry.prefixes}) == 3
    made.entry.save(tmp_path / "rivers")
    loaded = DomainEntry.load(tmp_path / "rivers")
    assert [p.hash() for p in loaded.prefixes] == [p.hash() for p in made.entry.prefixes]
    recognizer = CPNER(known.backbone, settings=known.settings)
    recognizer.add(loaded)
    recognizer.add(known._entry("seas"))
    texts = ["the Elbe at Dresden", "North sea", "Elbe floods"]
    mixed = recognizer.predict(texts, domain=["rivers", "seas", "rivers"])
    alone = []
    for member in loaded.prefixes:
        one = CPNER(known.backbone, settings=known.settings)
        one.add(replace(loaded, prefix=member, members=()))
        alone.append(one.predict(texts, domain="rivers"))
    for index in (0, 2):
        assert spans(mixed[index]) == spans(vote([a[index] for a in alone]))
    assert spans(mixed[1]) == spans(recognizer.predict([texts[1]], domain="seas")[0])
    with pytest.raises(PrefixMismatchError, match="is an ensemble of 3 prefixes"):
        run_with(known, [Source(replace(loaded, domain=DATA["seas"][0]))])


def spans(result: Result) -> list[tuple[int, int, str, float]]:
    """Scores depend on the batch in their last digits."""
    return [(e.start, e.end, e.label, round(e.score or 0.0, 5)) for e in result.entities]


def run_with(recognizer: CPNER, sources: Sequence[Source], strategy: str = "collaborative") -> None:
    how = settings(f"strategy={strategy}")
    Transfer(
        recognizer.reader, *DATA["rivers"], (), how, initial=recognizer.initial_prefix(how.prefix), sources=sources
    ).run()


def test_without_warm_up_only_the_names_choose(known: CPNER) -> None:
    made = run(known, settings("strategy=collaborative", "warmup_share=0"))
    assert [p.name for p in made.phases] == ["target"]
    assert made.selection is not None
    assert all(s.alpha == 1.0 and s.total == s.entity for s in made.selection.sources)
    assert made.steps == 4 * 2


def test_without_options_the_prompt_does_not_name_the_types(known: CPNER) -> None:
    how = settings("strategy=none", "codec.options=false")
    made = run(known, how, [])
    recognizer = CPNER(known.backbone, settings=known.settings)
    recognizer.add(made.entry)
    ids = recognizer._steer("rivers")[0].steering.context.ids
    assert "river" not in recognizer.backbone.tokenizer.decode(ids)
    assert "named entities" in recognizer.backbone.tokenizer.decode(ids)
    assert recognizer.predict("the Elbe", domain="rivers")


def test_a_learned_alpha_moves_and_leaves_an_ordinary_prefix(known: CPNER, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LearnedMixture] = []

    class Spy(LearnedMixture):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)  # type: ignore[arg-type]
            seen.append(self)

    monkeypatch.setattr(transfer_module, "LearnedMixture", Spy)
    made = run(known, settings("strategy=collaborative", "learn_alpha=true"))
    assert seen[0].alpha != pytest.approx(0.5, abs=1e-6)
    assert made.selection is not None
    assert [s.alpha for s in made.selection.sources] == pytest.approx([seen[0].alpha] * 3)
    assert made.selection.weights == pytest.approx(seen[0].mixture().tolist()), "told as they were used"
    assert [s["alpha"] for s in made.entry.prefix.notes["transfer"]["sources"]] == pytest.approx([seen[0].alpha] * 3)
    assert made.entry.prefix.length == 3
    known.add(made.entry)
    assert known.predict("the Elbe", domain="rivers")


def test_a_learned_alpha_mixes_the_best_k_only(known: CPNER) -> None:
    made = run(known, settings("strategy=collaborative", "learn_alpha=true", "top_k=1"))
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


def test_a_domain_knows_what_its_sources_were_trained_on(known: CPNER) -> None:
    for strategy in ("collaborative", "chain", "ensemble"):
        made = run(known, settings(f"strategy={strategy}", "epochs=3"))
        for name in (*SOURCES, "rivers"):
            assert shared_sentences(made.entry, DATA[name][1]) == len(DATA[name][1]), (strategy, name)


def test_settings_of_the_selector_arrive_there(known: CPNER, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def spy(target: object, sources: object, **how: object) -> None:
        given.update(how)

    monkeypatch.setattr(transfer_module, "select", spy)
    how = settings("mode=paper", "selector.alpha=0.25", "top_k=2", "pool=max", "weighting=sum")
    start = known.initial_prefix(how.prefix)
    seas, people = known._entry("seas"), known._entry("people")
    transfer_module.choose(
        known.reader, seas.domain, seas.prefix, [people], initial=start, settings=how, alphas={"people": 1.0}
    )
    assert given == {
        "origin": start, "mode": "paper", "alpha": 0.25, "alphas": {"people": 1.0}, "temperature": 1.0, "top_k": 2,
        "pool": "max", "weighting": "sum",
    }  # fmt: skip
    assert settings().selector.effective_temperature == 0.1
    assert settings("temperature=0.7").selector.effective_temperature == 0.7


def test_a_types_embedding_is_the_mean_over_its_pieces(known: CPNER) -> None:
    made = transfer_module.candidate(known.reader, DATA["seas"][0], known._entry("seas").prefix)
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


def test_nothing_else_changes_whatever_is_trained_combined_or_served() -> None:
    """Frozen, and no forgetting, provably."""
    recognizer = trained(causal())
    before = recognizer.backbone.compute_fingerprint()
    texts = [s.text for _, sentences in DATA.values() for s in sentences]
    readings = {name: recognizer.predict(texts, domain=name) for name in SOURCES}
    stored = {name: [t.clone() for t in recognizer._entry(name).prefix.tensors().values()] for name in SOURCES}
    for strategy in ("collaborative", "ensemble"):
        recognizer.train(*DATA["rivers"], sources=SOURCES, settings=settings(f"strategy={strategy}"))
        recognizer.predict(texts * 2, domain=[*(["rivers"] * len(texts)), *(["seas"] * len(texts))])
    assert recognizer.backbone.compute_fingerprint() == before
    for name in SOURCES:
        assert recognizer.predict(texts, domain=name) == readings[name]
        tensors = recognizer._entry(name).prefix.tensors().values()
        assert all(torch.equal(a, b) for a, b in zip(stored[name], tensors, strict=True))


def test_training_with_sources_is_collaborative_unless_something_else_is_asked_for(known: CPNER) -> None:
    made = known.train(*DATA["rivers"], sources=["people", "seas"])
    assert made.entry.prefix.notes["transfer"]["strategy"] == "collaborative"
    assert made.entry.settings.transfer.strategy == "collaborative"
    with pytest.raises(UnknownDomainError, match="no domain 'moon'"):
        known.train(*DATA["rivers"], sources=["moon"])


def test_the_selector_can_be_asked_without_training(known: CPNER) -> None:
    chosen = known.select("seas", ["people", "stars"], alphas={"people": 1.0})
    assert [s.name for s in chosen.sources] == ["people", "stars"]
    people = chosen.sources[0]
    assert people.total == pytest.approx(people.entity)
    assert any(m.same and m.target == "place" for m in people.matches)
    with pytest.raises(SettingsError, match="from 0 to 1"):
        known.select("seas", ["people"], alphas={"people": 2.0})


@pytest.mark.parametrize(
    ("strategy", "names", "problem"),
    [
        ("none", ["seas"], "uses no sources"),
        ("single", ["seas", "stars"], "takes exactly one source, not 2"),
        ("single", [], "takes exactly one source, not 0"),
        ("collaborative", [], "needs sources"),
        ("ensemble", [], "needs sources"),
        ("chain", ["seas", "stars", "seas"], "seas is given twice"),
    ],
)
def test_sources_that_a_strategy_cannot_use_are_refused(
    known: CPNER, strategy: str, names: Sequence[str], problem: str
) -> None:
    with pytest.raises(TrainingError, match=problem):
        run(known, settings(f"strategy={strategy}"), names)


def test_a_chain_needs_sentences_and_no_domain_is_its_own_source(known: CPNER) -> None:
    with pytest.raises(TrainingError, match="there are none for stars"):
        run_with(known, [*entries(known, ["seas"]), Source(known._entry("stars"))], "chain")
    own = replace(known._entry("seas"), domain=DATA["rivers"][0])
    with pytest.raises(TrainingError, match="'rivers' is its own source"):
        run_with(known, [Source(own)])


def test_strangers_are_refused(known: CPNER) -> None:
    other = known._entry("seas")
    stranger = replace(other, prefix=replace(other.prefix, initial="sha256:another"))
    with pytest.raises(PrefixMismatchError, match="'seas' started from another initial prefix"):
        run_with(known, [Source(stranger)])
    foreign = replace(other, prefix=replace(other.prefix, backbone="sha256:another"))
    with pytest.raises(PrefixMismatchError, match="fingerprint"):
        run_with(known, [Source(foreign)])


def test_shared_sentences_are_found_whatever_their_case(known: CPNER) -> None:
    entry = known._entry("seas")
    assert shared_sentences(entry, DATA["seas"][1]) == 2
    assert shared_sentences(entry, [Sentence.from_text("THE  baltic sea at kiel")], DATA["people"][1]) == 1
    assert shared_sentences(entry, DATA["rivers"][1]) == 0


def test_an_interrupted_run_goes_on_in_the_phase_where_it_stopped(known: CPNER, tmp_path: Path) -> None:
    how = settings("strategy=collaborative")
    whole = run(known, how).entry.prefix.hash()

    class Interrupts(SilentProgress):
        phases = 0

        def phase(self, name: str) -> None:
            self.phases += name == "target"

        def step(self, done: int, loss: float) -> None:
            if self.phases and done == 2:
                signal.raise_signal(signal.SIGINT)

    def again(resume: bool, progress: SilentProgress) -> Prefix:
        made = Transfer(
            known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(how.prefix), sources=entries(known)
        )
        return made.run(Run(tmp_path / "run", resume=resume, progress=progress)).entry.prefix

    with pytest.raises(TrainingInterrupted):
        again(False, Interrupts())
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"warm-up", "target"}
    assert again(True, SilentProgress()).hash() == whole


def test_what_an_older_run_left_is_not_resumed(known: CPNER, tmp_path: Path) -> None:
    def made(how: Settings) -> Transfer:
        return Transfer(
            known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(how.prefix), sources=entries(known)
        )

    class Stops(SilentProgress):
        def step(self, done: int, loss: float) -> None:
            signal.raise_signal(signal.SIGINT)

    made(settings("strategy=collaborative")).run(Run(tmp_path))
    other = settings("strategy=collaborative", "learning_rate=0.011")
    whole = made(other).run().entry.prefix.hash()
    with pytest.raises(TrainingInterrupted):
        made(other).run(Run(tmp_path, progress=Stops()))
    assert not (tmp_path / "target" / "checkpoint").exists()
    assert made(other).run(Run(tmp_path, resume=True)).entry.prefix.hash() == whole


def test_positions_of_the_prefix_are_left_out_in_training_and_never_all(known: CPNER) -> None:
    for share in ("0.5", "1.0"):
        how = settings("strategy=none", f"prefix_dropout={share}")
        warmup = WarmUp(known.reader, *DATA["rivers"], (), how)
        lengths = {int(warmup._rows().lengths[0]) for _ in range(40)}
        assert lengths <= {1, 2, 3}
        assert lengths == {1} if share == "1.0" else len(lengths) > 1
    plain, varied = (run(known, settings("strategy=none", f"prefix_dropout={s}"), []).entry for s in ("0.0", "0.5"))
    assert plain.prefix.hash() != varied.prefix.hash()
    assert varied.prefix.length == 3


@pytest.mark.parametrize("strategy", ["none", "collaborative"])
def test_a_run_that_never_began_cannot_be_resumed(known: CPNER, tmp_path: Path, strategy: str) -> None:
    how, sources = settings(f"strategy={strategy}"), entries(known) if strategy != "none" else []
    made = Transfer(
        known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(how.prefix), sources=sources
    )  # fmt: skip
    with pytest.raises(TrainingError, match="checkpoint"):
        made.run(Run(tmp_path / "run", resume=True))
    with pytest.raises(TrainingError, match="without a folder"):
        made.run(Run(resume=True))
