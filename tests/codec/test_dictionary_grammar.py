"""The grammar of dictionary answers: it lets through every answer that can be written, and nothing else."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from xdner.codec.dictionary import Listed, align, bare, parse
from xdner.codec.dictionary_grammar import DictionaryGrammar, DictionaryState
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import CodecError
from xdner.testing.answers import PEOPLE as D
from xdner.testing.answers import domain_of, labelled, labels, relaxed, texts
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence


@pytest.fixture(
    scope="module", params=[byte_level_tokenizer, t5_like_tokenizer], ids=["byte-level", "sentencepiece-like"]
)
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    """Both kinds; T5's own tokenizer has no braces."""
    return WordEncoder(request.param())


def grammar_of(encoder: WordEncoder, domain: Domain) -> DictionaryGrammar:
    try:
        return DictionaryGrammar(encoder, domain)
    except CodecError:
        assume(False)
        raise


@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
@example(
    text="00\x7f0\u1754", names=["\\", "\\\\", "\\\\\\"], seed=299
)  # two strings that one tokenizer cannot tell apart
def test_the_grammar_accepts_every_answer_that_can_be_written(
    encoder: WordEncoder, text: str, names: list[str], seed: int
) -> None:
    grammar = grammar_of(encoder, domain_of(names))
    sentence = labelled(text, grammar.domain, seed)
    target = grammar.encode(sentence, with_legal=True)
    assert len(target.legal) == len(target.ids) <= grammar.room(grammar.words(sentence))
    assert all(token in legal for token, legal in zip(target.ids, target.legal, strict=True))
    state = grammar.begin(sentence)
    for token in target.ids:
        state.advance(token)
    assert state.done
    listed = [Listed(" ".join(w.text for w in sentence.words[m.first : m.last]), m.label) for m in state.mentions()]
    kept = [e.key for e in sentence.entities if e not in target.lost]
    assert [e.key for e in align(sentence, listed).entities] == kept


@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
def test_any_legal_walk_ends_in_time_and_is_a_valid_answer(
    encoder: WordEncoder, text: str, names: list[str], seed: int
) -> None:
    grammar = grammar_of(encoder, domain_of(names))
    sentence = Sentence.from_text(text)
    words = grammar.words(sentence)
    state, rng, ids = grammar.start(words), random.Random(seed), []
    while not state.done:
        legal, forced = state.legal(), state.forced()
        assert legal, "a machine that is not done must be able to go on"
        assert list(legal) == sorted(set(legal))
        assert (len(legal) == 1) == bool(forced)
        illegal = next(i for i in itertools.count() if i not in legal)
        with pytest.raises(CodecError, match="not legal"):
            state.copy().advance(illegal)
        fork = state.fork()
        assert fork is None or {fork.onward, fork.close} <= set(legal)
        assert state.beginning([True] * len(words)) is None, "a guess would run through all names of the sentence"
        token = rng.choice(legal)
        ids.append(token)
        state.advance(token)
    assert len(ids) <= grammar.room(words)
    mentions = state.mentions()
    assert all(0 <= m.first < m.last <= len(words) and m.label in grammar.domain for m in mentions)
    # Each mention has decisions of its own, and each type is listed once.
    assert all(0 <= m.start_token < m.end_token <= len(ids) for m in mentions)
    assert len([k for k, _ in itertools.groupby(m.label for m in mentions)]) == len({m.label for m in mentions})
    placed = align(
        sentence, [Listed(" ".join(w.text for w in sentence.words[m.first : m.last]), m.label) for m in mentions]
    )
    assert "absent_mentions" not in placed.notes


@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
def test_no_string_is_listed_under_two_types_and_no_way_is_a_dead_end(
    encoder: WordEncoder, text: str, names: list[str], seed: int
) -> None:
    grammar = grammar_of(encoder, domain_of(names))
    sentence, rng = Sentence.from_text(text), random.Random(seed)
    state, tokens = grammar.begin(sentence), 0
    close = grammar.literals["closing"][0]
    while not state.done:
        legal = state.legal()
        assert legal
        # As long as it can be: whatever is not the closing.
        state.advance(rng.choice([i for i in legal if i != close] or legal))
        tokens += 1
    assert tokens <= grammar.room(grammar.words(sentence))
    types: dict[str, set[str]] = {}
    for m in state.mentions():
        types.setdefault("".join(bare(w.text) for w in sentence.words[m.first : m.last]), set()).add(m.label)
    assert all(len(found) == 1 for found in types.values())


