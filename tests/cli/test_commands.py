"""The commands on a tiny random backbone: what they print, where they print it, and how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xdner.workflows
from xdner.errors import StorageError
from xdner.library.store import Library
from xdner.testing.commands import interrupted, refused, run
from xdner.testing.models import save_tiny_backbone
from xdner.testing.places import PLACES
from xdner.workflows import example_folder

QUICK = ["--set", "epochs=1", "--set", "length=3", "--set", "training.batch_size=4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.txt").write_text(PLACES["towns"] * 2)
    (folder / "dev.txt").write_text("Eve\tB-person\nin\tO\nOslo\tB-city\n")
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, backbone: str, files: Path) -> Path:
    folder = tmp_path_factory.mktemp("library")
    args = ["--train", str(files / "train.txt"), "--dev", str(files / "dev.txt"), "--backbone", backbone]
    result = run("train", "towns", *args, "--library", str(folder), *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["domain"] == "towns"
    assert made["dev_f1"] is not None
    assert made["settings"]["training"]["epochs"] == 1
    return folder


def test_predict_gives_clean_json_or_highlighted_text(library: Path) -> None:
    args = ["--domain", "towns", "--library", str(library)]
    result = run("predict", "Ann in Rome", "Bob", *args, "--json")
    assert result.exit_code == 0, result.stderr
    read = json.loads(result.stdout)
    assert [r["text"] for r in read] == ["Ann in Rome", "Bob"]
    for entity in read[0]["entities"]:
        assert "Ann in Rome"[entity["start"] : entity["end"]] == entity["text"]
    shown = run("predict", "Ann in Rome", *args)
    for entity in read[0]["entities"]:
        assert f"⟨{entity['label']}⟩" in shown.stdout


def test_predict_reads_files_and_odd_texts(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("Ann\n\nBob \x1b[31m in Oslo\n", encoding="utf-8")
    result = run("predict", "--file", str(path), "--domain", "towns", "--library", str(library))
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert len(result.stdout.strip().splitlines()) == 2
    path.write_bytes("Ann\r\n\r\nक्‍ष in Oslo\r\n".encode())
    args = ["--file", str(path), "--domain", "towns", "--library", str(library)]
    texts = [result["text"] for result in json.loads(run("predict", *args, "--json").stdout)]
    assert texts == ["Ann", "क्‍ष in Oslo"], "line ends are no part of the texts"
    assert "‍" in run("predict", *args).stdout, "a joiner is part of the letter"
    path.write_bytes(b"caf\xe9\n")
    assert "texts.txt:1: not UTF-8 (byte 0xe9)" in refused(
        "predict", "--file", str(path), "--domain", "towns", "--library", str(library)
    ).replace(str(tmp_path) + "/", "")


def test_evaluate_as_table_and_json(library: Path, files: Path) -> None:
    args = ["--domain", "towns", "--data", str(files / "dev.txt"), "--library", str(library)]
    report = json.loads(run("evaluate", *args, "--json").stdout)
    assert report["micro"]["gold"] == 2
    assert report["interval"]["samples"] == 1000
    table = run("evaluate", *args)
    assert table.exit_code == 0
    assert "note:" not in table.stderr
    strange = files / "strange.txt"
    strange.write_text("Ann\tB-planet\nsings\tO\n")
    told = run("evaluate", "--domain", "towns", "--data", str(strange), "--library", str(library)).stderr
    assert "gold entities of types that the domain does not have: 1" in told
    nested = files / "nested.jsonl"
    nested.write_text('{"text": "Ann of Rome", "spans": [[0, 11, "city"], [7, 11, "city"]]}\n')
    told = run("evaluate", "--domain", "towns", "--data", str(nested), "--library", str(library)).stderr
    assert "nested or overlapping spans (the longest was kept): 1" in told
    assert "micro" in table.stdout


@pytest.mark.usefixtures("nothing_ships")
def test_domains_are_listed_shown_and_removed(library: Path, tmp_path: Path) -> None:
    copy = tmp_path / "library"
    subprocess.run(["cp", "-r", str(library), str(copy)], check=True)
    listed = json.loads(run("domains", "list", "--library", str(copy), "--json").stdout)
    assert [d["name"] for d in listed] == ["towns"]
    assert listed[0]["labels"] == ["city", "person"]
    assert "towns" in run("domains", "list", "--library", str(copy)).stdout
    assert "read as" in run("domains", "show", "towns", "--library", str(copy)).stdout
    assert run("domains", "remove", "towns", "--library", str(copy), "--yes").exit_code == 0
    assert not (copy / "towns").exists()
    assert "no domain 'towns'" in refused("domains", "show", "towns", "--library", str(copy))


def test_mistakes_give_one_error_with_the_next_step(library: Path, files: Path, backbone: str, tmp_path: Path) -> None:
    train = ["--train", str(files / "train.txt"), "--library", str(tmp_path)]
    assert "did you mean 'training.epochs'" in refused("train", "x", *train, "--set", "epoch=3")
    assert "the device 'warp'" in refused("train", "x", *train, "--backbone", backbone, "--device", "warp")
    assert "unknown dtype 'int3'" in refused("train", "x", *train, "--backbone", backbone, "--dtype", "int3")
    assert "Groups and keys" in refused("train", "x", *train, "--set", "epoch=3")
    assert len(misspelt := refused("train", "x", *train, "--set", "epoch=3")) < 300, misspelt
    assert "The groups: codec, prefix, training" in misspelt
    assert "Correct these values" in refused("train", "x", *train, "--set", "epochs=-3")
    assert "such as 'my-domain'" in refused("train", "bad name", *train)
    assert "ambiguous" in refused("train", "x", *train, "--set", "batch_size=3")
    assert "smollm2-135m" in refused("train", "x", *train, "--backbone", str(tmp_path / "nothing"))
    assert "there is no such file" in refused("train", "x", "--train", str(tmp_path / "none.txt"))
    (tmp_path / "prose.txt").write_text("once upon a time\n")
    assert "--format on the command line" in refused("train", "x", "--train", str(tmp_path / "prose.txt"))
    (tmp_path / "empty.txt").write_text("")
    assert "empty.txt" in refused("train", "x", "--train", str(tmp_path / "empty.txt"))
    (tmp_path / "plain.txt").write_text("only\tO\nwords\tO\n")
    assert "has no entities" in refused("train", "x", "--train", str(tmp_path / "plain.txt"))
    assert "no domain 'nope'" in refused("predict", "x", "--domain", "nope", "--library", str(library))
    assert "no text to read" in refused("predict", "--domain", "towns", "--library", str(library))
    assert "not one word" in refused("train", "bad/name", *train, "--backbone", backbone)
    assert "there is no example domain 'nothing'" in refused("demo", "--domain", "nothing")
    assert "cooking has 70 training sentences" in refused("demo", "--labelled", "1000")


@pytest.mark.parametrize("command", ["inspect", "domains remove", "backbones pull", "train", ""])
def test_help_gives_flags_no_type(command: str) -> None:
    shown = run(*command.split(), "--help").stdout
    assert "--help" in shown
    assert "bool" not in shown.lower()


def test_the_demonstration_has_a_library_of_its_own(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = xdner.workflows.train_domain

    def watched(*args, **kwargs):
        seen.append(args[2])
        return real(*args, **kwargs)

    monkeypatch.setattr("xdner.workflows.train_domain", watched)
    monkeypatch.setattr("xdner.cli.demo.DEMO_SETTINGS", ("epochs=1", "length=2"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDNER_LIBRARY", raising=False)
    small = ["demo", "--backbone", backbone, "--labelled", "3", "--sentences", "1"]
    result = run(*small)
    assert result.exit_code == 0, result.stderr
    (home,) = (tmp_path / "temporary").iterdir()
    assert f"next: xdner predict --domain cooking --library {home}" in result.stderr
    assert Library(home).names() == ["cooking"]
    assert not (tmp_path / "xdner-library").exists()
    assert "--resume" not in seen[0].run(tmp_path).hint
    assert "begins anew" in seen[0].run(tmp_path).hint
    said = refused(*small, "--library", str(home))
    assert "has a domain 'cooking' already" in said
    assert len(seen) == 1, "nothing was trained"


@pytest.mark.parametrize("failing", ["xdner.backbone.pull.pull", "xdner.workflows.train_domain"])
def test_a_demonstration_that_fails_leaves_nothing_behind(
    failing: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("XDNER_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("XDNER_LIBRARY", raising=False)

    def fails(*_: object, **__: object) -> None:
        seen.append(list(temporary.iterdir()))
        raise StorageError("the disk is full", hint="Make room.")

    seen: list[list[Path]] = []
    monkeypatch.setattr(failing, fails)
    weights = [] if "pull" in failing else ["--backbone", backbone]
    assert "the disk is full" in refused("demo", "--labelled", "3", *weights)
    assert len(seen) == 1
    assert list(temporary.iterdir()) == []


def test_a_bug_is_told_without_a_traceback_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("something [odd]")

    monkeypatch.setattr("xdner.library.store.Library.names", broken)
    monkeypatch.delenv("XDNER_DEBUG", raising=False)
    result = run("domains", "list", "--library", str(tmp_path))
    assert result.exit_code == 70
    assert "RuntimeError: something [odd]" in result.stderr
    assert "XDNER_DEBUG=1" in result.stderr
    monkeypatch.setenv("XDNER_DEBUG", "1")
    assert isinstance(run("domains", "list", "--library", str(tmp_path)).exception, RuntimeError)


def test_another_backbone_is_refused(library: Path, tmp_path: Path) -> None:
    other = save_tiny_backbone(tmp_path / "other", "qwen3")
    message = refused("predict", "x", "--domain", "towns", "--library", str(library), "--backbone", str(other))
    assert "fingerprint" in message


def test_a_damaged_prefix_is_refused(library: Path, tmp_path: Path) -> None:
    copy = tmp_path / "library"
    subprocess.run(["cp", "-r", str(library), str(copy)], check=True)
    path = copy / "towns" / "prefix.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "truncated or was altered" in refused("predict", "x", "--domain", "towns", "--library", str(copy))


def test_a_t5_folder_trains_too(files: Path, tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "t5", "t5")
    args = ["--train", str(files / "train.txt"), "--backbone", str(folder), "--library", str(tmp_path / "library")]
    result = run("train", "towns", *args, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert run("predict", "Ann", "--domain", "towns", "--library", str(tmp_path / "library")).exit_code == 0


def test_instruct_makes_a_backbone_with_its_own_fingerprint(files: Path, backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    out, nested = tmp_path / "instructed", tmp_path / "titles.jsonl"
    nested.write_text('{"text": "Ann of Rome", "spans": [[0, 11, "title"], [7, 11, "city"]]}\n')
    result = run(
        "instruct", "--source", str(files / "train.txt"), "--source", str(nested), "--backbone", backbone,
        "--out", str(out), "--set", "epochs=1", "--set", "rank=2", "--set", "repeats=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "nested or overlapping spans (the longest was kept) (1)" in " ".join(result.stderr.split())
    manifest = json.loads((out / "xdner-backbone.json").read_text())
    assert manifest["recommended"]["codec"]["repeats"] == 1
    args = ["--train", str(files / "train.txt"), "--backbone", str(out), "--library", str(tmp_path / "library")]
    trained = json.loads(run("train", "towns", *args, *QUICK, "--json").stdout)
    assert trained["settings"]["codec"]["repeats"] == 1, "the backbone knows its prompt"
    show = json.loads(run("domains", "show", "towns", "--library", str(tmp_path / "library"), "--json").stdout)
    assert show["fingerprint"] != manifest["base"]["fingerprint"]


def test_ctrl_c_saves_and_resuming_ends_as_if_nothing_had_happened(files: Path, backbone: str, tmp_path: Path) -> None:
    long = ["--set", "epochs=60", "--set", "length=3", "--set", "training.batch_size=1", "--set", "checkpoint_every=7"]
    base = ["train", "towns", "--train", str(files / "train.txt"), "--backbone", backbone, *long]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*base, "--library", str(tmp_path / "one")]
    errors = interrupted(*command, step=10)
    assert "--resume" in errors
    checkpoint = json.loads((tmp_path / "one" / ".runs" / "towns" / "checkpoint" / "state.json").read_text())
    assert checkpoint["position"]["step"] == 10, "and 7 is the last that is saved in any case"
    assert not (tmp_path / "one" / "towns").exists()
    for rest in ([*command, "--resume"], [*base, "--library", str(tmp_path / "two")]):
        subprocess.run([sys.executable, "-m", "xdner", *rest], check=True, env=environment, capture_output=True)
    resumed, whole = (tmp_path / n / "towns" / "prefix.safetensors" for n in ("one", "two"))
    assert resumed.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "one" / ".runs" / "towns").exists()


def test_a_domain_that_is_being_trained_is_left_alone(files: Path, backbone: str, tmp_path: Path) -> None:
    from xdner.training.run import Run

    args = [
        "train",
        "towns",
        "--train",
        str(files / "train.txt"),
        "--backbone",
        backbone,
        *QUICK,
        "--library",
        str(tmp_path),
    ]
    with Run(tmp_path / ".runs" / "towns").claimed():
        result = run(*args)
        assert result.exit_code == 1
        assert f"another process is training in {tmp_path / '.runs' / 'towns'}" in result.stderr
        assert "→ Wait until it has ended, or choose another name." in result.stderr
    assert run(*args).exit_code == 0
    assert not (tmp_path / ".runs" / "towns").exists()


def test_bundled_examples_are_whole() -> None:
    from xdner.corpora import find_leaks, read_corpus
    from xdner.domain import Domain

    for name in ("cooking", "gardening", "operations"):
        folder = example_folder(name)
        domain = Domain.read(folder / "domain.toml")
        splits = {s: read_corpus(folder / f"{s}.jsonl") for s in ("train", "dev", "test")}
        assert len(splits["train"]) >= 60
        assert len(splits["test"]) >= 40
        assert domain.name == name
        for corpus in splits.values():
            assert set(corpus.labels) == set(domain.label_names)
            assert not corpus.warnings
            assert all(s.word_span(e) for s in corpus for e in s.entities)
        assert not find_leaks(splits["train"], splits["test"])
        assert not find_leaks(splits["train"], splits["dev"])
        benchmark_types = {"person", "location", "organisation", "misc", "dish", "cuisine", "song", "product", "task"}
        assert not benchmark_types & set(domain.label_names)
