"""The examples run, and the README's Python too."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import xdner
from xdner.testing.models import save_tiny_backbone
from xdner.workflows import DomainFiles, JobOptions, example_folder, train_domain

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_backbone(tmp_path_factory.mktemp("tiny") / "backbone")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested_here() -> None:
    assert {p.stem for p in (ROOT / "examples").glob("*.py")} == {"train_and_predict", "mixed_domains"}


def test_train_and_predict(backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = load("train_and_predict").main(str(backbone), "epochs=1", "length=2")
    assert results[0].domain == "gardening"
    assert "dev F1" in capsys.readouterr().out


def test_mixed_domains(backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cooking", "gardening"):
        folder = example_folder(name)
        train_domain(
            name, DomainFiles(folder / "train.jsonl", domain=folder / "domain.toml", k_shot=8),
            JobOptions(tmp_path, overrides=["epochs=1", "length=2"]), backbone=backbone,
        )  # fmt: skip
    results = load("mixed_domains").main(str(tmp_path), str(backbone))
    assert [r.domain for r in results] == ["cooking", "gardening"]
    assert "gardening" in capsys.readouterr().out
    assert (tmp_path / "cooking" / "sample.json").exists()


def test_the_readmes_python_runs(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    folder = example_folder("cooking")
    for split in ("train", "dev"):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines[:10]) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    quick = xdner.Settings.build(overrides=["epochs=1", "length=2"])
    whole = xdner.CPNER.from_pretrained
    monkeypatch.setattr(xdner.CPNER, "from_pretrained", lambda: whole(backbone, settings=quick))
    exec(compile(code.group(1), "README.md", "exec"), {})
    assert (tmp_path / "my-domains" / "cooking" / "prefix.json").exists()


def test_the_readmes_tagger_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xdner.tagger.settings import LanerSettings
    from xdner.testing.taggers import TOWNS, save_letter_encoder

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "LANER" in block]
    folder = save_letter_encoder(tmp_path / "encoder")
    quick = LanerSettings.build(None, ["epochs=1", "label_size=4"])
    whole = xdner.LANER.from_pretrained
    monkeypatch.setattr(xdner.LANER, "from_pretrained", lambda name: whole(folder, settings=quick))
    names = {"domain": xdner.Domain.from_corpus("towns", TOWNS), "train": TOWNS, "dev": TOWNS}
    exec(compile(code, "README.md", "exec"), names)
    assert names["recognizer"].domains == ("towns",)  # type: ignore[attr-defined]


def test_the_readmes_many_domains_are_read(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "attach" in block]
    whole = xdner.CPNER.from_pretrained(backbone, settings=xdner.Settings.build(overrides=["length=2"]))
    library = xdner.Library(tmp_path / "my-domains")
    for name in ("cooking", "gardening"):
        whole.add_untrained(xdner.Domain.read(example_folder(name) / "domain.toml"))
        library.add(whole._entry(name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(xdner.CPNER, "from_pretrained", lambda: xdner.CPNER(whole.backbone))
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert [r.domain for r in names["results"]] == ["cooking", "gardening"]
    assert names["recognizer"].residents.made == 2
