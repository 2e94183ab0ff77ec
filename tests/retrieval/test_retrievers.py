"""All retrievers have one interface; word retrieval gives the same from memory and from Milvus."""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xdner.errors import IndexMismatchError, RetrievalError
from xdner.retrieval.base import Example, let_go, text_key
from xdner.retrieval.baselines import BM25Retriever, RandomRetriever, SentenceRetriever
from xdner.retrieval.build import build_retriever, embedder_of
from xdner.retrieval.by_words import WordRetriever
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.matrix import Matrix
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.testing.pools import SENTENCES
from xdner.text import Sentence

Make = Callable[..., WordEmbedder]
METHODS = ["word", "sentence", "bm25", "random", "densest"]


def settings(**values: object) -> RetrievalSettings:
    return RetrievalSettings(**{"layer": 1, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_k_best_first_never_the_query_itself(pool: Pool, embedder: Make, method: str) -> None:
    retriever = build_retriever(pool, settings(method=method), embedder())
    queries = [*SENTENCES, Sentence.from_text("a ship at sea"), Sentence.from_text("")]
    for k in (0, 1, 3, 10):
        for query, hits in zip(queries, retriever.retrieve(queries, k), strict=True):
            texts = [h.example.sentence.text for h in hits]
            assert len(texts) == len(set(texts)) <= k
            assert query.text not in texts
            if method != "word":  # words can bring no example without being like one
                assert len(texts) == min(k, 4 - (query in SENTENCES))
            assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    assert retriever.retrieve([], 3) == []


def test_a_mixed_batch_equals_its_queries_one_by_one(pool: Pool, embedder: Make) -> None:
    for method in METHODS:
        retriever = build_retriever(pool, settings(method=method), embedder())
        together = retriever.retrieve(SENTENCES, 2)
        alone = [retriever.retrieve([s], 2)[0] for s in SENTENCES]
        assert [[h.example.id for h in hits] for hits in together] == [[h.example.id for h in x] for x in alone]


@pytest.mark.parametrize("rows", ["all", "content", "entities"])
@pytest.mark.parametrize("aggregation", ["types", "sum"])
def test_memory_and_milvus_bring_the_same(pool: Pool, embedder: Make, rows: str, aggregation: str) -> None:
    queries = [*SENTENCES, Sentence.from_text("Eve sails in Oslo")]
    found = []
    for search in ("memory", "milvus"):
        chosen = settings(search=search, rows=rows, aggregation=aggregation, candidates=4)
        retriever = WordRetriever(pool, embedder(), chosen)
        found.append(retriever.retrieve(queries, 3))
        retriever.close()
    for exact, asked in zip(*found, strict=True):
        assert [h.example.id for h in exact] == [h.example.id for h in asked]
        for one, two in zip(exact, asked, strict=True):
            assert one.score == pytest.approx(two.score, abs=1e-4)
            assert [(m.query, m.example) for m in one.matches] == [(m.query, m.example) for m in two.matches]


def test_matches_name_words_that_were_asked_for(pool: Pool, embedder: Make) -> None:
    query = Sentence.from_text("the ship sails, north of Rome")
    (hits,) = WordRetriever(pool, embedder(), settings()).retrieve([query], 4)
    asked = {m.query for h in hits for m in h.matches}
    assert {query.words[i].text for i in asked} <= {"ship", "sails", "north", "Rome"}
    for hit in hits:
        for match in hit.matches:
            assert 0 <= match.example < len(hit.example.sentence.words)
            assert match.similarity <= 1 + 1e-5
    best = max((m.similarity, query.words[m.query].text, h.example.sentence.words[m.example].text)
               for h in hits for m in h.matches)  # fmt: skip
    assert best[0] > 0.9


def test_the_query_in_the_pool_costs_no_candidates(pool: Pool, embedder: Make) -> None:
    (hits,) = WordRetriever(pool, embedder(), settings(candidates=1)).retrieve(SENTENCES[:1], 4)
    assert hits  # its own words would have been the one candidate of each word


def test_random_is_stable_for_a_query_and_a_seed(pool: Pool) -> None:
    examples = [Example.of(s) for s in SENTENCES] * 2
    one = RandomRetriever(examples, 1).retrieve(SENTENCES, 3)
    assert one[::-1] == RandomRetriever(examples, 1).retrieve(SENTENCES[::-1], 3)
    assert one != RandomRetriever(examples, 2).retrieve(SENTENCES, 3)


def test_bm25_is_the_formula() -> None:
    examples = [Example.of(s) for s in SENTENCES]
    (hits,) = BM25Retriever(examples).retrieve([Sentence.from_text("Rome, the ship of Rome")], 4)
    assert [h.example.sentence.text for h in hits[:1]] == ["Ann Lee in Rome"]
    lengths = [3, 3, 4, 2]  # content words
    n, tf = 2, 1
    idf = math.log(1 + (4 - n + 0.5) / (n + 0.5))
    wanted = 2 * idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * lengths[0] / (sum(lengths) / 4)))
    assert hits[0].score == pytest.approx(wanted, rel=1e-4)


