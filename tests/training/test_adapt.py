"""Continued pre-training of tiny models of the three kinds: what is asked, what is written, and resuming bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    ElectraConfig,
    ElectraModel,
)

from xdner.backbone import recompute
from xdner.backbone.load import load_backbone
from xdner.backbone.sources import resolve
from xdner.backbone.tensors import fingerprint
from xdner.errors import (
    TrainingError,
    XdnerError,
)
from xdner.settings import TrainingSettings
from xdner.testing.adapting import HEAD, KINDS, QUICK, run
from xdner.testing.encoders import word_piece_tokenizer
from xdner.training.adapt import TextTask, dealt
from xdner.training.adapt_settings import AdaptationSettings, AdaptSettings
from xdner.training.learners import EncoderLearner, load_learner
from xdner.training.progress import SilentProgress
from xdner.workflows import JobOptions, adapt_backbone


def load(kind: str, folder: Path) -> torch.nn.Module:
    if kind in ("causal", "t5"):
        return load_backbone(folder).model
    return (AutoModelForMaskedLM if kind == "whole" else AutoModel).from_pretrained(folder, local_files_only=True)


# -- what is asked -------------------------------------------------------------------------------------------------------

BLOCKS = [[5, 20, 40, 66, 9, 3, 11, 12, 30, 31], [7, 8, 40, 41, 3, 21, 22, 23]]


def learner(base: dict[str, Path], kind: str):
    return load_learner(resolve(base[kind]), AdaptSettings(block=32))


def test_the_causal_loss_is_the_models_own(base: dict[str, Path]) -> None:
    own = AutoModelForCausalLM.from_pretrained(base["causal"])
    total, count = learner(base, "causal").loss(BLOCKS, random.Random(0))
    wanted = sum(own(torch.tensor([b]), labels=torch.tensor([b])).loss.item() * (len(b) - 1) for b in BLOCKS)
    assert count == sum(len(b) - 1 for b in BLOCKS)
    assert float(total) == pytest.approx(wanted, rel=1e-4)


def test_the_loss_of_t5_is_the_models_own(base: dict[str, Path]) -> None:
    from xdner.training.masking import corrupt_spans

    own = AutoModelForSeq2SeqLM.from_pretrained(base["t5"])
    reader = learner(base, "t5")
    assert reader.tokenizer.convert_ids_to_tokens(reader._sentinels) == ["<extra_id_0>", "<extra_id_1>"]
    total, count = reader.loss(BLOCKS, random.Random(0))
    rng, wanted, asked = random.Random(0), 0.0, 0
    for block in BLOCKS:
        source, target = corrupt_spans(block, sentinels=reader._sentinels, share=0.15, span=3.0, rng=rng)
        ids, labels = torch.tensor([[*source, 1]]), torch.tensor([[*target, 1]])
        wanted += own(input_ids=ids, labels=labels).loss.item() * labels.shape[1]
        asked += labels.shape[1]
    assert count == asked
    assert float(total) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("kind", ["bare", "whole"])
def test_the_loss_of_an_encoder_does_not_know_its_padding(base: dict[str, Path], kind: str) -> None:
    reader = learner(base, kind)
    rng = random.Random(0)
    together, count = reader.loss(BLOCKS, rng)
    rng = random.Random(0)
    with torch.no_grad():
        apart = [reader.loss([block], rng) for block in BLOCKS]
    assert count == sum(n for _, n in apart) == 2  # 15 % of 9 and of 7 tokens
    assert together.item() == pytest.approx(float(sum(loss for loss, _ in apart)), rel=1e-5)


def test_an_output_layer_is_made_only_where_there_is_none(base: dict[str, Path]) -> None:
    bare, whole = learner(base, "bare"), learner(base, "whole")
    assert isinstance(bare, EncoderLearner)
    assert bare.output is not None
    assert whole.output is None
    assert not any("pooler" in name for name in bare.weights())
    assert not any(p is q for p in bare.output.parameters() for q in bare.model.parameters()), (
        "embeddings stay the encoder's"
    )
    bare.output.begin_with(torch.tensor([3.0] + [0.0] * 79))
    assert float(bare.output.bias.detach().exp().sum()) == pytest.approx(1.0)
    bare.output.alone = True
    bare.loss(BLOCKS, random.Random(0))[0].backward()
    assert bare.model.get_input_embeddings().weight.grad is not None, "as output weights; they are not trained now"
    assert bare.model.encoder.layer[0].output.dense.weight.grad is None


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 30), st.integers(0, 60), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_every_block_is_dealt_once(blocks: int, batch: int, held_out: int, most: int, seed: int) -> None:
    batches, apart = dealt(blocks, batch, held_out, most, seed)
    used = np.concatenate(batches).tolist()
    assert len(apart) == min(held_out, blocks // 20)
    assert len(used) == min(most or blocks, blocks - len(apart))
    assert len({*used, *apart.tolist()}) == len(used) + len(apart)
    assert {*used, *apart.tolist()} <= set(range(blocks))
    sizes = [len(b) for b in batches]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


# -- what is written -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_like_any_other(base: dict[str, Path], text: Path, tmp_path: Path, kind: str, weights: str) -> None:
    if weights == "lora":
        pytest.importorskip("peft")
    out = tmp_path / "adapted"
    # An output layer that is made knows at once how often each word comes: to learn more than that takes more steps.
    size, rate = (2, 1e-2) if kind == "bare" else (16, 1e-2 if weights == "lora" else 3e-3)
    how = (f"training.batch_size={size}", f"learning_rate={rate}", "epochs=8")
    made = run(base, kind, text, out, f"adapt.weights={weights}", *how)
    losses = made.facts["held_out_loss"]
    assert losses["after"] < losses["before"] - 0.05, "it has learned, on text that it did not see"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapted"], "nothing else is left"
    before, after = load(kind, base[kind]), load(kind, out)
    assert {n: (p.shape, p.dtype) for n, p in after.state_dict().items()} == {
        n: (p.shape, p.dtype) for n, p in before.state_dict().items()
    }
    assert fingerprint(after.state_dict()) != fingerprint(before.state_dict())
    assert resolve(out).kind == resolve(base[kind]).kind
    for name in ("config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (base[kind] / name).read_bytes()
    manifest = json.loads((out / "xdner-backbone.json").read_text())
    assert manifest["name"] == "adapted"
    assert manifest["base"]["fingerprint"] == fingerprint(before.state_dict())
    assert manifest["made"] == made.facts
    assert made.facts["text"]["files"][0]["lines"] == 120
    assert made.facts["blocks"]["trained"] + made.facts["blocks"]["held_out"] == pytest.approx(
        made.facts["text"]["tokens"] / made.facts["blocks"]["of"], abs=1
    )
    assert made.facts["steps"] == 8 * -(-made.facts["blocks"]["trained"] // size)
    assert ("made" in made.facts["output_layer"]) == (kind == "bare")
    if kind == "bare":
        assert torch.equal(after.pooler.dense.weight, before.pooler.dense.weight), "what is not used stays"


def test_weights_keep_the_type_that_they_were_stored_in(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(base["causal"], half)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    adapt_backbone([text], tmp_path / "out", JobOptions(overrides=QUICK), backbone=half)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16


def test_an_encoder_whose_file_has_no_pooler(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "poolerless"
    shutil.copytree(base["bare"], folder)
    AutoModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    quick = JobOptions(overrides=[*QUICK, *HEAD])
    first, second = (adapt_backbone([text], tmp_path / n, quick, backbone=folder) for n in "ab")
    assert first.facts == second.facts, "nothing that is drawn at loading counts"
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_an_adapted_backbone_still_knows_its_prompt(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "instructed"
    shutil.copytree(base["causal"], folder)
    recommended = {"codec": {"repeats": 1}}
    (folder / "xdner-backbone.json").write_text(json.dumps({"name": "x", "recommended": recommended}))
    adapt_backbone([text], tmp_path / "out", JobOptions(overrides=QUICK), backbone=folder)
    assert load_backbone(tmp_path / "out").recommended == recommended


def test_an_encoder_whose_word_embeddings_have_another_size(text: Path, tmp_path: Path) -> None:
    """ELECTRA's small one, ALBERT."""
    config = ElectraConfig(
        vocab_size=80, embedding_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64,
    )  # fmt: skip
    ElectraModel(config).save_pretrained(tmp_path / "electra")
    word_piece_tokenizer().save_pretrained(tmp_path / "electra")
    few = (*QUICK, *HEAD, "max_blocks=8")
    made = adapt_backbone([text], tmp_path / "out", JobOptions(overrides=few), backbone=tmp_path / "electra")
    assert made.facts["output_layer"] == "made for this run; not saved"
    assert AutoModel.from_pretrained(tmp_path / "out").config.embedding_size == 8


