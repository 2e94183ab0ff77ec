"""The strategies of transfer: what each one is made of, and what it leaves untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from xdner.errors import PrefixMismatchError, SettingsError, TrainingError, UnknownDomainError
from xdner.library.entry import DomainEntry
from xdner.prefix.combine import merge, mix
from xdner.recognizers.base import Result
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.sources import Source, choose, shared_sentences
from xdner.recognizers.transfer import Transfer
from xdner.recognizers.vote import vote
from xdner.recognizers.warmup import WarmUp
from xdner.testing.known_domains import DATA, EQ_10, SOURCES, causal, entries, run, settings, t5, trained
from xdner.text import Sentence


@pytest.fixture(scope="module")
def known() -> CPNER:
    return trained(causal())


@pytest.mark.parametrize("make", [causal, t5])
def test_the_collaborative_prefix_is_made_as_the_paper_says(make: object) -> None:
    recognizer = trained(make())  # type: ignore[operator]
    how = settings("strategy=collaborative", "mode=paper", *EQ_10)
    domain, sentences = DATA["rivers"]
    made = run(recognizer, how)
    initial = recognizer.initial_prefix(how.prefix)
    # By hand: warm-up for half of the epochs, Eqs. 5 to 8, Eqs. 9 and 10, and the other half.
    half = replace(how, training=replace(how.training, epochs=2))
    own = WarmUp(recognizer.reader, domain, sentences, (), half, initial=initial).run()[0].prefix
    sources = [recognizer._entry(n) for n in SOURCES]
    said = choose(recognizer.reader, domain, own, sources, initial=initial, settings=how)
    start = merge(own, mix([s.prefix for s in sources], said.weights))
    wanted = WarmUp(recognizer.reader, domain, sentences, (), half, initial=initial, start=start).run()[0].prefix
    assert made.entry.prefix.hash() == wanted.hash()
    assert made.selection == said
    assert [p.name for p in made.phases] == ["warm-up", "target"]


def test_by_default_training_goes_on_from_the_sources_alone_after_a_short_warm_up(known: CPNER) -> None:
    how = settings("strategy=collaborative")
    domain, sentences = DATA["rivers"]
    made = run(known, how)
    assert made.selection is not None
    rest = replace(how, training=replace(how.training, epochs=3))  # of four
    start = mix([known._entry(n).prefix for n in SOURCES], made.selection.weights)
    wanted = WarmUp(
        known.reader, domain, sentences, (), rest, initial=known.initial_prefix(how.prefix), start=start
    ).run()[0].prefix  # fmt: skip
    assert made.entry.prefix.hash() == wanted.hash()
    assert made.entry.prefix.notes["transfer"]["source_share"] == 1
    with pytest.raises(SettingsError, match="source_share=1 starts from the sources alone"):
        run(known, settings("strategy=collaborative", "learn_alpha=true"))


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
        Transfer(
            known.reader, *DATA["rivers"], (), settings("strategy=collaborative"), initial=known.initial_prefix(),
            sources=[Source(replace(loaded, domain=DATA["seas"][0]))],
        )  # fmt: skip


def test_the_score_of_an_ensemble_is_that_of_its_vote(known: CPNER) -> None:
    domain, sentences = DATA["rivers"]
    recognizer = CPNER(known.backbone, settings=settings("strategy=ensemble"), initial=known.initial_prefix())
    made = recognizer.train(domain, sentences, sentences[:2], sources=entries(known))
    assert len(made.entry.prefixes) == 3
    report = recognizer.evaluate(sentences[:2], domain="rivers")
    assert made.dev_f1 == report.micro.f1 == made.entry.prefix.notes["dev_f1"]
    alone = recognizer.train(domain, sentences, sources=entries(known))
    assert alone.dev_f1 is None


def test_dev_chooses_an_epoch_of_an_ensembles_members_too(known: CPNER) -> None:
    domain, sentences = DATA["rivers"]
    how = settings("strategy=ensemble", "epochs=24", "evaluate_from=4", "evaluate_every=2", *EQ_10)
    made = Transfer(
        known.reader, domain, sentences, sentences[:2], how, initial=known.initial_prefix(), sources=entries(known)
    ).run()
    scored = [
        [r.epoch for r in p.result.history if r.dev is not None] for p in made.phases if p.name.endswith("target")
    ]
    assert scored == [[1, 2, 3, 4]] * 3  # of eight epochs each, half are the warm-up


def spans(result: Result) -> list[tuple[int, int, str, float]]:
    """Scores depend on the batch in their last digits."""
    return [(e.start, e.end, e.label, round(e.score or 0.0, 5)) for e in result.entities]


def test_without_options_the_prompt_does_not_name_the_types(known: CPNER) -> None:
    how = settings("strategy=none", "codec.options=false")
    made = run(known, how, [])
    recognizer = CPNER(known.backbone, settings=known.settings)
    recognizer.add(made.entry)
    ids = recognizer._steer("rivers")[0].steering.context.ids
    assert "river" not in recognizer.backbone.tokenizer.decode(ids)
    assert "named entities" in recognizer.backbone.tokenizer.decode(ids)
    assert recognizer.predict("the Elbe", domain="rivers")


def test_a_domain_knows_what_its_sources_were_trained_on(known: CPNER) -> None:
    for strategy in ("collaborative", "chain", "ensemble"):
        made = run(known, settings(f"strategy={strategy}", "epochs=3"))
        for name in (*SOURCES, "rivers"):
            assert shared_sentences(made.entry, DATA[name][1]) == len(DATA[name][1]), (strategy, name)


def test_sentences_that_nothing_was_trained_on_are_not_known(known: CPNER) -> None:
    other = Sentence.from_text("nobody read this")
    given = [replace(source, sentences=[*source.sentences, other]) for source in entries(known)]
    for strategy, seen in (("collaborative", 0), ("chain", 1)):
        how = settings(f"strategy={strategy}", "epochs=2")
        made = Transfer(known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(), sources=given).run()
        assert shared_sentences(made.entry, [other]) == seen, strategy


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
    assert known.train(*DATA["rivers"]).entry.settings.transfer.strategy == "none"
    with pytest.raises(TrainingError, match="strategy 'none' uses no sources"):
        known.train(*DATA["rivers"], sources=["people"], settings=settings("strategy=none"))
    with pytest.raises(UnknownDomainError, match="no domain 'moon'"):
        known.train(*DATA["rivers"], sources=["moon"])


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
