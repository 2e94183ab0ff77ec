"""What is guessed: a mention goes on as long as the next word looks like part of a name, whatever this one looks like."""

from __future__ import annotations

import pytest

from xdner.codec.grammar import Grammar
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.generation.draft import draft, looks_like_name
from xdner.settings import CodecSettings
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.text import Sentence

ENCODER = WordEncoder(byte_level_tokenizer())
GRAMMAR = Grammar(ENCODER, Domain.from_labels("any", ["work", "place"]), CodecSettings())


def guessed(text: str, first: str) -> str:
    """The words that the draft adds to a mention that began with ``first``, up to where the type is to be chosen."""
    sentence = Sentence.from_text(text)
    state = GRAMMAR.start(ENCODER.words(sentence))
    for token in ENCODER.words(Sentence.from_text(first))[0]:
        state.advance(token)
    names = [looks_like_name(word.text) for word in sentence.words]
    tokens, decisions = draft(state, names, 1, 99)
    assert sum(d.guess is not None for d in decisions) == len(decisions) - 1
    return ENCODER.tokenizer.decode(tokens)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the Baltic Sea is cold", " Baltic Sea"),
        ("the sea is cold", ""),
        ("the Sea", " Sea"),
        ("the old Town Hall", ""),
    ],
)
def test_a_mention_goes_on_with_words_that_look_like_names(text: str, words: str) -> None:
    assert guessed(text, "the") == words + "\t", "then it closes, and nothing else is guessed"
