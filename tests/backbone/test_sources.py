"""From a name to a folder: aliases, folders, the hub; and the fingerprint of what is found."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from xdner.backbone import aliases, tensors
from xdner.backbone.aliases import AdapterWeights, WheelWeights
from xdner.backbone.folders import kind_of
from xdner.backbone.load import load_backbone
from xdner.backbone.sources import DEFAULT_BACKBONE, resolve
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError, BackboneNotFoundError, StorageError
from xdner.testing.models import save_tiny_backbone


def make_folder(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


# -- the table ------------------------------------------------------------------------------------------------------


def test_the_table_is_pinned():
    table = aliases.aliases()
    assert {"smollm2-135m", "minilm-l6"} <= set(table)
    for name, alias in table.items():
        assert alias.name == name
        assert alias.license == "Apache-2.0"
        if isinstance(alias.weights, WheelWeights):
            assert alias.weights.files
            assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in alias.weights.files.values())
            assert alias.weights.requirements[0] == f"{alias.weights.package}=={alias.weights.version}"
            assert len(alias.weights.requirements) == max(1, len(alias.weights.pieces))
        else:
            assert alias.weights.base in table
    assert table["smollm2-135m"].kind == "causal"
    assert table["minilm-l6"].kind == table["mpnet-base"].kind == "encoder"


def test_the_default_is_the_instructed_one_exactly_where_its_factors_ship():
    ner = next(a for a in aliases._TABLE if a.name == "smollm2-135m-ner")
    assert isinstance(ner.weights, AdapterWeights)
    assert (DEFAULT_BACKBONE == "smollm2-135m-ner") == ner.weights.shipped == ("smollm2-135m-ner" in aliases.aliases())
    assert DEFAULT_BACKBONE in aliases.aliases()


def test_an_unknown_alias_gets_a_guess():
    with pytest.raises(BackboneNotFoundError, match="no embedded backbone 'smollm2-135'") as caught:
        aliases.find_alias("smollm2-135")
    assert "Did you mean smollm2-135m" in caught.value.hint


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDNER_CACHE", "~/somewhere")
    assert aliases.cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("XDNER_CACHE")
    assert aliases.cache_folder() == Path.home() / ".cache" / "xdner"


def test_an_alias_that_was_not_pulled_names_the_command(cache):
    with pytest.raises(BackboneNotFoundError, match="the backbone 'tiny' is not in the cache") as caught:
        resolve("tiny")
    assert caught.value.hint == "xdner backbones pull tiny"


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_found_and_named(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine")
    for name in (folder, str(folder)):
        found = resolve(name)
        assert (found.path, found.name, found.kind, found.origin) == (folder, "mine", "causal", "folder")
    (folder / "xdner-backbone.json").write_text('{"name": "instructed"}')
    assert resolve(folder).name == "instructed"
    monkeypatch.chdir(tmp_path)
    assert resolve("mine").origin == "folder"


def test_an_alias_goes_before_a_folder_of_that_name(cache, tmp_path, monkeypatch):
    make_folder(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneNotFoundError, match="not in the cache"):
        resolve("tiny")
    assert resolve("./tiny").origin == "folder"
    assert resolve(Path("tiny")).origin == "folder"


def test_folders_that_cannot_be_used_say_why(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(BackboneNotFoundError, match=r"has no config\.json"):
        resolve(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BackboneNotFoundError, match=r"has no model\.safetensors"):
        resolve(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BackboneNotFoundError, match=r"only pickled weights \(pytorch_model\.bin\)") as caught:
        resolve(folder)
    assert "save_pretrained" in caught.value.hint
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(BackboneError, match="is not a complete safetensors file") as caught:
        resolve(folder)
    assert "pointer" in caught.value.hint
    with pytest.raises(BackboneNotFoundError, match="is a file"):
        resolve(folder / "config.json")
    for name in ("./nowhere", "/no/such/folder", "a/b/c", "x" * 5000 + "/y/z", "a\0b", ""):
        with pytest.raises(BackboneNotFoundError) as caught:
            resolve(name if name else Path("nowhere"))
        assert DEFAULT_BACKBONE in caught.value.hint


def test_cut_off_weights_and_lost_parts_are_seen(tmp_path):
    folder = make_folder(tmp_path / "m")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(BackboneError, match="is not a complete safetensors file"):
        resolve(folder)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model-1.safetensors").write_bytes(data)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BackboneNotFoundError, match=r"lacks 1 of 2 parts of its weights: model-2\.safetensors"):
        resolve(folder)
    (folder / "model-2.safetensors").write_bytes(data)
    assert resolve(folder).kind == "causal"
    for weight_map in ([], None, {}, {"a": 1}, {"a": "../m/model-1.safetensors"}):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(BackboneError, match="does not say in which files weights are"):
            resolve(folder)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "seq2seq"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "seq2seq"),
        ({"model_type": "mt5"}, "seq2seq"),
        ({"model_type": "umt5"}, "seq2seq"),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "encoder"),
        ({"model_type": "bert", "is_decoder": True}, "causal"),
        ({"model_type": "brandnew", "architectures": ["BrandNewForMaskedLM"]}, "encoder"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "causal"),
        ({"model_type": "gemma3_text"}, "causal"),
        ({"model_type": "qwen3", "architectures": None}, "causal"),
        ({"model_type": "qwen3", "architectures": 5}, "causal"),
    ],
)
def test_the_kind_comes_from_the_configuration(tmp_path, config, kind):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert kind_of(tmp_path) == kind


def test_a_configuration_that_says_nothing_is_refused(tmp_path):
    for text, message in (("{}", "names no model_type"), ("[1]", "is not a JSON object"), ("{", "cannot be read")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BackboneError, match=message):
            kind_of(tmp_path)


# -- the hub --------------------------------------------------------------------------------------------------------


class Hub:
    """A hub that answers from a list, or with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cached: Path | None = None
        self.files: list[str] = []
        self.online: Path | None = None
        self.error: BaseException | None = None
        self.asked = 0
        self.wanted: dict[str, object] = {}
        hub = self

        class Api:
            def model_info(self, name: str, timeout: float) -> SimpleNamespace:
                hub.asked += 1
                if hub.error is not None:
                    raise hub.error
                assert timeout < 10
                return SimpleNamespace(siblings=[SimpleNamespace(rfilename=f) for f in hub.files])

        def snapshot_download(name: str, local_files_only: bool = False, **options: object) -> str:
            if local_files_only:
                if hub.cached is None:
                    raise FileNotFoundError("not in the cache")
                return str(hub.cached)
            hub.wanted = options
            return str(hub.online)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


