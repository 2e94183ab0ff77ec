from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xdner
from xdner.backbone import recompute
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.t5 import T5Backbone
from xdner.domain import Domain
from xdner.errors import (
    BackboneMismatchError,
    CodecError,
    DataError,
    DomainError,
    PrefixFormatError,
    PrefixMismatchError,
    StorageError,
    TrainingError,
    UnknownDomainError,
)
from xdner.library.store import Library
from xdner.prefix.prefix import Prefix
from xdner.recognizers.base import Request
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.reader import Reader
from xdner.recognizers.warmup import WarmUp
from xdner.settings import Settings
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Entity, Sentence

SETTINGS = Settings.build(
    overrides=[
        "epochs=2", "training.batch_size=2", "length=3", "decoding.window=12", "decoding.overlap=4", "patience=0",
    ]
)  # fmt: skip
PEOPLE = Domain.from_labels("people", ["person", "place"])
SEAS = Domain.from_labels("seas", ["sea"])
SENTENCES = [
    Sentence.from_text("Ann in Rome", [(0, 3, "person"), (7, 11, "place")], id="a"),
    Sentence.from_text("no one", id="b"),
    Sentence.from_text("Rome, the city", [(0, 4, "place")], id="c"),
]


def make(seed: int = 0) -> CPNER:
    backbone = CausalBackbone(tiny_causal("llama", seed=seed), byte_level_tokenizer(), name=f"tiny-{seed}")
    return CPNER(backbone, settings=SETTINGS)


@pytest.fixture(scope="module")
def ready() -> CPNER:
    recognizer = make()
    for domain in (PEOPLE, SEAS):
        recognizer.add_untrained(domain)
    return recognizer


