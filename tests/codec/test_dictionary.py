"""Dictionary answers: what is written comes back, whatever the text; what is not right is counted; the grammar lets
through nothing else."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from xdner.codec.dictionary import Listed, align, bare, parse, write
from xdner.codec.dictionary_grammar import DictionaryGrammar, DictionaryState
from xdner.codec.words import WordEncoder
from xdner.corpora import read_corpus
from xdner.domain import Domain, Label
from xdner.errors import CodecError, DomainError
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Entity, Sentence

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
D = Domain.from_labels("d", ["person", "place"])
relaxed = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Short alphabets make repeated words, and what means something in JSON, likely.
texts = st.one_of(st.text(max_size=30), st.text(alphabet='ab "\\{}[],:\n-é①', max_size=30))
labels = st.lists(st.text(alphabet='abc "\\{é', min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.fixture(
    scope="module", params=[byte_level_tokenizer, t5_like_tokenizer], ids=["byte-level", "sentencepiece-like"]
)
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    """Both kinds; T5's own tokenizer has no braces."""
    return WordEncoder(request.param())


def domain_of(verbalizations: list[str]) -> Domain:
    made = []
    for index, words in enumerate(verbalizations):
        assume(words.strip() and words.isprintable())
        made.append(Label(f"L{index}", words))
    try:
        return Domain("any", tuple(made))
    except DomainError:
        assume(False)
        raise


def grammar_of(encoder: WordEncoder, domain: Domain) -> DictionaryGrammar:
    try:
        return DictionaryGrammar(encoder, domain)
    except CodecError:
        assume(False)
        raise


def labelled(text: str, domain: Domain, seed: int) -> Sentence:
    """Random entities, whole words or not, overlapping or not, of words that may recur."""
    sentence, rng = Sentence.from_text(text), random.Random(seed)
    found = set()
    for _ in range(rng.randint(0, 5)):
        if sentence.words and rng.random() < 0.85:
            first = rng.randrange(len(sentence.words))
            last = min(len(sentence.words), first + rng.randint(1, 3))
            found.add(sentence.entity(first, last, rng.choice(domain.label_names)))
        elif text:
            start = rng.randrange(len(text))
            end = min(len(text), start + rng.randint(1, 3))
            found.add(Entity(start, end, rng.choice([*domain.label_names, "other"]), text[start:end]))
    return sentence.with_entities(found)


# -- text ----------------------------------------------------------------------------------------------------------------


@relaxed
@given(text=texts, names=labels, seed=st.integers(0, 10**6))
def test_what_is_not_lost_comes_back(text: str, names: list[str], seed: int) -> None:
    domain = domain_of(names)
    sentence = labelled(text, domain, seed)
    written = write(sentence, domain)
    assert sum(written.reasons.values()) == len(written.lost)
    kept = [e.key for e in sentence.entities if e not in written.lost]
    for answer in (written.text, f"```json\n{written.text}\n```", json.dumps(json.loads(written.text), indent=1)):
        placed = parse(answer, sentence, domain)
        assert [e.key for e in placed.entities] == kept
        assert not placed.notes
        assert all(text[e.start : e.end] == e.text for e in placed.entities)


@relaxed
@given(answer=st.one_of(st.text(max_size=60), st.text(alphabet='{}[]":, abp\\u0', max_size=40)), text=texts)
def test_any_answer_is_read_or_counted(answer: str, text: str) -> None:
    sentence = Sentence.from_text(text)
    placed = parse(answer, sentence, D)
    assert all(a.end <= b.start for a, b in itertools.pairwise(placed.entities))
    assert all(sentence.word_span(e) and e.label in D for e in placed.entities)
    assert all(count > 0 for count in placed.notes.values())


def test_a_string_stands_for_all_its_places_and_longer_ones_go_first() -> None:
    sentence = Sentence.from_text("Ann met Ann Lee in Lee, and Ann left.")
    placed = parse('{"person": ["Ann", "Ann Lee"], "place": ["Lee"]}', sentence, D)
    assert [(e.start, e.text, e.label) for e in placed.entities] == [
        (0, "Ann", "person"),
        (8, "Ann Lee", "person"),
        (19, "Lee", "place"),
        (28, "Ann", "person"),
    ]
    # Twice under one type is once; under a second type no place is left.
    again = parse('{"person": ["Ann", "Ann"], "place": ["Ann"]}', sentence, D)
    assert {e.label for e in again.entities} == {"person"}
    assert again.notes == {"unplaced_mentions": 1}


def test_white_space_aside_characters_are_exact_and_words_are_whole() -> None:
    sentence = Sentence.from_text("The  band\n(AC/DC) played in New\tYork , 東京 and O'Brien's")
    answer = '{"person": ["( AC/DC )", "ac/dc"], "place": ["New York,", "東京", "Brien"]}'
    placed = parse(answer, sentence, D)
    assert [e.text for e in placed.entities] == ["(AC/DC)", "New\tYork ,", "東京"]
    assert placed.notes == {"absent_mentions": 2}  # other capitals; the inside of a word