def test_blocks_may_be_limited_and_steps_counted(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    made = run(base, "causal", text, tmp_path / "out", "max_blocks=10", "training.batch_size=4", "epochs=2")
    assert (made.facts["blocks"]["trained"], made.facts["steps"]) == (10, 6)


# -- resuming ------------------------------------------------------------------------------------------------------------


class Killer(SilentProgress):
    """Kills the process at the n-th step in all."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, done: int, loss: float) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(work) -> bool:
    """Do the work in a process of its own; whether it was killed."""
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            work()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(base: dict[str, Path], text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    return {kind: run(base, kind, text, folder / kind / "out", "epochs=2").folder for kind in ("bare", "t5", "causal")}


@pytest.mark.parametrize(
    ("kind", "after"), [("bare", 2), ("bare", 5), ("bare", 8), ("bare", 10), ("bare", 14), ("t5", 1), ("t5", 7), ("causal", 8)]
)  # fmt: skip
def test_a_run_that_was_killed_ends_with_the_same_bits(
    base: dict[str, Path], text: Path, tmp_path: Path, undisturbed: dict[str, Path], kind: str, after: int
) -> None:
    out = tmp_path / "out"
    assert killed(lambda: run(base, kind, text, out, "epochs=2", progress=Killer(after)))
    assert not out.exists()
    run(base, kind, text, out, "epochs=2", resume=True)
    for path in undisturbed[kind].iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (tmp_path / "out-run").exists()


def test_what_cannot_be_resumed(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    for kind in ("bare", "causal"):
        with pytest.raises(TrainingError, match="there is no checkpoint"):
            run(base, kind, text, tmp_path / kind, resume=True)
    out = tmp_path / "out"
    assert killed(lambda: run(base, "bare", text, out, progress=Killer(10)))
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("north", "south"))
    with pytest.raises(TrainingError, match="belongs to another run"):
        run(base, "bare", other, out, resume=True)
    with pytest.raises(TrainingError, match="belongs to another run"):
        run(base, "bare", text, out, "share=0.3", resume=True)
    run(base, "bare", text, out)  # afresh


# -- what is told, and settings -----------------------------------------------------------------------------------------


def test_odd_text_is_counted(base: dict[str, Path], tmp_path: Path) -> None:
    class Notes(SilentProgress):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    path = tmp_path / "odd.txt"
    path.write_text("the sea " * 9000 + "\n" + "漢字 " * 3000 + "\n")
    notes = Notes()
    run(base, "bare", path, tmp_path / "out", "max_blocks=8", progress=notes)
    assert notes.notes[0] == "1 lines are longer than 65,536 characters; they were read in pieces"
    assert notes.notes[1].endswith("% of the tokens are unknown to the tokenizer: is this its language?")


def test_a_batch_in_which_nothing_can_be_asked_teaches_nothing(base: dict[str, Path]) -> None:
    """Unknown words are never hidden: there is nothing to tell them by."""
    reader = learner(base, "whole")
    unknown = [reader.tokenizer.unk_token_id] * 12
    store = SimpleNamespace(block=[unknown, BLOCKS[0]].__getitem__)
    batches = [np.array([0]), np.array([0, 1])]
    task = TextTask(reader, store, batches, reader.weights(), TrainingSettings())  # type: ignore[arg-type]
    nothing = task.loss([0], random.Random(0))
    nothing.backward()
    assert nothing.item() == 0
    assert not any(p.grad.any() for p in task.parameters().values() if p.grad is not None)
    assert task.loss([1], random.Random(0)).item() > 1


def test_settings_are_read_and_checked() -> None:
    assert AdaptationSettings.build(overrides=["adapt.weights=lora", "block=64"]).adapt == AdaptSettings(
        weights="lora", block=64
    )
    with pytest.raises(XdnerError) as caught:
        AdaptationSettings.build(
            overrides=["block=3", "adapt.weights=some", "head_rate=0", "held_out=-1", "span=0.5", "lora_rank=0"]
        )
    assert len(caught.value.problems) == 6


@pytest.mark.parametrize("kind", ["whole", "causal", "t5"])
def test_gradient_checkpointing_learns_the_same(
    base: dict[str, Path], text: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    checkpoint = recompute.checkpoint
    monkeypatch.setattr(recompute, "checkpoint", lambda *a, **k: (passes.append(True), checkpoint(*a, **k))[1])
    run(base, kind, text, tmp_path / "plain", "max_blocks=12")
    assert not passes
    run(base, kind, text, tmp_path / "again", "gradient_checkpointing=true", "max_blocks=12")
    assert passes
    plain, again = (load(kind, tmp_path / name).state_dict() for name in ("plain", "again"))
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, rtol=1e-3, atol=1e-4, msg=name)
