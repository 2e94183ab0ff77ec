"""IF-WRANER on tiny random models: domains are added without training, tuned models are stored whole, and no sentence's
result depends on the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.causal import CausalBackbone
from xdner.backbone.encoder import load_encoder
from xdner.backbone.load import load_backbone
from xdner.backbone.lora import Adapter, merge_adapter
from xdner.backbone.t5 import T5Backbone
from xdner.codec.dictionary import parse
from xdner.domain import Domain, Label
from xdner.errors import (
    BackboneError,
    BackboneMismatchError,
    BackboneNotFoundError,
    CodecError,
    DomainError,
    LibraryError,
    SettingsError,
    TemplateError,
    TrainingError,
    UnknownDomainError,
)
from xdner.generation.answers import Asked, Question
from xdner.generation.local import LocalModel
from xdner.library.examples_entry import ExamplesEntry
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template
from xdner.recognizers.base import Request
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.retrievers import Retrievers
from xdner.retrieval.base import Example, Hit
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.endpoints import Said, answering, serving
from xdner.testing.examples import SHORT, people, shared_words
from xdner.testing.models import save_tiny_backbone, tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence
from xdner.training.sources import LabelledSource

TEMPLATE = Template.parse(SHORT)
EXAMPLES = people()
DOMAIN = Domain.from_corpus("people", EXAMPLES)
SOURCE = LabelledSource(Domain("folk", (Label("person"), Label("place"))), people(8))
TEXTS = ["Ann saw Oslo .", 'Bob "left" Rome {quickly}', "x", "Eve likes Bonn and Lima and Rome", "nothing here at all"]


def quick(*overrides: str) -> WranerSettings:
    few = ["epochs=3", "training.batch_size=4", "accumulation=1", "rank=4", "retrieval.k=2", "learning_rate=0.02"]
    return WranerSettings.build(None, [*few, *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_backbone(tmp_path_factory.mktemp("wraner") / "llm")


def recognizer_of(folder: Path, *overrides: str, **options: Any) -> IFWRANER:
    options = {"retriever": shared_words, "template": TEMPLATE, "settings": quick(*overrides)} | options
    return IFWRANER.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def tuned(folder: Path) -> IFWRANER:
    made = recognizer_of(folder)
    made.tune([SOURCE])
    made.add_domain(DOMAIN, EXAMPLES)
    return made


def found(recognizer: IFWRANER, texts: Sequence[str] = TEXTS, **options: Any) -> list[list[tuple[int, int, str]]]:
    return [[e.key for e in r.entities] for r in recognizer.predict(list(texts), **options)]


def test_a_domain_that_is_replaced_lets_go_of_its_index(folder: Path) -> None:
    class Open:
        closed = 0

        def retrieve(self, queries: Sequence[Sentence], k: int) -> list[tuple[Hit, ...]]:
            return [()] * len(queries)

        def close(self) -> None:
            self.closed += 1

    waiting = [Open(), Open()]
    first, second = waiting
    recognizer = recognizer_of(folder, retriever=lambda *_: waiting.pop(0))
    for _ in range(2):
        recognizer.add_domain(DOMAIN, EXAMPLES)
        recognizer.predict(["x"], domain="people")
    assert (first.closed, second.closed) == (1, 0)


def test_one_text_or_many_in_any_batch(folder: Path, tuned: IFWRANER) -> None:
    together = tuned.predict(TEXTS * 2)
    for size in (1, 8):
        other = recognizer_of(folder, f"decoding.batch_size={size}")
        other.adopt(tuned.adapter)  # type: ignore[arg-type]
        other.add_domain(DOMAIN, EXAMPLES)
        alone = [other.predict(t)[0] for t in TEXTS * 2] if size == 1 else other.predict(TEXTS * 2)
        assert [[e.key for e in r.entities] for r in alone] == [[e.key for e in r.entities] for r in together]
        for one, two in zip(alone, together, strict=True):
            assert [e.score for e in one.entities] == pytest.approx([e.score for e in two.entities], abs=1e-4)
    assert any(r.entities for r in together)
    assert all(r.text[e.start : e.end] == e.text for r in together for e in r.entities)
    counts: list[int] = []
    assert tuned.predict(["", "  "], done=counts.append)[0].entities == ()


@pytest.mark.parametrize("make", [byte_level_tokenizer, t5_like_tokenizer], ids=["byte-level", "sentencepiece-like"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_whatever_a_local_model_writes_is_a_valid_answer(make: Any, architecture: str) -> None:
    for seed in range(3):
        model = LocalModel(CausalBackbone(tiny_causal(architecture, seed=seed), make()), quick())
        asked = Asked(DOMAIN, TEMPLATE)
        sentences = [Sentence.from_text(t) for t in TEXTS]
        for sentence, answer in zip(
            sentences, model.answer([Question(s, asked, tuple(EXAMPLES[:2])) for s in sentences]), strict=True
        ):
            read = parse(answer.text, sentence, DOMAIN)
            assert [e.key for e in read.entities] == [e.key for e in answer.entities]
            assert not {"malformed_answers", "malformed_entries", "unknown_types", "absent_mentions"} & set(read.notes)
            assert "incomplete" not in answer.notes


def test_answers_are_those_of_the_stock_model_reading_the_whole_prompt() -> None:
    """The oracle: one row, no cache, no context, the best legal token each time."""
    model = LocalModel(CausalBackbone(tiny_causal("qwen3", seed=4), byte_level_tokenizer()), quick())
    own, asked = model.backbone, Asked(DOMAIN, TEMPLATE)
    sentence = Sentence.from_text("Ann saw Oslo and Bob")
    (answer,) = model.answer([Question(sentence, asked, tuple(EXAMPLES[:2]))])
    ready = model._domain(asked)
    state = ready.grammar.start(ready.grammar.words(sentence))
    ids = [*ready.writer.context, *ready.writer.source(EXAMPLES[:2], sentence, room=900)[0]]
    written: list[int] = []
    with torch.no_grad():
        while not state.done:
            states = own.target_states([[*ids, *written]], [[0]], own.empty_prefix())
            legal = state.legal()
            written.append(legal[int(own.logits(states, legal).argmax())])
            state.advance(written[-1])
    assert own.tokenizer.decode(written[:-1], clean_up_tokenization_spaces=False).strip() == answer.text


def test_domains_are_added_without_training_and_mixed_in_a_batch(tuned: IFWRANER) -> None:
    other = Domain.from_labels("places", ["river", "lake"])
    before = found(tuned, domain="people")
    tuned.add_domain(other, [Sentence.from_words(["the", "Rhine"], [(1, 2, "river")])])
    results = tuned.recognize([Request("Ann saw Oslo .", "people"), Request("the Rhine", "places")])
    assert [r.domain for r in results] == ["people", "places"]
    assert {e.label for e in results[1].entities} <= {"river", "lake"}
    assert found(tuned, domain="people") == before
    assert tuned.labels("places") == ("river", "lake")
    with pytest.raises(UnknownDomainError, match="which domain"):
        tuned.predict("Rome")
    with pytest.raises(DomainError, match="river"):
        tuned.add_domain(DOMAIN, [Sentence.from_words(["Rhine"], [(0, 1, "river")])])
    tuned._entries.pop("places")
    assert 0 <= tuned.evaluate(EXAMPLES).micro.f1 <= 1


def test_what_is_shown_changes_what_is_read(folder: Path) -> None:
    made = recognizer_of(folder)
    questions: list[Question] = []
    answer = made.llm.answer
    made.llm.answer = lambda qs, done=None: questions.extend(qs) or answer(qs, done=done)  # type: ignore[method-assign]
    made.add_domain(DOMAIN, [*EXAMPLES, *EXAMPLES])
    assert len(made._entry("people").examples) == len({Example.of(s).id for s in EXAMPLES})
    made.predict([EXAMPLES[0].text, "it rained"])
    assert [len(q.demonstrations) for q in questions] == [2, 2]
    assert EXAMPLES[0].text not in {s.text for s in questions[0].demonstrations}
    assert questions[1].demonstrations[0].text == "it rained ."
    made.add_domain(DOMAIN)  # none to show
    made.predict("it rained")
    assert questions[-1].demonstrations == ()


# -- windows -------------------------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_model_drops_demonstrations_and_says_so(folder: Path) -> None:
    made = recognizer_of(folder, "retrieval.k=5", "prompt.max_tokens=330")
    made.add_domain(DOMAIN, EXAMPLES)
    (result,) = made.predict("Ann saw Oslo .")
    assert 0 < result.diagnostics["dropped_demonstrations"] < 5
    assert result.windows == 1
    wide = recognizer_of(folder, "retrieval.k=5")
    wide.add_domain(DOMAIN, EXAMPLES)
    assert "dropped_demonstrations" not in wide.predict("Ann saw Oslo .")[0].diagnostics
    assert json.dumps(result.to_dict())


def test_a_text_longer_than_the_model_is_read_in_windows(folder: Path) -> None:
    made = recognizer_of(folder, "prompt.max_tokens=300", "decoding.window=20", "decoding.overlap=4")
    made.add_domain(DOMAIN, EXAMPLES)
    text = "Ann saw Oslo and Bob left\n Rome . " * 12
    (result,) = made.predict(text)
    assert result.windows > 5
    assert result.entities
    assert all(text[e.start : e.end] == e.text for e in result.entities)
    assert all(a.end <= b.start for a, b in zip(result.entities, result.entities[1:], strict=False))
    tight = recognizer_of(folder, "prompt.max_tokens=64")
    many = Domain.from_labels("many", [f"type number {i}".replace(" ", "_") for i in range(9)])
    tight.add_domain(many)
    with pytest.raises(CodecError, match=r"types of domain 'many' and one word takes \d+ tokens, but .* reads 64"):
        tight.predict("Ann")


def test_a_window_of_an_example_is_not_shown_the_whole_example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retriever leaves out what is asked about; a window of it has another text."""
    long = Sentence.from_text("Ann saw Oslo and Bob left Rome . " * 8)
    labelled = replace(long, entities=(long.entity(0, 1, "person", None),))
    made = recognizer_of(folder, "retrieval.k=3", "prompt.max_tokens=900", "decoding.window=20", "decoding.overlap=4")
    made.add_domain(DOMAIN, [*EXAMPLES, labelled])
    asked: list[Question] = []
    answer = made.llm.answer
    monkeypatch.setattr(made.llm, "answer", lambda questions, done=None: asked.extend(questions) or answer(questions))
    (result,) = made.predict([long.text])
    assert result.windows == len(asked) > 1
    assert all(len(q.demonstrations) == 3 for q in asked)
    assert long.text not in {d.text for q in asked for d in q.demonstrations}


