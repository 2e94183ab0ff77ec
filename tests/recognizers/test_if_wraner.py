"""IF-WRANER on tiny random models: domains are added without training, what is written is an answer, and no sentence's
result depends on the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.causal import CausalBackbone
from xdner.backbone.lora import Adapter
from xdner.backbone.t5 import T5Backbone
from xdner.codec.dictionary import parse
from xdner.domain import Domain
from xdner.errors import (
    BackboneError,
    BackboneMismatchError,
    CodecError,
    DomainError,
    SettingsError,
    TemplateError,
    UnknownDomainError,
)
from xdner.generation.answers import Asked, Question
from xdner.generation.local import LocalModel
from xdner.recognizers.base import Request
from xdner.recognizers.if_wraner import IFWRANER
from xdner.testing.endpoints import Said, answering, serving
from xdner.testing.examples import EXAMPLES, PEOPLE, TEMPLATE, TEXTS, people_recognizer, quick
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence


def found(recognizer: IFWRANER, texts: Sequence[str] = TEXTS, **options: Any) -> list[list[tuple[int, int, str]]]:
    return [[e.key for e in r.entities] for r in recognizer.predict(list(texts), **options)]


def test_one_text_or_many_in_any_batch(llm: Path, tuned: IFWRANER) -> None:
    together = tuned.predict(TEXTS * 2)
    for size in (1, 8):
        other = people_recognizer(llm, f"decoding.batch_size={size}")
        other.adopt(tuned.adapter)  # type: ignore[arg-type]
        other.add_domain(PEOPLE, EXAMPLES)
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
        asked = Asked(PEOPLE, TEMPLATE)
        sentences = [Sentence.from_text(t) for t in TEXTS]
        for sentence, answer in zip(
            sentences, model.answer([Question(s, asked, tuple(EXAMPLES[:2])) for s in sentences]), strict=True
        ):
            read = parse(answer.text, sentence, PEOPLE)
            assert [e.key for e in read.entities] == [e.key for e in answer.entities]
            assert not {"malformed_answers", "malformed_entries", "unknown_types", "absent_mentions"} & set(read.notes)
            assert "incomplete" not in answer.notes


def test_answers_are_those_of_the_stock_model_reading_the_whole_prompt() -> None:
    """The oracle: one row, no cache, no context, the best legal token each time."""
    model = LocalModel(CausalBackbone(tiny_causal("qwen3", seed=4), byte_level_tokenizer()), quick())
    own, asked = model.backbone, Asked(PEOPLE, TEMPLATE)
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
        tuned.add_domain(PEOPLE, [Sentence.from_words(["Rhine"], [(0, 1, "river")])])
    tuned._entries.pop("places")
    assert 0 <= tuned.evaluate(EXAMPLES).micro.f1 <= 1


def test_a_text_longer_than_the_model_is_read_in_windows(llm: Path) -> None:
    made = people_recognizer(llm, "prompt.max_tokens=300", "decoding.window=20", "decoding.overlap=4")
    made.add_domain(PEOPLE, EXAMPLES)
    text = "Ann saw Oslo and Bob left\n Rome . " * 12
    (result,) = made.predict(text)
    assert result.windows > 5
    assert result.entities
    assert all(text[e.start : e.end] == e.text for e in result.entities)
    assert all(a.end <= b.start for a, b in zip(result.entities, result.entities[1:], strict=False))
    tight = people_recognizer(llm, "prompt.max_tokens=64")
    many = Domain.from_labels("many", [f"type number {i}".replace(" ", "_") for i in range(9)])
    tight.add_domain(many)
    with pytest.raises(CodecError, match=r"types of domain 'many' and one word takes \d+ tokens, but .* reads 64"):
        tight.predict("Ann")


def test_words_that_are_cut_are_counted_once(llm: Path) -> None:
    long = "x" * 60
    made = people_recognizer(llm, "decoding.window=6", "decoding.overlap=3")
    made.add_domain(PEOPLE, EXAMPLES)
    one, split, none = made.predict([f"{long}y {long}z", f"Ann saw Oslo and {long} left Rome with Bob .", "Ann left"])
    assert one.diagnostics == {"capped_words": 2}
    assert split.windows > 1
    assert split.diagnostics["capped_words"] == 1, "it is in two windows"
    assert "capped_words" not in none.diagnostics
    with serving(lambda n, body: answering("{}")) as endpoint:
        remote = IFWRANER.from_pretrained(endpoint.url, model="m", settings=quick("retrieval.method=none"))
        remote.add_domain(PEOPLE, EXAMPLES)
        assert remote.predict(long)[0].diagnostics == {}, "it is sent whole"


def test_what_cannot_be_asked_is_said(llm: Path) -> None:
    with pytest.raises(BackboneError, match="encoder-decoder"):
        LocalModel(T5Backbone(tiny_t5(), t5_like_tokenizer()), quick())
    with pytest.raises(SettingsError, match="behind an endpoint"):
        IFWRANER.from_pretrained(llm, model="m")
    with pytest.raises(SettingsError, match="no use with an endpoint"):
        IFWRANER.from_pretrained("http://127.0.0.1:9/v1", model="m", adapter=Adapter(b"", b""))
    with pytest.raises(TemplateError, match="nope"):
        IFWRANER.from_pretrained(llm, settings=quick("prompt.template=nope"))
    with pytest.raises(SettingsError, match=r"retrieval\.method must be one of .* not 'nope'"):
        people_recognizer(llm, retriever="nope")


def test_a_domain_behind_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDNER_LLM_KEY", "sk-secret")

    def reply(number: int, body: dict[str, Any]) -> Said:
        asked = body["messages"][0]["content"]
        return answering("hm" if "Bob left" in asked.rpartition("Sentence:")[2] else '{"person": ["Ann", "Zoe"]}')

    with serving(reply) as endpoint:
        made = IFWRANER.from_pretrained(endpoint.url, model="m", settings=quick("retrieval.method=random"))
        made.add_domain(PEOPLE, EXAMPLES)
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
