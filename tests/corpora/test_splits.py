"""Samples and dev splits: what is drawn, and that it is drawn again."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.corpora import (
    Corpus,
    Manifest,
    carve_dev,
    find_leaks,
    read_corpus,
    sample,
    sample_mentions,
    sample_sentences,
    write_corpus,
)
from xdner.errors import CorpusError
from xdner.text import Sentence

BOUNDED = settings(max_examples=100, deadline=None)


def mentions(sentences) -> Counter[str]:
    return Counter(e.label for s in sentences for e in s.entities)


@st.composite
def corpora(draw, least: int = 1):
    rows = draw(
        st.lists(st.lists(st.sampled_from(["O", "a", "b", "c"]), min_size=1, max_size=4), min_size=least, max_size=12)
    )
    made = []
    for index, row in enumerate(rows):
        spans = [(i, i + 1, label) for i, label in enumerate(row) if label != "O"]
        words = [f"w{draw(st.integers(0, 1))}" for _ in row]
        made.append(Sentence.from_words(words, spans, id=f"s{index}"))
    return Corpus(made)


SEEDS = st.integers(0, 10**6)


@BOUNDED
@given(corpora(), SEEDS, st.data())
def test_k_sentences(corpus, seed, data):
    k = data.draw(st.integers(1, len(corpus)))
    drawn = sample_sentences(corpus, k, seed)
    assert len(drawn) == k
    assert [s for s in corpus if s in drawn] == list(drawn)  # in the order of the file
    assert drawn == sample_sentences(corpus, k, seed)
    if k < len(corpus):
        assert set(drawn) < set(sample_sentences(corpus, k + 1, seed))


@BOUNDED
@given(corpora().filter(lambda c: c.labels), st.integers(1, 4), SEEDS)
def test_k_mentions_of_each_type_and_no_sentence_too_many(corpus, k, seed):
    drawn = sample_mentions(corpus, k, seed)
    needed = {label: min(k, count) for label, count in mentions(corpus).items()}
    assert mentions(drawn) >= Counter(needed)
    for sentence in drawn:
        assert not mentions(s for s in drawn if s != sentence) >= Counter(needed)
    assert [s for s in corpus if s in drawn] == list(drawn)
    assert drawn == sample_mentions(corpus, k, seed)


def test_every_sentence_is_as_likely_as_any_other():
    corpus = Corpus([Sentence.from_words([f"w{i}"], id=str(i)) for i in range(10)])
    counts = Counter(s.id for seed in range(1000) for s in sample_sentences(corpus, 3, seed))
    assert len(counts) == 10
    assert all(240 < count < 360 for count in counts.values())


def test_what_a_seed_draws_never_changes():
    """Published ids must stay what they are: these were drawn once and are compared with forever."""
    corpus = Corpus(
        [Sentence.from_words(["w"] * 3, [(0, 1, "ab"[i % 2])] * (i % 3 > 0), id=str(i)) for i in range(100)]
    )
    assert [s.id for s in sample_sentences(corpus, 5, 1)] == ["1", "16", "32", "35", "47"]
    assert [s.id for s in sample_mentions(corpus, 2, 1)] == ["1", "16", "32", "47"]
    distinct = Corpus([Sentence.from_words([f"w{i}"], id=str(i)) for i in range(100)])
    assert [s.id for s in carve_dev(distinct, count=3, seed=1)[1]] == ["1", "32", "47"]


def test_the_draw_does_not_depend_on_the_files_name(tmp_path):
    for name in ("a", "b"):
        text = "".join(f"w{i}\tB-x\n\n" for i in range(50))
        (tmp_path / name).write_text(text)
    first, second = (sample_sentences(read_corpus(tmp_path / n), 5, 3) for n in ("a", "b"))
    assert [s.text for s in first] == [s.text for s in second]


@BOUNDED
@given(corpora(least=2), SEEDS, st.data())
def test_dev_and_train_part_the_corpus_without_leaks(corpus, seed, data):
    count = data.draw(st.integers(1, len(corpus) - 1))
    try:
        train, dev = carve_dev(corpus, count=count, seed=seed)
    except CorpusError as error:
        assert "every sentence recurs more than" in error.message  # noqa: PT017 - either end is right
        return
    assert sorted(s.id for s in (*train, *dev)) == sorted(s.id for s in corpus)
    assert 1 <= len(dev) <= count
    assert len(train) >= 1
    assert find_leaks(train, dev) == ()
    assert (train, dev) == carve_dev(corpus, count=count, seed=seed)


def test_dev_has_the_size_that_was_asked_for():
    corpus = Corpus([Sentence.from_words([f"w{i // 2 if i < 20 else i}"], id=str(i)) for i in range(100)])
    assert len(carve_dev(corpus, count=13, seed=1)[1]) == 13
    assert len(carve_dev(corpus, share=0.1, seed=1)[1]) == 10
    assert len(carve_dev(corpus, share=0.001, seed=1)[1]) == 1


@pytest.mark.parametrize(
    ("draw", "says", "hint"),
    [
        (lambda c: sample_sentences(c, 0, 1), "0 sentences were asked for; the corpus has 3", "Ask for 1 to 3."),
        (lambda c: sample_sentences(c, 4, 1), "4 sentences were asked for; the corpus has 3", "Ask for 1 to 3."),
        (lambda c: sample_mentions(c, 0, 1), "0 mentions per type were asked for", "Ask for 1 or more."),
        (lambda c: sample_mentions(c, 1, 1), "the corpus has no entities", "Sample sentences instead"),
        (
            lambda c: sample(c, "types", 1, 1),
            "unknown definition of k-shot: 'types'",
            "Known are: sentences, mentions.",
        ),
        (lambda c: carve_dev(c, seed=1), "needs either share or count", "share=0.1, or count=100"),
        (lambda c: carve_dev(c, share=0.5, count=1, seed=1), "needs either share or count", "Give one"),
        (lambda c: carve_dev(c, share=1.0, seed=1), "more than 0 and less than 1, not 1.0", "share=0.1"),
        (lambda c: carve_dev(c, share=float("nan"), seed=1), "not nan", "share=0.1"),
        (lambda c: carve_dev(c, count=0, seed=1), "0 dev sentences cannot be carved from 3", "Ask for 1 to 2."),
        (lambda c: carve_dev(c, count=3, seed=1), "3 dev sentences cannot be carved from 3", "Ask for 1 to 2."),
        (lambda c: carve_dev(c.pick([0]), share=0.5, seed=1), "cannot be carved from 1", "Bring more sentences."),
        (lambda c: carve_dev(c, count=1, seed=1), "every sentence recurs more than 1 times", "larger dev split"),
    ],
)
def test_what_cannot_be_drawn(draw, says, hint):
    corpus = Corpus([Sentence.from_words(["same"], id=str(i)) for i in range(3)])
    with pytest.raises(CorpusError) as caught:
        draw(corpus)
    assert says in caught.value.message
    assert hint in caught.value.hint


# -- manifests -------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(put):
    text = "".join(f"w{i}\tB-{'ab'[i % 2]}\nw\tO\n\n" for i in range(20))
    return read_corpus(put(text, "train.txt"))


@pytest.mark.parametrize("definition", ["sentences", "mentions"])
def test_a_manifest_brings_the_sample_back(corpus, tmp_path, definition):
    drawn, manifest = sample(corpus, definition, 3, 7)
    manifest.write(tmp_path / "m.json")
    assert Manifest.read(tmp_path / "m.json") == manifest
    assert Manifest.read(tmp_path / "m.json").select(read_corpus(corpus.path)) == drawn
    data = json.loads((tmp_path / "m.json").read_text())
    assert data == {
        "definition": definition,
        "k": 3,
        "seed": 7,
        "source": "train.txt",
        "sha256": corpus.sha256,
        "ids": [s.id for s in drawn],
        "mentions": dict(mentions(drawn)),
    }


def test_a_manifest_of_dev(corpus):
    train, dev = carve_dev(corpus, count=4, seed=1)
    manifest = Manifest.of(dev, definition="dev", k=4, seed=1)
    assert manifest.select(corpus) == dev
    assert set(manifest.ids).isdisjoint(s.id for s in train)


def test_a_manifest_of_another_file_is_refused(corpus, put):
    _, manifest = sample(corpus, "sentences", 3, 7)
    other = read_corpus(put("w\tO\n", "other.txt"))
    with pytest.raises(CorpusError, match="was made from another file: sha256") as caught:
        manifest.select(other)
    assert "train.txt" in caught.value.hint
    write_corpus(corpus, corpus.path, format="tokens")
    with pytest.raises(CorpusError, match="another file"):
        manifest.select(read_corpus(corpus.path))
    with pytest.raises(CorpusError, match="3 of the manifest's 3 sentences are not here, such as 'train:"):
        manifest.select(Corpus(other.sentences))


GOOD = {"definition": "dev", "k": 1, "seed": 1, "source": "", "sha256": "", "ids": ["a"], "mentions": {"x": 1}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "found list"),
        ("{}", "expected a manifest with definition, ids, k, mentions, seed, sha256, source; found the keys none"),
        (GOOD | {"more": 1}, "found the keys definition"),
        (GOOD | {"definition": "types"}, "unknown definition 'types'"),
        (GOOD | {"definition": []}, "'definition' must be text"),
        (GOOD | {"k": 1.5}, "'k' must be a whole number"),
        (GOOD | {"seed": True}, "'seed' must be a whole number"),
        (GOOD | {"ids": "a"}, "'ids' must be a list"),
        (GOOD | {"ids": [1]}, "'ids' must be a list"),
        (GOOD | {"mentions": {"x": "1"}}, "'mentions' must map"),
        ("", "the file is empty"),
    ],
)
def test_what_is_no_manifest(put, content, says):
    path = put(content if isinstance(content, str) else json.dumps(content), "m.json")
    with pytest.raises(CorpusError) as caught:
        Manifest.read(path)
    assert says in caught.value.message
    assert caught.value.path == path
    assert caught.value.hint
