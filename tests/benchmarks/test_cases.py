"""Cases from stored predictions, and the sentences that explain them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, cross_domain
from benchmarks.record import write_json
from benchmarks.transfer import evidence
from benchmarks.transfer.evidence import Sources
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Known, Pools
from xdner.domain import Domain
from xdner.text import Sentence

DOMAIN = Domain.from_labels("ai", ["person", "programlang"])
DEV = [
    Sentence.from_words(["Ann", "wrote", "Lisp"], [(0, 1, "person"), (2, 3, "programlang")], id="dev:1"),
    Sentence.from_words(["Bo", "left"], [(0, 1, "person")], id="dev:2"),
]
ANN, LISP, BO = [0, 3, "person"], [10, 14, "programlang"], [0, 2, "person"]


def run(*predicted: list[list[Any]]) -> dict[str, Any]:
    return {"target": "ai", "k": "all", "predicted": list(predicted)}


def known(name: str, *sentences: Sentence) -> Known:
    return Known(Domain.from_corpus(name, sentences), sentences, {})


def search(*sources: Known, **weights: float) -> Sources:
    return Sources(sources, weights)


NOTHING = search(known("music", Sentence.from_words(["Abba"], [(0, 1, "band")])))


def test_most_seeds_decide() -> None:
    none = {1: run([LISP], [BO]), 2: run([], []), 3: run([ANN], [])}
    both = {1: run([ANN, LISP], [BO]), 2: run([ANN], [BO]), 3: run([], [])}
    found = evidence.cases(DEV, DOMAIN, none, both, NOTHING)
    # Ann: missed by 2 of 3, found by 2 of 3; Lisp: found by 1 only; Bo: missed by 2, found by 2.
    assert [(c.mention, c.missed, c.found, c.seeds) for c in found] == [("Ann", 2, 2, 3), ("Bo", 2, 2, 3)]
    # Half is not most.
    assert evidence.cases(DEV, DOMAIN, {1: none[1], 2: none[2]}, {1: both[1], 2: both[3]}, NOTHING) == []
    # Only seeds that both have count.
    found = evidence.cases(DEV, DOMAIN, none, {2: both[1], 9: both[3]}, NOTHING)
    assert [(c.mention, c.seeds) for c in found] == [("Ann", 1), ("Lisp", 1), ("Bo", 1)]


def test_what_was_said_instead() -> None:
    none = {1: run([[0, 9, "programlang"]], []), 2: run([[0, 9, "programlang"]], []), 3: run([], [])}
    both = {seed: run([ANN], []) for seed in none}
    (case,) = evidence.cases(DEV, DOMAIN, none, both, NOTHING)
    assert case.instead == "programming language: Ann wrote"
    assert (case.text[case.start : case.end], case.label, case.id, case.evidence) == ("Ann", "person", "dev:1", ())


def test_evidence_is_ranked_by_how_much_it_shares_and_by_the_sources_weight() -> None:
    filler = [Sentence.from_words(["filler", str(i)]) for i in range(200)]
    news = known(
        "news",
        Sentence.from_words(["the", "New", "York", "Times", "said"], [(1, 4, "organisation")]),
        Sentence.from_words(["NEW", "york", "is", "large"], [(0, 2, "location")]),
        Sentence.from_words(["in", "New", "York", "today"]),
        Sentence.from_words(["York", "is", "old"], [(0, 1, "location")]),
        *filler,
    )
    other = known("other", Sentence.from_words(["see", "New", "York", "now"], [(1, 3, "song")]))
    found = search(news, other, news=0.9, other=0.1).explain(("new", "york"), "song", 9)
    assert [(e.source, e.kind, e.label) for e in found] == [
        ("other", "the same mention", "song"),  # the same type
        ("news", "the same mention", "location"),
        ("news", "the same words in a row", ""),  # the shorter of the two
        ("news", "the same words in a row", ""),
    ]
    assert (found[0].weight, found[0].text, found[0].shared) == (0.1, "see New York now", "new york")
    assert search(news, other).explain(("new", "york"), "song", 1)[0].source == "other"
    # Words alone, only where the mention is nowhere; the one that shares more first.
    words = search(news, other).explain(("new", "york", "yankees"), "team", 9)
    assert {e.kind for e in words} == {"words of it"}
    assert [e.shared for e in words][-1] == "york"
    assert words[0].shared == "new york"


def test_an_excerpt_stands_around_what_is_shared() -> None:
    words = ["new", *(f"w{i}" for i in range(20)), "New", "York", *(f"v{i}" for i in range(20))]
    (found,) = search(known("s", Sentence.from_words(words, [(1, 2, "x")]))).explain(("new", "york"), "city", 1)
    before, after = " ".join(words[12:21]), " ".join(words[23:32])
    assert found.excerpt == f"… {before} New York {after} …"
    apart = known(
        "s", Sentence.from_words(["a", "York", "b"], [(0, 1, "x")]), *(Sentence.from_words([str(i)]) for i in range(99))
    )
    assert search(apart).explain(("new", "york"), "city", 1)[0].excerpt == "a York b"


def test_common_words_explain_nothing() -> None:
    source = known("s", *(Sentence.from_words(f"the thing {i}".split(), [(2, 3, "x")]) for i in range(40)))
    assert search(source).explain(("the", "cat"), "x", 9) == ()
    assert len(search(source).explain(("the", "thing"), "x", 9)) == 9  # as a whole it does
    assert search(source).explain(("of", "7"), "x", 9)[0].text == "the thing 7"


@pytest.fixture
def arguments(domains: Path, backbone: Path, tmp_path: Path) -> list[str]:
    return [
        "--data", str(domains), "--out", str(tmp_path / "runs"), "--raw", str(backbone), "--steps", "4",
        "--source-steps", "2", "--set", "length=2", "training.batch_size=4", "--seeds", "1", "--targets", "ai",
        "--sources", "conll2003", "literature",
    ]  # fmt: skip


def test_cases_come_from_the_runs_and_the_data(
    arguments: list[str], domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cross_domain.main(arguments) == 0
    place = ["--out", str(tmp_path / "runs"), "--data", str(domains)]
    assert cases.main(place) == 0  # a random model finds nothing: no case, no error
    assert "No case." in capsys.readouterr().out
    # What the collaborative prefix would have to find.
    folder = tmp_path / "runs" / "raw-instruction"
    path = folder / "ai" / "all" / "collaborative" / "seed1.json"
    made = json.loads(path.read_text())
    dev = Pools(Options.from_asked(made["asked"], domains, tmp_path)).target("ai").dev
    made["predicted"] = [[list(e.key) for e in s.entities] for s in dev]
    write_json(path, made)
    capsys.readouterr()
    assert cases.main([*place, "--top", "1"]) == 0
    text = capsys.readouterr().out
    assert "## ai\n\n`collaborative` alone finds 4 mentions, `none` alone 0; 1 seed.\n" in text
    assert "| Pia built **Waves** | product |" in text
    assert (
        "literature (the same mention: waves, book): Kim wrote Waves<br>literature (the same mention: waves, book): the "
        in text
    )
    told = json.loads((folder / "cases.json").read_text())["ai"]
    assert [case["mention"] for case in told][:1] == ["Waves"]
    assert {case["mention"] for case in told} == {"Waves", "Pia", "Ola", "Rome"}
    assert told[0]["evidence"][0]["source"] == "literature"
    assert 0 < told[0]["evidence"][0]["weight"] < 1
    assert (folder / "cases.md").read_text() == text
    # Other data than those of the runs say nothing about them.
    (domains / "literature" / "train.txt").write_text("Mia\tB-writer\n")
    assert cases.main(place) == 1
    assert "the runs on ai were made from other data than those in" in capsys.readouterr().err


def test_both_strategies_are_needed(
    arguments: list[str], domains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--out", str(tmp_path / "runs"), "--data", str(domains)]
    assert cases.main(place) == 1
    assert "there are no runs in" in capsys.readouterr().err
    assert cross_domain.main([*arguments, "--strategies", "none"]) == 0
    capsys.readouterr()
    assert cases.main(place) == 1
    assert "no target has runs of 'none' and of 'collaborative' with the same seed" in capsys.readouterr().err
