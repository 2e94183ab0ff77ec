"""Every word has one vector, whatever stands beside it in a batch; sub-words are pooled as asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdner.backbone.encoder import Encoder
from xdner.errors import SettingsError
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import content_words, queried_words
from xdner.retrieval.words import WordEmbedder
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