def test_mentions_are_written_as_the_sentence_has_them() -> None:
    """A demonstration that spaced words apart would teach a model behind an endpoint to copy so."""
    text = "She left St. John's and\tNew\n York."
    spans = [(9, 19, "place"), (24, 33, "place")]
    sentence = Sentence.from_text(text, [Entity(a, b, label, text[a:b]) for a, b, label in spans])
    assert write(sentence, D).text == '{"place": ["St. John\'s", "New York"]}'
    words = ["in", "St", ".", "John", "'s"]
    assert write(Sentence.from_words(words, [(1, 5, "place")]), D).text == '{"place": ["St . John \'s"]}'


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        ("I see no entities.", {"malformed_answers": 1}),
        ("", {"malformed_answers": 1}),
        ('["Ann"]', {"malformed_answers": 1}),
        ('{"person": ["Ann"]', {"malformed_answers": 1}),
        ("{'person': ['Ann']}", {"malformed_answers": 1}),
        ('Sure! {"person": ["Ann"]}', {"malformed_answers": 1}),
        ("[" * 5000, {"malformed_answers": 1}),
        ('{"person": "Ann", "place": ["Rome", 3]}', {"malformed_entries": 2}),
        ('{"person": {"Ann": 1}}', {"malformed_entries": 1}),
        ('{"river": ["Ann"], "city": []}', {"unknown_types": 2}),
        ('{"person": ["Bob"]}', {"absent_mentions": 1}),
        ('{"person": [""]}', {"absent_mentions": 1}),
    ],
)
def test_what_cannot_be_read_is_counted(answer: str, notes: dict[str, int]) -> None:
    placed = parse(answer, Sentence.from_text("Ann in Rome"), D)
    assert placed.entities == ()
    assert placed.notes == notes


def test_types_are_known_by_their_words_and_by_their_names() -> None:
    domain = Domain.from_labels("m", ["musicgenre", "Band"])
    sentence = Sentence.from_text("Queen played rock")
    for key in ("music genre", "Music  Genre", "musicgenre"):
        placed = parse(json.dumps({key: ["rock"], "band": ["Queen"]}), sentence, domain)
        assert [(e.text, e.label) for e in placed.entities] == [("Queen", "Band"), ("rock", "musicgenre")]
    twice = parse('{"band": ["Queen"], "Band": ["rock"]}', sentence, domain)
    assert len(twice.entities) == 2


def test_the_words_of_one_type_may_be_the_name_of_another() -> None:
    domain = Domain("d", (Label("Person", "human"), Label("per", "Person"), Label("Place")))
    sentence = Sentence.from_text("Ann saw Bob in Rome", [(0, 3, "per"), (8, 11, "Person"), (15, 19, "Place")])
    placed = parse(write(sentence, domain).text, sentence, domain)
    assert [e.key for e in placed.entities] == [e.key for e in sentence.entities]


def test_a_code_fence_is_taken_off_in_no_time() -> None:
    sentence, answer = Sentence.from_text("Ann"), '{"person": ["Ann"]}'
    for fenced in ("```\n{}\n```", " ```JSON \n\n{}```\n", "```json\r\n{}\r\n```"):
        assert parse(fenced.format(answer), sentence, D).notes == {}
    for other in ("```python\n{}\n```", "```{}```", "```json\n{}", "{}\n```"):
        assert parse(other.format(answer), sentence, D).notes == {"malformed_answers": 1}
    began = time.monotonic()
    for runaway in ("```json" + "\n" * 100_000 + "x", "```" + " \n" * 50_000 + "{"):
        assert parse(runaway, sentence, D).notes == {"malformed_answers": 1}
    assert time.monotonic() - began < 2


def test_what_cannot_be_said_is_counted_by_reason() -> None:
    sentence = Sentence.from_text(
        "Ann Ann Rome Rome Bob-x", [(0, 3, "person"), (4, 7, "place"), (13, 17, "place"), (18, 21, "person")]
    )
    written = write(sentence, D)
    assert written.reasons == {"two-types": 1, "other-copy": 2, "inside-word": 1}
    inner = Sentence.from_text("Ann Lee", [(0, 7, "person"), (4, 7, "place"), (0, 3, "river")])
    assert write(inner, D).reasons == {"overlap": 1, "unknown-label": 1}
    assert write(inner, D).text == '{"person": ["Ann Lee"]}'


def test_scores_go_with_their_mentions() -> None:
    placed = align(Sentence.from_text("Ann saw Ann"), [Listed("Ann", "person", 0.5)])
    assert [(e.start, e.score) for e in placed.entities] == [(0, 0.5), (8, 0.5)]


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark corpora are not here")
def test_nearly_every_gold_entity_of_the_benchmarks_can_be_said() -> None:
    gold = lost = 0
    for name in ("politics", "music", "literature", "science", "ai", "conll2003"):
        corpus = read_corpus(DATA / name / "train.txt")
        domain = Domain.from_corpus(name, corpus)
        for sentence in itertools.islice(corpus, 1500):
            gold += len(sentence.entities)
            lost += len(write(sentence, domain).lost)
    assert gold > 6000
    assert lost / gold < 0.002


# -- tokens --------------------------------------------------------------------------------------------------------------


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
