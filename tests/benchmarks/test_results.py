"""The runs that are kept under version control: whole, of one recipe, and without a word of the corpora."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import cross_domain, if_wraner, laner, quality
from benchmarks.record import read_json
from benchmarks.wraner.variants import Variant
from xdner.library.entry import DomainEntry
from xdner.prefix.prefix import Prefix
from xdner.retrieval.settings import RetrievalSettings

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
QUALITY = sorted((RESULTS / "quality").rglob("*.json"))
TAGGERS = sorted((RESULTS / "laner").rglob("*.json"))
ADAPTED = sorted((RESULTS / "laner-dapt").rglob("*.json"))
WRANER = sorted((RESULTS / "if_wraner").rglob("*.json"))
TUNED_WITH_SUM = sorted((RESULTS / "if_wraner-tuned-with-sum").rglob("*.json"))
TRANSFER = sorted((RESULTS / "transfer").glob("*-*/*/*/*/seed*.json"))
EQ_10 = sorted((RESULTS / "transfer-eq10").glob("*-*/*/*/*/seed*.json"))
SHIFT = sorted((RESULTS / "transfer-shift").glob("*-*/*/*/*/seed*.json"))
PREPARED = sorted((RESULTS / "transfer" / "prepared").glob("*.json"))


@pytest.mark.parametrize(
    "path", QUALITY + TAGGERS + ADAPTED + WRANER + TUNED_WITH_SUM, ids=lambda p: "-".join([*p.parts[-4:-1], p.stem])
)
def test_a_run_says_what_it_is_and_quotes_no_sentence(path: Path) -> None:
    run = json.loads(path.read_text(encoding="utf-8"))
    folder = path.relative_to(RESULTS).parts[0]
    assert folder in (run["benchmark"], f"{run['benchmark']}-dapt", f"{run['benchmark']}-tuned-with-sum")
    assert path.relative_to(RESULTS).parts[1:3] == (run["arm"], run["target"])
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


def test_the_runs_of_taggers_belong_together_and_make_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {json.loads(path.read_text())["asked"]["backbone"] for path in TAGGERS} == {"minilm-l6"}
    assert len({json.dumps(json.loads(path.read_text())["rates"]) for path in TAGGERS}) == 1
    shutil.copytree(RESULTS / "laner", tmp_path / "runs")  # figures are drawn beside the runs
    assert laner.main(["--table", "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "| laner over plain | at least +1.5 |" in shown
    assert "**The arms did not try the same rates" not in shown


def test_the_runs_on_an_adapted_encoder_belong_together_and_make_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = {"dapt" in path.parts[-3]: json.loads(path.read_text())["asked"]["backbone"] for path in ADAPTED}
    assert encoders == {False: "minilm-l6", True: "minilm-movies"}
    shutil.copytree(RESULTS / "laner-dapt", tmp_path / "runs")
    assert laner.main(["--table", "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    for few in ("n50", "n100"):
        assert f"| mit-movie | plain+none+{few}+dapt | plain+none+{few} | +" in shown
    assert "| 1, 2, 3 |" in shown


def test_the_runs_with_examples_were_read_by_the_same_models_and_make_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = {(run["arm"], run["tuned"]["key"]) for run in map(read_json, WRANER)}
    keys = dict(tuned)
    assert len(keys) == len(tuned) == 14
    assert keys["word"] == keys["random"] != keys["word+plain"]
    assert {key for arm, key in keys.items() if not arm.endswith("+plain")} == {keys["word"]}
    assert {key for arm, key in keys.items() if arm.endswith("+plain")} == {keys["word+plain"]}
    for run in map(read_json, WRANER):  # a name says what is unusual, so it depends on what is usual now
        usual, shown = Variant.parse(run["arm"]), run["settings"]["retrieval"]
        assert shown["method"] == usual.retriever
        if usual.retriever == "word":
            assert shown["aggregation"] == (usual.rule or RetrievalSettings().aggregation)
    shutil.copytree(RESULTS / "if_wraner", tmp_path / "runs")
    assert if_wraner.main(["--table", "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "| word over random (science, literature, ai) | at least +3.0 | +12.59 |" in shown
    assert "| word+rule-types | 32.40 | 36.30 | 21.58 | 30.09 |" in shown
    assert "word (types), k = 5" in shown, "with which rule the models were tuned"


def test_the_runs_of_the_model_that_was_tuned_with_sum_make_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [read_json(path) for path in TUNED_WITH_SUM]
    assert sorted((run["arm"], run["target"], run["seed"]) for run in runs) == [
        (arm, target, 2) for arm in ("random", "word", "word+plain") for target in ("ai", "literature", "science")
    ]
    tuned = {
        plain: {run["tuned"]["key"] for run in runs if run["arm"].endswith("+plain") is plain}
        for plain in (False, True)
    }
    assert [len(keys) for keys in tuned.values()] == [1, 1]
    assert tuned[False] != tuned[True], "with and without regularization"
    assert not {run["tuned"]["key"] for run in runs} & {read_json(path)["tuned"]["key"] for path in WRANER}
    shutil.copytree(RESULTS / "if_wraner-tuned-with-sum", tmp_path / "runs")
    assert if_wraner.main(["--table", "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "| word over random (science, literature, ai) | at least +3.0 | +13.52 |" in shown
    new_types = (
        "| word over word+plain, types that the sources lack (science, literature, ai) | at least +0.1 | -0.60 |"
    )
    assert new_types in shown
    assert "word (sum), k = 5" in shown, "with which rule the models were tuned"


@pytest.mark.parametrize("path", TRANSFER + EQ_10 + SHIFT, ids=lambda p: "-".join(p.relative_to(RESULTS).parts)[:-5])
def test_a_run_of_transfer_says_what_it_is_and_quotes_no_sentence(path: Path) -> None:
    run = json.loads(path.read_text(encoding="utf-8"))
    size = "all" if run["k"] == "all" else f"k{run['k']}"
    place = (f"{run['track']}-{run['initial']}", run["target"], size, run["method"], f"seed{run['seed']}.json")
    assert path.relative_to(RESULTS).parts[1:] == place
    if path in EQ_10:
        how = run["settings"]["transfer"]
        assert (how["source_share"], how["warmup_share"], run["strategy"]) == (0.5, 0.5, "collaborative")
    assert (run["error"], run["asked"]["limit"], run["asked"]["drop_shared"]) == (None, None, True)
    assert run["steps"]["made"] == run["steps"]["planned"]
    assert run["dev"]["worst"] == []
    counts = run["dev"]["sentence_counts"]
    assert len(counts) == run["dev_sentences"] == len(run["dev_ids"]) == len(run["predicted"])
    right, predicted, gold = (sum(column) for column in zip(*counts, strict=True))
    assert predicted == sum(map(len, run["predicted"]))
    assert run["dev"]["micro"]["f1"] == pytest.approx(2 * right / (predicted + gold))


def test_what_runs_of_transfer_began_from_is_here() -> None:
    """So that the same command goes on without an hour of preparing."""
    hashes = set()
    for path in PREPARED:
        record, folder = read_json(path), path.with_suffix("")
        prefix = Prefix.load(folder) if record["name"] == "initial" else DomainEntry.load(folder).prefix
        assert prefix.hash() == record["hash"]
        hashes.add(record["hash"])
    used = [
        part["hash"]
        for path in TRANSFER
        if path.relative_to(RESULTS / "transfer")
        .parts[0]
        .startswith("raw-")  # of the other track only the runs are kept
        for part in json.loads(path.read_text())["prepared"].values()
        if part["steps"]
    ]
    assert len(used) > 3
    assert set(used) <= hashes


def test_the_runs_with_one_to_seven_sources_make_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RESULTS / "transfer-shift", tmp_path / "runs")
    assert cross_domain.main(["--table", "--out", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    counted = shown[shown.index("## The number of sources") : shown.index("## What the selector")]
    first = [line.split("|")[1].strip() for line in counted.splitlines() if line.startswith("|")]
    assert first == ["sources", "---", *"01234567"]
    assert (tmp_path / "runs" / "raw-instruction" / "sources.png").is_file()


@pytest.mark.parametrize(
    ("track", "base"), [("raw", "no source was seen"), ("instructed", "the prefix has seen no source")]
)
def test_the_runs_of_transfer_make_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], track: str, base: str
) -> None:
    shutil.copytree(RESULTS / "transfer", tmp_path / "runs")  # figures are drawn beside the runs
    asked = ("--table", "--out", str(tmp_path / "runs"), "--initial", "shared", "--beside", "instruction")
    assert cross_domain.main([*asked, "--track", track]) == 0
    shown = capsys.readouterr().out
    assert f"| none, δ₀ the instruction: {base} |" in shown
    assert "one of science: " in shown
