"""Many runs: what is there is kept, what is missing is made, and what does not belong together is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.record import read_json, refuse_other_options, write_json
from benchmarks.transfer.comparison import RUNS
from benchmarks.transfer.engines import Engine
from benchmarks.transfer.options import Options
from benchmarks.transfer.pools import Pools
from benchmarks.transfer.specs import Spec, sources_seen
from benchmarks.transfer.tasks import Task, preparations
from xdner.errors import DataError

__all__ = ["Campaign"]


class Campaign:
    """Goes through runs in their order.

    Args:
        options: of all of them.
        specs: the runs; one that is named twice is made once.
        engine: does the work.
        say: where lines for a person go.
        budget: seconds after which nothing new begins; ``None``: no end.
    """

    def __init__(
        self,
        options: Options,
        specs: Sequence[Spec],
        engine: Engine,
        say: Callable[[str], None],
        budget: float | None = None,
    ) -> None:
        self.options, self.engine, self.say, self.budget = options, engine, say, budget
        self.specs = list({spec.path(options): spec for spec in specs}.values())
        self.began = time.monotonic()
        self.made = 0

    def go(self) -> None:
        """Make every run that is not there yet.

        Raises:
            DataError: runs that are there were made with other options, or a source shares sentences with a target.
            TrainingInterrupted: Ctrl-C; the same command goes on.
        """
        for path in sorted(self.options.folder.glob(RUNS)):
            refuse_other_options(path, self.options.asked())
        pools = Pools(self.options)
        seen: dict[str, set[str]] = {}
        for spec in self.specs:
            seen.setdefault(spec.target, set()).update(sources_seen(spec, self.options))
        for target, sources in seen.items():
            pools.refuse_shared(target, [s for s in self.options.sources if s in sources])
        missing = [spec for spec in self.specs if not self._there(spec, pools)]
        kept, left = len(self.specs) - len(missing), 0
        try:
            for stage in preparations(self.options, pools, missing) if missing else []:
                left += self.engine.go(stage, self._begin, self._prepared)
            runs = [Task("run", spec) for spec in missing]
            left = len(runs) if left else self.engine.go(runs, self._begin, self._write)
        finally:
            self.engine.close()
        self.say(f"{self.made} runs made, {kept} were there, {left} not begun (--budget-minutes)")

    def _there(self, spec: Spec, pools: Pools) -> bool:
        """Whether the run was made, from the same data."""
        path = spec.path(self.options)
        if not path.is_file():
            return False
        data = pools.files(spec.target, sources_seen(spec, self.options))
        if read_json(path).get("data") != data:
            raise DataError(
                f"{path} was made from other data", hint="Choose another --out, or give the same --data as before."
            )
        return True

    def _begin(self) -> bool:
        return self.budget is None or time.monotonic() - self.began < self.budget

    def _prepared(self, task: Task, facts: dict[str, Any]) -> None:
        self.say(f"{task.title(self.options)}: {facts['steps']} steps, {facts['seconds']:.0f} s")

    def _write(self, task: Task, run: dict[str, Any]) -> None:
        write_json(task.spec.path(self.options), run)
        self.made += 1
        score = run["error"] if run["dev"] is None else f"dev F1 {100 * run['dev']['micro']['f1']:.2f}"
        self.say(f"{task.title(self.options)}: {score}")
