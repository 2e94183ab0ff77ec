"""IF-WRANER: a tuned model, its adapter, and the folders of its domains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from xdner.backbone.causal import CausalBackbone
from xdner.backbone.load import load_backbone
from xdner.backbone.lora import Adapter, merge_adapter
from xdner.domain import Domain
from xdner.errors import (
    BackboneError,
    BackboneMismatchError,
    BackboneNotFoundError,
    LibraryError,
    TrainingError,
)
from xdner.generation.local import LocalModel
from xdner.library.examples_entry import ExamplesEntry
from xdner.recognizers.if_wraner import IFWRANER
from xdner.testing.examples import EXAMPLES, PEOPLE, TEMPLATE, TEXTS, people_recognizer, quick, shared_words
from xdner.testing.models import save_tiny_backbone, tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.training.prompt_task import PromptTask
from xdner.training.sources import LabelledSource


def test_a_tuned_domain_is_saved_and_loaded_whole(llm: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    tuned.save("people", tmp_path / "people")
    other = people_recognizer(llm)
    assert other.load(tmp_path / "people") == "people"
    assert other.adapter == tuned.adapter
    before, after = tuned.predict(TEXTS), other.predict(TEXTS)
    assert [r.to_dict() for r in before] == [r.to_dict() for r in after]
    entry = ExamplesEntry.load(tmp_path / "people")
    assert entry.seen
    assert entry.template == TEMPLATE
    assert [s.text for s in entry.examples] == list(dict.fromkeys(s.text for s in EXAMPLES))
    untuned = people_recognizer(llm)
    untuned.add_domain(Domain.from_labels("x", ["y"]))
    with pytest.raises(BackboneMismatchError, match="an adapter, not this recognizer's model"):
        untuned.load(tmp_path / "people")
    elsewhere = IFWRANER(
        LocalModel(CausalBackbone(tiny_causal(seed=9), byte_level_tokenizer()), quick()), template=TEMPLATE
    )
    with pytest.raises(BackboneMismatchError, match="was made for the language model"):
        elsewhere.load(tmp_path / "people")


def test_a_folder_that_was_altered_is_refused(llm: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    tuned.save("people", tmp_path / "people")
    path = tmp_path / "people" / "examples.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Ann", "Eva"), encoding="utf-8")
    with pytest.raises(LibraryError, match="altered"):
        people_recognizer(llm).load(tmp_path / "people")


def test_adapters_are_peft_folders_both_ways(llm: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    assert tuned.adapter is not None
    tuned.adapter.write(tmp_path / "ours")
    ids = torch.tensor([[5, 9, 40, 77]])
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llm), tmp_path / "ours").eval()
    merged = AutoModelForCausalLM.from_pretrained(llm)
    plain = merged(ids).logits.detach()
    merge_adapter(merged, Adapter.load(tmp_path / "ours"))
    assert (merged(ids).logits - plain).abs().max() > 1e-3
    torch.testing.assert_close(theirs(ids).logits, merged(ids).logits, atol=1e-4, rtol=1e-4)
    # And one that peft made.
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(llm), LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(tmp_path / "theirs")
    recognizer = people_recognizer(llm, adapter=tmp_path / "theirs")
    assert isinstance(recognizer.llm, LocalModel)
    stock = made.merge_and_unload().state_dict()
    for name, tensor in recognizer.llm.backbone.model.state_dict().items():
        torch.testing.assert_close(tensor, stock[name], atol=1e-6, rtol=1e-5)


def test_adapters_that_do_not_fit(llm: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    assert tuned.adapter is not None
    model = load_backbone(llm).model
    with pytest.raises(BackboneMismatchError, match="cannot be read"):
        merge_adapter(model, replace(tuned.adapter, factors=tuned.adapter.factors[:-9]))
    with pytest.raises(BackboneMismatchError, match="not plain LoRA: use_dora"):
        merge_adapter(
            model,
            replace(tuned.adapter, config=tuned.adapter.config.replace(b'"use_dora": false', b'"use_dora": true')),
        )
    with pytest.raises(BackboneMismatchError, match="do not fit"):
        merge_adapter(tiny_t5(), tuned.adapter)
    with pytest.raises(BackboneNotFoundError, match=r"adapter_config\.json"):
        people_recognizer(llm, adapter=tmp_path)


def test_an_adapter_of_another_model_of_the_same_shape_is_refused(llm: Path, tuned: IFWRANER, tmp_path: Path) -> None:
    assert tuned.adapter is not None
    tuned.adapter.write(tmp_path / "adapter")
    other = save_tiny_backbone(tmp_path / "other", seed=5)
    with pytest.raises(BackboneMismatchError, match=r"trained on other weights .*than those of other"):
        people_recognizer(other, adapter=tmp_path / "adapter")
    assert people_recognizer(llm, adapter=tmp_path / "adapter").adapter == tuned.adapter
    # One that does not say so, as peft writes it, is taken.
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    foreign = people_recognizer(other, adapter=tmp_path / "adapter").adapter
    assert foreign is not None
    assert (foreign.base, foreign.base_name) == ("", "llm")


def test_an_adapter_names_the_weights_as_they_were_before(folk: LabelledSource) -> None:
    """Also where nobody asked for their fingerprint before they were tuned."""
    own, fresh = (CausalBackbone(tiny_causal(), byte_level_tokenizer()) for _ in range(2))
    how = quick("epochs=1")
    made = IFWRANER(LocalModel(own, how), settings=how, template=TEMPLATE, retriever=shared_words).tune([folk])
    assert made.adapter.base == fresh.fingerprint


@pytest.mark.parametrize(
    "broken", [b"", b"\x09", b"\x02" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7 + b"[]", b"\xff" * 99]
)
def test_what_is_no_adapter_names_no_base(broken: bytes) -> None:
    assert (Adapter(broken, broken).base, Adapter(broken, broken).base_name) == ("", "")


def test_tuning_helps_with_a_new_domain_of_the_same_kind(llm: Path, folk: LabelledSource) -> None:
    raw = people_recognizer(llm)
    raw.add_domain(PEOPLE, EXAMPLES)
    before = raw.evaluate(EXAMPLES).micro.f1
    made = people_recognizer(llm, "epochs=25", "duplicate=0", "shuffle=0")
    result = made.tune([folk], dev=(PEOPLE, EXAMPLES, EXAMPLES[:6])).result
    assert result.history[-1].dev is not None
    made.add_domain(PEOPLE, EXAMPLES)
    assert made.evaluate(EXAMPLES).micro.f1 > before + 0.3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_a_tuning_that_is_stopped_leaves_no_contexts(
    llm: Path, folk: LabelledSource, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """Those that dev was read with knew of factors that the model has not got any more."""
    made, fresh, losses, own = people_recognizer(llm), people_recognizer(llm), [0], PromptTask.loss

    def stopping(*arguments: Any) -> Any:
        losses[0] += 1
        if losses[0] == 6:  # after an epoch
            raise stop
        return own(*arguments)

    monkeypatch.setattr(PromptTask, "loss", stopping)
    with pytest.raises((stop, TrainingError)):
        made.tune([folk], dev=(PEOPLE, EXAMPLES, EXAMPLES[:6]))
    assert made.adapter is None
    for recognizer in (made, fresh):
        recognizer.add_domain(PEOPLE, EXAMPLES)
    assert [r.to_dict() for r in made.predict(TEXTS)] == [r.to_dict() for r in fresh.predict(TEXTS)]


def test_a_model_is_tuned_once_and_only_here(llm: Path, tuned: IFWRANER, folk: LabelledSource) -> None:
    with pytest.raises(TrainingError, match="tuned once"):
        tuned.tune([folk])
    with pytest.raises(TrainingError, match="was tuned already"):
        tuned.adopt(tuned.adapter)  # type: ignore[arg-type]
    fresh = people_recognizer(llm)
    fresh.add_domain(PEOPLE)
    with pytest.raises(TrainingError, match="has domains"):
        fresh.adopt(tuned.adapter)  # type: ignore[arg-type]
    remote = IFWRANER.from_pretrained("http://127.0.0.1:9/v1", model="m")
    with pytest.raises(BackboneError, match="cannot be tuned here"):
        remote.tune([folk])
