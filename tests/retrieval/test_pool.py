"""A pool keeps what was put in, wholly or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xdner.backbone.encoder import load_encoder
from xdner.errors import DataError, IndexMismatchError, RetrievalError
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.manifest import CACHE, MANIFEST
from xdner.retrieval.milvus import SHIFT, MilvusRows
from xdner.retrieval.pool import Change, Pool, open_pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import stop_words
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.pools import SENTENCES, stored, texts
from xdner.text import Sentence

Make = Callable[..., WordEmbedder]


def test_every_word_is_a_row_with_its_label(pool: Pool, embedder: Make) -> None:
    with pool.rows() as rows:
        fields = ["example", "word", "label", "content", "vector"]
        found = rows._client.query(pool.manifest.collection, filter="id >= 0", output_fields=fields, limit=100)
    assert len(found) == pool.manifest.words == sum(len(s.words) for s in SENTENCES)
    by_id = {e.id: e.sentence for e in pool.examples.values()}
    told = {(by_id[r["example"]].words[r["word"]].text, r["label"], r["content"]) for r in found}
    assert {("Ann", "B-person", True), ("Lee", "I-person", True), ("in", "O", False), ("sails", "O", True)} <= told
    (vectors,) = embedder().embed(SENTENCES[:1])
    row = next(r for r in found if r["id"] == 3)
    assert np.allclose(row["vector"], vectors[3], atol=1e-5)


def test_a_pool_is_read_without_the_corpus_and_without_milvus(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MilvusRows, "_connect", lambda self: pytest.fail("Milvus was opened"))
    again = open_pool(pool.folder)
    assert [e.sentence for _, e in sorted(again.examples.items())] == SENTENCES
    assert len(again.matrix()) == pool.manifest.words


def test_the_cache_is_made_again_from_milvus(pool: Pool) -> None:
    before = pool.matrix().vectors.copy()
    (pool.folder / CACHE).unlink()
    again = open_pool(pool.folder)
    assert np.allclose(again.matrix().vectors, before, atol=1e-6)
    assert (pool.folder / CACHE).is_file()
    (pool.folder / CACHE).write_bytes(b"nonsense")
    assert np.allclose(open_pool(pool.folder).matrix().vectors, before, atol=1e-6)


def test_adding_again_changes_nothing(pool: Pool, embedder: Make) -> None:
    before, rows = pool.manifest, stored(pool)
    assert pool.add(SENTENCES, embedder()) == Change(unchanged=4)
    assert (pool.manifest, stored(pool)) == (before, rows)


def test_adding_correcting_and_removing(pool: Pool, embedder: Make) -> None:
    more = Sentence.from_words(["north", "wind"], [(1, 2, "wind")])
    other = SENTENCES[1].with_entities([SENTENCES[1].entity(1, 2, "vessel")])
    assert pool.add([more, other, SENTENCES[0]], embedder()) == Change(added=1, updated=1, unchanged=1)
    assert sorted(texts(pool)) == sorted([*(s.text for s in SENTENCES), "north wind"])
    labels = {e.label for x in pool.examples.values() for e in x.sentence.entities}
    assert "vessel" in labels
    assert "ship" not in labels
    assert pool.remove(["north wind", "never seen"]) == Change(removed=1)
    again = open_pool(pool.folder)
    assert sorted(texts(again)) == sorted(s.text for s in SENTENCES)
    # What Milvus holds, what the cache holds and what is counted are the same.
    assert stored(again) == set(again.keys().tolist()) == set(again.matrix().keys.tolist())
    found = dict(zip(again.matrix().keys.tolist(), again.matrix().vectors, strict=True))
    for number, example in again.examples.items():
        (vectors,) = embedder().embed([example.sentence])
        assert np.allclose([found[number << SHIFT | w] for w in range(len(vectors))], vectors, atol=1e-5)


def test_replacing_and_emptying(pool: Pool, embedder: Make) -> None:
    change = pool.replace(SENTENCES[2:], embedder(layer=2))
    assert change == Change(unchanged=2, removed=2)
    assert texts(open_pool(pool.folder)) == [s.text for s in SENTENCES[2:]]
    assert len(list(pool.folder.glob("*.db"))) == 1
    pool.remove([s.text for s in SENTENCES])
    assert len(open_pool(pool.folder)) == 0
    assert pool.add(SENTENCES, embedder(layer=2)) == Change(added=4)


def test_another_embedding_is_refused_and_both_are_named(pool: Pool, embedder: Make) -> None:
    before = (pool.folder / MANIFEST).read_bytes()
    for other in (embedder(layer=2), embedder(pooling="max")):
        with pytest.raises(
            IndexMismatchError, match=r"layer 1, mean of sub-words.*but it is asked with tiny"
        ) as caught:
            pool.add(SENTENCES, other)
        assert "--replace" in (caught.value.hint or "")
    assert (pool.folder / MANIFEST).read_bytes() == before


def test_the_same_weights_with_another_tokenizer_are_another_embedding(tmp_path: Path, pool: Pool) -> None:
    def read_with(**changes: Any) -> WordEmbedder:
        folder = save_tiny_encoder(tmp_path / "-".join(["encoder", *changes]))
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return WordEmbedder(load_encoder(folder), RetrievalSettings(layer=1))

    # What a caller sets anew in each call says nothing.
    pool.add(SENTENCES, read_with(truncation=None, padding=None))
    other = read_with(normalizer=None)
    assert other.encoder.fingerprint == pool.manifest.embedding.fingerprint
    told = [embedding.tokenizer[7:19] for embedding in (pool.manifest.embedding, other.embedding)]
    with pytest.raises(
        IndexMismatchError, match="tokenizer {}, .* but it is asked with .*tokenizer {}, ".format(*told)
    ):
        pool.add(SENTENCES, other)
    # An older index does not know its tokenizer.
    path = pool.folder / MANIFEST
    known = json.loads(path.read_text())
    del known["embedding"]["tokenizer"]
    path.write_text(json.dumps(known))
    older = open_pool(pool.folder)
    assert "tokenizer" not in str(older.manifest.embedding)
    assert older.add(SENTENCES, other) == Change(unchanged=4)


def test_examples_that_cannot_be_shown(pool: Pool, embedder: Make) -> None:
    bare = Sentence.from_words(["nothing", "here"], id="s9")
    with pytest.raises(DataError, match=r"1 examples have no entities, the first is 's9'"):
        pool.add([*SENTENCES, bare], embedder())
    with pytest.raises(DataError, match="there is no example"):
        pool.replace([], embedder())
    assert len(pool) == 4


def test_of_two_labellings_the_last_counts(tmp_path: Path, embedder: Make) -> None:
    other = SENTENCES[1].with_entities([SENTENCES[1].entity(1, 2, "vessel")])
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    assert pool.add([SENTENCES[1], other], embedder()) == Change(added=1)
    assert [e.label for x in pool.examples.values() for e in x.sentence.entities] == ["vessel"]
    before = pool.manifest
    pool.add([SENTENCES[1], other], embedder())
    assert pool.manifest == before


def test_the_manifest_is_plain(pool: Pool) -> None:
    told = json.loads((pool.folder / MANIFEST).read_text())
    assert told["embedding"]["dimension"] == 32
    assert (told["examples"], told["words"], told["kind"]) == (4, 17, "FLAT")


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\ud800", "\r"])
def test_characters_that_look_like_line_ends_are_kept(pool: Pool, embedder: Make, character: str) -> None:
    odd = Sentence.from_text(f"Oslo{character} sea", [(0, 4, "city")], id=f"odd{character}")
    pool.add([odd], embedder())
    assert odd in [e.sentence for e in open_pool(pool.folder).examples.values()]


def test_rows_are_marked_with_the_stop_words_of_the_index_that_is_made(pool: Pool, embedder: Make) -> None:
    other = Pool.create(pool.folder, embedder().embedding, settings=RetrievalSettings(stop_words="none"))
    other.replace(SENTENCES, embedder())
    assert open_pool(pool.folder).manifest.stop_words == "none"
    with other.rows() as rows:
        found = rows._client.query(other.manifest.collection, filter="content == false", output_fields=["id"])
    assert found == []  # "the" and "of" are content now


def test_a_package_that_is_missing_is_told_before_anything_is_embedded(
    tmp_path: Path, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordEmbedder, "embed", lambda *_: pytest.fail("embedded in vain"))
    pool = Pool.create(tmp_path / "i", embedder().embedding)
    for package in ("pymilvus", "milvus_lite", "bm25s"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            stop_words.cache_clear()
            for act in (pool.add, pool.replace):
                with pytest.raises(RetrievalError, match=f"the package {package}") as caught:
                    act(SENTENCES, embedder())
                assert "xdner[retrieval]" in (caught.value.hint or "")
    assert not (tmp_path / "i").exists()
