"""What is guessed: a mention goes on as long as the next word looks like part of a name, whatever this one looks like; the
next one begins at the next such word. And what right guesses save."""

from __future__ import annotations

import pytest
import torch

from benchmarks.timing.forced import ForcedGrammar, choose_gold
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.store import PrefixRows
from xdner.codec.grammar import Grammar
from xdner.codec.target import TargetCodec
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.generation.draft import draft, looks_like_name
from xdner.generation.engine import Engine
from xdner.generation.jobs import Job, Steering
from xdner.settings import CodecSettings
from xdner.testing.models import tiny_causal
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.text import Entity, Sentence

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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann likes the Baltic Sea", " Baltic Sea\t"),
        ("Ann likes the sea near Kiel , Bonn", " Kiel\t"),
        ("Ann likes the sea", ""),
        ("Ann", ""),
    ],
)
def test_the_next_mention_begins_at_the_next_word_that_looks_like_a_name(text: str, words: str) -> None:
    """Once the type of the first one is known; whether there is another is the model's decision."""
    sentence = Sentence.from_text(text)
    state = GRAMMAR.start(ENCODER.words(sentence))
    for token in (*ENCODER.words(sentence)[0], *GRAMMAR.literals["inner"], *GRAMMAR.label_ids["place"]):
        state.advance(token)
    for token in state.forced():
        state.advance(token)
    tokens, decisions = draft(state, [looks_like_name(word.text) for word in sentence.words], 1, 99)
    assert ENCODER.tokenizer.decode(tokens) == words
    assert bool(words) == (len(decisions) > 1)
    assert state.done or GRAMMAR.end in decisions[0].legal


def test_a_mention_takes_one_row_step_where_all_guesses_are_right() -> None:
    """And one for the prompt."""
    sentence = Sentence.from_text("Ann Lee met Bo in Kiel near the Baltic Sea").with_entities(
        [Entity(0, 7, "place"), Entity(12, 14, "work"), Entity(18, 22, "place"), Entity(32, 42, "place")]
    )
    backbone = CausalBackbone(tiny_causal("llama"), byte_level_tokenizer())
    codec = TargetCodec(ENCODER, GRAMMAR.domain, CodecSettings())
    words = ENCODER.words(sentence)
    gold = codec.encode(sentence, words=words).ids
    forced = ForcedGrammar(ENCODER, GRAMMAR.domain, CodecSettings(), {words: gold})
    prefix = [torch.zeros(s.heads, 1, s.head_dim) for s in backbone.sites]
    context = backbone.read_context((), PrefixRows.stack([(prefix, prefix)], [0]))
    names = [looks_like_name(word.text) for word in sentence.words]
    job = Job(words[0], forced.start(words), Steering(prefix, prefix, context), 99, names)
    engine = Engine(backbone, batch_size=1, choose=choose_gold)
    (written,) = engine.run([job])
    assert written.ids == gold
    assert engine.counts.row_steps == 1 + len(sentence.entities)
    assert engine.counts.drafted == engine.counts.accepted
