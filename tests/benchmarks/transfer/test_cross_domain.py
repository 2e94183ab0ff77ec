"""The program from end to end, with tiny random models: files, equal steps, resuming, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cross_domain
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Pools
from benchmarks.transfer.specs import Spec
from xdner.errors import TrainingError, TrainingInterrupted
from xdner.library.entry import DomainEntry, sentence_hashes
from xdner.prefix.prefix import Prefix
from xdner.recognizers.sources import shared_sentences
from xdner.training.progress import Progress

Program = Callable[..., int]
Files = Callable[..., dict[str, dict[str, Any]]]


def test_every_strategy_runs_with_equally_many_steps_and_nothing_is_made_twice(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Files
) -> None:
    asked = ("--targets", "ai", "politics", "--sources", "conll2003", "politics", "music", "--strategies")
    sweeps = (*cross_domain.STRATEGIES, "--alphas", "0", "0.5", "--source-counts", "1", "2", "3")
    assert program(*asked, *sweeps) == 0
    first = capsys.readouterr()
    runs = files()
    # Seven strategies, one more α and one more number of sources; none and single on a source.
    assert {name.removesuffix("/seed1.json") for name in runs} == {
        "ai/all/none", "ai/all/single-conll2003", "ai/all/single-politics", "ai/all/single-music", "ai/all/chain",
        "ai/all/ensemble", "ai/all/collaborative", "ai/all/collaborative-alpha0",
        "ai/all/collaborative-of-conll2003-politics", "politics/all/none", "politics/all/single-conll2003",
    }  # fmt: skip
    assert "11 runs made, 0 were there, 0 not begun" in first.err
    for target in ("ai", "politics"):
        steps = [run["steps"] for run in runs.values() if run["target"] == target]
        assert {s["made"] for s in steps} == {steps[0]["planned"]}
        assert steps[0]["planned"] >= 4
    for title in ("Table 1: one source, conll2003", "Table 2: sources conll2003, politics, music",
                  "The share α of the entity similarity", "The number of sources, in the order"):  # fmt: skip
        assert f"## {title}" in first.out
    pictures = {p.name for p in (tmp_path / "runs" / "raw-instruction").glob("*.png")}
    assert pictures == {"alpha.png", "sources.png"}
    assert not list((tmp_path / "runs" / "unfinished").iterdir())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")}
    assert program(*asked, *sweeps) == 0
    second = capsys.readouterr()
    assert "0 runs made, 11 were there, 0 not begun" in second.err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")} == before
    # From the JSON alone: neither the data nor the weights are there.
    assert program("--table", "--data", "nowhere", "--raw", "nowhere") == 0
    assert capsys.readouterr().out == first.out == second.out


def test_a_file_has_what_tables_and_readers_need(program: Program, tmp_path: Path, domains: Path, files: Files) -> None:
    known = ("conll2003", "literature", "music")
    assert program("--targets", "mit-movie", "--sources", *known, "--strategies", "collaborative", "chain") == 0
    runs = files()
    run = runs["mit-movie/k2/collaborative/seed1.json"]
    assert (run["track"], run["target"], run["k"], run["strategy"], run["seed"], run["alpha"], run["initial"]) == (
        "raw", "mit-movie", 2, "collaborative", 1, 0.5, "instruction",
    )  # fmt: skip
    assert run["sources"] == list(known)
    assert [s["name"] for s in run["selection"]["sources"]] == run["sources"]
    assert sum(s["weight"] for s in run["selection"]["sources"]) == pytest.approx(1, abs=1e-4)
    assert 1 <= run["selection"]["effective_sources"] <= 3
    assert {"date", "commit", "machine", "versions", "settings", "dtype"} <= set(run)
    assert len(run["backbone"]["fingerprint"]) > 20
    assert [p["name"] for p in run["phases"]] == ["warm-up", "target"]
    assert set(run["seconds"]) == {"target", "reading", "sources"}
    assert set(run["seconds"]["sources"]) == {"initial", *run["sources"]}
    assert len(run["predicted"]) == len(run["dev"]["sentence_counts"]) == run["dev_sentences"] == 8
    assert all(len(digest) == 64 for digest in run["data"].values())
    # A chain is prepared once, and its training on sources is no part of the target's steps.
    chain = runs["mit-movie/k2/chain/seed1.json"]
    assert [p["name"] for p in chain["phases"]] == ["target"]
    assert chain["prepared"]["chain"]["steps"] == 2 + 2 + 2
    assert chain["selection"] is None
    # Prepared prefixes are ordinary domains that started from δ₀.
    prepared = tmp_path / "runs" / "prepared"
    (initial,) = (p for p in prepared.iterdir() if p.name.startswith("initial-") and p.is_dir())
    entries = {
        e.domain.name: e for p in prepared.iterdir() if p.is_dir() and p != initial for e in [DomainEntry.load(p)]
    }
    assert set(entries) == {*known, "chain-conll2003-literature", "chain-conll2003-literature-music"}
    assert {e.prefix.initial for e in entries.values()} == {Prefix.load(initial).hash()}
    assert len(entries["conll2003"].seen) == 4  # --conll-cap
    assert len(entries["chain-conll2003-literature-music"].seen) == 4 + 3 + 3


def test_dev_is_carved_before_mentions_are_sampled(options: Callable[..., Options]) -> None:
    pools = Pools(options())
    target = pools.target("mit-movie")
    dev = sentence_hashes(target.dev)
    assert len(target.dev) == 8
    assert len(target.pool) == 24
    drawn = {}
    for seed in (1, 2):
        for k in (2, 3):
            train, manifest = pools.train("mit-movie", k, seed)
            assert manifest is not None
            assert sentence_hashes(train).isdisjoint(dev)
            assert min(manifest.mentions.values()) >= k
            assert manifest.ids == tuple(s.id for s in train)
            drawn[seed, k] = manifest.ids
    assert drawn[1, 2] != drawn[2, 2]
    assert Pools(options()).target("mit-movie").dev.sentences == target.dev.sentences
    whole, manifest = pools.train("mit-movie", None, 1)
    assert manifest is None
    assert whole is target.pool
    # A dev file is sampled where it is too long, always in the same way; types are those of the whole files.
    few = Pools(options("--dev-cap", "2"))
    assert [s.id for s in few.target("ai").dev] == [s.id for s in Pools(options("--dev-cap", "2")).target("ai").dev]
    assert len(few.target("ai").dev) == 2
    assert few.target("ai").domain.label_names == ("location", "product", "researcher")
    limited = Pools(options("--limit", "2"))
    assert (len(limited.target("ai").pool), len(limited.known("conll2003", "ai").sentences)) == (2, 2)


def test_sources_that_know_the_answers_are_refused_or_cleaned(
    program: Program, options: Callable[..., Options], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--targets", "science", "--strategies", "none", "collaborative")
    assert program(*asked) == 1
    err = capsys.readouterr().err
    assert "sources of science know some of its sentences: literature has 1 of its train sentences" in err
    assert "→ Take these sentences out of the sources with --drop-shared" in err
    assert not (tmp_path / "runs").exists()
    # Nothing is wrong where the source has no part in it.
    assert program("--targets", "science", "--strategies", "none") == 0
    capsys.readouterr()
    assert program(*asked, "--drop-shared", "--out", str(tmp_path / "clean")) == 0
    run = json.loads((tmp_path / "clean/raw-instruction/science/all/collaborative/seed1.json").read_text())
    assert run["dropped"] == {"literature": 1}
    assert run["prepared"]["literature"]["sentences"] == 2
    assert "Sentences taken out of the sources because the target has them: science: literature 1." in (
        capsys.readouterr().out
    )
    pools = Pools(options("--drop-shared"))
    target = pools.target("science")
    for folder in (tmp_path / "clean/prepared").glob("literature-*/"):
        assert shared_sentences(DomainEntry.load(folder), target.pool, target.dev) == 0
    # Another target has nothing in common with it, and keeps the sentence.
    assert pools.known("literature", "ai").dropped == 0
    # Unless it is taken out whatever the target is: then all targets share what was prepared.
    capsys.readouterr()
    asked = ("--targets", "ai", "science", "--strategies", "collaborative", "--drop-shared", "science")
    assert program(*asked, "--out", str(tmp_path / "same")) == 0
    assert (
        "because the target has them, or one of science: ai: literature 1; science: literature 1."
        in capsys.readouterr().out
    )
    assert len(list((tmp_path / "same/prepared").glob("literature-*/"))) == 1


def test_other_options_and_other_data_are_refused(
    program: Program, domains: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("--targets", "ai", "--strategies", "none")
    assert program(*one) == 0
    capsys.readouterr()
    assert program(*one, "--steps", "40") == 1
    err = capsys.readouterr().err
    assert "seed1.json was made with other options: steps was 4, now 40" in err
    assert "→ Choose another --out, or give the same options as before." in err
    # A new run beside the old one would be another experiment too.
    assert program("--targets", "ai", "--strategies", "single", "--steps", "40") == 1
    assert "steps was 4, now 40" in capsys.readouterr().err
    (domains / "ai" / "train.txt").write_text("Zoe\tB-researcher\n")
    assert program(*one) == 1
    assert "was made from other data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("training.seed=3", "--seeds"),
        ("epochs=3", "--steps"),
        ("patience=1", "all its steps"),
        ("strategy=none", "--strat"),
    ],
)
def test_what_the_benchmark_decides_cannot_be_set(
    program: Program, setting: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--targets", "ai", "--set", setting) == 1
    err = capsys.readouterr().err
    assert f"'{setting}' cannot be set: the benchmark decides it" in err
    assert hint in err


def test_an_interrupted_program_goes_on_with_what_is_missing(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    whole, calls = Bench.run, []

    def stops(bench: Bench, spec: Spec, progress: Progress) -> dict[str, Any]:
        calls.append(spec.strategy)
        if len(calls) == 2:
            raise TrainingInterrupted("stopped after step 1 of 8")
        return whole(bench, spec, progress)

    monkeypatch.setattr(Bench, "run", stops)
    asked = ("--targets", "ai", "--strategies", "none", "single", "collaborative")
    assert program(*asked) == 130
    assert "stopped after step 1 of 8\n  → The same command goes on with what is missing." in capsys.readouterr().err
    assert list(files()) == ["ai/all/none/seed1.json"]
    assert program(*asked) == 0
    assert calls == ["none", "single", "single", "single", "collaborative"]
    assert "3 runs made, 1 were there" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(
    options: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparation and target alike, to the same result."""
    import signal

    from xdner.training.progress import SilentProgress

    class Interrupts(SilentProgress):
        def step(self, done: int, loss: float) -> None:
            if done == 2:
                signal.raise_signal(signal.SIGINT)

    spec = Spec("ai", None, "single", ("conll2003",), 1)
    whole = Bench(options("--out", str(tmp_path / "unused"), "--source-steps", "4"))
    monkeypatch.setattr(whole.preparation, "folder", options().out / "whole")
    wanted = whole.run(spec, SilentProgress())
    bench = Bench(options("--source-steps", "4"))
    for _ in range(3):  # in the source, in the warm-up, in the target's own phase
        with pytest.raises(TrainingInterrupted):
            bench.run(spec, Interrupts())
    made = bench.run(spec, SilentProgress())
    assert [p["loss"] for p in made["phases"]] == [p["loss"] for p in wanted["phases"]]
    assert made["predicted"] == wanted["predicted"]
    assert made["prepared"]["conll2003"]["hash"] == wanted["prepared"]["conll2003"]["hash"]