def test_a_complete_local_copy_needs_no_hub(hub, tmp_path):
    hub.cached = make_folder(tmp_path / "snapshot", model_type="t5")
    found = resolve("owner/model")
    assert (found.path, found.name, found.kind, found.origin) == (hub.cached, "owner/model", "seq2seq", "hub")
    assert hub.asked == 0


def test_an_incomplete_local_copy_is_completed(hub, tmp_path):
    hub.cached = tmp_path / "part"
    hub.cached.mkdir()
    (hub.cached / "config.json").write_text('{"model_type": "llama"}')
    hub.online, hub.files = make_folder(tmp_path / "whole"), ["config.json", "model.safetensors"]
    assert resolve("owner/model").path == hub.online
    assert hub.asked == 1
    assert "*.safetensors" in hub.wanted["allow_patterns"]
    assert not any("bin" in p or p.endswith(".py") for p in hub.wanted["allow_patterns"])


def test_pickles_are_refused_before_they_are_downloaded(hub):
    hub.files = ["config.json", "pytorch_model.bin", "onnx/model.safetensors"]
    with pytest.raises(BackboneNotFoundError, match=r"has no safetensors weights, only pytorch_model\.bin"):
        resolve("owner/model")
    assert hub.wanted == {}


def response_error(kind: type) -> BaseException:
    error = kind.__new__(kind)
    Exception.__init__(error, "401 Client Error")
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConnectionError("Name or service not known"),
            r"the model hub cannot be reached \(Name or service not known\)",
        ),
        (TimeoutError(), r"the model hub cannot be reached \(TimeoutError\)"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (HFValidationError("bad"), "is no alias, no folder and no hub id"),
        (response_error(RepositoryNotFoundError), "the model hub knows no model"),
        (response_error(GatedRepoError), "is gated"),
    ],
)
def test_whatever_the_hub_says_is_one_clear_error(hub, error, text):
    hub.error = error
    with pytest.raises(BackboneNotFoundError, match=text) as caught:
        resolve("google-t5/t5-base")
    assert "'google-t5/t5-base'" in caught.value.message
    assert f"`xdner backbones pull {DEFAULT_BACKBONE}`" in caught.value.hint
    assert "a folder with config.json, model.safetensors and tokenizer.json" in caught.value.hint


