"""The runs that are kept under version control: whole, of one recipe, and without a word of the corpora."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import quality

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
QUALITY = sorted((RESULTS / "quality").rglob("*.json"))


@pytest.mark.parametrize("path", QUALITY, ids=lambda p: f"{p.parent.parent.name}-{p.parent.name}-{p.stem}")
def test_a_run_says_what_it_is_and_quotes_no_sentence(path: Path) -> None:
    run = json.loads(path.read_text(encoding="utf-8"))
    assert path.relative_to(RESULTS / "quality").parts[:2] == (run["arm"], run["target"])
    assert path.stem == f"seed{run['seed']}-rate{run['rate']:g}"
    assert (run["error"], run["limit"]) == (None, None)
    assert run["dev"]["worst"] == []
    counts = run["dev"]["sentence_counts"]
    assert len(counts) == run["dev_sentences"]
    right, predicted, gold = (sum(column) for column in zip(*counts, strict=True))
    assert run["dev"]["micro"]["f1"] == pytest.approx(2 * right / (predicted + gold))


def test_the_runs_belong_together_and_make_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(QUALITY) > 3
    assert quality.main(["--table", "--out", str(RESULTS / "quality")]) == 0
    shown = capsys.readouterr().out
    assert "| science | prefix-instructed | 230,400 | 0.02 |" in shown
