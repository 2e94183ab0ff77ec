"""Hand-made files of runs give exact numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import write_json
from benchmarks.tables import compared, load_runs, markdown, rows_of
from xdner.errors import DataError

Make = Callable[..., dict[str, Any]]

# Right, predicted, gold of ten sentences: F1 = 2 × right / (predicted + gold).
EIGHT = [[1, 1, 1]] * 8 + [[0, 1, 1]] * 2  # 0.8
SIX = [[1, 1, 1]] * 6 + [[0, 1, 1]] * 4  # 0.6
FIVE = [[1, 1, 1]] * 5 + [[0, 1, 1]] * 5  # 0.5


def cell(text: str, arm: str, column: int) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| ai | {arm}"))
    return line.split("|")[column].strip()


def test_mean_deviation_and_interval(hand_made: Make) -> None:
    runs = [hand_made("full-raw", seed, counts) for seed, counts in ((1, EIGHT), (2, SIX), (3, FIVE))]
    text = markdown(runs)
    # Mean 19/30, deviation √(7/300), t with two degrees of freedom 4.30265: half-width 0.3795.
    assert (
        "| ai | full-raw * | 115,200 | 0.01 | 1: 80.00, 2: 60.00, 3: 50.00 | 63.33 ± 15.28 | [25.39, 101.28] |" in text
    )
    assert "* full-raw on ai: 1 of 2 rates tried." in text
    assert "Paired comparison" not in text


def test_the_rate_of_the_first_seed_counts_and_other_runs_do_not(hand_made: Make) -> None:
    runs = [
        hand_made("full-raw", 1, SIX, rate=0.01),
        hand_made("full-raw", 1, FIVE, rate=0.02),
        hand_made("full-raw", 2, EIGHT, rate=0.02),  # better, but not the rate that seed 1 chose
        hand_made("full-raw", 3, FIVE, rate=0.01),
    ]
    (row,) = rows_of(runs)
    assert (row.rate, row.by_seed) == (0.01, {1: 0.6, 3: 0.5})
    assert row.missing == ("seed 2 was run at other rates only",)


def test_a_single_seed_has_no_interval(hand_made: Make) -> None:
    text = markdown([hand_made("minilm", 1, SIX, rates=[0.01])])
    assert "| ai | minilm | 115,200 | 0.01 | 1: 60.00 | 60.00 | one seed |" in text


def test_the_comparison_is_with_the_best_tuned_arm_of_the_same_backbone(hand_made: Make) -> None:
    runs = []
    for arm, counts in (
        ("prefix-instructed", EIGHT), ("full-instructed", FIVE), ("lora-instructed", SIX), ("full-raw", EIGHT),
        ("prefix-raw", FIVE), ("minilm", SIX),
    ):  # fmt: skip
        runs += [hand_made(arm, seed, counts, rates=[0.01]) for seed in (1, 2)]
    text = markdown(runs)
    assert (
        "**ai: prefix-instructed reaches 133.3 % of lora-instructed**, the best by mean of full-instructed and "
        "lora-instructed: +20.00 points ["
    ) in text
    assert "**ai: prefix-raw reaches 62.5 % of full-raw**, the best by mean of full-raw: -30.00 points [" in text
    lines = [line for line in text.splitlines() if line.startswith("| ai | prefix")]
    assert "| ai | prefix-instructed | lora-instructed (best tuned, same backbone) | +20.00 |" in "\n".join(lines)
    assert "| ai | prefix-instructed | full-raw | +0.00 | [+0.00, +0.00] | 1.0000 | 100.0 % |" in lines
    # The two prefixes are compared once.
    assert sum("| prefix-instructed | prefix-raw |" in line for line in lines) == 1
    assert not any("| prefix-raw | prefix-instructed |" in line for line in lines)
    # Rows stand in the order of the question, not of the alphabet.
    arms = [line.split("|")[2].strip() for line in text.split("## Paired")[0].splitlines() if line.startswith("| ai")]
    assert arms == ["prefix-instructed", "prefix-raw", "lora-instructed", "full-instructed", "full-raw", "minilm"]


def test_compared_gives_the_numbers(hand_made: Make) -> None:
    a, b = rows_of([hand_made("prefix-raw", s, [[1, 1, 1]] * 40) for s in (1, 2)]
                   + [hand_made("full-raw", 1, [[0, 1, 1]] * 10 + [[1, 1, 1]] * 30)])  # fmt: skip
    found = compared(a, b)
    assert found["delta"] == 0.25
    assert found["ratio"] == pytest.approx(4 / 3)
    assert 0.05 < found["low"] < 0.2 < 0.3 < found["high"] < 0.45
    assert found["p_value"] < 0.01


def test_an_arm_of_nothing_right_gives_no_ratio(hand_made: Make) -> None:
    text = markdown([hand_made("prefix-raw", 1, SIX), hand_made("full-raw", 1, [[0, 1, 1]] * 10)])
    assert "reaches" not in text
    assert "| +60.00 |" in text
    assert text.count("| – |") == 1


def test_means_over_targets_only_for_arms_that_ran_on_all(hand_made: Make) -> None:
    runs = [hand_made("full-raw", seed, EIGHT) for seed in (1, 2)]
    runs += [hand_made("full-raw", seed, SIX, target="science") for seed in (1, 2, 3)]
    runs += [hand_made("lora-raw", 1, SIX)]
    text = markdown(runs)
    assert "| mean of ai, science | full-raw |  |  | 1: 70.00, 2: 70.00 | 70.00 ± 0.00 | [70.00, 70.00] |" in text
    assert "| mean of ai, science | lora-raw" not in text


def test_arms_that_differ_in_more_than_what_is_trained_are_told(hand_made: Make) -> None:
    same = [hand_made("prefix-raw", 1, SIX), hand_made("full-raw", 1, FIVE, rate=0.02), hand_made("minilm", 1, FIVE)]
    assert "have the same codec, decoder, loop and stopping rule; only the rates differ" in markdown(same)
    settings = {"codec": {"form": "paper"}, "decoding": {"window": 80}, "training": {"epochs": 15, "patience": 3}}
    other = [same[0], hand_made("full-raw", 1, FIVE, settings=settings)]
    assert "**The arms of the language model differ in more than what is trained: codec.form (lines and paper).**" in (
        markdown(other)
    )


def test_circumstances_of_all_runs_are_told(hand_made: Make) -> None:
    text = markdown([hand_made("full-raw", 1, SIX), hand_made("full-raw", 2, SIX, commit="def", machine={"gpu": "G"})])
    assert "- commit: abc; def" in text
    assert "- machine: cores 2; gpu G" in text


def test_runs_that_do_not_belong_together_are_refused(hand_made: Make, tmp_path: Path) -> None:
    def write(run: dict[str, Any]) -> None:
        write_json(tmp_path / run["arm"] / run["target"] / "seed1-rate0.01.json", run)

    with pytest.raises(DataError, match="there are no runs in"):
        load_runs(tmp_path)
    write(hand_made("full-raw", 1, SIX))
    write(hand_made("full-raw", 1, SIX, target="science", data={"science/dev.txt": "bb"}))
    assert len(load_runs(tmp_path)) == 2
    write(hand_made("lora-raw", 1, SIX, limit=8))
    with pytest.raises(DataError, match="mixes full runs and trials: 2 full, 1 with --limit 8"):
        load_runs(tmp_path)
    write(hand_made("lora-raw", 1, SIX, data={"ai/dev.txt": "cc"}))
    with pytest.raises(DataError, match=r"the runs on ai in .* do not have the same data"):
        load_runs(tmp_path)
    write(hand_made("lora-raw", 2, SIX, first_seed=2))
    with pytest.raises(DataError, match=r"the runs on ai in .* do not have the same first seed: 1 and 2"):
        load_runs(tmp_path)
    write(hand_made("lora-raw", 1, SIX, benchmark="laner"))
    with pytest.raises(DataError, match="mixes runs of laner and quality"):
        load_runs(tmp_path)
    write_json(tmp_path / "lora-raw" / "ai" / "seed1-rate0.01.json", {"arm": "lora-raw"})
    with pytest.raises(DataError, match="is no run of a benchmark: it lacks benchmark, data, dev"):
        load_runs(tmp_path)
    write_json(tmp_path / "lora-raw" / "ai" / "seed1.json", {})  # of a program that has no rates
    write(hand_made("lora-raw", 1, SIX))
    assert len(load_runs(tmp_path)) == 3


def test_arms_of_one_name_have_one_model(hand_made: Make) -> None:
    own, other = {"name": "x", "fingerprint": "sha256:x"}, {"name": "y", "fingerprint": "sha256:y"}
    mixed = [hand_made("prefix-raw", 1, SIX, backbone=own), hand_made("full-raw", 1, SIX, backbone=other)]
    with pytest.raises(DataError, match="raw's weights is 'sha256:x' and 'sha256:y'"):
        markdown(mixed)
    assert markdown([mixed[0], hand_made("full-instructed", 1, SIX, backbone=other)])
    with pytest.raises(DataError, match="prefix-raw's dtype is 'float32' and 'bfloat16'"):
        markdown([hand_made("prefix-raw", 1, SIX), hand_made("prefix-raw", 2, SIX, dtype="bfloat16")])
    assert markdown([hand_made("prefix-raw", 1, SIX), hand_made("full-raw", 1, SIX, dtype="bfloat16")])