def test_nothing_begins_after_the_budget(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("--targets", "ai", "--budget-minutes", "0") == 1
    err = capsys.readouterr().err
    assert "0 runs made, 0 were there, 2 not begun (--budget-minutes)" in err
    assert "there are no runs in" in err


def test_a_run_that_diverges_is_told(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    def diverges(*arguments: object) -> None:
        raise TrainingError("the loss became nan at step 3 of 9")

    monkeypatch.setattr(Bench, "_train", diverges)
    assert program("--targets", "ai", "--strategies", "none") == 0
    (run,) = files().values()
    assert (run["error"], run["dev"]) == ("the loss became nan at step 3 of 9", None)
    assert "- none on ai all, seed 1 failed: the loss became nan" in capsys.readouterr().out


def test_a_shared_start_is_trained_once_on_all_sources(program: Program, tmp_path: Path) -> None:
    asked = ("--targets", "ai", "--strategies", "none", "collaborative", "--initial", "shared", "--initial-steps", "7")
    assert program(*asked) == 0
    (told,) = (json.loads(p.read_text()) for p in (tmp_path / "runs/prepared").glob("initial-*.json"))
    assert told["sources"] == ["conll2003", "literature"]
    assert told["depends"]["settings"]["training"]["epochs"] > 1
    assert 7 <= told["steps"] < 7 + told["steps"] / told["epochs"]  # at least so many, in whole epochs
    runs = {p.parent.name: json.loads(p.read_text()) for p in (tmp_path / "runs/raw-shared").rglob("seed1.json")}
    # δ₀ has seen the sources: they belong to the data of every run.
    assert set(runs["none"]["data"]) == {"ai/train.txt", "ai/dev.txt", "conll2003/train.txt", "literature/train.txt"}
    assert {run["prepared"]["initial"]["hash"] for run in runs.values()} == {told["hash"]}


def test_options_come_back_from_a_run(options: Callable[..., Options], tmp_path: Path) -> None:
    own = options("--drop-shared", "--limit", "3", "--set", "selector.alpha=0.25")
    again = Options.from_asked(json.loads(json.dumps(own.asked())), own.data, own.out)
    assert again == own
    assert again.alpha == 0.25


# -- CP-NER + DAPT: the last row of Table 1 ------------------------------------------------------------------------------


def test_how_targets_draw_on_sources_does_not_make_the_sources_anew(program: Program, tmp_path: Path) -> None:
    one = ("--targets", "ai", "--strategies", "collaborative")
    assert program(*one) == 0
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "runs/prepared").glob("*.json")}
    other = ("--out", str(tmp_path / "other"), "--set", "transfer.warmup_share=0.25", "selector.mode=paper")
    shutil.copytree(tmp_path / "runs/prepared", tmp_path / "other/prepared", copy_function=shutil.copy2)
    assert program(*one, *other) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "other/prepared").glob("*.json")} == before