def test_training_changes_the_prefix_and_nothing_else(tmp_path: Path) -> None:
    recognizer = make()
    before = {k: v.clone() for k, v in recognizer.backbone.model.state_dict().items()}
    identity = recognizer.backbone.compute_fingerprint()
    trained = recognizer.train(PEOPLE, SENTENCES, SENTENCES[:1])
    for name, weight in recognizer.backbone.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert recognizer.backbone.compute_fingerprint() == identity
    prefix = trained.entry.prefix
    assert prefix.backbone == identity
    assert prefix.initial == recognizer.initial_prefix(SETTINGS.prefix).hash() != prefix.hash()
    assert trained.result.epochs_run == 2
    assert recognizer.domains == ("people",)
    recognizer.save("people", tmp_path / "people")
    again = make()
    assert again.load(tmp_path / "people") == "people"
    texts = ["Ann went to Rome", "the sea"]
    assert again.predict(texts) == recognizer.predict(texts), "what is saved is what was evaluated"


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_gradient_checkpointing_trains_the_same_prefix(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[bool] = []
    whole = recompute.checkpoint
    monkeypatch.setattr(recompute, "checkpoint", lambda *a, **k: (passes.append(True), whole(*a, **k))[1])

    def trained(*overrides: str) -> Prefix:
        if kind == "t5":
            recognizer = CPNER(T5Backbone(tiny_t5("t5"), t5_like_tokenizer(), name="t5"), settings=SETTINGS)
        else:
            recognizer = make()
        settings = Settings.build(base=SETTINGS.to_dict(), overrides=["backbone_dropout=true", *overrides])
        return recognizer.train(PEOPLE, SENTENCES, SENTENCES[:1], settings=settings).entry.prefix

    plain = trained()
    assert not passes
    again = trained("gradient_checkpointing=true")
    assert passes
    for a, b in zip((*plain.keys, *plain.values), (*again.keys, *again.values), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)  # stored in 16 bits


def test_a_stream_gives_what_predict_gives_as_soon_as_it_is_there(ready: CPNER) -> None:
    texts = ["Ann in Rome and " * 9, "the sea", "", "Rome", "a " * 40, "no one"]
    domains = ["people", "seas"] * 3
    expected = ready.predict(texts, domain=domains)
    assert max(r.windows for r in expected) > 1
    counts = ready.reader.engine.counts
    before, calls, found = counts.calls, [], {}
    for index, result in ready.stream(texts, domain=domains):
        calls.append(counts.calls - before)
        found[index] = result
        assert not torch.is_inference_mode_enabled()
    assert [found[i] for i in range(len(texts))] == expected
    assert calls[0] == 0, "an empty text waits for nobody"
    assert calls[1] < calls[-1] == counts.calls - before
    with pytest.raises(DataError, match="2 texts came with 1 domains"):
        ready.stream(["a", "b"], domain=["people"])


def test_a_stream_gives_an_ensembles_text_once(ready: CPNER) -> None:
    entry = ready._entry("people")
    three = make()
    three.add(replace(entry, members=(entry.prefix, entry.prefix)))
    texts = ["Ann in Rome", "no one", "Rome, the city"]
    found = list(three.stream(texts))
    assert sorted(index for index, _ in found) == [0, 1, 2]
    assert [result for _, result in sorted(found, key=lambda pair: pair[0])] == three.predict(texts)
    spans = [[(e.start, e.end, e.label) for e in r.entities] for r in three.predict(texts)]
    assert spans == [[(e.start, e.end, e.label) for e in r.entities] for r in ready.predict(texts, domain="people")]


class Line:
    """Texts that wait; some may not be taken yet."""

    def __init__(self, *requests: Request) -> None:
        self.left, self.open = list(requests), True

    def peek(self) -> Request | None:
        return self.left[0] if self.left and self.open else None

    def take(self) -> None:
        assert self.open
        del self.left[0]


def test_texts_join_a_stream_in_domains_of_their_own(ready: CPNER) -> None:
    entry = ready._entry("people")
    three = make()
    three.add(replace(entry, members=(entry.prefix, entry.prefix)))
    three.add(ready._entry("seas"))
    texts = ["Ann in Rome and " * 9, "the sea", "", "Rome", "a " * 40, "no one"]
    domains = ["people", "seas"] * 3
    expected = three.predict(texts, domain=domains)
    line = Line(*(Request(text, name) for text, name in zip(texts[2:], domains[2:], strict=True)))
    counts = three.reader.engine.counts
    before = counts.calls
    found = list(three.stream(texts[:2], domain=domains[:2], joining=line))
    together = counts.calls - before
    assert len(found) == len(texts)
    results = [result for _, result in sorted(found, key=lambda pair: pair[0])]
    for result, alone in zip(results, expected, strict=True):  # sums in another order: scores differ in the last digit
        assert [replace(e, score=None) for e in result.entities] == [replace(e, score=None) for e in alone.entities]
        assert [e.score for e in result.entities] == pytest.approx([e.score for e in alone.entities], abs=1e-5)
        assert (result.text, result.domain, result.windows) == (alone.text, alone.domain, alone.windows)
    assert line.left == []
    before = counts.calls
    for text, name in zip(texts, domains, strict=True):
        three.predict([text], domain=name)
    assert together < counts.calls - before


def test_a_text_that_cannot_join_stays_in_line_and_nobody_passes_it(ready: CPNER) -> None:
    line = Line(Request("Rome", "people"), Request("Ann", "moon"), Request("Rome", "people"))
    found = dict(ready.stream(["Ann in Rome"], domain="people", joining=line))
    assert {place: result.text for place, result in found.items()} == {0: "Ann in Rome", 1: "Rome"}
    assert [request.domain for request in line.left] == ["moon", "people"]
    line.left = [Request(3, "people")]  # type: ignore[arg-type]
    assert len(list(ready.stream(["Ann in Rome"], domain="people", joining=line))) == 1
    assert len(line.left) == 1
    line.open = False
    assert len(list(ready.stream(["Ann in Rome"], domain="people", joining=line))) == 1


def test_all_prefixes_start_from_the_same_place() -> None:
    recognizer = make()
    other = recognizer.initial_prefix(SETTINGS.prefix)
    for seed in (1, 2):
        settings = Settings.build(base=SETTINGS.to_dict(), overrides=[f"seed={seed}", "epochs=1"])
        domain = PEOPLE if seed == 1 else SEAS
        data = SENTENCES if seed == 1 else [Sentence.from_text("the sea", [(4, 7, "sea")])]
        assert recognizer.train(domain, data, settings=settings).entry.prefix.initial == other.hash()
    noise = Settings.build(overrides=["init=noise", "length=3"]).prefix
    assert recognizer.initial_prefix(noise).hash() == recognizer.initial_prefix(noise).hash() != other.hash()


def test_what_starts_from_a_prefix_of_ones_own_can_be_combined(tmp_path: Path) -> None:
    """A library keeps 16 bits of it, and so does who trains."""
    backbone = make().backbone
    start = make().initial_prefix(SETTINGS.prefix)
    start = replace(start, keys=tuple(k + 1e-5 for k in start.keys))
    assert start.hash() != start.rounded().hash()
    library = Library(tmp_path)
    library.set_initial(start)
    entry = CPNER(backbone, settings=SETTINGS, initial=start).train(PEOPLE, SENTENCES).entry
    warmed = WarmUp(Reader(backbone, SETTINGS.decoding), PEOPLE, SENTENCES, [], SETTINGS, initial=start).run()[0].prefix
    assert entry.prefix.initial == warmed.initial == library.initial_hash()
    library.add(entry)
    assert library.verify()[0].notes == ()


def test_types_that_leave_no_room_for_a_text_are_refused() -> None:
    recognizer = make()
    recognizer.add_untrained(Domain.from_labels("crowd", [f"kind_number_{i}" for i in range(400)]))
    with pytest.raises(
        CodecError, match=r"400 types of domain 'crowd' take \d+ tokens of the 1024 that tiny-0 can hold"
    ) as told:
        recognizer.predict("Ann in Rome", domain="crowd")
    assert "fewer words" in str(told.value.hint)


def test_the_mlp_reparametrization_trains_and_is_collapsed() -> None:
    recognizer = make()
    settings = Settings.build(base=SETTINGS.to_dict(), overrides=["reparametrization=mlp", "hidden=16", "anchor=0.01"])
    prefix = recognizer.train(PEOPLE, SENTENCES, settings=settings).entry.prefix
    assert prefix.length == 3
    assert set(prefix.tensors()) == {f"{s.name}.{p}" for s in prefix.geometry.sites for p in ("key", "value")}


@pytest.mark.parametrize("likelihood", ["grammar", "vocabulary"])
def test_both_likelihoods_fall(likelihood: str) -> None:
    recognizer = make()
    settings = Settings.build(
        base=SETTINGS.to_dict(), overrides=[f"likelihood={likelihood}", "epochs=40", "learning_rate=0.3"]
    )
    history = recognizer.train(PEOPLE, SENTENCES, settings=settings).result.history
    assert history[-1].loss < 0.9 * history[0].loss


def test_an_unfrozen_backbone_is_refused_before_training() -> None:
    recognizer = make()
    next(recognizer.backbone.model.parameters()).requires_grad_(True)
    with pytest.raises(TrainingError, match="not frozen"):
        recognizer.train(PEOPLE, SENTENCES)


def test_a_backbone_that_changes_in_training_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = make()
    states = recognizer.backbone.target_states

    def meddle(*args, **kwargs):
        with torch.no_grad():
            recognizer.backbone.model.get_input_embeddings().weight[3, 3] += 1.0
        return states(*args, **kwargs)

    monkeypatch.setattr(recognizer.backbone, "target_states", meddle)
    with pytest.raises(BackboneMismatchError, match="changed during training"):
        recognizer.train(PEOPLE, SENTENCES)
    assert recognizer.domains == ()


def test_a_batch_may_mix_domains(ready: CPNER) -> None:
    texts = ["Ann in Rome", "the deep sea", "Rome"]
    mixed = ready.predict(texts, domain=["people", "seas", "people"])
    for text, domain, result in zip(texts, ["people", "seas", "people"], mixed, strict=True):
        assert result.domain == domain
        alone = ready.predict(text, domain=domain)[0]
        assert [e.key for e in alone.entities] == [e.key for e in result.entities]
        for e, other in zip(result.entities, alone.entities, strict=True):
            assert e.score == pytest.approx(other.score, abs=1e-5)
            assert e.text == text[e.start : e.end]
            assert 0 < (e.score or 0) <= 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_any_text_gives_exact_offsets(ready: CPNER, text: str) -> None:
    result = ready.predict([text], domain="people")[0]
    assert result.text == text
    for entity in result.entities:
        assert text[entity.start : entity.end] == entity.text
        assert entity.label in PEOPLE
    json.dumps(result.to_dict())


def test_odd_texts_are_read(ready: CPNER) -> None:
    odd = ["", "   ", "\ud800 lone", "nul \x00 byte", "<|im_end|></s><eos>", "a" * 5000, "\u200b\u3000"]
    results = ready.predict(odd, domain="people")
    assert [r.text for r in results] == odd
    assert results[0].entities == ()
    assert results[5].diagnostics["capped_words"] == 1


def test_long_texts_are_split_and_nothing_is_dropped(ready: CPNER, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that marks every word, every word of a long text comes back exactly once."""
    text = " ".join(f"w{i % 7}" for i in range(200))

    def everything(backbone, states, legal):
        # Prefer to begin a mention at once, and to end it after one word.
        inner = ready.reader.encoder.separators.inner[0]
        end = ready.reader.encoder.separators.end
        return [(inner if inner in ids else min((i for i in ids if i != end), default=end), 1.0) for ids in legal]

    monkeypatch.setattr(ready.reader.engine, "choose", everything)
    result = ready.predict([text], domain="seas")[0]
    assert result.windows > 10
    found = [(e.start, e.end) for e in result.entities]
    assert found == sorted(set(found))
    # Each window places a repeated word leftmost; all that is found are whole words, in every part of the text.
    words = {(w.start, w.end) for w in Sentence.from_text(text).words}
    assert set(found) <= words
    parts = {start // 100 for start, _ in found}
    assert parts == set(range(len(text) // 100 + (len(text) % 100 > 2)))


def test_each_domain_of_a_batch_has_its_own_windows(ready: CPNER) -> None:
    text = " ".join(f"w{i % 7}" for i in range(60))
    entry = ready._entry("people")
    recognizer = make()
    for name, window in (("short", 10), ("long", 100)):
        how = Settings.build(base=entry.settings.to_dict(), overrides=[f"window={window}", "overlap=0"])
        recognizer.add(replace(entry, domain=Domain(name, entry.domain.labels), settings=how))
    for names in (["short", "long"], ["long", "short"]):
        results = recognizer.predict([text, text], domain=names)
        assert {r.domain: r.windows for r in results} == {"short": 6, "long": 1}


def test_evaluate_counts_gold_from_the_corpus(ready: CPNER) -> None:
    report = ready.evaluate(SENTENCES, domain="people")
    assert report.micro.gold == 3
    assert report.sentences == 3


def test_the_domain_controller_can_be_read_out(ready: CPNER) -> None:
    mass = ready.prefix_mass("Ann in Rome", domain="people")
    assert list(mass) == [s.name for s in ready.backbone.sites]
    assert all(0 < value < 1 for value in mass.values())


def test_wrong_calls_say_what_to_do(ready: CPNER) -> None:
    with pytest.raises(UnknownDomainError, match="'nowhere'") as caught:
        ready.predict("x", domain="nowhere")
    assert "people, seas" in str(caught.value.hint)
    with pytest.raises(UnknownDomainError, match="which domain"):
        ready.predict("x")
    with pytest.raises(DataError, match="2 texts came with 1 domains"):
        ready.predict(["x", "y"], domain=["people"])
    with pytest.raises(DataError, match="not int"):
        ready.predict([3], domain="people")  # type: ignore[list-item]
    with pytest.raises(DomainError, match="river"):
        ready.train(PEOPLE, [Sentence.from_text("a b", [(0, 1, "river")])])
    with pytest.raises(TrainingError, match="no sentence"):
        make().train(PEOPLE, [])


def test_another_backbones_prefix_is_refused(tmp_path: Path) -> None:
    one, other = make(0), make(1)
    one.add_untrained(SEAS)
    one.save("seas", tmp_path / "seas")
    with pytest.raises(PrefixMismatchError, match="fingerprint"):
        other.load(tmp_path / "seas")


def test_the_library_keeps_domains(tmp_path: Path) -> None:
    recognizer = make()
    recognizer.add_untrained(SEAS)
    recognizer.add_untrained(PEOPLE)
    library = Library(tmp_path / "library")
    assert library.names() == []
    for name in recognizer.domains:
        library.add(recognizer._entry(name))
    assert list(library) == ["people", "seas"]
    entry = library.get("seas")
    assert (entry.domain, entry.settings) == (SEAS, SETTINGS)
    (library.path("seas") / "prefix.safetensors").write_bytes(b"broken")
    with pytest.raises(PrefixFormatError):
        library.get("seas")
    library.remove("people")
    assert "people" not in library
    with pytest.raises(UnknownDomainError, match="no domain 'people'"):
        library.remove("people")


def test_a_model_with_an_encoder_reads_the_sentence_once() -> None:
    t5 = CPNER(T5Backbone(tiny_t5("t5"), t5_like_tokenizer()))
    assert t5.settings.codec.repeats == 1
    assert CPNER(CausalBackbone(tiny_causal("llama"), byte_level_tokenizer())).settings.codec.repeats == 2


def test_the_public_door_is_the_same_class() -> None:
    assert xdner.CPNER is CPNER
    assert xdner.Entity is Entity


def test_a_domain_takes_the_place_of_a_domain_only(tmp_path: Path, ready: CPNER) -> None:
    for path in (tmp_path / "mine" / "thesis.txt", tmp_path / "corpus" / "domain.toml"):
        path.parent.mkdir()
        path.write_text("years of work")
        with pytest.raises(StorageError, match="holds something else"):
            ready.save("people", path.parent)
        assert path.read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="it is a file"):
        ready.save("people", tmp_path / "file")
    for name in ("people", "seas"):
        ready.save(name, tmp_path / "domain")
        assert Domain.read(tmp_path / "domain" / "domain.toml").name == name