@pytest.mark.parametrize("text", ["a", "a a", "a b", "ab a b", "a b a", "a a b", "aa a a"])
def test_all_answers_without_a_string_under_two_types_can_be_written_and_no_others(
    encoder: WordEncoder, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every walk there is, with the rule and without it."""
    grammar = DictionaryGrammar(encoder, Domain.from_labels("d", ["x", "y", "z"]))
    sentence = Sentence.from_text(text)

    def answers() -> dict[tuple[int, ...], tuple[tuple[str, str], ...]]:
        """Ids of each answer, and its strings with their types."""
        found, waiting = {}, [((), grammar.begin(sentence))]
        while waiting:
            ids, state = waiting.pop()
            if state.done:
                found[ids] = tuple(
                    (bare("".join(w.text for w in sentence.words[m.first : m.last])), m.label) for m in state.mentions()
                )
            for token in state.legal() if not state.done else ():
                ahead = state.copy()
                ahead.advance(token)
                waiting.append(((*ids, token), ahead))
            assert state.done or state.legal()
        return found

    with_rule = answers()
    monkeypatch.setattr(DictionaryState, "_elsewhere", lambda self, h: frozenset())
    wanted = {
        ids: listed for ids, listed in answers().items() if len({t for t, _ in listed}) == len(set(listed))
    }  # fmt: skip
    assert with_rule == wanted
    assert len(wanted) > 3


def test_a_string_of_another_type_may_begin_a_longer_one_but_not_be_one(encoder: WordEncoder) -> None:
    grammar = DictionaryGrammar(encoder, Domain.from_labels("d", ["person", "place"]))
    literals = grammar.literals

    def after(text: str, listed: Sequence[int]) -> DictionaryState:
        """``person`` lists these words, and ``place`` is begun."""
        sentence = Sentence.from_text(text)
        state, words = grammar.begin(sentence), grammar.words(sentence)
        _advance(state, (*literals["opening"], *grammar.label_ids["person"], *literals["inner"]))
        _advance(state, [i for word in listed for i in words[word]])
        _advance(state, (*literals["between"], *grammar.label_ids["place"], *literals["inner"]))
        return state

    def writable(state: DictionaryState, text: str) -> bool:
        """Whether it can be the next mention, and the last one."""
        words = grammar.words(Sentence.from_text(text))
        try:
            _advance(state.copy(), [*(i for ids in words for i in ids), *literals["closing"], grammar.end])
        except CodecError:
            return False
        return True

    state = after("Ann Lee .", [0])
    assert [writable(state, text) for text in ("Ann", "Ann Lee", "Lee")] == [False, True, True]
    state = after("Rome Ann", [1])
    assert [writable(state, text) for text in ("Ann", "Rome")] == [False, True]
    # White space aside: "RomeAnn" is what "Rome Ann" is.
    state = after("RomeAnn Rome Ann .", [0])
    assert [writable(state, text) for text in ("RomeAnn", "Rome Ann", "Ann", "Rome Ann .")] == [
        False,
        False,
        True,
        True,
    ]


@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
def test_what_a_byte_level_model_writes_is_json_that_the_parser_reads_alike(
    text: str, names: list[str], seed: int
) -> None:
    assume(not any(0xD800 <= ord(c) <= 0xDFFF for c in text))  # these have no tokens of their own
    encoder = WordEncoder(byte_level_tokenizer())
    grammar = grammar_of(encoder, domain_of(names))
    sentence, rng = Sentence.from_text(text), random.Random(seed)
    state = grammar.start(grammar.words(sentence))
    ids = []
    while not state.done:
        ids.append(rng.choice(state.legal()))
        state.advance(ids[-1])
    assert ids[-1] == grammar.end
    written = encoder.tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)
    listed = [Listed(" ".join(w.text for w in sentence.words[m.first : m.last]), m.label) for m in state.mentions()]
    read, known = parse(written, sentence, grammar.domain), align(sentence, listed)
    assert [e.key for e in read.entities] == [e.key for e in known.entities]
    assert read.notes == known.notes


def test_types_come_in_any_order_but_once(encoder: WordEncoder) -> None:
    grammar = DictionaryGrammar(encoder, Domain.from_labels("d", ["person", "personal", "place"]))
    words = grammar.words(Sentence.from_text("the a b c"))
    for order in itertools.permutations(grammar.domain.label_names):
        state = grammar.start(words)
        ids: list[int] = []
        for label, word in zip(order, words[:2], strict=False):
            ids += [*grammar.literals["between" if ids else "opening"], *grammar.label_ids[label]]
            ids += [*grammar.literals["inner"], *word]
        for token in (*ids, *grammar.literals["closing"], grammar.end):
            state.advance(token)
        assert [m.label for m in state.mentions()] == list(order[:2])
    state = grammar.start(words)
    for token in (*ids, *grammar.literals["between"]):
        state.advance(token)
    with pytest.raises(CodecError, match="not legal"):
        _advance(state, (*grammar.label_ids[order[0]], *grammar.literals["inner"]))


def _advance(state: DictionaryState, ids: Sequence[int]) -> None:
    for token in ids:
        state.advance(token)


def test_a_tokenizer_without_brackets_is_refused() -> None:
    class Poor:
        all_special_ids = (0, 1, 2)
        eos_token_id, unk_token_id = 1, 2

        def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
            own = byte_level_tokenizer()(text, **options)["input_ids"]
            return {"input_ids": [2 if "{" in byte_level_tokenizer().decode([i]) else i for i in own]}

        def __getattr__(self, name: str) -> object:
            return getattr(byte_level_tokenizer(), name)

    with pytest.raises(CodecError, match=r"no tokens for '\{"):
        DictionaryGrammar(WordEncoder(Poor()), D)  # type: ignore[arg-type]
