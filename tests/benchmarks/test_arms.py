from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.arms import Corpora, LanguageModelArm, Tuned, resolved
from xdner.backbone.base import Extent, Prompts
from xdner.backbone.load import load_backbone
from xdner.errors import SettingsError
from xdner.settings import Settings
from xdner.text import Sentence
from xdner.training.progress import SilentProgress
from xdner.training.sources import limited

SHORT = ("epochs=2", "training.batch_size=2", "length=3", "evaluate_from=1")


def arm(what: Literal["prefix", "lora", "full"], backbone: Path, **options: str) -> LanguageModelArm:
    return LanguageModelArm(f"{what}-raw", what, str(backbone), (1e-3,), SHORT, **options)


@pytest.mark.parametrize("what", ["prefix", "lora", "full"])
def test_arms_run_from_end_to_end_and_again_the_same(
    what: Literal["prefix", "lora", "full"], backbone: Path, data: Path
) -> None:
    target = Corpora(data).target("ai")
    first, again = (arm(what, backbone).run(target, 1, 1e-3, SilentProgress()) for _ in range(2))
    assert first.history[0]["loss"] == again.history[0]["loss"]  # each run begins with the weights on disk
    assert first.report["sentence_counts"] == again.report["sentence_counts"]
    assert first.report["sentences"] == len(first.report["sentence_counts"]) == 3
    assert [row[2] for row in first.report["sentence_counts"]] == [2, 1, 0]
    assert first.facts["epochs_run"] == len(first.history) == 2
    assert first.history[first.facts["best_epoch"] - 1]["dev"] == max(r["dev"] for r in first.history)
    assert first.facts["settings"]["training"]["learning_rate"] == 1e-3
    assert first.facts["labels"] == ["person", "place"]
    assert first.seconds["total"] >= first.seconds["training"] > 0
    model = load_backbone(str(backbone))
    assert first.facts["backbone"] == {"name": model.name, "fingerprint": model.fingerprint}
    expected = {
        "prefix": 2 * sum(s.heads * 3 * s.head_dim for s in model.geometry.sites),
        "full": sum(p.numel() for p in model.model.parameters()),
        "lora": sum(
            16 * (m.in_features + m.out_features)
            for m in model.model.modules()
            if isinstance(m, torch.nn.Linear) and m is not model.model.get_output_embeddings()
        ),
    }
    assert first.facts["trained_weights"] == expected[what]


def test_weights_that_are_trained_are_in_32_bits(backbone: Path, data: Path) -> None:
    target = Corpora(data, limit=1).target("ai")
    assert arm("full", backbone, dtype="bfloat16").run(target, 1, 1e-3, SilentProgress()).facts["dtype"] == "float32"
    assert arm("lora", backbone, dtype="bfloat16").run(target, 1, 1e-3, SilentProgress()).facts["dtype"] == "bfloat16"


def test_without_a_prefix_the_reader_reads_as_the_stock_model(backbone: Path, data: Path) -> None:
    model, target = load_backbone(str(backbone)), Corpora(data).target("ai")
    tuned = Tuned(model, target, Settings(), {})
    empty = model.empty_prefix()
    with torch.inference_mode():
        steered = tuned.reader.steer(
            target.domain, Settings().codec, [k[0] for k in empty.keys], [v[0] for v in empty.values]
        )
        ids = [*steered.instructor.context(target.domain), *steered.instructor.source(((40,), (41, 42)))]
        stock = AutoModelForCausalLM.from_pretrained(backbone)(input_ids=torch.tensor([ids])).logits[0, -1]
        source = ids[steered.steering.context.length :]
        session = model.begin(Extent(1, 0, len(ids), len(source), len(ids) + 4, 4))
        ours = model.logits(session.admit(Prompts([source], empty, [steered.steering.context])))[0]
    assert torch.allclose(ours, stock, atol=1e-4)


def test_the_context_is_read_with_the_weights_as_they_are(backbone: Path, data: Path) -> None:
    model, target = load_backbone(str(backbone)), Corpora(data).target("ai")
    tuned = Tuned(model, target, Settings(), {})
    before = tuned.read(target.dev)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(-1.5)
    after = Tuned(model, target, Settings(), {}).read(target.dev)
    assert tuned.read(target.dev) == after
    assert after != before


def test_without_dev_there_is_no_score(backbone: Path, data: Path) -> None:
    target = Corpora(data).source("music", 0)
    assert Tuned(load_backbone(str(backbone)), target, Settings(), {}).score() is None


def test_rates_and_seeds_cannot_be_set() -> None:
    with pytest.raises(
        SettingsError, match=r"'learning_rate=1' cannot be set.*'training.seed=2' cannot be set"
    ) as caught:
        resolved((), ("learning_rate=1", "training.seed=2", "epochs=3"), 1, 0.1)
    assert caught.value.hint == "Use --seeds and --rates."
    made = resolved(("training.epochs=15",), ("epochs=3",), 7, 1e-05)
    assert (made.training.epochs, made.training.seed, made.training.learning_rate) == (3, 7, 1e-05)


def test_corpora_have_the_types_of_whole_files_and_the_first_sentences(data: Path) -> None:
    whole, few = Corpora(data).target("ai"), Corpora(data, limit=1).target("ai")
    assert (len(whole.train), len(whole.dev)) == (3, 3)
    assert few.train == whole.train[:1]
    assert few.dev == whole.dev[:1]
    assert few.domain == whole.domain
    assert few.data == whole.data
    assert set(whole.data) == {"ai/train.txt", "ai/dev.txt"}
    assert len(Corpora(data).source("conll2003", 1).train) == 1
    assert Corpora(data, limit=1).source("conll2003", 0).train == Corpora(data).source("conll2003", 0).train[:1]


def test_sources_are_the_sample_of_instruction_tuning(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    text = "\n\n".join(f"w{i}\tB-x" for i in range(50))
    (tmp_path / "many" / "train.txt").write_text(text + "\n")
    drawn = Corpora(tmp_path).source("many", 10).train
    sentences = [Sentence.from_words([f"w{i}"]) for i in range(50)]
    assert [s.text for s in drawn] == [s.text for s in limited(sentences, 10)]
