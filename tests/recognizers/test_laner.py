"""LANER on tiny random encoders: it learns, reads texts of any length in any batch, and takes encoders of several kinds."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.encoder import load_encoder
from xdner.domain import Domain
from xdner.errors import (
    BackboneError,
    SettingsError,
    UnknownDomainError,
)
from xdner.recognizers.base import Request
from xdner.recognizers.laner import LANER
from xdner.recognizers.laner_training import LanerTraining
from xdner.testing.models import save_tiny_backbone
from xdner.testing.taggers import SEAS, TOWNS, quick, save_letter_encoder
from xdner.text import Sentence
from xdner.training.sources import LabelledSource
from xdner.training.tagger_task import TaggerTask

DOMAIN = Domain.from_corpus("towns", TOWNS)
SOURCE = LabelledSource(Domain.from_corpus("seas", SEAS), SEAS)


def found(recognizer: LANER, *texts: str | Sentence, **options: Any) -> list[list[tuple[str, str]]]:
    return [[(e.text, e.label) for e in r.entities] for r in recognizer.predict(list(texts), **options)]


@pytest.mark.parametrize(
    "variant", [(), ("history=forward",), ("head=crf",), ("head=plain",), ("new_rows=name", "word_shape=true")], ids=str
)
def test_a_tiny_tagger_learns_what_can_be_learned(letters: Path, variant: tuple[str, ...]) -> None:
    recognizer = LANER.from_pretrained(letters, settings=quick("epochs=60", "evaluate_from=60", *variant))
    made = recognizer.train(DOMAIN, TOWNS, TOWNS, sources=[SOURCE])
    assert made.result.best_dev == 1.0
    assert recognizer.evaluate(TOWNS, beam=3).micro.f1 == 1.0
    assert [name for name, _ in made.run.phases] == ["source", "target"]
    (result,) = recognizer.predict("Ann Lee in Rome")
    assert all(e.score is not None and 0 < e.score <= 1.0001 for e in result.entities)


def test_one_text_or_many_in_any_batch(trained: LANER) -> None:
    texts = [s.text for s in TOWNS] * 2
    together = trained.predict(texts)
    alone = [trained.predict(t, domain="towns")[0] for t in texts]
    assert [[e.key for e in r.entities] for r in together] == [[e.key for e in r.entities] for r in alone]
    for one, other in zip(together, alone, strict=True):
        for a, b in zip(one.entities, other.entities, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)
    for beam in (0, -1, 10**6):
        with pytest.raises(SettingsError, match=r"tagger\.beam must be"):
            trained.predict(texts, beam=beam)
    counts: list[int] = []
    trained.predict([*texts, ""], done=counts.append)
    assert counts[-1] == len(texts)
    assert trained.predict("  ")[0].entities == ()


def test_domains_in_one_batch_each_have_their_own_tagger(letters: Path, trained: LANER) -> None:
    both = LANER.from_pretrained(letters, settings=quick())
    both.train(SOURCE.domain, SEAS)
    alone = found(both, "Ann saw Baltic")
    both.add(trained._entry("towns"))
    results = both.recognize([Request("Ann Lee", "towns"), Request("Ann saw Baltic", "seas"), Request("Rome", "towns")])
    assert [r.domain for r in results] == ["towns", "seas", "towns"]
    assert [(e.text, e.label) for e in results[1].entities] == alone[0]
    assert [e.text for e in results[2].entities] == ["Rome"]
    with pytest.raises(UnknownDomainError, match="which domain"):
        both.predict("Rome")
    with pytest.raises(UnknownDomainError, match="no domain 'nope'"):
        both.predict("Rome", domain="nope")


def test_a_sentence_longer_than_the_positions_is_read_in_windows(tmp_path: Path) -> None:
    small = save_letter_encoder(tmp_path / "small", positions=16)
    recognizer = LANER.from_pretrained(small, settings=quick("epochs=60", "evaluate_from=60", "overlap=2", "window=8"))
    long = Sentence.from_words(["no", "one", "Rome"] * 12, [(i, i + 1, "city") for i in range(2, 36, 3)])
    recognizer.train(DOMAIN, [*TOWNS, long], TOWNS)
    (result,) = recognizer.predict(long)
    assert result.windows > 4
    assert [e.key for e in result.entities] == [e.key for e in long.entities]  # nothing dropped, nothing twice
    (cut,) = recognizer.predict("x" * 100)
    assert cut.diagnostics == {"capped_words": 1}


def test_dev_can_be_sampled(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []

    class Looked(TaggerTask):
        def evaluate(self) -> float | None:
            scored.append(len(self.dev))
            return super().evaluate()

    monkeypatch.setattr("xdner.recognizers.laner_training.TaggerTask", Looked)
    made = LANER.from_pretrained(letters, settings=quick("dev_limit=2")).train(DOMAIN, TOWNS, TOWNS)
    assert scored == [2, 2]
    assert made.entry.notes["dev_sentences"] == len(TOWNS)


# -- encoders -------------------------------------------------------------------------------------------------------------


def test_models_that_are_no_encoder_for_a_tagger(tmp_path: Path, letters: Path) -> None:
    with pytest.raises(BackboneError, match="is a causal model; the tagger needs an encoder"):
        LANER.from_pretrained(save_tiny_backbone(tmp_path / "causal"))
    slow = tmp_path / "slow"
    shutil.copytree(letters, slow)
    for path in slow.glob("token*"):
        path.unlink()
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    with pytest.raises(BackboneError, match=r"CanineTokenizer\) is not a fast one"):
        LANER.from_pretrained(slow)
    with pytest.raises(BackboneError, match="the device 'warp'"):
        LANER.from_pretrained(letters, device="warp")


def test_positions_of_a_model_that_counts_from_its_padding(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    from xdner.testing.taggers import letter_tokenizer

    config = RobertaConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    letter_tokenizer().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert encoder.positions == 18
    made = LANER(encoder, settings=quick("epochs=1", "window=64"))
    made.train(DOMAIN, TOWNS)
    assert made.predict(" ".join(["abc"] * 40))[0].windows > 1


def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less(
    letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for on in (False, True):
        made = LANER.from_pretrained(letters, settings=quick())
        training = LanerTraining(made.encoder, DOMAIN, TOWNS, TOWNS, quick())
        network = training._network(made.encoder.fresh(), DOMAIN.label_names, None)
        task = TaggerTask(network, training.pieces, TOWNS, (), recompute=on)
        kept: list[torch.Tensor] = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            loss = task.loss([0, 1], random.Random(0))
        loss.backward()
        found.append(({n: p.grad for n, p in task.parameters().items()}, len(kept)))
    (plain, all_kept), (again, less) = found
    assert less < all_kept
    asked: list[bool] = []
    whole = TaggerTask.__init__
    monkeypatch.setattr(TaggerTask, "__init__", lambda *a, **k: (asked.append(k["recompute"]), whole(*a, **k))[1])
    LANER.from_pretrained(letters, settings=quick("epochs=1", "gradient_checkpointing=true")).train(DOMAIN, TOWNS)
    assert asked == [True]
    assert any(gradient is not None for name, gradient in plain.items() if name.startswith("encoder."))
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
