"""A server under load: the program on a tiny random model, over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import serving
from xdner.library.store import Library
from xdner.recognizers.cp_ner import CPNER
from xdner.testing.known_domains import DATA, settings


def test_all_callers_are_answered_and_the_table_says_how_fast(
    data: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library(tmp_path / "library")
    recognizer = CPNER.from_pretrained(backbone, settings=settings("epochs=1"))
    for name in ("people", "seas"):
        library.add(recognizer.train(*DATA[name]).entry)
    asked = [
        "--library", str(library.folder), "--domains", "people", "seas", "--callers", "1", "3", "--rounds", "2",
        "--query-domains", "ai", "science", "--data", str(data), "--out", str(tmp_path / "out"), "--sentences", "4",
    ]  # fmt: skip
    assert serving.main(asked) == 0
    first = capsys.readouterr()
    run = json.loads((tmp_path / "out" / "serving.json").read_text())
    assert {count: len(of) for count, of in run["callers"].items()} == {"1": 2, "3": 2}
    for of in run["callers"].values():
        assert all(one["rate"] > 0 and 0 < one["median"] <= one["late"] for one in of)
    assert run["sentences"] == 4
    assert "\n| 3 | " in first.out
    assert "Domains, in turn: people, seas; float32, cpu." in first.out
    assert serving.main(["--table", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == first.out
    assert serving.main([*asked, "--domains", "people", "rivers"]) == 1
    assert "no domain 'rivers'" in capsys.readouterr().err
    assert serving.main([*asked, "--domains", "rivers"]) == 1
    assert "the server did not start: error: there is no domain 'rivers'" in capsys.readouterr().err
