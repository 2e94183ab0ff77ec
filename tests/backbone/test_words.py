"""Words to ids: nothing is lost, nothing typed is special, every word counts once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdner.backbone.words import SHAPES, WordPieces, shape_of
from xdner.testing.taggers import letter_tokenizer
from xdner.text import Sentence

WORDS = st.lists(st.text(alphabet="ab~,Zé[]", min_size=1, max_size=20), min_size=1, max_size=30)


@pytest.fixture
def pieces() -> WordPieces:
    return WordPieces(letter_tokenizer(), 16)


@given(WORDS, st.integers(4, 12), st.integers(0, 4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_word_is_in_the_core_of_one_window(
    pieces: WordPieces, words: list[str], window: int, overlap: int
) -> None:
    (encoded,) = pieces.encode([Sentence.from_words(words)], window=window, overlap=min(overlap, window // 2))
    cores = [w for e in encoded for w in range(e.first + e.counted[0], e.first + e.counted[1])]
    assert cores == list(range(len(words)))
    tokenizer = pieces.tokenizer
    for number, item in enumerate(encoded):
        assert len(item.ids) <= pieces.positions
        assert len(item.places) <= window
        assert (item.ids[0], item.ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert list(item.places) == sorted(set(item.places))
        assert item.places[0] >= 1
        assert item.places[-1] < len(item.ids) - 1
        assert item.continues == (number > 0)
        assert item.goes_on == (number < len(encoded) - 1)
        assert len(item.shapes) == len(item.places)


def test_what_a_user_typed_is_no_special_token(pieces: WordPieces) -> None:
    ((window,),) = pieces.encode([Sentence.from_words(["[SEP]", "~", "ab"])])
    tokenizer = pieces.tokenizer
    assert {tokenizer.cls_token_id, tokenizer.sep_token_id}.isdisjoint(window.ids[1:-1])
    # A word without any piece is unknown, and has a place all the same.
    assert window.ids[window.places[1]] == tokenizer.unk_token_id
    assert list(window.ids[window.places[2] : -1]) == tokenizer.convert_tokens_to_ids(["a", "##b"])


def test_a_word_longer_than_the_encoder_is_cut_and_counted(pieces: WordPieces) -> None:
    (encoded,) = pieces.encode([Sentence.from_words(["a" * 50, "b"])])
    assert [len(e.places) for e in encoded] == [1, 1]
    assert len(encoded[0].ids) == pieces.positions
    assert pieces.capped(encoded) == 1


def test_half_a_surrogate_pair_and_no_words_at_all(pieces: WordPieces) -> None:
    odd, empty = pieces.encode([Sentence.from_words(["\ud800a"]), Sentence.from_text("")])
    assert len(odd[0].places) == 1
    assert empty == []


def test_words_are_remembered(pieces: WordPieces) -> None:
    sentence = Sentence.from_words(["one", "two", "one"])
    assert pieces.pieces([sentence]) == pieces.pieces([sentence])
    assert len(pieces._cache) == 2


def test_shapes() -> None:
    assert SHAPES[shape_of("McAfee")] == "miXed"
    assert SHAPES[shape_of("日本")] == "lower"
    assert SHAPES[shape_of("3,000")] == "digits"
