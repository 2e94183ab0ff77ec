"""Sources that cannot be used are refused; runs that were stopped go on."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from xdner.errors import DomainError, PrefixMismatchError, TrainingError, TrainingInterrupted
from xdner.prefix.prefix import Prefix
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.sources import Source, shared_sentences
from xdner.recognizers.transfer import Transfer
from xdner.recognizers.warmup import WarmUp
from xdner.settings import Settings
from xdner.testing.known_domains import DATA, causal, entries, run, settings, trained
from xdner.text import Sentence
from xdner.training.progress import SilentProgress
from xdner.training.run import Run


@pytest.fixture(scope="module")
def known() -> CPNER:
    return trained(causal())


def run_with(recognizer: CPNER, sources: Sequence[Source], strategy: str = "collaborative") -> None:
    how = settings(f"strategy={strategy}")
    Transfer(
        recognizer.reader, *DATA["rivers"], (), how, initial=recognizer.initial_prefix(how.prefix), sources=sources
    ).run()


@pytest.mark.parametrize(
    ("strategy", "names", "problem"),
    [
        ("none", ["seas"], "uses no sources"),
        ("single", ["seas", "stars"], "takes exactly one source, not 2"),
        ("single", [], "takes exactly one source, not 0"),
        ("collaborative", [], "needs sources"),
        ("ensemble", [], "needs sources"),
        ("chain", ["seas", "stars", "seas"], "seas is given twice"),
    ],
)
def test_sources_that_a_strategy_cannot_use_are_refused(
    known: CPNER, strategy: str, names: Sequence[str], problem: str
) -> None:
    with pytest.raises(TrainingError, match=problem):
        run(known, settings(f"strategy={strategy}"), names)


def test_a_chain_needs_sentences_and_no_domain_is_its_own_source(known: CPNER) -> None:
    with pytest.raises(TrainingError, match="there are none for stars"):
        run_with(known, [*entries(known, ["seas"]), Source(known._entry("stars"))], "chain")
    own = replace(known._entry("seas"), domain=DATA["rivers"][0])
    with pytest.raises(TrainingError, match="'rivers' is its own source"):
        run_with(known, [Source(own)])


def test_a_chains_labels_are_looked_at_before_anything_is_trained(
    known: CPNER, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WarmUp, "run", lambda *_: pytest.fail("it was trained"))
    wrong = Source(known._entry("stars"), DATA["seas"][1])
    with pytest.raises(DomainError, match="labels that domain 'stars' does not: place, sea"):
        run_with(known, [*entries(known, ["people", "seas"]), wrong], "chain")


def test_strangers_are_refused(known: CPNER) -> None:
    other = known._entry("seas")
    stranger = replace(other, prefix=replace(other.prefix, initial="sha256:another"))
    with pytest.raises(PrefixMismatchError, match="'seas' started from another initial prefix"):
        run_with(known, [Source(stranger)])
    foreign = replace(other, prefix=replace(other.prefix, backbone="sha256:another"))
    with pytest.raises(PrefixMismatchError, match="fingerprint"):
        run_with(known, [Source(foreign)])


def test_shared_sentences_are_found_whatever_their_case(known: CPNER) -> None:
    entry = known._entry("seas")
    assert shared_sentences(entry, DATA["seas"][1]) == 2
    assert shared_sentences(entry, [Sentence.from_text("THE  baltic sea at kiel")], DATA["people"][1]) == 1
    assert shared_sentences(entry, DATA["rivers"][1]) == 0


def test_an_interrupted_run_goes_on_in_the_phase_where_it_stopped(known: CPNER, tmp_path: Path) -> None:
    how = settings("strategy=collaborative")
    whole = run(known, how).entry.prefix.hash()

    class Interrupts(SilentProgress):
        phases = 0

        def phase(self, name: str) -> None:
            self.phases += name == "target"

        def step(self, done: int, loss: float) -> None:
            if self.phases and done == 2:
                signal.raise_signal(signal.SIGINT)

    def again(resume: bool, progress: SilentProgress) -> Prefix:
        made = Transfer(
            known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(how.prefix), sources=entries(known)
        )
        return made.run(Run(tmp_path / "run", resume=resume, progress=progress)).entry.prefix

    with pytest.raises(TrainingInterrupted):
        again(False, Interrupts())
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"warm-up", "target"}
    assert again(True, SilentProgress()).hash() == whole


def test_what_an_older_run_left_is_not_resumed(known: CPNER, tmp_path: Path) -> None:
    def made(how: Settings) -> Transfer:
        return Transfer(
            known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(how.prefix), sources=entries(known)
        )

    class Stops(SilentProgress):
        def step(self, done: int, loss: float) -> None:
            signal.raise_signal(signal.SIGINT)

    made(settings("strategy=collaborative")).run(Run(tmp_path))
    other = settings("strategy=collaborative", "learning_rate=0.011")
    whole = made(other).run().entry.prefix.hash()
    with pytest.raises(TrainingInterrupted):
        made(other).run(Run(tmp_path, progress=Stops()))
    assert not (tmp_path / "target" / "checkpoint").exists()
    assert made(other).run(Run(tmp_path, resume=True)).entry.prefix.hash() == whole


@pytest.mark.parametrize("strategy", ["none", "collaborative"])
def test_a_run_that_never_began_cannot_be_resumed(known: CPNER, tmp_path: Path, strategy: str) -> None:
    how, sources = settings(f"strategy={strategy}"), entries(known) if strategy != "none" else []
    made = Transfer(
        known.reader, *DATA["rivers"], (), how, initial=known.initial_prefix(how.prefix), sources=sources
    )  # fmt: skip
    with pytest.raises(TrainingError, match="checkpoint"):
        made.run(Run(tmp_path / "run", resume=True))
    with pytest.raises(TrainingError, match="without a folder"):
        made.run(Run(resume=True))
