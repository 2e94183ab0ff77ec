from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import record
from xdner.errors import DataError


def test_what_a_measurement_says_about_itself() -> None:
    said = record.circumstances()
    assert set(said) == {"date", "commit", "machine", "versions"}
    assert re.fullmatch(r"unknown|[0-9a-f]{12}(\+changes)?", said["commit"])
    assert said["machine"]["cores"] >= 1
    assert {"python", "xdner", "torch", "transformers"} <= set(said["versions"])


def test_a_measurement_says_how_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    said = record.machine()
    assert (said["OMP_WAIT_POLICY"], said["GOMP_SPINCOUNT"]) == ("PASSIVE", None)


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.commit() == "unknown"


def test_json_comes_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run.json"
    record.write_json(path, {"f1": 0.1, "text": "é"})
    assert record.read_json(path) == {"f1": 0.1, "text": "é"}
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize("value", [{"a": 1, "é": [{"b": None}, "x\ny"]}, {}, {1: 2}, [1, {"a": 2}], "é"])
def test_an_object_has_a_line_for_each_key(tmp_path: Path, value: object) -> None:
    record.write_json(tmp_path / "run.json", value)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(value))
    assert len(text.splitlines()) == (len(value) + 2 if isinstance(value, dict) and value else 1)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"run\.json.*\n  → Remove the file and run the measurement again\."):
        record.read_json(path)


def test_every_program_is_in_the_table_of_programs() -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    programs = {path.name for path in folder.glob("*.py") if 'if __name__ == "__main__":' in path.read_text("utf-8")}
    assert len(programs) > 10
    listed = re.findall(r"^\| `(\w+\.py)` \|", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(programs)
