from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from xdner.errors import PrefixFormatError, PrefixMismatchError, StorageError
from xdner.geometry import PrefixGeometry, SiteShape
from xdner.prefix.parametrization import DirectParametrization, MLPParametrization
from xdner.prefix.prefix import Prefix

GEOMETRY = PrefixGeometry((SiteShape("self.0", 2, 4), SiteShape("self.1", 3, 8)))


def tensors(length: int = 3, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> tuple[torch.Tensor, ...]:
        return tuple(torch.randn(s.heads, length, s.head_dim, generator=generator) for s in GEOMETRY.sites)

    return draw(), draw()


def make(**rest: object) -> Prefix:
    keys, values = tensors()
    fields: dict = {"backbone": "sha256:abc", "initial": "sha256:0", "notes": {"domain": "x"}} | rest
    return Prefix(GEOMETRY, keys, values, **fields)


def test_saved_and_loaded_it_is_the_same_in_sixteen_bits(tmp_path: Path) -> None:
    prefix = make().rounded()
    prefix.save(tmp_path)
    again = Prefix.load(tmp_path)
    assert again.hash() == prefix.hash()
    assert (again.geometry, again.backbone, again.initial) == (prefix.geometry, "sha256:abc", "sha256:0")
    assert again.notes == {"domain": "x"}
    assert again.length == 3
    numbers = 2 * 3 * (2 * 4 + 3 * 8)  # keys and values of 3 places, at two sites
    assert (tmp_path / "prefix.safetensors").stat().st_size < 2 * numbers + 1000
    assert json.loads((tmp_path / "prefix.json").read_text())["sites"] == [["self.0", 2, 4], ["self.1", 3, 8]]


def test_rounding_is_what_storing_does(tmp_path: Path) -> None:
    prefix = make()
    prefix.save(tmp_path)
    assert Prefix.load(tmp_path).hash() == prefix.rounded().hash() != prefix.hash()


def test_another_backbone_is_refused_and_both_are_named() -> None:
    prefix = make(notes={"backbone_name": "smollm2-135m-ner"})
    prefix.check("sha256:abc", GEOMETRY)
    with pytest.raises(PrefixMismatchError, match=r"sha256:abc.*sha256:other") as caught:
        prefix.check("sha256:other", GEOMETRY, "raw")
    assert "smollm2-135m-ner" in str(caught.value.hint)
    with pytest.raises(PrefixMismatchError, match="2 sites of"):
        prefix.check("sha256:abc", PrefixGeometry(GEOMETRY.sites[:1]))


def test_wrong_shapes_are_refused() -> None:
    keys, values = tensors()
    with pytest.raises(PrefixMismatchError, match=r"value at self.1 has shape \(3, 3, 7\), expected \(3, 3, 8\)"):
        Prefix(GEOMETRY, keys, (values[0], values[1][..., :7]), "b")
    with pytest.raises(PrefixMismatchError, match="2 sites came with 1 keys"):
        Prefix(GEOMETRY, keys[:1], values, "b")
    named = make().tensors()
    named["self.9.key"] = named.pop("self.1.key")
    with pytest.raises(PrefixMismatchError, match=r"missing self.1.key.*left over self.9.key"):
        Prefix.from_tensors(GEOMETRY, named, backbone="b")


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "garbage"])
def test_a_damaged_tensor_file_is_refused(tmp_path: Path, damage: str) -> None:
    make().save(tmp_path)
    path = tmp_path / "prefix.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-10])
    elif damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "garbage":
        path.write_bytes(b"hello")
    else:
        path.unlink()
    with pytest.raises(PrefixFormatError) as caught:
        Prefix.load(tmp_path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: "not json", "not a prefix's manifest"),
        (lambda m: [], "lacks format"),
        (lambda m: {**m, "format": 99}, "format 99"),
        (lambda m: {k: v for k, v in m.items() if k != "backbone"}, "lacks backbone"),
        (lambda m: {**m, "sites": [["x", 1]]}, "broken entries in 'sites'"),
        (lambda m: {**m, "sites": [["x", 1, "y"]]}, "broken entries in 'sites'"),
        (lambda m: {**m, "file": {}}, "lacks the file's hash"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, change, text: str) -> None:
    make().save(tmp_path)
    path = tmp_path / "prefix.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(PrefixFormatError, match=text):
        Prefix.load(tmp_path)


def test_a_missing_folder_says_what_a_prefix_is(tmp_path: Path) -> None:
    with pytest.raises(PrefixFormatError, match="there is no") as caught:
        Prefix.load(tmp_path / "nothing")
    assert "xdner train" in str(caught.value.hint)


def test_values_that_sixteen_bits_cannot_hold_are_refused(tmp_path: Path) -> None:
    keys, values = tensors()
    huge = Prefix(GEOMETRY, (keys[0] * 1e6, keys[1]), values, "b")
    with pytest.raises(PrefixFormatError, match=r"self.0.key.*16 bits"):
        huge.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError):
        make().save(blocked / "below")


@pytest.mark.parametrize("kind", ["direct", "mlp"])
def test_a_parametrization_begins_at_the_initial_prefix_and_collapses(kind: str) -> None:
    keys, values = tensors()
    made = (
        DirectParametrization(GEOMETRY, keys, values)
        if kind == "direct"
        else MLPParametrization(GEOMETRY, keys, values, hidden=5, seed=1)
    )
    for got, wanted in zip((*made()[0], *made()[1]), (*keys, *values), strict=True):
        assert torch.equal(got, wanted)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    sum(t.pow(2).sum() for part in made() for t in part).backward()
    optimizer.step()
    moved, _ = made.collapse()
    assert not torch.equal(moved[0], keys[0])
    assert not any(t.requires_grad for t in moved)
    Prefix(GEOMETRY, *made.collapse(), "b")


def test_a_parametrization_refuses_another_shape() -> None:
    keys, values = tensors()
    with pytest.raises(PrefixMismatchError, match=r"at self.1"):
        DirectParametrization(GEOMETRY, keys, (values[0], values[1][:2]))
