"""Runs of arms over targets, seeds and rates: one JSON file a run, and a run whose file is there is not made again.

The rate of an arm on a target is chosen on the first seed, by dev F1 (of equal ones, the lowest), and kept for the
other seeds. The choice is made from the files alone, by the program that runs and by the one that makes tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import Arm, Corpora, Target
from benchmarks.record import circumstances, read_json, refuse_other_options, writable, write_json
from xdner.errors import BackboneNotFoundError, TrainingError, TrainingInterrupted
from xdner.training.progress import Progress

__all__ = ["Plan", "Runner", "chosen_rate", "f1_of"]

Run = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        arms, targets, seeds: in their order; the first seed chooses the rates.
        out: folder of the JSON files, ``out/<arm>/<target>/seed<n>-rate<r>.json``.
        corpora: where targets come from.
        budget: seconds after which no new run begins; ``None``: no end.
        benchmark: the program's name, for the files.
    """

    arms: Sequence[Arm]
    targets: Sequence[str]
    seeds: Sequence[int]
    out: Path
    corpora: Corpora
    budget: float | None = None
    benchmark: str = "quality"


def f1_of(run: Run) -> float | None:
    """Dev micro-F1 of a run, ``None`` if it failed."""
    return None if run["dev"] is None else float(run["dev"]["micro"]["f1"])


def chosen_rate(runs: Iterable[Run]) -> float | None:
    """The best rate among runs of one arm, target and seed; of equally good ones the lowest. ``None``: all failed."""
    scored = [(-f1, run["rate"]) for run in runs if (f1 := f1_of(run)) is not None]
    return min(scored)[1] if scored else None


class Runner:
    """Goes through a plan, seed by seed, so that an early end leaves every arm with some result.

    Args:
        plan: what to run.
        say: where lines for a person go.
        progress: makes the progress display of a run from its title.
    """

    def __init__(self, plan: Plan, *, say: Callable[[str], None], progress: Callable[[str], Progress]) -> None:
        self.plan, self.say, self.progress = plan, say, progress
        writable(plan.out)
        self.began = time.monotonic()
        self.circumstances = circumstances()
        self.targets = {name: plan.corpora.target(name) for name in plan.targets}
        self.absent: dict[str, str] = {}  # arms whose weights are not here
        self.made = self.kept = self.left = 0

    def go(self) -> None:
        """Make every run that is not there yet.

        Raises:
            DataError: a file that is there was made with other options.
            TrainingInterrupted: Ctrl-C; the runs that ended are kept.
        """
        for seed in self.plan.seeds:
            for name in self.plan.targets:
                for arm in self.plan.arms:
                    for rate in self._rates(arm, name, seed):
                        self._one(arm, self.targets[name], seed, rate)
        for arm_name, why in self.absent.items():
            self.say(f"left out {arm_name}: {why}")
        self.say(f"{self.made} runs made, {self.kept} were there, {self.left} not begun (--budget-minutes)")

    def _rates(self, arm: Arm, target: str, seed: int) -> tuple[float, ...]:
        first = self.plan.seeds[0]
        if seed == first:
            return arm.rates
        files = [self._path(arm.name, target, first, rate) for rate in arm.rates]
        if not all(file.is_file() for file in files):
            return ()  # not all rates were tried (no weights, or the budget is used up): nothing can be chosen
        # As the table chooses: among all that were tried, also by another command.
        tried = sorted(self._path(arm.name, target, first, 0).parent.glob(f"seed{first}-rate*.json"))
        best = chosen_rate([read_json(file) for file in tried])
        return () if best is None else (best,)

    def _path(self, arm: str, target: str, seed: int, rate: float) -> Path:
        return self.plan.out / arm / target / f"seed{seed}-rate{rate:g}.json"

    def _one(self, arm: Arm, target: Target, seed: int, rate: float) -> None:
        path = self._path(arm.name, target.domain.name, seed, rate)
        asked = arm.asked() | {
            "limit": self.plan.corpora.limit, "data": dict(target.data), "first_seed": self.plan.seeds[0],
        }  # fmt: skip
        if path.is_file():
            refuse_other_options(path, asked)
            self.kept += 1
            return
        if arm.name in self.absent:
            return
        if self.plan.budget is not None and time.monotonic() - self.began >= self.plan.budget:
            self.left += 1
            return
        title = f"{arm.name} {target.domain.name} seed {seed} rate {rate:g}"
        run: Run = {
            "benchmark": self.plan.benchmark, "arm": arm.name, "target": target.domain.name, "seed": seed,
            "first_seed": self.plan.seeds[0], "rate": rate, "rates": list(arm.rates), "limit": self.plan.corpora.limit,
            "asked": asked, "train_sentences": len(target.train), "dev_sentences": len(target.dev),
            "data": dict(target.data),
        }  # fmt: skip
        try:
            measured = arm.run(target, seed, rate, self.progress(title))
        except BackboneNotFoundError as error:
            self.absent[arm.name] = str(error)
            return
        except TrainingInterrupted:
            raise
        except TrainingError as error:
            # A rate that diverges is a result too: the others are chosen from.
            run |= {"error": error.message, "dev": None, "history": [], "seconds": {}}
        else:
            run |= {"error": None, "dev": measured.report, "history": measured.history, "seconds": measured.seconds}
            run |= measured.facts
        write_json(path, run | self.circumstances)
        self.made += 1
        score = f1_of(run)
        self.say(f"{title}: " + (run["error"] if score is None else f"dev F1 {100 * score:.2f}"))
