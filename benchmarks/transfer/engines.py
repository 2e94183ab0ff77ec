"""Where tasks are done: in this process, in several processes of this machine, or with Ray.

Every worker loads the backbone once and gets its share of the cores. Results come back to the program that asked, and
that one alone writes the files of runs.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from benchmarks.transfer.options import Options
from benchmarks.transfer.tasks import Task, perform
from xdner.errors import TrainingInterrupted, XdnerError
from xdner.training.interruption import stop_on_signal
from xdner.training.progress import Progress, RichProgress, SilentProgress

__all__ = ["Engine", "InProcess", "Processes", "Ray", "engine", "share_of_cores"]

ROOT = Path(__file__).resolve().parents[2]
Done = Callable[[Task, dict[str, Any]], None]
Outcome = dict[str, Any]
PATIENCE = 60.0  # seconds for a worker to end its step and to write a checkpoint


class Engine(Protocol):
    """Does tasks that do not depend on each other."""

    def go(self, tasks: Sequence[Task], begin: Callable[[], bool], done: Done) -> int:
        """Do them.

        Args:
            tasks: in the order in which they begin.
            begin: asked before each one; after the first ``False`` nothing begins any more.
            done: told of each one that ended, in this process.

        Returns:
            How many did not begin.

        Raises:
            TrainingInterrupted: Ctrl-C; what was trained has a checkpoint.
            XdnerError: a task failed; what ended before was told.
        """
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def engine(kind: str, options: Options, workers: int) -> Engine:
    """One worker is this process, whatever the kind.

    Raises:
        XdnerError: Ray is not installed.
    """
    if kind == "ray":
        return Ray(options, workers)
    return InProcess(options) if workers == 1 else Processes(options, workers)


def share_of_cores(workers: int) -> int:
    """Threads for each worker."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


class InProcess:
    """One task after the other, here."""

    def __init__(self, options: Options, progress: Callable[[str], Progress] = RichProgress) -> None:
        self.options, self.progress = options, progress
        self._bench: Any = None

    def go(self, tasks: Sequence[Task], begin: Callable[[], bool], done: Done) -> int:
        from benchmarks.transfer.bench import Bench

        for number, task in enumerate(tasks):
            if not begin():
                return len(tasks) - number
            if self._bench is None:
                self._bench = Bench(self.options)
            done(task, perform(self._bench, task, self.progress(task.title(self.options))))
        return 0

    def close(self) -> None:
        self._bench = None


class Processes:
    """Fresh processes, each with a pipe: it takes a task, and tells what came of it.

    A worker whose pipe is closed ends, so none outlives the program. Ctrl-C and SIGTERM reach this process; it passes
    them on once, and every worker ends its step and writes a checkpoint.
    """

    def __init__(self, options: Options, workers: int) -> None:
        self.options, self.workers = options, workers
        self._pipes: dict[Connection, Any] = {}

    def go(self, tasks: Sequence[Task], begin: Callable[[], bool], done: Done) -> int:
        waiting, busy = list(tasks), dict[Connection, Task]()
        with stop_on_signal() as stop:
            free = self._start(min(self.workers, len(tasks)))
            while waiting or busy:
                while free and waiting and begin():
                    pipe = free.pop(0)
                    busy[pipe] = waiting.pop(0)
                    pipe.send(busy[pipe])
                if not busy:
                    break  # the time is used up
                for ready in wait(list(busy), timeout=0.5):
                    assert isinstance(ready, Connection)
                    task = busy.pop(ready)
                    done(task, _value(self._receive(ready, task)))
                    free.append(ready)
                if stop.asked:
                    self._interrupt(busy, done)
        return len(waiting)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()  # who waits for a task ends
        for process in self._pipes.values():
            process.join(timeout=2)
            if process.is_alive():
                process.terminate()  # who trains writes a checkpoint first
        for process in self._pipes.values():
            process.join(timeout=PATIENCE)
            if process.is_alive():
                process.kill()
        self._pipes = {}

    def _start(self, count: int) -> list[Connection]:
        context = multiprocessing.get_context("spawn")
        while len(self._pipes) < count:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, self.options, share_of_cores(self.workers)), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes[ours] = process
        return list(self._pipes)

    def _receive(self, pipe: Connection, task: Task) -> Outcome:
        try:
            return pipe.recv()
        except EOFError:
            raise XdnerError(
                f"a worker died while it worked on {task.title(self.options)}",
                hint="Often the memory is too small: give fewer --workers.",
            ) from None

    def _interrupt(self, busy: Mapping[Connection, Task], done: Done) -> None:
        for process in self._pipes.values():
            process.terminate()
        for pipe, task in busy.items():
            try:
                outcome = pipe.recv() if pipe.poll(PATIENCE) else {}
            except EOFError:
                continue
            if "value" in outcome:  # it ended just now
                done(task, outcome["value"])
        raise TrainingInterrupted("stopped; runs that were under way have checkpoints")


