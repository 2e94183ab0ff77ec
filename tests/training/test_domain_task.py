"""Sentences become items: how long windows are, whatever the context is, and what they cut."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from xdner.backbone.causal import CausalBackbone
from xdner.codec.instructor import Instructor
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import TrainingError
from xdner.settings import CodecSettings, TrainingSettings
from xdner.testing.models import tiny_causal
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.text import Sentence
from xdner.training.augmentation import Augmentation
from xdner.training.domain_task import DomainTask, lost_entities, make_items, word_budget

CODEC = CodecSettings()
ENCODER = WordEncoder(byte_level_tokenizer())
INSTRUCTOR = Instructor(ENCODER, CODEC)


def domain(types: int) -> Domain:
    return Domain.from_labels("many", [f"kind{i}" for i in range(types)])


def sentence(words: int, length: int = 2) -> Sentence:
    """Every third pair of words is a mention of ``length`` words, of one letter each: two pieces a word."""
    starts = [2 * i for i in range(words)]
    spans = [(starts[i], starts[i + length - 1] + 1, "kind0") for i in range(0, words - length + 1, length + 4)]
    return Sentence.from_text(" ".join("abcde"[i % 5] for i in range(words)), spans, id="s")


def context(of: Domain) -> int:
    return len(INSTRUCTOR.context(of))


@pytest.mark.parametrize(("types", "pieces"), [(1, 512), (3, 512), (10, 1024), (150, 4096)])
def test_where_there_is_room_prompt_and_target_keep_to_the_limit(types: int, pieces: int) -> None:
    many = domain(types)
    assert word_budget(many, INSTRUCTOR, pieces) == (pieces - context(many) - 16) // 3 >= 64


@pytest.mark.parametrize("types", [60, 150, 400])
def test_many_types_leave_the_words_their_room(types: int) -> None:
    many, long = domain(types), sentence(120)
    assert context(many) > 512 - 3 * 64
    assert word_budget(many, INSTRUCTOR, 512) == 64
    items = make_items(many, [long] * 2, ENCODER, INSTRUCTOR, 512)
    assert [w for item in items[: len(items) // 2] for w in item.words] == list(ENCODER.words(long))
    assert all(sum(map(len, item.words)) <= 64 for item in items)
    kept = [e.key for item in items for e in item.sentence.entities]
    assert kept == [e.key for e in long.entities] * 2, "no mention is cut"
    assert lost_entities(many, [long], ENCODER, CODEC, max_pieces=512) == ([], {})


def test_a_small_limit_is_kept_for_the_words() -> None:
    assert word_budget(domain(150), INSTRUCTOR, 64) == (64 - 16) // 3
    assert word_budget(domain(1), INSTRUCTOR, 64) <= 16


def test_what_the_backbone_can_hold_is_the_end_of_it() -> None:
    many = domain(150)
    held = context(many) + 16 + 3 * 20
    assert word_budget(many, INSTRUCTOR, 512, held) == 20
    assert word_budget(domain(1), INSTRUCTOR, 512, 200) == (200 - context(domain(1)) - 16) // 3, (
        "of an ordinary domain too"
    )
    with pytest.raises(
        TrainingError, match=rf"150 types take {context(many)} tokens of the {context(many) + 30}"
    ) as caught:
        make_items(many, [sentence(10)], ENCODER, INSTRUCTOR, 512, max_tokens=context(many) + 30)
    assert "choose a backbone with more positions" in caught.value.hint


def test_mentions_that_windows_cut_are_told() -> None:
    long = sentence(120, length=20)  # 40 pieces a mention
    lost, reasons = lost_entities(domain(1), [long, sentence(5)], ENCODER, CODEC, max_pieces=64)
    assert lost == list(long.entities)
    assert reasons == {"longer than a window": len(long.entities)}
    assert lost_entities(domain(1), [long], ENCODER, CODEC, max_pieces=1024) == ([], {})


def test_mentions_are_lost_as_they_are_taught() -> None:
    """An earlier copy in another window takes nothing away."""
    words = ["Rome", *["x", "y", "z"] * 40, "Rome"]
    long = Sentence.from_words(words, [(121, 122, "kind0")], id="s")
    assert lost_entities(domain(1), [long], ENCODER, CODEC, max_pieces=1024)[1] == {"earlier-copy": 1}
    assert lost_entities(domain(1), [long], ENCODER, CODEC, max_pieces=64) == ([], {})


def test_without_options_no_type_is_left_out_or_added() -> None:
    """The prompt could not say so."""
    backbone = CausalBackbone(tiny_causal(), byte_level_tokenizer())
    two, one = domain(2), Sentence.from_text("a b c d", [(0, 1, "kind0"), (4, 5, "kind1")])
    varied = Augmentation(drop=1.0, add=1.0, pool=domain(9).labels)
    losses = {}
    for options in (True, False):
        codec = CodecSettings(options=options)
        task = DomainTask(
            backbone, make_items(two, [one], ENCODER, Instructor(ENCODER, codec), 512), codec, TrainingSettings(),
            encoder=ENCODER, augmentation=varied, parameters={}, prefix=backbone.empty_prefix, score=lambda: None,
        )  # fmt: skip
        with torch.no_grad():
            losses[options] = {round(float(task.loss([0], random.Random(i))), 5) for i in range(8)}
    assert len(losses[True]) > 1
    assert len(losses[False]) == 1


@pytest.mark.parametrize("room", [0, 500])
def test_other_mentions_are_taken_only_where_the_backbone_holds_them(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    backbone = CausalBackbone(tiny_causal(), byte_level_tokenizer())
    one, short = domain(1), Sentence.from_text("a b c", [(0, 1, "kind0")])
    held = context(one) + 16 + 3 * 12 + room
    monkeypatch.setattr(backbone.model.config, "max_position_embeddings", held)
    other = ("many", "small", "words", "that", "are", "one", "long", "mention", "of", "this", "kind")
    task = DomainTask(
        backbone, make_items(one, [short], ENCODER, INSTRUCTOR, 512, max_tokens=held), CODEC, TrainingSettings(),
        encoder=ENCODER, augmentation=Augmentation(replace=1.0, mentions={one.name: {"kind0": (other,)}}),
        parameters={}, prefix=backbone.empty_prefix, score=lambda: None,
    )  # fmt: skip
    read: list[int] = []
    real = backbone.target_states

    def watched(sources: Any, targets: Any, prefix: Any, before: Any = None) -> Any:
        read.extend(before.length + len(s) + len(t) for s, t in zip(sources, targets, strict=True))
        return real(sources, targets, prefix, before)

    monkeypatch.setattr(backbone, "target_states", watched)
    task.loss([0], random.Random(0))
    (tokens,) = read
    assert tokens <= held
    whole = sum(map(len, ENCODER.words(Sentence.from_text(" ".join((*other, "b", "c"))))))
    assert (tokens > context(one) + 2 * whole) == (room > 0), "the long mention stands there where there is room"