def test_a_full_disk_is_not_called_an_unreachable_hub(hub):
    hub.error = OSError(28, "No space left on device")
    with pytest.raises(StorageError, match="No space left"):
        resolve("owner/model")


def test_offline_for_real_is_quick(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    here, waits = threading.get_ident(), list[str]()

    def watch(owner, name):
        call = getattr(owner, name)

        def noted(*given, **more):
            if threading.get_ident() == here:
                waits.append(name)
            return call(*given, **more)

        monkeypatch.setattr(owner, name, noted)

    # What would take time is the network, and a pause before it is asked again. Other threads may do both.
    for owner, name in ((socket, "getaddrinfo"), (socket.socket, "connect"), (time, "sleep")):
        watch(owner, name)
    with pytest.raises(BackboneNotFoundError, match="is no alias") as caught:
        resolve("no-such-owner/no-such-model-xyz")
    assert "HF_HUB_OFFLINE is set" in str(caught.value)
    assert waits == []


# -- the fingerprint ------------------------------------------------------------------------------------------------


def test_the_fingerprint_sees_names_types_shapes_and_bytes_and_nothing_else():
    state = {"a": torch.arange(6.0), "b": torch.ones(2, 3), "half": torch.ones(3, dtype=torch.bfloat16)}
    first = fingerprint(state)
    assert first.startswith("sha256:")
    assert len(first) == 7 + 64
    assert fingerprint(dict(reversed(state.items()))) == first
    assert fingerprint(state | {"b": torch.ones(3, 2).T}) == first
    assert fingerprint(state | {"b": torch.ones(2, 6)[:, ::2]}) == first
    for change in (
        {"a": torch.arange(6.0) + torch.tensor([0, 0, 0, 0, 0, 1e-6])},
        {"a": torch.arange(6)},
        {"a": torch.arange(6.0).view(2, 3)},
        {"half": torch.ones(3, dtype=torch.float16)},
        {"c": torch.zeros(0)},
    ):
        assert fingerprint(state | change) != first
    assert fingerprint({"x": state["a"], "b": state["b"], "half": state["half"]}) != first


def test_tied_tensors_count_under_each_name():
    tied = torch.randn(4, 4)
    assert fingerprint({"head": tied, "embedding": tied}) == fingerprint({"head": tied.clone(), "embedding": tied})
    assert fingerprint({"a": tied[0], "b": tied[1]}) != fingerprint({"a": tied[0], "b": tied[0]})
    assert fingerprint({"a": torch.zeros(0), "b": torch.zeros(0, 2)}) != fingerprint({"a": torch.zeros(0)})
    assert fingerprint({"a": torch.tensor(1.0)}) != fingerprint({"a": torch.tensor([1.0])})


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_chunks_do_not_hide_changes(sizes, seed):
    before = tensors._CHUNK
    tensors._CHUNK = 16
    try:
        generator = torch.Generator().manual_seed(seed)
        state = {f"t{i}": torch.randint(0, 255, (n,), generator=generator).byte() for i, n in enumerate(sizes)}
        first = fingerprint(state)
        assert fingerprint({k: v.clone() for k, v in state.items()}) == first
        for name, tensor in state.items():
            if len(tensor):
                changed = tensor.clone()
                changed[seed % len(tensor)] ^= 1
                assert fingerprint(state | {name: changed}) != first
    finally:
        tensors._CHUNK = before


def test_saving_to_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        tensors.save_tensors({"a": torch.zeros(1)}, tmp_path / "missing" / "model.safetensors")
    tensors.save_tensors({"a": torch.zeros(3, 2).T}, tmp_path / "model.safetensors")
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_python_that_a_folder_brings_is_never_run(monkeypatch, tmp_path):
    """Transformers would ask, and somebody may say yes."""
    folder = save_tiny_backbone(tmp_path / "model")
    (folder / "strange.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import LlamaConfig as Strange, LlamaForCausalLM as Model\n"
    )
    config = json.loads((folder / "config.json").read_text())
    added = {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "strange.Strange", "AutoModelForCausalLM": "strange.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config | added))
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(BackboneError):
        load_backbone(folder)
    assert not (tmp_path / "ran").exists()