def _serve(pipe: Connection, options: Options, threads: int) -> None:
    """A worker's life."""
    # A terminal's Ctrl-C reaches all processes; the first one decides, and says so with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        outcome = attempt(options, task, threads)
        try:
            pipe.send(outcome)
        except OSError:  # nobody is there any more
            return
        if outcome.get("interrupted"):
            return


@functools.lru_cache(maxsize=1)
def _bench(options: Options, threads: int) -> Any:
    import torch

    from benchmarks.transfer.bench import Bench

    torch.set_num_threads(threads)
    return Bench(options)


def attempt(options: Options, task: Task, threads: int) -> Outcome:
    """A task in a worker; whatever happens becomes plain values that any pipe takes."""
    try:
        return {"value": perform(_bench(options, threads), task, SilentProgress())}
    except TrainingInterrupted as error:
        return {"interrupted": True, "message": error.message, "hint": error.hint}
    except XdnerError as error:
        return {"message": error.message, "hint": error.hint}
    except Exception:
        return {"bug": traceback.format_exc()}


def _value(outcome: Outcome) -> dict[str, Any]:
    if "value" in outcome:
        return outcome["value"]
    if "bug" in outcome:
        raise RuntimeError(f"a worker failed:\n{outcome['bug']}")
    raise (TrainingInterrupted if outcome.get("interrupted") else XdnerError)(outcome["message"], hint=outcome["hint"])


class Ray:
    """Tasks on the Ray cluster that ``RAY_ADDRESS`` names, or on a Ray of this machine.

    Sources, runs and checkpoints are read and written by whoever has a task: on a cluster, the folders of data and results, this
    checkout and the pulled backbones must be at the same place on every machine.

    Raises:
        XdnerError: Ray is not installed.
    """

    def __init__(self, options: Options, workers: int) -> None:
        try:
            self.ray: Any = importlib.import_module("ray")
        except ImportError:
            raise XdnerError("the engine 'ray' needs the package ray", hint="pip install 'xdner[ray]'") from None
        # Its workers need not stand in this folder.
        self.options = replace(options, data=options.data.resolve(), out=options.out.resolve())
        self.workers = workers
        self._threads = share_of_cores(workers)
        self._remote: Any = None

    def go(self, tasks: Sequence[Task], begin: Callable[[], bool], done: Done) -> int:
        waiting, busy = list(tasks), dict[Any, Task]()
        with stop_on_signal() as stop:
            self._start()
            while waiting or busy:
                while len(busy) < self.workers and waiting and begin():
                    task = waiting.pop(0)
                    busy[self._remote.remote(self.options, task, self._threads)] = task
                if not busy:
                    break
                for ready in self._ready(list(busy)):
                    done(busy.pop(ready), _value(self.ray.get(ready)))
                if stop.asked:
                    raise TrainingInterrupted("stopped; runs that ended are kept")
        return len(waiting)

    def close(self) -> None:
        if self._remote is not None:
            self.ray.shutdown()
            self._remote = None

    def _start(self) -> None:
        if self._remote is None:
            # Its processes find this folder's programs by their path; they are not installed.
            paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {"PYTHONPATH": paths, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
            # A cluster knows what it has, and refuses to be told.
            own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.workers, "include_dashboard": False}
            self.ray.init(log_to_driver=False, runtime_env={"env_vars": environment}, **own)
            gpus = {"num_gpus": 1} if self.options.device.startswith("cuda") else {}
            self._remote = self.ray.remote(num_cpus=1, max_retries=0, **gpus)(attempt)

    def _ready(self, references: list[Any]) -> Iterator[Any]:
        yield from self.ray.wait(references, num_returns=1, timeout=0.5)[0]