def test_sentences_that_are_alike_come_first(embedder: Make) -> None:
    texts = ["the sea", "the wind", "Ann", "Bob Bob Bob"]
    examples = [Example.of(Sentence.from_text(t, [(0, 3, "x")])) for t in texts]
    query, reader = Sentence.from_text("the sea the sea"), embedder()
    (hits,) = SentenceRetriever(examples, reader).retrieve([query], 4)
    found, wanted = [h.score for h in hits], reader.embed_sentences([query, *(e.sentence for e in examples)])
    cosines = (wanted[1:] @ wanted[0]).tolist()
    assert found == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
    assert [h.example.sentence.text for h in hits] == [
        t for _, t in sorted(zip(cosines, texts, strict=True), reverse=True)
    ]


def test_none_shows_nothing_and_needs_nothing(pool: Pool) -> None:
    assert build_retriever(pool, settings(method="none")).retrieve(SENTENCES, 5) == [()] * 4


@pytest.mark.parametrize("method", METHODS)
def test_no_examples_show_nothing(embedder: Make, method: str) -> None:
    assert build_retriever([], settings(method=method), embedder()).retrieve(SENTENCES, 5) == [()] * 4


def test_empty_pools_and_other_embedders_are_refused(pool: Pool, embedder: Make, tmp_path: Path) -> None:
    empty = Pool.create(tmp_path / "empty", embedder().embedding)
    for method in METHODS:
        with pytest.raises(RetrievalError, match="is empty"):
            build_retriever(empty, settings(method=method), embedder())
    with pytest.raises(RetrievalError, match="is empty"):
        WordRetriever(empty, embedder())
    with pytest.raises(IndexMismatchError):
        WordRetriever(pool, embedder(layer=2))


def test_the_embedder_of_a_pool_is_found_again(pool: Pool) -> None:
    assert embedder_of(pool).embedding == pool.manifest.embedding


def test_exact_search_against_every_pair(embedder: Make, tmp_path: Path) -> None:
    rng = random.Random(0)
    letters = "abcdefghij"
    many = [
        Sentence.from_words(["".join(rng.choices(letters, k=3)) for _ in range(6)], [(0, 1, "x")], id=str(n))
        for n in range(30)
    ]
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    pool.add(many[:25], embedder())
    chosen = settings(rows="all", aggregation="sum", candidates=1024)
    found = WordRetriever(pool, embedder(), chosen).retrieve(many[25:], 3)
    vectors = embedder().embed(many)
    for query, hits in enumerate(found, start=25):
        scores = [float((vectors[query] @ v.T).max(1).clip(0).sum()) for v in vectors[:25]]
        best = sorted(range(25), key=lambda n: -scores[n])[:3]
        assert [h.example.sentence.id for h in hits] == [str(n) for n in best]
        assert [h.score for h in hits] == pytest.approx([scores[n] for n in best], rel=1e-4)


def test_examples_without_a_pool_are_found_alike(pool: Pool, embedder: Make) -> None:
    examples = [Example.of(s) for s in [*SENTENCES, SENTENCES[0]]]
    for method in METHODS:
        chosen = settings(method=method)
        one, two = (build_retriever(p, chosen, embedder()).retrieve(SENTENCES, 3) for p in (pool, examples))
        assert [[h.example.id for h in hits] for hits in one] == [[h.example.id for h in hits] for hits in two]


