"""The program from end to end on a tiny encoder: source stages that are shared, files, resuming, tables from hand-made runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import laner
from benchmarks.tagging.bench import Bench
from benchmarks.tagging.report import draw, grid_of, markdown
from benchmarks.tagging.speed import even_sentences
from benchmarks.tagging.variants import PLANS, Variant, parts_of
from xdner.corpora.io import read_corpus
from xdner.errors import DataError, SettingsError, TrainingInterrupted
from xdner.recognizers.laner import LANER
from xdner.testing.taggers import save_letter_encoder
from xdner.training.progress import Progress, SilentProgress

Program = Callable[..., int]


@pytest.fixture
def program(domains: Path, encoder: Path, tmp_path: Path) -> Program:
    def run(*more: str) -> int:
        return laner.main([
            "--data", str(domains), "--out", str(tmp_path / "runs"), "--encoder", str(encoder), "--seeds", "1", "--rates",
            "1e-2", "--sources", "conll2003", "literature", "--dev-cap", "8", "--set", "epochs=2", "label_size=8",
            "evaluate_from=1", "evaluate_every=1", "training.batch_size=2", *more,
        ])  # fmt: skip

    return run


def files(tmp_path: Path) -> dict[str, dict[str, Any]]:
    folder = tmp_path / "runs"
    return {str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(folder.rglob("*.json"))}


def stages(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted((tmp_path / "runs-stages").glob("*.json"))]


def test_names_of_arms_and_back() -> None:
    for name in ("laner", "plain+none", "without-lb+d50", "laner+chain+k10+dapt", "crf+n20"):
        assert Variant.parse(name).name == name
    assert Variant.parse("laner+d50").overrides == ("tagger.label_size=50",)
    twice = ("laner+none+chain", "laner+d5+d6", "laner+dapt+dapt")
    for wrong in ("lanr", "laner+", "laner+d0", "laner+k0", "laner+x3", *twice):
        with pytest.raises(SettingsError, match="there is no arm"):
            Variant.parse(wrong)


def test_plans_are_the_papers_tables_and_figures() -> None:
    for parts in PLANS.values():
        for part in parts:
            assert [Variant.parse(name).name for name in part.arms] == list(part.arms)
    ((arms, targets),) = parts_of(["table3"])
    assert [a.method for a in arms] == ["laner", "without-lc", "without-lb", "crf", "plain", "forward"]
    assert targets == ("politics", "science", "music", "literature", "ai", "mit-movie-trivia", "mit-restaurant")
    ((arms, targets),) = parts_of(["table2"], targets=["ai"], dapt=True)
    assert ([a.name for a in arms], targets) == (["laner", "laner+dapt"], ("ai",))
    ((arms, targets),) = parts_of(["core"], ["plain+none"], ["mit-movie"])
    assert ([a.name for a in arms], targets) == (["plain+none"], ("mit-movie",))
    assert list(parts_of(["figure3"], targets=["music"])) == []


def test_targets_share_a_source_stage_and_nothing_is_made_twice(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--targets", "ai", "science", "politics", "--seeds", "1", "2", "--rates", "1e-2", "3e-2")
    assert program(*asked) == 0
    first = capsys.readouterr()
    # Four arms, three targets, two rates on the first seed and one on the second.
    assert "36 runs made, 0 were there, 0 not begun" in first.err
    runs = files(tmp_path)
    assert "laner/ai/seed1-rate0.01.json" in runs
    made = stages(tmp_path)
    wanted = {
        (arm, run["seed"], run["rate"]) for name, run in runs.items() if "none" not in (arm := name.split("/")[0])
    }
    assert len(made) == len(wanted)
    assert all(stage["facts"]["sources"] == ["conll2003"] for stage in made)
    for title in ("Tables 2 and 3: from one source", "Table 4: in the domain alone", "Paired comparison",
                  "Figure 2: F1 by type", "Time"):  # fmt: skip
        assert f"## {title}" in first.out
    assert "mean of 3" in first.out
    assert {p.name for p in (tmp_path / "runs").glob("*.png")} == {
        "types-ai.png", "types-politics.png", "types-science.png",
    }  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert program(*asked) == 0
    second = capsys.readouterr()
    assert "0 runs made, 36 were there" in second.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")} == before
    assert program("--table", "--encoder", "nowhere", "--data", "nowhere") == 0
    assert capsys.readouterr().out == first.out == second.out


def test_who_only_reads_in_another_way_starts_from_the_same_stage(program: Program, tmp_path: Path) -> None:
    assert program("--arms", "laner", "laner-beam", "--targets", "ai") == 0
    assert len(stages(tmp_path)) == 1
    runs = files(tmp_path)
    greedy, wide = (runs[f"{arm}/ai/seed1-rate0.01.json"] for arm in ("laner", "laner-beam"))
    assert (greedy["settings"]["tagger"]["beam"], wide["settings"]["tagger"]["beam"]) == (1, 4)
    assert greedy["sources"] == wide["sources"]
    losses = [[epoch["loss"] for epoch in run["history"]] for run in (greedy, wide)]
    assert losses[0] == losses[1]


def test_a_file_has_what_tables_and_readers_need(program: Program, tmp_path: Path) -> None:
    assert program("--arms", "laner", "plain+none", "--targets", "ai") == 0
    run, alone = files(tmp_path)["laner/ai/seed1-rate0.01.json"], files(tmp_path)["plain+none/ai/seed1-rate0.01.json"]
    assert (run["benchmark"], run["limit"], run["shared"]) == ("laner", None, ["location"])
    assert set(run["asked"]["sources"]["files"]) == {"conll2003"}
    assert run["seconds"].keys() == {"training", "total", "reading", "sources"}
    assert run["seconds"]["sources"] > 0
    assert run["sources"][0]["types"] == ["location", "person"]
    assert run["settings"]["tagger"]["label_size"] == 8
    assert (alone["sources"], alone["shared"], alone["seconds"]["sources"]) == ([], [], 0)
    assert alone["settings"]["tagger"]["head"] == "plain"
    assert "sources" not in alone["asked"]


def test_few_sentences_dimensions_chains_and_ensembles(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--arms", "laner", "laner+d4", "plain+n1", "plain+n3", "--targets", "ai") == 0
    out = capsys.readouterr().out
    assert "## Figure 3: label dimension" in out
    assert "| ai | 4 |" in out
    assert "## Figure 4: training sentences" in out
    assert {p.name for p in (tmp_path / "runs").glob("*.png")} == {"dimension.png", "sentences.png"}
    runs = files(tmp_path)
    assert [runs[f"plain+n{n}/ai/seed1-rate0.01.json"]["used_sentences"] for n in (1, 3)] == [1, 3]
    assert len(runs["plain+n1/ai/seed1-rate0.01.json"]["sample"]) == 1
    assert program("--arms", "laner+none+k2", "laner+chain+k2", "laner+ensemble+k2", "--targets", "mit-movie") == 0
    out = capsys.readouterr().out
    assert "## CP-NER's Table 2: rows of LANER" in out
    for row in ("no source", "chain of sources", "ensemble over sources"):
        assert f"| laner, {row} |" in out
    runs = files(tmp_path)
    chain, ensemble = (runs[f"laner+{s}+k2/mit-movie/seed1-rate0.01.json"] for s in ("chain", "ensemble"))
    assert [s["sources"] for s in chain["sources"]] == [["conll2003", "literature"]]
    assert [s["sources"] for s in ensemble["sources"]] == [["conll2003"], ["literature"]]
    for what in ("sentences", "steps"):  # a chain has read what both have
        assert chain["sources"][0][what] == sum(s[what] for s in ensemble["sources"])
    assert ensemble["trained_weights"] == 2 * chain["trained_weights"]
    assert chain["dev_sentences"] == 8
    assert list(chain["data"]) == ["mit-movie/train.txt"]


def test_a_target_has_no_sentence_of_its_source(program: Program, tmp_path: Path) -> None:
    assert program("--arms", "plain", "--targets", "science", "ai", "--source", "literature") == 0
    dropped = {tuple(stage["facts"][k] for k in ("dropped", "sentences")) for stage in stages(tmp_path)}
    assert dropped == {(1, 2), (0, 3)}, "science has one of literature's sentences, ai none"


def test_an_adapted_encoder_gives_rows_of_its_own(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_letter_encoder(tmp_path / "adapted", positions=16, seed=5)
    assert program("--arms", "laner", "plain", "--targets", "ai", "--adapted", str(other)) == 0
    out = capsys.readouterr().out
    assert "| ai | laner+dapt | laner |" in out
    prints = {name.split("/")[0]: run["backbone"]["fingerprint"] for name, run in files(tmp_path).items()}
    assert prints["laner"] == prints["plain"] != prints["laner+dapt"] == prints["plain+dapt"]
    assert program("--arms", "crf+dapt", "--targets", "ai") == 1
    assert "the arm crf+dapt needs an adapted encoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--arms", "lanr"), "there is no arm 'lanr'"),
        (("--arms", "laner", "--targets", "nowhere"), "nowhere"),
        (("--arms", "laner+chain", "--targets", "literature"), "is a source of laner+chain and cannot be its target"),
        (("--set", "training.seed=3", "--targets", "ai"), "the benchmark goes through seeds and rates itself"),
        (("--set", "tagger.hed=crf", "--targets", "ai"), "unknown setting 'tagger.hed'"),
    ],
)
def test_mistakes_are_one_message(
    program: Program, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(*arguments) == 1
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert says in err


def test_other_options_are_refused_and_the_budget_is_kept(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--arms", "plain", "--targets", "ai") == 0
    assert program("--arms", "plain", "--targets", "ai", "--source-epochs", "2") == 1
    assert "was made with other options: sources was" in capsys.readouterr().err
    assert program("--arms", "crf", "--targets", "ai", "--budget-minutes", "0") == 0
    assert "0 runs made, 0 were there, 1 not begun" in capsys.readouterr().err
    assert not list((tmp_path / "runs" / "crf").rglob("*.json"))


def test_a_source_stage_goes_on_from_its_checkpoint(domains: Path, encoder: Path, tmp_path: Path) -> None:
    import signal

    class Interrupts(SilentProgress):
        def step(self, done: int, loss: float) -> None:
            if done == 2:
                signal.raise_signal(signal.SIGINT)

    def stage(out: str, progress: Progress) -> dict[str, Any]:
        bench = Bench(str(encoder), domains, tmp_path / out, source_epochs=2,
                      overrides=("training.batch_size=2", "label_size=8"))  # fmt: skip
        return dict(bench.stage(Variant("laner"), ["conll2003"], "ai", 1, 1e-2, progress).entry.tensors)

    wanted = stage("whole", SilentProgress())
    with pytest.raises(TrainingInterrupted):
        stage("runs", Interrupts())
    made = stage("runs", SilentProgress())
    assert all(made[name].equal(wanted[name]) for name in wanted)
    assert not list((tmp_path / "runs-stages").glob("*-run"))


def test_a_run_is_a_source_stage_and_a_target_stage_of_the_recognizer(
    domains: Path, encoder: Path, tmp_path: Path
) -> None:
    """The same as training on both at once, as `xdner train --source` does."""
    from benchmarks.tagging.bench import TaggingArm
    from xdner.training.sources import LabelledSource

    overrides = ("epochs=2", "training.batch_size=2", "label_size=8", "evaluate_from=1", "evaluate_every=1")
    bench = Bench(str(encoder), domains, tmp_path / "runs", source_epochs=2, overrides=overrides)
    target = bench.corpora.target("ai")
    made = TaggingArm(Variant("laner"), (1e-2,), bench).run(target, 1, 1e-2, SilentProgress())
    variant = Variant("laner")
    known = bench.pools.known("conll2003", "ai")
    recognizer = LANER(bench.encoder_of(variant), settings=bench.settings(variant, 1, 1e-2, "source_epochs=2"))
    trained = recognizer.train(
        target.domain, target.train, target.dev, sources=[LabelledSource(known.domain, known.sentences)]
    )  # fmt: skip
    assert [r["loss"] for r in made.history] == [r.loss for r in trained.result.history]


def test_speed_is_told_for_every_head(program: Program, capsys: pytest.CaptureFixture[str], domains: Path) -> None:
    sentences = even_sentences(read_corpus(domains / "ai" / "dev.txt"), count=5, words=30)
    assert [len(s.words) for s in sentences] == [30] * 5
    assert program("--speed") == 0
    out = capsys.readouterr().out
    assert "| laner |" in out
    assert "| crf |" in out
    assert "192 sentences of 30 words" in out


# -- tables from hand-made runs -------------------------------------------------------------------------------------------


def run(arm: str, target: str, seed: int, f1: int, rate: float = 1e-4, **other: Any) -> dict[str, Any]:
    """``f1``: right ones of ten gold and ten predicted entities, one a sentence."""
    counts = [[int(i < f1), 1, 1] for i in range(10)]
    score = {"f1": f1 / 10, "gold": 5}
    return {
        "arm": arm, "target": target, "seed": seed, "first_seed": 1, "rate": rate, "rates": [5e-5, 1e-4], "limit": None,
        "data": {f"{target}/dev.txt": "aa"}, "error": None, "trained_weights": 9, "shared": ["person"], "dev_sentences": 10,
        "dev": {"micro": {"f1": f1 / 10}, "sentence_counts": counts,
                "per_type": {"person": score, "band": {"f1": f1 / 20, "gold": 5}, "never": {"f1": 0.0, "gold": 0}}},
        "settings": {"training": {"epochs": 3}, "tagger": {"label_size": 100}}, "sources": [],
        "seconds": {"training": 10.0 * seed, "reading": 2.0, "sources": 60.0, "total": 70.0},
        "backbone": {"name": "tiny", "fingerprint": "ff"}, "commit": "abc", "machine": {"cores": 2}, "versions": {"torch": "2"},
    } | other  # fmt: skip


def hand_made(**f1: int) -> list[dict[str, Any]]:
    """The four arms of the goals on the five domains, two seeds; both rates on the first."""
    made = []
    for target in ("politics", "science", "music", "literature", "ai"):
        for arm, value in f1.items():
            name = arm.replace("_", "+")
            made += [run(name, target, seed, value) for seed in (1, 2)] + [run(name, target, 1, 0, 5e-5)]
    return made


def test_goals_are_judged_as_they_stand() -> None:
    text = markdown(hand_made(laner=9, crf=9, plain=7, plain_none=6))
    assert "| laner over plain | at least +1.5 | +20.00 |" in text
    assert "| laner over crf | at least +0.5 | +0.00 | [+0.00, +0.00] | 1.0000 | **not reached** |" in text
    assert "| plain over plain+none | at least +5.0 | +10.00 |" in text
    assert text.count("| reached |") == 2
    assert "| laner | **90.00 ± 0.00** |" in text
    assert "| laner | 15 | 20 | 60 | 5.0 |" in text, "seconds of training: mean and longest; of sources; sentences/s"
    # A domain is missing: nothing is claimed about the five.
    assert "## Goals" not in markdown([r for r in hand_made(laner=9, plain=7) if r["target"] != "ai"])


def test_types_are_split_into_shared_and_not_shared(tmp_path: Path) -> None:
    runs = [run(arm, "ai", seed, f1) for arm, f1 in (("laner", 8), ("plain", 6)) for seed in (1, 2)]
    text = markdown(runs)
    assert "| band | no | 5 | 30.00 ± 0.00 | 40.00 ± 0.00 |" in text
    assert "| person | yes | 5 | 60.00 ± 0.00 | 80.00 ± 0.00 |" in text
    assert "never" not in text
    assert [p.name for p in draw(runs, tmp_path)] == ["types-ai.png"]
    assert text.index("| band |") < text.index("| person |"), "the shared types last, as in the paper"


def test_seeds_that_a_row_lacks_are_told() -> None:
    runs = [run(arm, "ai", seed, 5) for arm in ("laner", "plain") for seed in (1, 2)]
    assert "- Seeds: 1, 2." in markdown(runs)
    text = markdown([*runs, run("laner", "ai", 3, 6)])
    assert "**Not every row has the same seeds: 1, 2, 3, but plain on ai 1, 2.**" in text


def test_an_unfinished_arm_is_marked() -> None:
    runs = [run("laner", "ai", 1, 8), run("plain", "ai", 1, 5), run("plain", "ai", 1, 4, 5e-5)]
    text = markdown(runs)
    assert "| laner * |" in text
    assert "* laner on ai: 1 of 2 rates tried." in text
    assert grid_of(runs).targets == ["ai"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"asked": {"overrides": ["epochs=9"]}}, "overrides is [] and ['epochs=9']"),
        ({"asked": {"dev_cap": 8}}, "dev_cap is 600 and 8"),
        ({"asked": {"sources": {"files": {"news": "bb"}, "per_source": None, "epochs": 1, "rate": None}}}, "the file of news"),
        ({"asked": {"sources": {"files": {}, "per_source": None, "epochs": 2, "rate": None}}}, "sources' epochs is 1 and 2"),
        ({"backbone": {"name": "tiny", "fingerprint": "ee"}}, "the encoder is 'ff' and 'ee'"),
    ],
)  # fmt: skip
def test_arms_of_different_options_share_no_table(other: dict[str, Any], says: str) -> None:
    sources = {"files": {"news": "aa"}, "per_source": None, "epochs": 1, "rate": None}
    asked = {"overrides": [], "dev_cap": 600, "train_cap": None, "sources": sources}
    one, two = run("laner", "ai", 1, 8, asked=asked), run("plain", "ai", 1, 5, asked=asked)
    assert "| laner" in markdown([one, two])
    two |= {key: (two[key] | value) for key, value in other.items()}
    with pytest.raises(DataError, match=re.escape(says)):
        markdown([one, two])
    if "backbone" in other:  # that of adapted arms is another one anyhow
        assert "| plain+dapt" in markdown([one, two | {"arm": "plain+dapt"}])


def test_rates_that_not_every_arm_tried_are_told() -> None:
    both = [run(arm, "ai", 1, 5, rate) for arm in ("laner", "plain") for rate in (5e-5, 1e-4)]
    assert "Rates tried: 5e-05, 0.0001. Chosen:" in markdown(both)
    more = run("laner", "ai", 1, 6, 2e-4)
    assert "**The arms did not try the same rates: 5e-05, 0.0001 or 5e-05, 0.0001, 0.0002.**" in markdown([*both, more])
