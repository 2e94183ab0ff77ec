"""What continued pre-training refuses, before any work where it can, and that nothing is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import (
    AutoModelForCausalLM,
)

from xdner.errors import (
    BackboneError,
    BackboneNotFoundError,
    CorpusError,
    SettingsError,
    StorageError,
    TrainingError,
    XdnerError,
)
from xdner.testing.adapting import QUICK, run
from xdner.training.adapt_settings import AdaptationSettings
from xdner.workflows import JobOptions, adapt_backbone, adaptation


def test_bad_input_is_told_before_any_work(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n" * 50)
    (tmp_path / "empty.txt").write_bytes(b"")
    cases: list[tuple[type[XdnerError], str, dict]] = [
        (StorageError, "is there already", {"out": tmp_path / "there"}),
        (StorageError, "is there already", {"out": base["bare"]}),
        (CorpusError, "no such file", {"texts": [text, tmp_path / "none.txt"]}),
        (CorpusError, "not UTF-8", {"texts": [text, tmp_path / "latin.txt"]}),
        (CorpusError, "the file is empty", {"texts": [tmp_path / "empty.txt"]}),
        (TrainingError, "no text", {"texts": []}),
        (BackboneError, "unknown dtype", {"dtype": "int4"}),
        (BackboneError, "device", {"device": "nonsense"}),
        (BackboneNotFoundError, "no folder", {"backbone": tmp_path / "nowhere"}),
        (XdnerError, "adapt.share must be between 0 and 1", {"overrides": ["share=1.5"]}),
    ]
    for kind, message, options in cases:
        given = {"texts": [text], "out": tmp_path / "out", "backbone": base["bare"], "overrides": QUICK} | options
        texts, out, backbone = (given.pop(name) for name in ("texts", "out", "backbone"))
        with pytest.raises(kind, match=message) as caught:
            adapt_backbone(texts, out, JobOptions(**given), backbone=backbone)
        assert caught.value.hint
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "idle"),
    [
        ("causal", ["share=0.2", "span=4", "longest_span=4", "head_steps=4", "head_rate=0.1", "lora_rank=4"]),
        ("t5", ["longest_span=4", "head_steps=4", "head_rate=0.1", "lora_alpha=4"]),
        ("bare", ["lora_rank=4", "lora_alpha=4"]),
    ],
)
def test_what_says_nothing_to_a_kind_of_model_is_refused_before_it_is_loaded(
    base: dict[str, Path], text: Path, tmp_path: Path, kind: str, idle: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "adapt", lambda *_, **__: pytest.fail("it was begun"))
    names = {"causal": "a causal model", "t5": "a T5", "bare": "an encoder"}
    with pytest.raises(SettingsError) as caught:
        adapt_backbone([text], tmp_path / "out", JobOptions(overrides=[*QUICK, *idle]), backbone=base[kind])
    job = f"continued pre-training of all weights of {names[kind]}"
    assert caught.value.problems == [f"{job} makes no use of adapt.{one.partition('=')[0]}" for one in idle]
    # The other settings of the group are taken, as are defaults that a file names.
    others = {
        "share=0.2",
        "span=4",
        "longest_span=4",
        "head_steps=4",
        "head_rate=0.1",
        "block=64",
        "max_blocks=9",
        "held_out=9",
    }
    file = tmp_path / "all.toml"
    file.write_text(AdaptationSettings().to_toml())
    seen: list[AdaptationSettings] = []
    monkeypatch.setattr(adaptation, "adapt", lambda *_, settings, **__: seen.append(settings))
    taken = JobOptions(config=file, overrides=sorted(others - set(idle)))
    adapt_backbone([text], tmp_path / "out", taken, backbone=base[kind])
    assert seen[0].adapt.max_blocks == 9


def test_models_that_cannot_learn_from_text(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    for kind, token, message in [("bare", "mask_token", "no mask_token_id"), ("t5", "<extra_id_", "no sentinels")]:
        folder = tmp_path / kind
        shutil.copytree(base[kind], folder)
        names = ("tokenizer.json", "tokenizer_config.json")
        for name in names:
            config = json.loads((folder / name).read_text())
            config.pop("mask_token", None)
            if kind == "t5":
                config = json.loads(json.dumps(config).replace(token, "<other_id_"))
            (folder / name).write_text(json.dumps(config))
        with pytest.raises(BackboneError, match=message):
            adapt_backbone([text], tmp_path / "out", JobOptions(overrides=QUICK), backbone=folder)


def test_factors_want_one_file_of_weights(base: dict[str, Path], text: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = tmp_path / "parts"
    shutil.copytree(base["causal"], folder)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 1
    with pytest.raises(BackboneNotFoundError, match="several files"):
        run({"parts": folder}, "parts", text, tmp_path / "out", "adapt.weights=lora")
    run({"parts": folder}, "parts", text, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("model*")] == ["model.safetensors"]


def test_a_disk_that_is_full_when_the_backbone_is_written(
    base: dict[str, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    save = PreTrainedModel.save_pretrained
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    out = tmp_path / "out"
    with pytest.raises(StorageError, match="No space left"):
        run(base, "causal", text, out)
    assert not out.exists()
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)
    assert run(base, "causal", text, out, resume=True).folder == out, "nothing is trained again"
