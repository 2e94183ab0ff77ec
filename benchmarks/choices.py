"""The recognizers that ``choosing.py`` sets side by side, each trained and read in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import Target
from benchmarks.record import circumstances, read_json, refuse_other_options, write_json
from benchmarks.tagging.bench import ALL, Bench
from benchmarks.tagging.speed import even_sentences, sentences_per_second
from benchmarks.timing.memory import peak_memory
from xdner.backbone.load import load_backbone
from xdner.errors import BackboneNotFoundError, TrainingInterrupted, XdnerError
from xdner.prompting.settings import WranerSettings
from xdner.recognizers.base import Recognizer, report_on
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.laner import LANER
from xdner.settings import Settings
from xdner.tagger.settings import LanerSettings
from xdner.training.sources import LabelledSource

__all__ = ["CHOICES", "Choice", "Plan", "make_runs"]

Run = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What every recognizer gets; see the options of ``choosing.py``."""

    target: str
    data: Path
    backbone: str
    encoder: str
    train_cap: int = 100
    dev_cap: int = 200
    source: str = "conll2003"
    per_source: int = 600
    source_epochs: int = 3
    llm: str = "smollm2-135m"
    overrides: tuple[str, ...] = ()
    tagger_overrides: tuple[str, ...] = ()
    wraner_overrides: tuple[str, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"
    limit: int | None = None

    def bench(self) -> Bench:
        """The corpora."""
        return Bench(
            self.encoder, self.data, self.data, per_source=self.per_source or ALL, train_cap=self.train_cap or ALL,
            dev_cap=self.dev_cap, device=self.device, limit=self.limit,
        )  # fmt: skip

    def asked(self) -> Run:
        """Plain values: runs that differ in them are not mixed."""
        plain = asdict(self)
        del plain["data"], plain["device"]
        return plain | {name: list(plain[name]) for name in ("overrides", "tagger_overrides", "wraner_overrides")}

    def known(self) -> LabelledSource:
        """The source, with the sentences that are taken of it."""
        known = self.bench().pools.known(self.source, self.target)
        return LabelledSource(known.domain, known.sentences)


# Trains on the target's sentences; gives the recognizer, and the settings, training seconds, source seconds, weights.
Trainer = Callable[[Plan, Target, int], tuple[Recognizer, Run]]


@dataclass(frozen=True)
class Choice:
    """A recognizer to choose.

    Attributes:
        title: in the table.
        train: makes it.
        empty: one without domains, ready to load what was stored.
    """

    title: str
    train: Trainer
    empty: Callable[[Plan], Recognizer]


def _prefix(plan: Plan, target: Target, seed: int) -> tuple[Recognizer, Run]:
    recognizer = _from_nothing(plan)
    base = recognizer.backbone.recommended
    settings = Settings.build(None, [*plan.overrides, f"training.seed={seed}"], base)
    made = recognizer.train(target.domain, target.train, target.dev, settings=settings)
    return recognizer, {
        "settings": settings.to_dict(), "training": made.result.seconds, "sources": None,
        "trained_weights": sum(t.numel() for t in made.result.state.values()), "backbone": recognizer.backbone.name,
        "epochs": made.result.epochs_run,
    }  # fmt: skip


def _tagger(head: str, with_source: bool) -> Trainer:
    def train(plan: Plan, target: Target, seed: int) -> tuple[Recognizer, Run]:
        own = (f"tagger.head={head}", f"tagger.source_epochs={plan.source_epochs}", f"training.seed={seed}")
        settings = LanerSettings.build(None, [*plan.tagger_overrides, *own])
        recognizer = LANER.from_pretrained(plan.encoder, device=plan.device, settings=settings)
        sources = [plan.known()] if with_source else []
        made = recognizer.train(target.domain, target.train, target.dev, sources=sources)
        return recognizer, {
            "settings": settings.to_dict(), "training": made.result.seconds, "epochs": made.result.epochs_run,
            "sources": made.run.seconds - made.result.seconds if with_source else None,
            "trained_weights": sum(t.numel() for t in made.entry.tensors.values()), "backbone": made.entry.encoder["name"],
        }  # fmt: skip

    return train


def _prompted(with_source: bool) -> Trainer:
    def train(plan: Plan, target: Target, seed: int) -> tuple[Recognizer, Run]:
        own = (f"tune.per_source={plan.per_source}", f"training.seed={seed}")
        settings = WranerSettings.build(None, [*plan.wraner_overrides, *own])
        recognizer = IFWRANER.from_pretrained(plan.llm, device=plan.device, dtype=plan.dtype, settings=settings)
        tuned = recognizer.tune([plan.known()]) if with_source else None
        began = time.perf_counter()
        entry = recognizer.add_domain(target.domain, target.train)
        recognizer.predict(target.train[0].text, domain=target.domain.name)  # embeds the examples
        return recognizer, {
            "settings": settings.to_dict(), "training": time.perf_counter() - began,
            "epochs": 0 if tuned is None else tuned.result.epochs_run,
            "sources": None if tuned is None else tuned.result.seconds,
            "trained_weights": 0 if tuned is None else sum(t.numel() for t in tuned.result.state.values()),
            "backbone": entry.llm["name"],
        }  # fmt: skip

    return train


def _from_nothing(plan: Plan) -> CPNER:
    # Not from the δ₀ that ships, which has seen other domains: the row is of the target's sentences alone.
    return CPNER(load_backbone(plan.backbone, device=plan.device, dtype=plan.dtype))


def _empty_tagger(plan: Plan) -> Recognizer:
    return LANER(device=plan.device)


def _empty_prompted(plan: Plan) -> Recognizer:
    return IFWRANER.from_pretrained(plan.llm, device=plan.device, dtype=plan.dtype)


#: A further kind of recognizer is one more line here.
CHOICES: dict[str, Choice] = {
    "cp-ner": Choice("CP-NER: a prefix, frozen language model", _prefix, _from_nothing),
    "laner": Choice("LANER, no source", _tagger("laner", False), _empty_tagger),
    "laner-source": Choice("LANER after a source", _tagger("laner", True), _empty_tagger),
    "plain": Choice("plain tagger, no source", _tagger("plain", False), _empty_tagger),
    "plain-source": Choice("plain tagger after a source", _tagger("plain", True), _empty_tagger),
    "if-wraner": Choice("IF-WRANER, the model as it came", _prompted(False), _empty_prompted),
    "if-wraner-source": Choice("IF-WRANER, tuned on a source", _prompted(True), _empty_prompted),
}


def make_runs(
    plan: Plan,
    choices: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    say: Callable[[str], None],
    budget: float | None = None,
) -> None:
    """Every run that is not there yet: ``out/<choice>/seed<n>.json``, and the domain beside it.

    Args:
        plan: what each gets.
        choices: of :data:`CHOICES`.
        seeds: of training.
        out: folder.
        say: where lines for a person go.
        budget: seconds after which nothing new begins.

    Raises:
        DataError: a run that is there was made with other options.
        TrainingInterrupted: Ctrl-C.
        XdnerError: a recognizer cannot be trained; weights that are not here only leave it out.
    """
    began = time.monotonic()
    for seed in seeds:
        for name in choices:
            path = out / name / f"seed{seed}.json"
            if path.is_file():
                refuse_other_options(path, plan.asked())
                continue
            if budget is not None and time.monotonic() - began >= budget:
                say(f"{name}, seed {seed}: not begun (--budget-minutes)")
                continue
            say(f"{name}, seed {seed}: training")
            stored = path.with_suffix("")
            trained = _in_process(plan, build_training, name, seed, stored)
            if "missing" in trained:
                say(f"left out {name}: {trained['missing']}")
                continue
            read = _in_process(plan, build_reading, name, seed, stored)
            run = {"choice": name, "title": CHOICES[name].title, "seed": seed, "asked": plan.asked(), **trained}
            write_json(path, run | {"reading": read} | circumstances())
            f1 = 100 * trained["dev"]["micro"]["f1"]
            say(
                f"{name}, seed {seed}: dev F1 {f1:.2f}, {trained['training']:.0f} s, {read['sentences_per_second']:.1f}/s"
            )


def _in_process(plan: Plan, build: Callable[..., Callable[[], None]], name: str, seed: int, stored: Path) -> Run:
    """What a process of its own says of its work, with its peak memory."""
    told = stored.with_name(f"{stored.name}-told.json")
    told.parent.mkdir(parents=True, exist_ok=True)
    memory = peak_memory(plan.device, build, plan, name, seed, stored, told)
    made = read_json(told)
    told.unlink()
    if "error" in made:
        kind = TrainingInterrupted if made["interrupted"] else XdnerError
        raise kind(made["error"], hint=made["hint"])
    return made | {"memory": memory}


def build_training(plan: Plan, name: str, seed: int, stored: Path, told: Path) -> Callable[[], None]:
    """Loads the corpora; the work is to load the model, to train, to score dev and to store the domain."""

    def work() -> None:
        target = plan.bench().corpora.target(plan.target)
        recognizer, facts = CHOICES[name].train(plan, target, seed)
        report = report_on(target.dev, recognizer.predict(target.dev, domain=target.domain.name))
        recognizer.save(target.domain.name, stored)
        size = sum(p.stat().st_size for p in stored.rglob("*") if p.is_file())
        write_json(told, facts | {
            "dev": report.to_dict(), "bytes": size, "train_sentences": len(target.train), "data": dict(target.data),
            "dev_sentences": len(target.dev),
        })  # fmt: skip

    return _guarded(work, told)


def build_reading(plan: Plan, name: str, seed: int, stored: Path, told: Path) -> Callable[[], None]:
    """The work is to load model and domain, and to read sentences of 30 words."""

    def work() -> None:
        sentences = even_sentences(plan.bench().corpora.target(plan.target).dev, count=96)
        began = time.perf_counter()
        recognizer = CHOICES[name].empty(plan)
        domain = recognizer.load(stored)
        recognizer.predict(sentences[0], domain=domain)
        loading = time.perf_counter() - began
        clock, processor = sentences_per_second(recognizer, domain, sentences, times=2)
        write_json(told, {
            "loading": loading, "sentences_per_second": clock, "per_processor_second": processor,
        })  # fmt: skip

    return _guarded(work, told)


def _guarded(work: Callable[[], None], told: Path) -> Callable[[], None]:
    """Errors as plain values: not every exception survives the way between processes."""

    def guarded() -> None:
        try:
            work()
        except BackboneNotFoundError as error:
            write_json(told, {"missing": str(error)})
        except (XdnerError, KeyboardInterrupt) as error:
            stopped = isinstance(error, TrainingInterrupted | KeyboardInterrupt)
            write_json(told, {"error": getattr(error, "message", "stopped"), "hint": getattr(error, "hint", ""),
                              "interrupted": stopped})  # fmt: skip

    return guarded
