"""``xdner sample``: what it draws, what it writes, and that it overwrites nothing."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path

import pytest

from xdner.corpora import Manifest, read_corpus, sample_mentions
from xdner.testing.commands import refused, run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Thirty sentences; every fifth names a city, the last one a river, and two texts stand there twice."""
    lines = [
        f"{'Ann' if i % 7 else 'Eve'}\tB-person\nsaw\tO\n{i % 28}\t{'O' if i % 5 else 'B-city'}\n" for i in range(29)
    ]
    path = tmp_path / "towns.txt"
    path.write_text("\n".join([*lines, "the\tO\nRhine\tB-river\n"]))
    return path


def test_k_mentions_of_each_type_and_a_dev_split_without_leaks(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "few"
    result = run("sample", str(file), "--k", "3", "--dev", "6", "--seed", "2", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    train, dev, corpus = (read_corpus(p) for p in (out / "train.txt", out / "dev.txt", file))
    counts = Counter(e.label for s in train for e in s.entities)
    assert counts["person"] >= 3
    assert counts["city"] >= 3
    assert not {s.text for s in train} & {s.text for s in dev}
    assert 5 <= len(dev) <= 6
    for name, drawn in (("train", train), ("dev", dev)):
        manifest = Manifest.read(out / f"{name}.sample.json")
        assert [s.text for s in manifest.select(corpus)] == [s.text for s in drawn], "the very sentences of the file"
        assert manifest.seed == 2
        assert f"{name}.txt: {len(drawn)} sentences" in result.stdout
    assert Manifest.read(out / "train.sample.json").definition == "mentions"
    assert f"{len(corpus) - len(train) - len(dev)} sentences are in neither (seed 2)" in result.stdout
    assert f"--train {out / 'train.txt'} --dev {out / 'dev.txt'}" in result.stdout


def test_without_dev_it_is_what_the_library_draws(file: Path, tmp_path: Path) -> None:
    result = run("sample", str(file), "--k", "2", "--out", str(tmp_path / "few"), "--json")
    made = json.loads(result.stdout)
    drawn = sample_mentions(read_corpus(file), 2, 1)
    assert [s.text for s in read_corpus(made["train"]["path"])] == [s.text for s in drawn]
    assert made["train"]["scarce"] == ["river"], "the file has only one"
    assert made["train"]["mentions"] == dict(sorted(Counter(e.label for s in drawn for e in s.entities).items()))
    assert (
        "no more mentions were left of river"
        in run("sample", str(file), "--k", "2", "--out", str(tmp_path / "b")).stdout
    )
    assert made["dev"] is None
    assert made["unused"] == 30 - len(drawn)


def test_a_type_whose_mentions_all_went_to_dev_is_told(tmp_path: Path) -> None:
    path, taken = tmp_path / "few.txt", set()
    path.write_text("\n".join(f"x{i}\tB-{'river' if i == 3 else 'person'}\n" for i in range(8)))
    for seed in range(6):
        made = json.loads(
            run("sample", str(path), "--k", "2", "--dev", "4", "--seed", str(seed), "--out", str(tmp_path / str(seed)),
                "--json").stdout
        )  # fmt: skip
        left = made["train"]["mentions"]["river"]
        taken.add(left)
        assert made["dev"]["mentions"] == {"person": 4 - (1 - left), "river": 1 - left}
        assert made["train"]["scarce"] == ["river"]
    assert taken == {0, 1}


def test_sentences_or_all_that_dev_leaves(file: Path, tmp_path: Path) -> None:
    assert run("sample", str(file), "--k", "4", "--unit", "sentences", "--out", str(tmp_path / "a")).exit_code == 0
    assert len(read_corpus(tmp_path / "a" / "train.txt")) == 4
    result = run("sample", str(file), "--dev", "5", "--out", str(tmp_path / "b"), "--json")
    made = json.loads(result.stdout)
    assert made["train"]["sentences"] + made["dev"]["sentences"] == 30
    assert made["unused"] == 0
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["dev.sample.json", "dev.txt", "train.txt"]


def test_the_next_command_can_be_pasted(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "Mein Korpus"
    told = run("sample", str(file), "--k", "2", "--dev", "5", "--out", str(out)).stdout
    assert shlex.split(told.splitlines()[-1])[-4:] == ["--train", str(out / "train.txt"), "--dev", str(out / "dev.txt")]


def test_names_are_no_emoji_and_what_was_odd_is_told(tmp_path: Path) -> None:
    nested = {"text": "Ann of Rome", "spans": [[0, 11, "title"], [7, 11, "city"]]}
    path = tmp_path / "o:book:1.jsonl"
    path.write_text(json.dumps(nested) + "\n")
    args = ["sample", str(path), "--k", "1", "--unit", "sentences"]
    told = run(*args, "--out", str(tmp_path / "o:book:2"))
    assert "o:book:2" in told.stdout
    assert "nested or overlapping spans (the longest was kept) (1)" in " ".join(told.stderr.split())
    (warning,) = json.loads(run(*args, "--out", str(tmp_path / "again"), "--json").stdout)["warnings"]
    assert warning.endswith("nested or overlapping spans (the longest was kept) (1)")


def test_other_formats_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    rows = [{"id": f"n{i}", "text": f"Ann  {i}", "entities": [[0, 3, "person"]]} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("sample", str(path), "--k", "2", "--unit", "sentences", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    drawn = read_corpus(tmp_path / "out" / "train.jsonl")
    assert drawn.format == "spans"
    assert all("Ann  " in s.text and s.id.startswith("n") for s in drawn), "spaces and ids survive"


def test_mistakes_are_told_and_nothing_is_overwritten(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "there is nothing to draw" in refused("sample", str(file), "--out", str(out))
    idle = refused("sample", str(file), "--dev", "5", "--unit", "mentions", "--out", str(out))
    assert "--unit mentions says what --k counts, and there is no --k → Give --k NUMBER, too." in idle
    assert "100 sentences were asked for" in refused(
        "sample", str(file), "--k", "100", "--unit", "sentences", "--out", str(out)
    )
    assert not out.exists()
    out.mkdir()
    for name in ("train.txt", "dev.sample.json"):
        (out / name).write_text("mine")
        assert f"{out / name} is there already" in refused(
            "sample", str(file), "--k", "2", "--dev", "5", "--out", str(out)
        )
        assert [p.read_text() for p in out.iterdir()] == ["mine"]
        (out / name).unlink()
