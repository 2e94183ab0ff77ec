"""Dictionary answers: what is written comes back, whatever the text; what is not right is counted."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdner.codec.dictionary import Listed, align, parse, write
from xdner.corpora import read_corpus
from xdner.domain import Domain, Label
from xdner.testing.answers import PEOPLE as D
from xdner.testing.answers import domain_of, labelled, labels, relaxed, texts
from xdner.text import Entity, Sentence

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


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
    began = time.process_time()
    for runaway in ("```json" + "\n" * 100_000 + "x", "```" + " \n" * 50_000 + "{"):
        assert parse(runaway, sentence, D).notes == {"malformed_answers": 1}
    assert time.process_time() - began < 2


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