@pytest.mark.parametrize("method", ["word", "random"])
def test_what_a_text_is_shown_does_not_depend_on_a_long_neighbour(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    made = recognizer_of(
        folder, "retrieval.k=3", f"retrieval.method={method}", "decoding.window=20", "decoding.overlap=4"
    )
    made.add_domain(DOMAIN, EXAMPLES)
    asked: list[Question] = []
    answer = made.llm.answer
    monkeypatch.setattr(made.llm, "answer", lambda questions, done=None: asked.extend(questions) or answer(questions))
    made.predict(["Cy saw Lima ."])
    made.predict(["Cy saw Lima .", "Ann saw Oslo and Bob left Rome . " * 8])
    alone, beside, *windows = asked
    assert len(windows) > 1
    assert alone.demonstrations == beside.demonstrations
    assert all(len(q.demonstrations) == 3 for q in asked)


# -- adapters and folders ------------------------------------------------------------------------------------------------


def test_a_tuned_domain_is_saved_and_loaded_whole(folder: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    tuned.save("people", tmp_path / "people")
    other = recognizer_of(folder)
    assert other.load(tmp_path / "people") == "people"
    assert other.adapter == tuned.adapter
    before, after = tuned.predict(TEXTS), other.predict(TEXTS)
    assert [r.to_dict() for r in before] == [r.to_dict() for r in after]
    entry = ExamplesEntry.load(tmp_path / "people")
    assert entry.seen
    assert entry.template == TEMPLATE
    assert [s.text for s in entry.examples] == list(dict.fromkeys(s.text for s in EXAMPLES))
    untuned = recognizer_of(folder)
    untuned.add_domain(Domain.from_labels("x", ["y"]))
    with pytest.raises(BackboneMismatchError, match="an adapter, not this recognizer's model"):
        untuned.load(tmp_path / "people")
    elsewhere = IFWRANER(
        LocalModel(CausalBackbone(tiny_causal(seed=9), byte_level_tokenizer()), quick()), template=TEMPLATE
    )
    with pytest.raises(BackboneMismatchError, match="was made for the language model"):
        elsewhere.load(tmp_path / "people")


def test_adapters_are_peft_folders_both_ways(folder: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    assert tuned.adapter is not None
    tuned.adapter.write(tmp_path / "ours")
    ids = torch.tensor([[5, 9, 40, 77]])
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "ours").eval()
    merged = AutoModelForCausalLM.from_pretrained(folder)
    plain = merged(ids).logits.detach()
    merge_adapter(merged, Adapter.load(tmp_path / "ours"))
    assert (merged(ids).logits - plain).abs().max() > 1e-3
    torch.testing.assert_close(theirs(ids).logits, merged(ids).logits, atol=1e-4, rtol=1e-4)
    # And one that peft made.
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(tmp_path / "theirs")
    recognizer = recognizer_of(folder, adapter=tmp_path / "theirs")
    assert isinstance(recognizer.llm, LocalModel)
    stock = made.merge_and_unload().state_dict()
    for name, tensor in recognizer.llm.backbone.model.state_dict().items():
        torch.testing.assert_close(tensor, stock[name], atol=1e-6, rtol=1e-5)


def test_adapters_that_do_not_fit(folder: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    assert tuned.adapter is not None
    model = load_backbone(folder).model
    with pytest.raises(BackboneMismatchError, match="cannot be read"):
        merge_adapter(model, replace(tuned.adapter, factors=tuned.adapter.factors[:-9]))
    with pytest.raises(BackboneMismatchError, match="not plain LoRA: use_dora"):
        merge_adapter(
            model,
            replace(tuned.adapter, config=tuned.adapter.config.replace(b'"use_dora": false', b'"use_dora": true')),
        )
    with pytest.raises(BackboneMismatchError, match="do not fit"):
        merge_adapter(tiny_t5(), tuned.adapter)
    with pytest.raises(BackboneNotFoundError, match=r"adapter_config\.json"):
        recognizer_of(folder, adapter=tmp_path)


def test_tuning_helps_with_a_new_domain_of_the_same_kind(folder: Path) -> None:
    raw = recognizer_of(folder)
    raw.add_domain(DOMAIN, EXAMPLES)
    before = raw.evaluate(EXAMPLES).micro.f1
    made = recognizer_of(folder, "epochs=25", "duplicate=0", "shuffle=0")
    result = made.tune([SOURCE], dev=(DOMAIN, EXAMPLES, EXAMPLES[:6])).result
    assert result.history[-1].dev is not None
    made.add_domain(DOMAIN, EXAMPLES)
    assert made.evaluate(EXAMPLES).micro.f1 > before + 0.3


def test_a_model_is_tuned_once_and_only_here(folder: Path, tuned: IFWRANER) -> None:
    with pytest.raises(TrainingError, match="tuned once"):
        tuned.tune([SOURCE])
    with pytest.raises(TrainingError, match="was tuned already"):
        tuned.adopt(tuned.adapter)  # type: ignore[arg-type]
    fresh = recognizer_of(folder)
    fresh.add_domain(DOMAIN)
    with pytest.raises(TrainingError, match="has domains"):
        fresh.adopt(tuned.adapter)  # type: ignore[arg-type]
    remote = IFWRANER.from_pretrained("http://127.0.0.1:9/v1", model="m")
    with pytest.raises(BackboneError, match="cannot be tuned here"):
        remote.tune([SOURCE])


def test_what_cannot_be_asked_is_said(folder: Path) -> None:
    with pytest.raises(BackboneError, match="encoder-decoder"):
        LocalModel(T5Backbone(tiny_t5(), t5_like_tokenizer()), quick())
    with pytest.raises(SettingsError, match="behind an endpoint"):
        IFWRANER.from_pretrained(folder, model="m")
    with pytest.raises(SettingsError, match="no use with an endpoint"):
        IFWRANER.from_pretrained("http://127.0.0.1:9/v1", model="m", adapter=Adapter(b"", b""))
    with pytest.raises(TemplateError, match="nope"):
        IFWRANER.from_pretrained(folder, settings=quick("prompt.template=nope"))
    with pytest.raises(SettingsError, match=r"retrieval\.method must be one of .* not 'nope'"):
        recognizer_of(folder, retriever="nope")


# -- behind an endpoint --------------------------------------------------------------------------------------------------


def test_a_domain_behind_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDNER_LLM_KEY", "sk-secret")

    def reply(number: int, body: dict[str, Any]) -> Said:
        asked = body["messages"][0]["content"]
        return answering("hm" if "Bob left" in asked.rpartition("Sentence:")[2] else '{"person": ["Ann", "Zoe"]}')

    with serving(reply) as endpoint:
        made = IFWRANER.from_pretrained(endpoint.url, model="m", settings=quick("retrieval.method=random"))
        made.add_domain(DOMAIN, EXAMPLES)
        first, second = made.predict(["Ann saw Ann", "Bob left"])
        assert [e.key for e in first.entities] == [(0, 3, "person"), (8, 11, "person")]
        assert first.diagnostics == {"absent_mentions": 1}
        assert second.diagnostics == {"malformed_answers": 1}
        long = made.predict("Ann saw Rome . " * 30)[0]
        assert long.windows > 1
        assert len(long.entities) == 30
        made.save("people", tmp_path / "people")
        again = IFWRANER.from_pretrained(endpoint.url, model="m", settings=quick())
        again.load(tmp_path / "people")
        assert again.predict("Ann")[0].entities[0].text == "Ann"
        with pytest.raises(BackboneMismatchError, match="made for the language model m, this is other"):
            IFWRANER.from_pretrained(endpoint.url, model="other").load(tmp_path / "people")
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"sk-secret" not in written


# -- retrievers by name --------------------------------------------------------------------------------------------------


def test_the_baselines_by_name() -> None:
    pool = [Example.of(s) for s in EXAMPLES]
    queries = [EXAMPLES[0], Sentence.from_text("new")]
    drawn = Retrievers()(pool, quick("retrieval.method=random")).retrieve(queries, 4)
    assert [len({h.example.sentence.text for h in hits}) for hits in drawn] == [4, 4]
    assert EXAMPLES[0].text not in {h.example.sentence.text for h in drawn[0]}
    assert Retrievers()(pool, quick("retrieval.method=random")).retrieve(queries[1:], 4) == drawn[1:]
    assert Retrievers()(pool, quick("retrieval.method=random", "retrieval.seed=2")).retrieve(queries, 4) != drawn
    assert Retrievers()(pool, quick("retrieval.method=none")).retrieve(queries, 4) == [(), ()]


def test_an_index_shows_what_examples_in_memory_show(folder: Path, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder")
    settings = quick(f"retrieval.encoder={encoder}", "retrieval.layer=1", "retrieval.k=3")
    pool = Pool.create(
        tmp_path / "index", (embedder := WordEmbedder(load_encoder(encoder), settings.retrieval)).embedding
    )
    known = [s for s in EXAMPLES if s.entities]
    pool.add(known, embedder)
    asked: list[tuple[Any, ...]] = []

    def shown(entries: Sequence[Sentence], index: Pool | None) -> Any:
        made = IFWRANER.from_pretrained(folder, template=TEMPLATE, settings=settings)
        made.add(made.add_domain(DOMAIN, entries), index)
        monkey = made.llm.answer
        made.llm.answer = lambda questions, **how: (
            asked.append(tuple(q.demonstrations for q in questions))
            or monkey(  # type: ignore
                questions, **how
            )
        )
        return made.predict(TEXTS), asked[-1]

    assert shown(known, pool) == shown(known, None)
    assert {len(demonstrations) for demonstrations in asked[0]} == {3}
    # An index of other examples than the domain's is not asked.
    assert not {s.text for d in shown(known[:3], pool)[1] for s in d} - {s.text for s in known[:3]}


def test_a_folder_that_was_altered_is_refused(folder: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    tuned.save("people", tmp_path / "people")
    path = tmp_path / "people" / "examples.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Ann", "Eva"), encoding="utf-8")
    with pytest.raises(LibraryError, match="altered"):
        recognizer_of(folder).load(tmp_path / "people")
