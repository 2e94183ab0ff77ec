"""How many texts does one server read for many callers at once, and how long does each of them wait?

    python benchmarks/serving.py                                   # the domains that ship; 1, 4 and 16 callers
    python benchmarks/serving.py --library my-library --domains cooking gardening --callers 1 32
    python benchmarks/serving.py --table                           # the table again, from the JSON file

`xdner serve` is started as a process of its own and asked over HTTP. Each caller sends one sentence, waits for the answer, and
sends the next: sentences are drawn with the seed from dev splits, domains in turn, so that a batch mixes as many as there are
callers. Before each measurement every domain is asked once. A caller's wait is from the request to the whole answer. Rounds
alternate (1 4 16 1 4 16 ...).

It needs the data, `xdner backbones pull smollm2-135m-ner` and the extra `serve`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = ("news", "politics", "science", "music", "literature", "ai", "movie", "restaurant")
QUERIES = ("politics", "science", "music", "literature", "ai")
PATIENCE = 600.0  # seconds for one answer


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import positive

    made = argparse.ArgumentParser(
        prog="serving.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--domains", nargs="+", default=list(DOMAINS), metavar="NAME", help="that are asked for, in turn")
    add("--callers", nargs="+", type=positive, default=[1, 4, 16], metavar="N", help="at a time")
    add("--sentences", type=positive, default=64, metavar="N", help="of one measurement, whatever the callers")
    add("--rounds", type=positive, default=3, metavar="N", help="of all measurements")
    add("--query-domains", nargs="+", default=list(QUERIES), metavar="NAME", help="whose dev sentences are sent")
    add("--library", type=Path, metavar="FOLDER", help="of the domains (default: those that ship)")
    add("--batch", type=positive, default=16, metavar="N", help="texts that the server reads together")
    add("--dtype", default="float32", help="of the frozen weights")
    add("--device", default="cpu", help="cpu, cuda, ...")
    add("--seed", type=int, default=1, metavar="N", help="of the sentences that are drawn")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with NAME/dev.txt")
    add("--out", type=Path, default=Path("runs/serving"), help="folder of the JSON file")
    add("--table", action="store_true", help="measure nothing; print the table of the JSON file")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="nothing: it begins anew")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.record import read_json, writable, write_json

    file = options.out / "serving.json"
    if not options.table:
        writable(options.out)
        write_json(file, measure(options))
    print(markdown(read_json(file)), end="")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""
    from benchmarks.program import say
    from benchmarks.record import circumstances
    from xdner.corpora.io import read_corpus

    known = [s for name in options.query_domains for s in read_corpus(options.data / name / "dev.txt") if s.words]
    drawn = random.Random(options.seed).sample(known, min(options.sentences, len(known)))
    texts = [sentence.text for sentence in drawn]
    jobs = list(zip(texts, itertools.cycle(options.domains)))
    found: dict[str, list[dict[str, float]]] = {str(count): [] for count in options.callers}
    with server(options) as url:
        for number, count in itertools.product(range(options.rounds), options.callers):
            say(f"round {number + 1}, {count} callers")
            ask(url, [(texts[0], name) for name in options.domains], 1)
            found[str(count)].append(ask(url, jobs, count))
    return {
        **circumstances(), "sentences": len(texts), "words": sum(len(s.words) for s in drawn), "domains": options.domains,
        "query_domains": options.query_domains, "batch": options.batch, "dtype": options.dtype, "device": options.device,
        "seed": options.seed, "callers": found,
    }  # fmt: skip


@contextlib.contextmanager
def server(options: argparse.Namespace) -> Iterator[str]:
    """The address of a server that runs until the block ends.

    Raises:
        XdnerError: it did not start; its own words are in the message.
    """
    from xdner.errors import XdnerError

    command = [
        sys.executable, "-m", "xdner", "serve", "--port", "0", "--batch", str(options.batch), "--dtype", options.dtype,
        "--device", options.device, "--domain", options.domains[0],
    ]  # fmt: skip
    command += ["--library", str(options.library)] if options.library is not None else []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if address := re.search(r"http://\S+", line):
                    yield address[0]
                    return
            raise XdnerError(f"the server did not start: {''.join(said).strip()}")
        finally:
            process.send_signal(signal.SIGINT)


def ask(url: str, jobs: Sequence[tuple[str, str]], callers: int) -> dict[str, float]:
    """Send all texts, so many at a time: sentences a second, and the waits' median and 95th percentile in seconds."""
    import httpx2

    waiting = iter(jobs)
    waits: list[float] = []
    failures: list[str] = []
    taking = threading.Lock()

    def caller() -> None:
        with httpx2.Client(base_url=url, timeout=PATIENCE) as client:
            while True:
                with taking:
                    job = next(waiting, None)
                if job is None or failures:
                    return
                began = time.perf_counter()
                answer = client.post("/predict", json={"texts": [job[0]], "domain": job[1]})
                waits.append(time.perf_counter() - began)
                if answer.status_code != 200:
                    failures.append(f"{answer.status_code}: {answer.text}")

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures or len(waits) < len(jobs):
        from xdner.errors import XdnerError

        raise XdnerError(f"the server did not answer a text: {failures[0] if failures else 'it was gone'}")
    late = statistics.quantiles(waits, n=20, method="inclusive")[-1] if len(waits) > 1 else waits[0]
    return {"rate": len(jobs) / seconds, "median": statistics.median(waits), "late": late}


def markdown(run: Mapping[str, Any]) -> str:
    """The table, and what one must know to read it."""
    from benchmarks.layout import flat, table

    def spread(values: Sequence[float]) -> str:
        low, high = min(values), max(values)
        return f"{statistics.median(values):.2f}" + (f" [{low:.2f}, {high:.2f}]" if len(values) > 1 else "")

    names = ["callers at a time", "sentences a second", "median wait, s", "95 % wait less than, s"]
    rows = [
        [count, *(spread([r[key] for r in of]) for key in ("rate", "median", "late"))]
        for count, of in run["callers"].items()
    ]
    parts = ["## One server, many callers", "", *table(names, rows, left=1), "", "## Notes", ""]
    parts += [f"- {run['sentences']} sentences of {run['words'] / run['sentences']:.0f} words on average, from the dev splits of "
              f"{', '.join(run['query_domains'])}; each caller sends one and waits for its answer."]  # fmt: skip
    parts += [
        f"- Domains, in turn: {', '.join(run['domains'])}; {run['dtype']}, {run['device']}.",
        f"- At most {run['batch']} texts are read together.",
    ]
    parts += ["- Median of the rounds, with the slowest and the fastest."]
    parts += [f"- {what}: {flat(run[what])}" for what in ("commit", "machine", "versions")]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