def test_a_shared_start_stands_beside_none_that_has_seen_no_source(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ("--targets", "mit-movie", "--initial", "shared", "--initial-steps", "2")
    beside = (*ours, "--beside", "instruction")
    assert program(*beside) == 1
    assert f"there are no runs in {tmp_path / 'runs/raw-instruction'}" in capsys.readouterr().err
    assert program("--targets", "mit-movie", "--strategies", "none") == 0
    capsys.readouterr()
    assert program(*beside) == 0
    out = capsys.readouterr().out
    table = out.partition("## What the sources bring in all")[2]
    for row in ("none, δ₀ the instruction: no source was seen", "none, δ₀ trained on the sources", "collaborative"):
        assert f"\n| {row} |" in table
    assert table.count("| mit-movie 2 | collaborative | none, δ₀ the instruction: no source was seen |") == 1
    assert program(*ours, "--beside", "instruction", "--table") == 0
    assert capsys.readouterr().out == out
    # Other steps on the target, or no shared start.
    assert program(*ours, "--steps", "9", "--out", str(tmp_path / "other")) == 0
    shutil.copytree(tmp_path / "runs/raw-instruction", tmp_path / "other/raw-instruction")
    assert program(*ours, "--steps", "9", "--out", str(tmp_path / "other"), "--beside", "instruction") == 1
    assert "cannot stand beside these runs: steps is 4 there, 9 here" in capsys.readouterr().err
    assert program("--targets", "mit-movie", "--strategies", "none", "--beside", "instruction") == 1
    assert "these runs do not start from a shared δ₀" in capsys.readouterr().err
