"""Tables, comparisons and figures of transfer: hand-made files of runs give exact numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import write_json
from benchmarks.transfer import report
from benchmarks.transfer.comparison import Results, load, mean_difference
from benchmarks.transfer.figures import _deviation, _style
from benchmarks.transfer.report import draw, markdown
from benchmarks.transfer.specs import Condition
from xdner.errors import DataError
from xdner.evaluation import seed_summary

Make = Callable[..., dict[str, Any]]
EIGHT = [[1, 1, 1]] * 8 + [[0, 1, 1]] * 2  # F1 0.8
SIX = [[1, 1, 1]] * 6 + [[0, 1, 1]] * 4  # 0.6
FIVE = [[1, 1, 1]] * 5 + [[0, 1, 1]] * 5  # 0.5


def cells(text: str, first: str) -> list[str]:
    scores = text.split("## What the selector")[0].split("## Seconds")[0]
    (line,) = (line for line in scores.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_deviations_and_the_best_in_bold(made_run: Make) -> None:
    runs = [made_run("none", s, c) for s, c in ((1, SIX), (2, FIVE))]
    runs += [made_run("collaborative", s, c) for s, c in ((1, EIGHT), (2, SIX))]
    runs += [made_run("single-music", 1, FIVE), made_run("single-politics", 1, EIGHT)]
    runs += [made_run(m, 1, SIX, target="science") for m in ("none", "collaborative", "single-music")]
    text = markdown(runs)
    assert cells(text, "strategy") == ["strategy", "ai", "science", "mean of ai, science"]
    assert cells(text, "none") == ["none", "55.00 ± 7.07", "**60.00**", "60.00"]
    # The mean over targets is over the seeds that all of them have.
    assert cells(text, "collaborative") == ["collaborative", "70.00 ± 14.14", "**60.00**", "**70.00**"]
    assert cells(text, "single, the best") == ["single, the best", "**80.00**", "**60.00**", "**70.00**"]
    assert "flatters it: ai: politics, science: music." in text
    assert cells(text, "single: politics") == ["single: politics", "**80.00**", "–", "–"]
    assert "chain" not in text.split("## Collaborative")[0]


def test_the_comparison_is_over_the_seeds_that_both_have(made_run: Make) -> None:
    none = [made_run("none", s, SIX, target=t) for s in (1, 2, 3) for t in ("ai", "science")]
    both = [made_run("collaborative", s, EIGHT, target=t) for s in (1, 2) for t in ("ai", "science")]
    lines = [line for line in markdown([*none, *both]).splitlines() if "| collaborative | none |" in line]
    assert len(lines) == 3
    assert all("| +20.00 | [" in line and line.endswith("| 1, 2 |") for line in lines)
    assert lines[2].startswith("| mean of ai, science |")
    # Two targets say more than one.
    widths = [
        found.high - found.low
        for pairs in ([("ai", "ai")], [("ai", "ai"), ("science", "science")])
        if (found := mean_difference([
            (Results(both).get(Condition(t, None), "collaborative"), Results(none).get(Condition(t, None), "none"))
            for t, _ in pairs
        ]))
    ]  # fmt: skip
    assert widths[1] < widths[0]
    assert mean_difference([({}, {})]) is None


def test_a_sweep_shows_the_seeds_that_all_its_points_have(made_run: Make, tmp_path: Path) -> None:
    runs = [made_run("collaborative", s, c) for s, c in ((1, EIGHT), (2, SIX), (3, FIVE))]
    runs += [made_run("collaborative-alpha0", s, c, alpha=0.0) for s, c in ((1, SIX), (3, SIX))]
    text = markdown(runs)
    assert cells(text, "0") == ["0", "60.00 ± 0.00"]
    assert cells(text, "0.5") == ["0.5", "**65.00 ± 21.21**"]  # of 0.8 and 0.5
    assert "ai: over seeds 1, 3, which all rows have." in text.splitlines()
    assert cells(text, "collaborative") == ["collaborative", "**63.33 ± 15.28**"]  # table 2 has all there are
    # Where no seed is in all rows, none is left out.
    other = [*runs[:2], made_run("collaborative-alpha0", 3, SIX, alpha=0.0)]
    assert cells(markdown(other), "0.5") == ["0.5", "**70.00 ± 14.14**"]
    assert "which all rows have" not in markdown(other)
    assert {path.name for path in draw(runs, tmp_path)} == {"alpha.png"}


def test_the_mean_of_one_target_twice_is_that_target(made_run: Make) -> None:
    a, b = ({s: made_run("x", s, c) for s in (1, 2)} for c in (EIGHT, SIX))
    one, two = mean_difference([(a, b)]), mean_difference([(a, b), (a, b)])
    assert one is not None
    assert two is not None
    assert (one.delta, two.delta) == (pytest.approx(0.2), pytest.approx(0.2))
    assert one.p_value > two.p_value
    assert 0 < two.low < 0.2 < two.high < one.high


@pytest.mark.parametrize("count", [7, 11, 27])
def test_ties_of_a_mean_count_as_large(made_run: Make, count: int) -> None:
    """Of two targets, b misses one sentence each: every number of draws of that sentence can be counted out."""
    whole, less = [[1, 1, 1]] * count, [[1, 1, 1]] * (count - 1) + [[0, 0, 1]]
    a, b = ({1: made_run("x", 1, counts)} for counts in (whole, less))
    found = mean_difference([(a, b), (a, b)])
    assert found is not None
    deltas = [1 - 2 * (count - k) / (2 * count - k) for k in range(count + 1)]
    chances = [math.comb(count, k) * (1 / count) ** k * (1 - 1 / count) ** (count - k) for k in range(count + 1)]
    as_large = sum(
        p * q
        for d, p in zip(deltas, chances, strict=True)
        for e, q in zip(deltas, chances, strict=True)
        if abs((d + e) / 2 - deltas[1]) >= deltas[1] - 1e-9
    )
    assert found.p_value == pytest.approx(as_large, abs=0.02)


def test_captions_tell_what_was_seen(made_run: Make) -> None:
    own = made_run("none", 1, SIX, track="instructed")
    text = markdown([own])
    assert "has seen the sources conll2003, politics, music, literature" in text
    assert "so `none` has seen them too" in text
    assert "training sentences of the targets" not in text
    known = made_run("none", 1, SIX, track="instructed", target="music")
    single = made_run("single-conll2003", 1, SIX, track="instructed", target="music")
    assert "It has also seen the training sentences of the targets music." in markdown([known, single])
    shared = made_run("none", 1, SIX, initial="shared")
    assert "δ₀ was trained on all of a target's sources together" in markdown([shared])
    trial = made_run("none", 1, SIX)
    trial["asked"] = trial["asked"] | {"limit": 8}
    assert "A trial: the first 8 sentences of each file only." in markdown([trial])


def test_a_domain_has_its_price_and_its_sources_their_weights(made_run: Make) -> None:
    def chosen(first: float, effective: float) -> dict[str, Any]:
        of = zip(("conll2003", "music"), (first, 1 - first), strict=True)
        return {"sources": [{"name": n, "weight": w} for n, w in of], "effective_sources": effective}

    runs = [made_run("none", seed, SIX) for seed in (1, 2)]
    spent = {"target": 100.0, "reading": 2.0, "sources": {"initial": 20.0, "conll2003": 600.0, "music": 60.0}}
    runs += [made_run("collaborative", seed, EIGHT, seconds=spent, selection=chosen(first, 2 * first))
             for seed, first in ((1, 0.7), (2, 0.9))]  # fmt: skip
    failed = {"dev": None, "error": "diverged", "seconds": {}, "selection": None}
    # Another target takes another time, and is not to be mixed with this one.
    text = markdown([*runs, made_run("none", 3, SIX) | failed, made_run("none", 1, SIX, target="mit-movie", k=10)])
    assert "| strategy | ai | mit-movie 10 | δ₀ and sources, once |" in text
    assert "| none | 90 | 60 | 0 |" in text
    assert "| collaborative | 100 | – | 680 |" in text
    assert "| target | conll2003 | politics | literature | music | effective number |" in text
    assert "| ai | 0.80 | 0.00 | 0.00 | 0.20 | 1.60 |" in text


def test_colors_marks_and_strokes_tell_lines_apart() -> None:
    assert len({tuple(_style(which).values()) for which in range(24)}) == 24


def test_one_seed_has_no_error_bar() -> None:
    """A bar of no length would say that seeds do not matter."""
    assert math.isnan(_deviation(seed_summary([0.5])))
    assert _deviation(seed_summary([0.5, 0.5])) == 0.0


def test_figures_from_json(made_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for seed, counts in ((1, EIGHT), (2, SIX)):
        for k in (10, 20):
            runs += [made_run(m, seed, counts, target="mit-movie", k=k) for m in ("none", "collaborative", "chain")]
        runs.append(made_run("collaborative-alpha1", seed, counts, target="mit-movie", k=10, alpha=1.0))
        runs.append(made_run("collaborative-of-conll2003-politics", seed, counts, target="mit-movie", k=10))
    drawn: dict[str, Any] = {}
    keep = report.draw_lines
    monkeypatch.setattr(report, "draw_lines", lambda panels, path, **how: drawn.setdefault(path.name, (panels, how)) and
                        keep(panels, path, **how))  # fmt: skip
    paths = list(draw(runs, tmp_path))
    assert [p.name for p in paths] == ["alpha.png", "sources.png", "k.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    (line,) = drawn["alpha.png"][0][0].lines
    assert [(x, round(s.mean, 6)) for x, s in line.points] == [(0.5, 0.7), (1.0, 0.7)]
    assert drawn["sources.png"][1]["ticks"] == [0, 2, 4]
    assert "conll2003, politics, literature, music" in drawn["sources.png"][1]["across"]
    (panel,) = drawn["k.png"][0]
    assert [line.name for line in panel.lines] == ["none", "chain", "collaborative"]


def test_runs_of_different_kinds_are_not_put_into_one_table(made_run: Make, tmp_path: Path) -> None:
    def write(name: str, run: dict[str, Any]) -> None:
        write_json(tmp_path / "ai" / "all" / name / "seed1.json", run)

    with pytest.raises(DataError, match="there are no runs in"):
        load(tmp_path)
    write("a", made_run("none", 1, SIX))
    assert len(load(tmp_path)) == 1
    other = made_run("none", 1, SIX)
    write("b", other | {"asked": other["asked"] | {"steps": 9}})
    with pytest.raises(DataError, match="do not belong together: steps is 200 and 9"):
        load(tmp_path)
    write("b", made_run("none", 1, SIX, backbone={"name": "tiny", "fingerprint": "00"}))
    with pytest.raises(DataError, match="the backbones' weights differ"):
        load(tmp_path)
    write("b", made_run("none", 1, SIX, data={"ai/train.txt": "bb"}))
    with pytest.raises(DataError, match=r"was made from another ai/train\.txt than other runs"):
        load(tmp_path)
    write("b", made_run("none", 1, SIX, dev_ids=["other:1"]))
    with pytest.raises(DataError, match="was scored on other dev sentences than other runs on ai"):
        load(tmp_path)
