"""The program from end to end on a tiny language model: adapters that are shared, files, resuming, tables."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import if_wraner
from benchmarks.wraner.bench import Bench, WranerArm, encoders_of
from benchmarks.wraner.report import grid_of, markdown
from benchmarks.wraner.variants import PLANS, Variant, chosen
from xdner.errors import DataError, SettingsError, TrainingInterrupted
from xdner.recognizers.if_wraner import IFWRANER
from xdner.testing.examples import SHORT
from xdner.testing.taggers import save_letter_encoder
from xdner.training.progress import Progress, SilentProgress
from xdner.training.sources import LabelledSource

Program = Callable[..., int]
QUICK = ("epochs=1", "training.batch_size=4", "accumulation=1", "rank=2", "retrieval.k=2", "layer=1")


@pytest.fixture
def quick(tmp_path: Path, encoder: Path) -> tuple[str, ...]:
    (tmp_path / "short.toml").write_text(SHORT)
    return (*QUICK, f"retrieval.encoder={encoder}", f"prompt.template={tmp_path / 'short.toml'}")


@pytest.fixture
def program(domains: Path, backbone: Path, tmp_path: Path, quick: tuple[str, ...]) -> Program:
    def run(*more: str) -> int:
        return if_wraner.main([
            "--data", str(domains), "--out", str(tmp_path / "runs"), "--llm", str(backbone), "--seeds", "1", "--rates",
            "1e-2", "--sources", "politics", "literature", "--set", *quick, *more,
        ])  # fmt: skip

    return run


def files(tmp_path: Path) -> dict[str, dict[str, Any]]:
    folder = tmp_path / "runs"
    return {str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(folder.rglob("*.json"))}


def adapters(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text())["facts"] for p in sorted((tmp_path / "runs-adapters").glob("*.json"))]


def test_names_of_arms_and_back() -> None:
    for name in ("word", "none+raw", "word+k3", "bm25+n25", "word+rule-cover", "word+pool-first+layer6", "word+enc-bge.1",
                 "random+k0+own", "sentence+plain", "word+dup", "word+shuf+own"):  # fmt: skip
        assert Variant.parse(name).name == name
    assert Variant.parse("word+k3+rule-max").retrieval == (
        "retrieval.method=word", "retrieval.k=3", "retrieval.aggregation=max",
    )  # fmt: skip
    assert Variant("none").retrieval == ("retrieval.method=none", "retrieval.k=0")
    for wrong in (
        "wrd",
        "word+",
        "word+n0",
        "word+rule-best",
        "bm25+rule-max",
        "none+k3",
        "word+raw+own",
        "random+enc-x",
    ):
        with pytest.raises(SettingsError, match="there is no arm"):
            Variant.parse(wrong)


def test_only_what_is_drawn_has_seeds() -> None:
    assert [Variant.parse(n).seeded for n in ("word", "word+raw", "random+raw", "word+n5+raw", "none+raw")] == [
        True, False, True, True, False,
    ]  # fmt: skip


def test_plans_have_arms_that_can_be_parsed_and_sources_are_no_targets() -> None:
    for parts in PLANS.values():
        for part in parts:
            assert [Variant.parse(name).name for name in part.arms] == list(part.arms)
    variants, targets = chosen(["core", "regularization"], sources=["politics", "music"], encoders=["mpnet"])
    assert [v.name for v in variants] == ["word", "random", "word+plain", "word+dup", "word+shuf", "word+enc-mpnet"]
    assert targets == ("science", "literature", "ai")
    assert chosen(["k"], ["none+raw"], ["mit-movie"]) == ((Variant("none", tuning="raw"),), ("mit-movie",))
    ks = {v.k for v in chosen(["k"])[0] if v.retriever == "word"} | {
        0 for v in chosen(["k"])[0] if v.retriever == "none"
    }
    assert ks == {0, 1, 2, 3, 4, None, 6, 8, 10}
    names = [v.name for v in chosen(["rules"])[0]]
    assert "word+rule-sum" not in names, "the default has no mark"
    assert {"word", "word+rule-types", "word+rule-cover", "word+pool-max"} <= set(names)


def test_encoders_have_names_and_layers() -> None:
    assert encoders_of(["a=b@8", "c=x/y", "d=m@1@2", "e=z@z"]) == {
        "a": ("retrieval.encoder=b", "retrieval.layer=8"), "c": ("retrieval.encoder=x/y",),
        "d": ("retrieval.encoder=m@1", "retrieval.layer=2"), "e": ("retrieval.encoder=z@z",),
    }  # fmt: skip
    for wrong in ("mpnet-base", "=x", "a="):
        with pytest.raises(SettingsError, match="names no encoder"):
            encoders_of([wrong])


def test_rows_share_a_tuned_model_and_nothing_is_made_twice(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_letter_encoder(tmp_path / "other", positions=16, seed=5)
    asked = ("--arms", "word", "random", "none", "bm25", "word+k1", "word+n2", "word+plain", "word+dup", "word+raw",
             "random+own", "word+rule-cover", "--targets", "ai", "science", "--encoders", f"other={other}@0")  # fmt: skip
    assert program(*asked) == 0
    first = capsys.readouterr()
    assert "2 runs made, 0 were there" in first.err
    assert "22 runs made, 0 were there" in first.err
    runs = files(tmp_path)
    made = {facts["key"]: facts for facts in adapters(tmp_path)}
    # Literature shares a sentence with science: its sources are others. Per target: with, plain, dup, random+own.
    assert len(made) == 8
    assert {facts["dropped"] for facts in made.values()} == {0, 1}
    shared = {
        a: runs[f"{a}/ai/seed1-rate0.01.json"]["tuned"]["key"] for a in ("word", "random", "none", "word+k1", "word+n2")
    }
    assert len(set(shared.values())) == 1
    plain = made[runs["word+plain/ai/seed1-rate0.01.json"]["tuned"]["key"]]
    assert (plain["tune"]["duplicate"], plain["tune"]["shuffle"]) == (0, 0)
    assert made[runs["random+own/ai/seed1-rate0.01.json"]["tuned"]["key"]]["retrieval"]["method"] == "random"
    assert runs["word+enc-other/ai/seed1-rate0.01.json"]["settings"]["retrieval"]["layer"] == 0
    assert runs["word+raw/ai/seed1-rate0.01.json"]["tuned"] is None
    for title in ("Retrievers, read by the same tuned model", "Retrievers, each with a model that was tuned with it",
                  "Retrievers, read by the model as it came", "With and without each regularization", "Encoders",
                  "From words to examples", "Examples in the prompt", "Examples in the pool", "Paired comparison",
                  "Goals, means over the targets", "Time"):  # fmt: skip
        assert f"## {title}\n" in first.out
    assert "| word over random (science, ai) | at least +3.0 |" in first.out
    assert "| word over word+plain, types that the sources lack (science, ai) |" in first.out
    assert {p.name for p in (tmp_path / "runs").glob("*.png")} == {"k.png", "pool.png"}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert program(*asked) == 0
    second = capsys.readouterr()
    assert "0 runs made, 22 were there" in second.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")} == before
    assert program("--table", "--llm", "nowhere", "--data", "nowhere") == 0
    assert capsys.readouterr().out == first.out == second.out


def test_a_run_is_the_recognizer_tuned_and_read(
    domains: Path, backbone: Path, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    """The same as `IFWRANER.tune`, `add_domain` and `predict`; facts are those of the run."""
    bench = Bench(str(backbone), domains, tmp_path / "runs", sources=("politics", "music"), overrides=quick)
    target = bench.corpora.target("ai")
    made = WranerArm(Variant("word", n=3), (1e-2,), bench).run(target, 7, 1e-2, SilentProgress())
    settings = bench.settings(Variant("word"), 7, 1e-2)
    assert (settings.training.seed, settings.retrieval.seed, settings.training.learning_rate) == (7, 7, 1e-2)
    recognizer = IFWRANER.from_pretrained(backbone, settings=settings)
    tuned = recognizer.tune([LabelledSource(k.domain, k.sentences) for k in bench.known("ai")])
    assert [r["loss"] for r in made.history] == [r.loss for r in tuned.result.history]
    examples = [s for s in target.train if s.id in made.facts["sample"]]
    assert (len(examples), made.facts["used_examples"]) == (3, 3)
    recognizer.add_domain(target.domain, examples)
    report = recognizer.evaluate(target.dev, domain="ai")
    assert made.report["micro"] == report.to_dict()["micro"]
    # Researcher, product are new to politics and music; location is not.
    assert sorted(made.facts["unseen_labels"]) == ["product", "researcher"]
    gold = [[e.label for e in s.entities if e.label != "location"] for s in target.dev]
    assert [g for _, _, g in made.facts["unseen"]["sentence_counts"]] == [len(labels) for labels in gold]


def test_tuning_goes_on_from_its_checkpoint(
    domains: Path, backbone: Path, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    class Interrupts(SilentProgress):
        def step(self, done: int, loss: float) -> None:
            if done == 2:
                signal.raise_signal(signal.SIGINT)

    def hash_of(out: str, progress: Progress) -> str:
        bench = Bench(str(backbone), domains, tmp_path / out, sources=("politics", "music"), overrides=quick)
        return bench.tuned(Variant("word"), "ai", 1, 1e-2, progress).adapter.hash

    wanted = hash_of("whole", SilentProgress())
    with pytest.raises(TrainingInterrupted):
        hash_of("runs", Interrupts())
    assert hash_of("runs", SilentProgress()) == wanted
    assert not list((tmp_path / "runs-adapters").glob("*-run"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--arms", "wrd"), "there is no arm 'wrd'"),
        (("--arms", "word", "--targets", "politics"), "politics is a source and cannot be a target"),
        (("--arms", "word+enc-bge", "--targets", "ai"), "needs an encoder named 'bge'"),
        (("--targets", "ai", "--set", "training.seed=3"), "the benchmark goes through seeds and rates itself"),
        (("--targets", "ai", "--set", "retrieval.kk=3"), "unknown setting 'retrieval.kk'"),
        (("--encoders", "mpnet"), "names no encoder"),
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
    assert program("--arms", "none+raw", "--targets", "ai", "--limit", "2") == 0
    assert "A trial: the first 2 sentences" in capsys.readouterr().out
    assert program("--arms", "none+raw", "--targets", "ai", "--limit", "2", "--dtype", "bfloat16") == 1
    assert "was made with other options: dtype was" in capsys.readouterr().err
    assert program("--arms", "word", "--targets", "ai", "--limit", "2", "--budget-minutes", "0") == 0
    assert "0 runs made, 0 were there, 1 not begun" in capsys.readouterr().err
    assert not list((tmp_path / "runs" / "word").rglob("*.json"))


def test_without_peft_no_run_is_recorded(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.wraner.bench.find_spec", lambda name: None)
    assert program("--arms", "word", "--targets", "ai") == 1
    assert "tuning needs the package peft" in capsys.readouterr().err
    assert not files(tmp_path)


# -- tables from hand-made runs -------------------------------------------------------------------------------------------


def run(arm: str, target: str, seed: int, f1: int, lacking: int, **other: Any) -> dict[str, Any]:
    """``f1``, ``lacking``: right ones of ten gold and ten predicted entities, one a sentence; of all and of new types."""

    def report(right: int) -> dict[str, Any]:
        return {"micro": {"f1": right / 10}, "sentence_counts": [[int(i < right), 1, 1] for i in range(10)]}

    retrieval = {"method": "word", "aggregation": "sum", "k": 5, "seed": seed}
    tune = {"duplicate": 0.3, "remove": 0.3, "shuffle": 0.5}
    made: dict[str, Any] = {
        "arm": arm, "target": target, "seed": seed, "first_seed": 1, "rate": 5e-4, "rates": [5e-4], "limit": None,
        "data": {}, "error": None, "dev": report(f1), "unseen": report(lacking), "unseen_labels": ["band"], "notes": {},
        "backbone": {"name": "tiny"}, "dtype": "bfloat16", "dev_sentences": 10, "train_sentences": 100,
        "used_examples": 100, "seconds": {"reading": 5.0, "tuning": 60.0}, "settings": {"retrieval": {"k": 5}},
        "tuned": {"key": f"a{seed}", "sources": ["music"], "sentences": [99], "retrieval": retrieval, "tune": tune,
                  "steps": 9, "seconds": 60.0, "short": [0, 0]},
        "commit": "abc", "machine": {"cores": 2}, "versions": {"torch": "2"},
    }  # fmt: skip
    return made | other


def test_goals_are_judged_by_the_means_and_unseen_types_by_their_own_report() -> None:
    runs = [
        run(arm, target, seed, f1 + shift, lacking)
        for target, shift in (("ai", 0), ("science", 1))
        for seed in (1, 2)
        for arm, f1, lacking in (("word", 6, 5), ("random", 5, 5), ("word+plain", 7, 2))
    ]
    text = markdown(runs)
    assert "| word over random (science, ai) | at least +3.0 | +10.00 | " in text
    # Worse on all types, better on those that the sources lack.
    assert "| mean of 2 | word | word+plain | -10.00 |" in text
    assert "| word over word+plain, types that the sources lack (science, ai) | at least +0.1 | +30.00 | " in text
    assert text.count("reached") == 2
    intervals = text.split("## Intervals over sentences")[1].split("## Time")[0]
    row = next(line for line in intervals.splitlines() if line.startswith("| random |"))
    low, high = (float(end) for end in row.split("[")[1].split("]")[0].split(","))
    assert row.startswith("| random | 60.00 [")
    assert 20 <= low < 60 < high <= 100
    assert "not reached" not in text
    assert "| word | **70.00 ± 0.00** |" in text.split("sources lack:")[0]
    unseen = grid_of(runs).seen_as("unseen")
    scores = unseen.scores(Variant("word"), "ai")
    assert scores is not None
    assert scores.mean == 0.5


@pytest.mark.parametrize("name", ["llm", "dev_cap", "overrides"])
def test_arms_of_different_options_share_no_table(name: str) -> None:
    runs = [run("word", "ai", 1, 5, 5, asked={name: "a"}), run("random", "ai", 1, 5, 5, asked={name: "b"})]
    with pytest.raises(DataError, match=f"were made with different options: {name} is 'a' and 'b'"):
        markdown(runs)


def test_sweeps_have_the_order_of_the_other_tables() -> None:
    """Not that of the alphabet: words come first, and targets stand as in the paper."""
    runs = [run(f"{m}{k}", t, 1, 5, 5, settings={"retrieval": {"k": int(k[2:] or 5)}})
            for t in ("ai", "science") for m in ("bm25", "random", "word") for k in ("", "+k1")]  # fmt: skip
    assert "| target | k | word | bm25 | random |" in (text := markdown(runs))
    assert text.index("| science | 1 |") < text.index("| ai | 1 |")


def test_curves_begin_at_none_and_end_at_the_whole_pool() -> None:
    runs = [run("none", "ai", 1, 1, 1), run("none+raw", "ai", 1, 0, 0)]
    runs += [run(f"word+k{k}", "ai", 1, k, k, settings={"retrieval": {"k": k}}) for k in (2, 3)]
    runs += [run("word", "ai", 1, 6, 6), run("word+n25", "ai", 1, 4, 4, used_examples=25)]
    text = markdown(runs)
    assert [line for line in text.splitlines() if line.startswith("| ai |")][:4] == [
        "| ai | 0 | 10.00 |", "| ai | 2 | 20.00 |", "| ai | 3 | 30.00 |", "| ai | 5 | 60.00 |",
    ]  # fmt: skip
    assert "| ai | 25 | 40.00 |\n| ai | 100 | 60.00 |" in text
