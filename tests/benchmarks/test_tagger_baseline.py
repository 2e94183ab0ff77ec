from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModel, PreTrainedTokenizerBase

from benchmarks.arms import Corpora
from benchmarks.tagger_baseline import SOURCES, Tagger, TaggerArm, TaggerTask, bio_entities, bio_tags, encode, tags_of
from xdner.errors import BackboneError
from xdner.text import Sentence
from xdner.training.progress import SilentProgress

ANN = Sentence.from_words(["Ann", "Lee", "in", "Rome"], [(0, 2, "person"), (3, 4, "place")])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_entities_come_back_from_their_tags(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    borders = sorted(data.draw(st.sets(st.integers(0, count))))
    spans = [(a, b, data.draw(st.sampled_from("xy"))) for a, b in pairwise(borders)]
    kept = [span for span in spans if data.draw(st.booleans())]
    sentence = Sentence.from_words(["w"] * count, kept)
    assert bio_entities(sentence, bio_tags(sentence)) == sentence.entities


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("I-x I-x O O", [("Ann Lee", "x")]),  # goes on with nothing
        ("B-x B-x O O", [("Ann", "x"), ("Lee", "x")]),
        ("B-x I-y I-y O", [("Ann", "x"), ("Lee in", "y")]),
        ("O O O B-x", [("Rome", "x")]),
    ],
)
def test_tags_that_were_predicted(tags: str, found: list[tuple[str, str]]) -> None:
    assert [(e.text, e.label) for e in bio_entities(ANN, tags.split())] == found


def test_a_span_inside_a_word_and_an_overlapping_one_have_no_tags() -> None:
    inside = Sentence.from_text("Annabel left", [(0, 3, "person")])
    assert bio_tags(inside) == ["O", "O"]
    nested = Sentence.from_words(["New", "York"], [(0, 2, "place"), (1, 2, "place")])
    assert bio_tags(nested) == ["B-place", "I-place"]


@given(st.lists(st.text(alphabet="ab~,Zé[]", min_size=1, max_size=20), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_hold_every_word_once(word_pieces: PreTrainedTokenizerBase, words: list[str]) -> None:
    windows = encode(Sentence.from_words(words), word_pieces, 8)
    assert sum(len(w.places) for w in windows) == len(words)
    for window in windows:
        assert len(window.ids) <= 8
        assert (window.ids[0], window.ids[-1]) == (word_pieces.cls_token_id, word_pieces.sep_token_id)
        assert list(window.places) == sorted(set(window.places))
        assert window.places[0] >= 1
        assert window.places[-1] < len(window.ids) - 1


def test_what_a_user_typed_is_no_special_token(word_pieces: PreTrainedTokenizerBase) -> None:
    (window,) = encode(Sentence.from_words(["[SEP]", "~", "ab"]), word_pieces, 16)
    special = {word_pieces.cls_token_id, word_pieces.sep_token_id}
    assert special.isdisjoint(window.ids[1:-1])
    # A word without any piece is unknown, and has a place all the same.
    assert window.ids[window.places[1]] == word_pieces.unk_token_id
    ab = word_pieces.convert_tokens_to_ids(["a", "##b"])
    assert list(window.ids[window.places[2] : -1]) == ab


def test_padding_does_not_change_the_scores(encoder: Path, word_pieces: PreTrainedTokenizerBase) -> None:
    tagger = Tagger(AutoModel.from_pretrained(encoder), ["O", "B-x", "I-x"], seed=1).eval()
    items = [*encode(ANN, word_pieces, 16), *encode(Sentence.from_words(["no"]), word_pieces, 16)]
    with torch.no_grad():
        together, alone = tagger(items), torch.cat([tagger([item]) for item in items])
    assert together.shape == (5, 3)
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_long_sentence_is_read_in_windows_and_put_together(
    encoder: Path, word_pieces: PreTrainedTokenizerBase
) -> None:
    sentence = Sentence.from_words(["ann"] * 20, [(0, 20, "x")])
    tagger = Tagger(AutoModel.from_pretrained(encoder), ["O", "B-x", "I-x"], seed=1)
    with torch.no_grad():
        tagger.head.bias.copy_(torch.tensor([0.0, 0.0, 100.0]))
    task = TaggerTask(tagger, word_pieces, [sentence], [sentence], 16)
    assert len(task.items) > 1
    assert [t for item in task.items for t in item.tags] == [1] + [2] * 19
    (found,) = task.found()
    assert found == sentence.entities  # I-x in every window: one entity over all of them
    assert task.evaluate() == 1.0


def test_rows_of_shared_tags_are_carried_over(encoder: Path) -> None:
    model = AutoModel.from_pretrained(encoder)
    old, new = Tagger(model, ["O", "B-x", "I-x"], seed=1), Tagger(model, ["O", "B-y", "B-x"], seed=2)
    before = new.head.weight.detach().clone()
    assert new.carry_over(old) == 2
    assert torch.equal(new.head.weight[0], old.head.weight[0])
    assert torch.equal(new.head.weight[2], old.head.weight[1])
    assert torch.equal(new.head.weight[1], before[1])


def test_the_arm_learns_the_sources_first_and_is_reproducible(data: Path, encoder: Path) -> None:
    corpora = Corpora(data)
    few = ("epochs=2", "training.batch_size=2")
    with_sources = TaggerArm(
        "minilm-sources", str(encoder), (1e-3,), corpora, sources=SOURCES, source_epochs=1, overrides=few
    )
    plain = TaggerArm("minilm", str(encoder), (1e-3,), corpora, overrides=few)
    target = corpora.target("ai")
    first, again, other = (arm.run(target, 1, 1e-3, SilentProgress()) for arm in (with_sources, with_sources, plain))
    assert [r["loss"] for r in first.history] == [r["loss"] for r in again.history]
    assert [r["loss"] for r in first.history] != [r["loss"] for r in other.history]
    assert [s["sentences"] for s in first.facts["sources"]] == [2, 1, 1, 1]
    assert other.facts["sources"] == []
    assert len(first.report["sentence_counts"]) == 3
    assert [row[2] for row in first.report["sentence_counts"]] == [2, 1, 0]  # gold entities
    assert first.facts["backbone"] == other.facts["backbone"]
    assert first.facts["settings"]["training"]["learning_rate"] == 1e-3
    assert (first.facts["epochs_run"], first.facts["settings"]["training"]["patience"]) == (2, 0)


def test_a_tagger_learns_what_can_be_learned(encoder: Path, data: Path) -> None:
    arm = TaggerArm("minilm", str(encoder), (3e-2,), Corpora(data), overrides=("epochs=60", "training.batch_size=3"))
    assert arm.run(Corpora(data).target("ai"), 1, 3e-2, SilentProgress()).report["micro"]["f1"] == 1.0


def test_a_language_model_is_no_encoder(backbone: Path, data: Path) -> None:
    arm = TaggerArm("minilm", str(backbone), (1e-3,), Corpora(data))
    with pytest.raises(BackboneError, match="is a causal model; the tagger needs an encoder"):
        arm.run(Corpora(data).target("ai"), 1, 1e-3, SilentProgress())


def test_tags_of_several_domains(data: Path) -> None:
    corpora = Corpora(data)
    tags = tags_of([corpora.target("ai"), corpora.source("music", 600)])
    assert tags == ["O", "B-band", "I-band", "B-person", "I-person", "B-place", "I-place"]