@pytest.mark.parametrize("rows", [64 * 10, 64 * 10 + 7])
def test_two_looks_find_what_one_finds(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = Matrix(np.arange(rows) * 3, vectors).search(vectors[:70], 20)
    monkeypatch.setattr("xdner.retrieval.matrix._MANY", 33)
    monkeypatch.setattr("xdner.retrieval.matrix.native_bfloat16", lambda device: True)
    twice = Matrix(np.arange(rows) * 3, vectors).search(vectors[:70], 20)
    assert (exact[0] == twice[0]).all()
    assert np.allclose(exact[1], twice[1], atol=1e-6)
    for few in (5, 33):
        found = Matrix(np.arange(few), vectors[:few]).search(vectors[:1], few + 2)[0][0]
        assert sorted(found[:few]) == [*range(few)]
        assert (found[few:] == -1).all()


def test_two_looks_find_the_nearest_among_rows_that_16_bits_cannot_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a word that stands in hundreds of examples: all rows are alike to the third digit."""
    rng = np.random.default_rng(1)
    vectors = np.ones(24, np.float32) + 0.02 * rng.standard_normal((64 * 20, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = Matrix(np.arange(len(vectors)), vectors).search(vectors[:40], 8)
    monkeypatch.setattr("xdner.retrieval.matrix._MANY", 33)
    monkeypatch.setattr("xdner.retrieval.matrix.native_bfloat16", lambda device: True)
    twice = Matrix(np.arange(len(vectors)), vectors).search(vectors[:40], 8)
    assert (exact[0] == twice[0]).all()
    assert np.allclose(exact[1], twice[1], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_the_query_are_left_out_whatever_their_spaces_and_case(
    pool: Pool, embedder: Make, method: str
) -> None:
    copies = [
        Sentence.from_text(t, [(0, 3, "person")]) for t in ("Ann  Lee in\tRome", "ANN LEE IN ROME", "ann lee in rome")
    ]
    pool.add(copies, embedder())
    for of in (pool, [e for _, e in sorted(pool.examples.items())]):
        retriever = build_retriever(of, settings(method=method, candidates=1), embedder())
        for query in (SENTENCES[0], *copies, Sentence.from_text("ann lee IN Rome")):
            (hits,) = retriever.retrieve([query], 7)
            assert hits
            assert not {h.example.sentence.text for h in hits} & {s.text for s in (SENTENCES[0], *copies)}


@pytest.mark.parametrize("method", METHODS)
def test_of_two_labellings_the_last_is_shown_from_an_index_and_from_memory(
    embedder: Make, tmp_path: Path, method: str
) -> None:
    """A correction that stands below what it corrects."""
    corrected = SENTENCES[1].with_entities([SENTENCES[1].entity(1, 2, "vessel")])
    both = [SENTENCES[0], SENTENCES[1], corrected]
    pool = Pool.create(tmp_path / "index", embedder().embedding)
    pool.add(both, embedder())
    assert pool.holds(both)
    assert not pool.holds([*both, SENTENCES[2]])
    for of in (pool, [Example.of(s) for s in both]):
        (hits,) = build_retriever(of, settings(method=method), embedder()).retrieve([Sentence.from_text("a ship")], 3)
        assert [h.example.sentence for h in hits if h.example.sentence.text == corrected.text] == [corrected]


COPIES = ("Ann sails north", "Ann  sails north", "ANN sails north", "Ann sails  north ", "ann sails north")


@pytest.mark.parametrize("method", METHODS)
def test_no_text_is_shown_twice_in_other_letters(embedder: Make, tmp_path: Path, method: str) -> None:
    others = ["Bob sees the sea", "Eve left Oslo"]
    sentences = [Sentence.from_text(t, [(0, 3, "person")]) for t in (*COPIES, *others)]
    pool = Pool.create(tmp_path / "index", embedder().embedding)
    pool.add(sentences, embedder())
    for of in (pool, [Example.of(s) for s in sentences]):
        for search in ("memory", "milvus"):
            retriever = build_retriever(of, settings(method=method, search=search, rows="all"), embedder())
            (hits,) = retriever.retrieve([Sentence.from_text("Dan sails north")], 5)
            let_go(retriever)
            shown = [h.example.sentence.text for h in hits]
            assert sorted(shown) == sorted(["ann sails north", *others]), "the last one counts"


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_that_is_composed_in_another_way_is_left_out(embedder: Make, method: str) -> None:
    text = "André left Málaga"
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        copy = Sentence.from_text(unicodedata.normalize(form, text), [(0, 3, "person")])
        others = [Sentence.from_text(t, [(0, 3, "person")]) for t in ("Bob sat", "Eve left")]
        retriever = build_retriever([Example.of(s) for s in (copy, *others)], settings(method=method), embedder())
        (hits,) = retriever.retrieve([Sentence.from_text(text.upper())], 5)
        assert {h.example.sentence.text for h in hits} == {"Bob sat", "Eve left"}


@pytest.mark.parametrize(("method", "rule"), [*((m, "sum") for m in METHODS), ("word", "idf"), ("word", "types")])
def test_what_is_not_shown_has_no_part_in_the_choice(embedder: Make, tmp_path: Path, method: str, rule: str) -> None:
    """As the whole text of which the query is a window: most like it, it would have the first choice."""
    rest = [*SENTENCES[1:], *(Sentence.from_words([*"abc", x + "q"], [(0, 1, "x")]) for x in "defghijk")]
    whole, window = SENTENCES[0], Sentence.from_words(["Lee", "in", "Rome"])
    queries = [window, Sentence.from_text("the ship of Ann")]
    pool = Pool.create(tmp_path / "index", embedder().embedding)
    pool.add([whole, *rest], embedder())
    how = settings(method=method, aggregation=rule)
    alone = build_retriever([Example.of(s) for s in rest], how, embedder()).retrieve(queries, 3)
    for of in (pool, [Example.of(s) for s in (whole, *rest)]):
        found = build_retriever(of, how, embedder()).retrieve(queries, 3, [{text_key(whole)}, {text_key(whole)}])
        assert [[h.example.id for h in hits] for hits in found] == [[h.example.id for h in hits] for hits in alone]
        assert [len(hits) for hits in found] == [3, 3]


@pytest.mark.parametrize("search", ["memory", "milvus"])
def test_a_word_that_fills_the_candidates_does_not_hide_other_examples(
    embedder: Make, tmp_path: Path, search: str
) -> None:
    again = [Sentence.from_words(["wind"] * 40 + [c], [(0, 1, "wind")]) for c in "abc"]
    others = [
        Sentence.from_text(t, [(0, 3, "x")]) for t in ("Bob sees the sea", "Eve left Oslo", "Cid sat there", "Dan")
    ]
    pool = Pool.create(tmp_path / "index", embedder().embedding)
    pool.add([*again, *others], embedder())
    queries = [Sentence.from_text("wind"), Sentence.from_text("the north wind"), *SENTENCES, Sentence.from_text("")]
    for of in (pool, [Example.of(s) for s in (*again, *others)]):
        retriever = WordRetriever(of, embedder(), settings(search=search))
        found = retriever.retrieve(queries, 5)
        assert [len(hits) for hits in found] == [5] * 6 + [0]
        assert [h.example.id for h in retriever.retrieve(queries[:1], 5)[0]] == [h.example.id for h in found[0]]
        assert [len(hits) for hits in retriever.retrieve(queries, 50)] == [7] * 6 + [0]
        retriever.close()


def test_one_search_is_enough_where_enough_examples_come(
    pool: Pool, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches, own = [], WordRetriever._search
    monkeypatch.setattr(WordRetriever, "_search", lambda *a: searches.append(len(a[1])) or own(*a))
    retriever = WordRetriever(pool, embedder(), settings(candidates=6))
    retriever.retrieve([Sentence.from_text("the ship sails, north of Rome")], 2)
    assert searches == [4]


def test_bm25_shows_no_example_without_words() -> None:
    blank, query = Sentence.from_text("   "), Sentence.from_text("Ann went")
    assert BM25Retriever([Example.of(blank)]).retrieve([query, blank], 2) == [(), ()]
    (hits,) = BM25Retriever([Example.of(blank), Example.of(SENTENCES[0])]).retrieve([query], 2)
    assert [h.example.sentence for h in hits] == [SENTENCES[0]]
