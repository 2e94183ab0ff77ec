"""Every word has one vector, whatever stands beside it in a batch; sub-words are pooled as asked."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdner.backbone.encoder import Encoder
from xdner.errors import SettingsError
from xdner.retrieval.embedder import WordEmbedder, layer_of
from xdner.retrieval.settings import IndexSettings, RetrievalSettings
from xdner.retrieval.stop_words import content_words, queried_words
from xdner.testing.pools import SENTENCES
from xdner.text import Sentence

WORDS = st.lists(st.text(alphabet="ab,Zé[日", min_size=1, max_size=9), min_size=0, max_size=40)


@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_vectors_are_the_layers_states_pooled(encoder: Encoder, layer: int, pooling: str) -> None:
    embedder = WordEmbedder(encoder, RetrievalSettings(layer=layer, pooling=pooling))  # type: ignore[arg-type]
    (found,) = embedder.embed([Sentence.from_words(["sea", "abc"])])
    ids = torch.tensor([encoder.tokenizer.convert_tokens_to_ids(["[CLS]", "sea", "a", "##b", "##c", "[SEP]"])])
    with torch.inference_mode():
        states = encoder.model(ids, output_hidden_states=True).hidden_states[layer][0]
    inner = states[2:5]
    wanted = {"mean": inner.mean(0), "first": inner[0], "max": inner.max(0).values}[pooling]
    for row, state in ((0, states[1]), (1, wanted)):
        assert np.allclose(found[row], (state / state.norm()).numpy(), atol=1e-5)


@given(st.lists(WORDS, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_word_does_not_depend_on_its_batch(embedder: Callable[..., WordEmbedder], texts: list[list[str]]) -> None:
    sentences = [Sentence.from_words(words) for words in texts]
    together = embedder().embed(sentences)
    for sentence, rows in zip(sentences, together, strict=True):
        assert rows.shape == (len(sentence.words), 32)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert np.allclose(rows, embedder().embed([sentence])[0], atol=1e-5)


def test_long_sentences_lose_no_word(embedder: Callable[..., WordEmbedder]) -> None:
    told: list[int] = []
    sentences = [Sentence.from_words(["sea"] * 300), Sentence.from_words(["wind"])]
    long, short = embedder().embed(sentences, told.append)
    assert (np.linalg.norm(long, axis=1) > 0.99).all()
    assert len(short) == 1
    assert told[-1] == 301


def test_sentences_are_the_mean_of_the_last_layer(encoder: Encoder, embedder: Callable[..., WordEmbedder]) -> None:
    found = embedder(layer=0).embed_sentences([Sentence.from_words(["the", "sea"]), Sentence.from_text("")])
    ids = torch.tensor([encoder.tokenizer.convert_tokens_to_ids(["[CLS]", "the", "sea", "[SEP]"])])
    with torch.inference_mode():
        state = encoder.model(ids).last_hidden_state[0].mean(0)
    assert np.allclose(found[0], (state / state.norm()).numpy(), atol=1e-5)
    assert not found[1].any()


def test_sentences_are_the_first_token_for_encoders_that_were_trained_so(
    encoder: Encoder, embedder: Callable[..., WordEmbedder]
) -> None:
    reader = embedder(sentence_pooling="cls")
    found = reader.embed_sentences([Sentence.from_words(["the", "sea"]), Sentence.from_text(""), SENTENCES[0]])
    ids = torch.tensor([encoder.tokenizer.convert_tokens_to_ids(["[CLS]", "the", "sea", "[SEP]"])])
    with torch.inference_mode():
        state = encoder.model(ids).last_hidden_state[0, 0]
    assert np.allclose(found[0], (state / state.norm()).numpy(), atol=1e-5)
    assert not found[1].any()
    assert not np.allclose(found[2], embedder().embed_sentences(SENTENCES[:1])[0], atol=1e-3)
    assert np.allclose(found[2], reader.embed_sentences(SENTENCES[:1])[0], atol=1e-5)  # whatever stands beside it


@pytest.mark.parametrize(("layers", "wanted"), [(1, 1), (2, 1), (6, 4), (12, 8), (24, 16)])
def test_the_default_layer_is_two_thirds_of_the_way_up(layers: int, wanted: int) -> None:
    encoder: Any = SimpleNamespace(name="e", model=SimpleNamespace(config=SimpleNamespace(num_hidden_layers=layers)))
    assert layer_of(encoder, RetrievalSettings().layer) == wanted
    assert layer_of(encoder, 0) == 0
    assert layer_of(encoder, -1) == layers


@pytest.mark.parametrize("value", ["deep", "4.0", "-2", "true", "'4'"])
def test_a_layer_is_a_number_or_auto(value: str) -> None:
    with pytest.raises(SettingsError, match=r"retrieval\.layer must be"):
        IndexSettings.build(None, [f"layer={value}"])
    assert IndexSettings.build(None, ["layer=auto"]) == IndexSettings.build()
    assert IndexSettings.build(None, ["layer=7"]).retrieval.layer == 7


def test_the_last_layer_by_its_number_and_one_that_is_not_there(encoder: Encoder) -> None:
    assert WordEmbedder(encoder, RetrievalSettings(layer=-1)).embedding.layer == 2
    with pytest.raises(SettingsError, match=r"layer is 3, but .* has 2 layers"):
        WordEmbedder(encoder, RetrievalSettings(layer=3))


def test_what_is_asked_for() -> None:
    sentence = Sentence.from_text("The U.S. ship is at sea, again!")
    assert [sentence.words[i].text for i in content_words(sentence, "english")] == ["U.S.", "ship", "sea"]
    assert [sentence.words[i].text for i in content_words(sentence, "none")][:2] == ["The", "U.S."]
    # Where nothing is left, everything is asked for.
    assert list(queried_words(Sentence.from_text("The, of!"), "english")) == [0, 1, 2, 3]
    assert list(queried_words(Sentence.from_text(""), "english")) == []
