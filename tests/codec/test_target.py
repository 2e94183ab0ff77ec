"""Round trips of targets and what the grammar lets through, over any text and any labels."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from xdner.codec.grammar import Grammar
from xdner.codec.instructor import Instructor
from xdner.codec.target import TargetCodec
from xdner.codec.words import WordEncoder
from xdner.corpora import read_corpus
from xdner.domain import Domain, Label
from xdner.errors import CodecError
from xdner.settings import CodecSettings
from xdner.testing.answers import domain_of
from xdner.text import Sentence

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CODECS = [CodecSettings(form=f, order=o) for f in ("lines", "paper") for o in ("mention-first", "type-first")]  # type: ignore[arg-type]
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
codecs = pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{c.form}-{c.order}")
# Short alphabets make repeated words and separators inside words likely.
texts = st.one_of(st.text(max_size=30), st.text(alphabet="ab ():/-é①", max_size=30))
labels = st.lists(st.text(alphabet="abc ()é", min_size=1, max_size=8), min_size=1, max_size=4)


def codec_of(encoder: WordEncoder, verbalizations: list[str], codec: CodecSettings) -> TargetCodec:
    try:
        return TargetCodec(encoder, domain_of(verbalizations), codec)
    except CodecError:
        assume(False)
        raise


def spans_in(sentence: Sentence, domain: Domain, rng: random.Random) -> Sentence:
    """Random entities, whole words or not, overlapping or not."""
    entities = []
    for _ in range(rng.randint(0, 4)):
        if rng.random() < 0.8 and sentence.words:
            first = rng.randrange(len(sentence.words))
            last = min(len(sentence.words), first + rng.randint(1, 3))
            entities.append(sentence.entity(first, last, rng.choice(domain.label_names)))
    return sentence.with_entities(set(entities))


@codecs
@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
def test_what_is_not_lost_comes_back(
    encoder: WordEncoder, codec: CodecSettings, text: str, names: list[str], seed: int
) -> None:
    target = codec_of(encoder, names, codec)
    sentence = spans_in(Sentence.from_text(text), target.domain, random.Random(seed))
    encoded = target.encode(sentence, with_legal=True)
    assert len(encoded.legal) == len(encoded.ids)
    assert all(token in legal for token, legal in zip(encoded.ids, encoded.legal, strict=True))
    assert sum(encoded.reasons.values()) == len(encoded.lost)
    decoded = target.decode(encoded.ids, sentence)
    kept = [e for e in sentence.entities if e not in encoded.lost]
    assert [e.key for e in decoded] == [e.key for e in kept]
    assert all(sentence.text[e.start : e.end] == e.text for e in decoded)


@codecs
@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
def test_any_legal_walk_ends_and_means_something(
    encoder: WordEncoder, codec: CodecSettings, text: str, names: list[str], seed: int
) -> None:
    target = codec_of(encoder, names, codec)
    sentence = Sentence.from_text(text)
    words = encoder.words(sentence)
    state, rng = target.grammar.start(words), random.Random(seed)
    ids: list[int] = []
    bound = (sum(map(len, words)) + 1) * (target.grammar.longest_label_cost + 1) + 16
    while not state.done:
        legal = state.legal()
        assert legal, "a machine that is not done must be able to go on"
        assert list(legal) == sorted(set(legal))
        forced = state.forced()
        assert (len(legal) == 1) == bool(forced)
        if forced:
            assert forced[0] == legal[0]
        illegal = next(i for i in itertools.count() if i not in legal)
        with pytest.raises(CodecError, match="not legal"):
            state.copy().advance(illegal)
        guess = state.beginning([True] * len(words))
        assert guess is None or guess in legal
        token = rng.choice(legal)
        ids.append(token)
        state.advance(token)
        assert len(ids) <= bound
    assert state.legal() == ()
    with pytest.raises(CodecError):
        state.advance(target.grammar.end)
    entities = target.decode(ids, sentence)
    assert all(a.end <= b.start for a, b in itertools.pairwise(entities))
    assert all(e.label in target.domain and sentence.word_span(e) for e in entities)


@codecs
def test_forced_runs_are_what_single_steps_would_give(encoder: WordEncoder, codec: CodecSettings) -> None:
    grammar = Grammar(encoder, Domain("d", (Label("x", "person in"),)), codec)
    state = grammar.start(encoder.words(Sentence.from_text("unforced")))
    while not state.done:
        run = state.forced()
        for token in run:
            assert state.legal() == (token,)
            state.advance(token)
        if not state.done:
            assert len(state.legal()) > 1
            state.advance(state.legal()[-1])


def test_repeated_words_are_placed_leftmost_and_an_earlier_copy_is_reported(encoder: WordEncoder) -> None:
    domain = Domain.from_labels("d", ["x", "y"])
    target = TargetCodec(encoder, domain, CodecSettings())
    both = Sentence.from_words(["in", "of", "in"], [(0, 1, "x"), (2, 3, "y")])
    assert [e.key for e in target.decode(target.encode(both).ids, both)] == [e.key for e in both.entities]
    second = Sentence.from_words(["in", "of", "in"], [(2, 3, "y")])
    encoded = target.encode(second)
    assert encoded.reasons == {"earlier-copy": 1}
    assert target.decode(encoded.ids, second) == []
    # The longer mention tells the copies apart.
    longer = Sentence.from_words(["in", "of", "in", "the"], [(2, 4, "y")])
    assert not target.encode(longer).lost


def test_many_mentions_after_an_earlier_copy_are_lost_in_one_look(
    encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TargetCodec(encoder, Domain.from_labels("d", ["x", "y"]), CodecSettings())
    words = ["in", *["of", "in"] * 50, "the", "in"]
    spans = [*((2 * i, 2 * i + 1, "x") for i in range(1, 51)), (101, 102, "y"), (102, 103, "x")]
    tried = []
    write = target._write
    monkeypatch.setattr(target, "_write", lambda spans, words: tried.append(len(spans)) or write(spans, words))
    encoded = target.encode(Sentence.from_words(words, spans))
    assert encoded.reasons == {"earlier-copy": 50}  # the last one stands behind another mention
    assert tried == [52, 2]


def test_what_cannot_be_said_is_counted_by_reason(encoder: WordEncoder) -> None:
    target = TargetCodec(encoder, Domain.from_labels("d", ["x"]), CodecSettings())
    text = "the person in place"
    spans = [(0, 10, "x"), (4, 10, "x"), (15, 19, "z"), (12, 14, "x")]
    encoded = target.encode(Sentence.from_text(text, spans))
    assert encoded.reasons == {"overlap": 1, "unknown-label": 1, "inside-word": 1}
    assert [e.key for e in target.decode(encoded.ids, Sentence.from_text(text))] == [(0, 10, "x")]


def test_an_empty_word_never_begins_or_ends_a_mention() -> None:
    path = DATA.parent / "t5-tokenizer"
    if not path.exists():
        pytest.skip("the real T5 tokenizer is not here")
    from transformers import AutoTokenizer

    encoder = WordEncoder(AutoTokenizer.from_pretrained(path))
    target = TargetCodec(encoder, Domain.from_labels("d", ["x"]), CodecSettings())
    sentence = Sentence.from_words(["new", "\u200b", "york", "\u200b"], [(0, 3, "x")])
    assert [e.key for e in target.decode(target.encode(sentence).ids, sentence)] == [sentence.entities[0].key]
    ends = Sentence.from_words(["new", "\u200b"], [(0, 2, "x")])
    assert target.encode(ends).reasons == {"no-tokens": 1}


def test_scores_are_products_over_an_entitys_decisions(encoder: WordEncoder) -> None:
    target = TargetCodec(encoder, Domain.from_labels("d", ["x", "y"]), CodecSettings())
    sentence = Sentence.from_words(["in", "of"], [(0, 1, "x"), (1, 2, "y")])
    encoded = target.encode(sentence)
    half = len(encoded.ids) // 2
    scores = [0.5 if i == 0 else 1.0 for i in range(len(encoded.ids))]
    first, second = target.decode(encoded.ids, sentence, scores=scores)
    assert (first.score, second.score) == (0.5, 1.0)
    scores = [0.25 if i == half else 1.0 for i in range(len(encoded.ids))]
    first, second = target.decode(encoded.ids, sentence, scores=scores)
    assert (first.score, second.score) == (1.0, 0.25)


def test_types_that_are_the_same_tokens_are_refused(encoder: WordEncoder) -> None:
    if encoder.separators.inner[0] != 32099:
        pytest.skip("needs a tokenizer that normalizes")
    domain = Domain("d", (Label("a", "group 1"), Label("b", "group ①")))
    with pytest.raises(CodecError, match="are the same tokens") as caught:
        Grammar(encoder, domain, CodecSettings())
    assert "verbalization" in str(caught.value.hint)


def test_the_prompt_changes_with_the_types_and_the_instruction(encoder: WordEncoder) -> None:
    instructor = Instructor(encoder, CodecSettings())
    base = Domain.from_labels("d", ["person", "place"])
    context = instructor.context(base)
    assert instructor.context(Domain.from_labels("d", ["person", "the"])) != context
    assert instructor.context(base.with_labels(["place", "person"])) != context
    assert instructor.context(Domain.from_labels("d", ["person", "place"], instruction="Find the.")) != context
    words = encoder.words(Sentence.from_text("the person"))
    once = Instructor(encoder, CodecSettings(repeats=1)).source(words)
    body = [i for ids in words for i in ids]
    assert len(instructor.source(words)) > len(once) + len(body)


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark corpora are not here")
@pytest.mark.parametrize("name", ["ai/dev", "music/dev", "conll2003/dev"])
def test_gold_of_the_benchmarks_can_be_said(encoder: WordEncoder, name: str) -> None:
    sentences = list(read_corpus(DATA / f"{name}.txt"))[:300]
    domain = Domain.from_corpus("d", sentences)
    target = TargetCodec(encoder, domain, CodecSettings())
    gold = lost = 0
    for sentence in sentences:
        encoded = target.encode(sentence)
        gold += len(sentence.entities)
        lost += len(encoded.lost)
        keys = {e.key for e in sentence.entities} - {e.key for e in encoded.lost}
        assert {e.key for e in target.decode(encoded.ids, sentence)} == keys
    assert gold > 300
    assert lost / gold < 0.002
