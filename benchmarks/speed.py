"""How fast is it, side by side with what one would otherwise use? Reading, training, and what the machine could do.

    python benchmarks/speed.py                                              # reading, training, roofline: hours on two cores
    python benchmarks/speed.py --sentences 16 --batch 8 --domains 1 8 --rounds 1 --no-memory          # a first look
    python benchmarks/speed.py --only t5 --t5-tokenizer FOLDER              # t5-small and t5-base, random weights
    python benchmarks/speed.py --device cuda --dtype bfloat16 --out runs/speed/gpu.json
    python benchmarks/speed.py --table                                      # the tables of a file again

All arms read the same sentences with the same weights in one run, round after round: transformers' ``generate`` with a
prefix of peft, alone and under our grammar; our engine domain by domain; our engine on the mixed stream.

It needs `xdner backbones pull smollm2-135m-ner`, a labeled file (`--data`) and the extra `instruct`; the store of 10,000 domains
takes 4.7 GB of a temporary folder (`--stored 100`, or leave `store` out of `--only`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from benchmarks.timing.inference import Plan

ARMS = ("generate", "generate-grammar", "by-domain", "xdner", "one-domain")
PARTS = ("inference", "training", "t5", "roofline", "store")
#: Not part of a measurement's identity.
ELSEWHERE = ("table", "out", "history")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="speed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of: {', '.join(PARTS)}; t5 needs --t5-tokenizer")
    add("--backbone", default="smollm2-135m-ner", help="alias, hub id or folder")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data" / "ai" / "dev.txt", help="a labeled file")
    add("--prefix", type=Path, help="folder of a trained prefix; by default the domain of the data's name that ships, "
        "else the start of all prefixes")  # fmt: skip
    add("--sentences", type=_positive, default=64, metavar="N", help="the first ones of at most a window's words")
    add("--batch", type=_positive, nargs="+", default=[1, 8, 32], metavar="B", help="rows at a time")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=f"of: {', '.join(ARMS)}")
    add("--domains", type=_positive, nargs="+", default=[1, 8, 64, 1000], metavar="D", help="in the stream")
    add("--rounds", type=_positive, default=5, metavar="N", help="timed passes of every arm")
    add("--forced", action="store_true", help="every arm writes the gold targets (t5 always does)")
    add("--training-batch", type=_positive, default=8, metavar="B", help="of training and of the roofline")
    add("--t5-tokenizer", type=Path, metavar="FOLDER", help="T5's tokenizer and configuration; weights are random")
    add("--t5-shapes", nargs="+", default=["small", "base"], metavar="NAME", help="published shapes of T5")
    add("--t5-domains", type=_positive, nargs="+", default=[1, 8], metavar="D", help="in the stream of T5")
    add("--stored", type=_positive, default=10_000, metavar="N", help="domains in the store (460 kB each on disk)")
    add("--resident-mb", type=_positive, default=100, metavar="MB", help="of ready domains in memory, for the store")
    add("--threads", type=int, default=0, metavar="N", help="of torch (default: as it chooses)")
    add("--dtype", default="float32", help="float32, bfloat16 or float16, of all arms")
    add("--device", default="cpu")
    add("--no-memory", action="store_true", help="do not measure peak memory (a process for each arm and batch size)")
    add("--out", type=Path, default=Path("runs/speed/speed.json"), help="the file that is written")
    add("--history", type=Path, default=ROOT / "benchmarks" / "speed-history.jsonl", metavar="FILE",
        help="where a line is added, and what tables compare with")  # fmt: skip
    add("--table", action="store_true", help="only print the tables of --out")
    return made


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="the first arm: nothing is kept of a run that was stopped")


def _work(given: argparse.Namespace) -> None:
    from benchmarks.record import read_json, write_json
    from benchmarks.timing import history
    from benchmarks.timing.report import markdown

    if not given.table:
        found = measure(given)
        write_json(given.out, found)
        history.append(given.history, found)
    found = read_json(given.out)
    print(markdown(found) + history.markdown(given.history, found), end="")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All parts that were asked for.

    Returns:
        ``asked``, ``date``, ``commit``, ``machine``, ``versions``, and one entry for each part.

    Raises:
        DataError: T5 was asked for without its tokenizer.
        XdnerError: the backbone, the data or the prefix cannot be read.
    """
    from benchmarks.program import say
    from benchmarks.record import circumstances
    from benchmarks.timing.inference import measure_inference
    from benchmarks.timing.peer import measure_peer
    from benchmarks.timing.roofline import measure_roofline
    from benchmarks.timing.stored import measure_stored
    from benchmarks.timing.training import measure_training

    parts, plan = parts_of(given), plan_of(given)
    found: dict[str, Any] = {"asked": _asked(given)}
    if "inference" in parts:
        found["inference"] = measure_inference(plan, say)
        found["peer"] = measure_peer(plan, given.t5_tokenizer, say)
    if "t5" in parts:
        found["t5"] = [measure_inference(p, say) for p in t5_plans(given, plan)]
    if "training" in parts:
        found["training"] = measure_training(plan, given.training_batch, say)
    if "roofline" in parts:
        found["roofline"] = measure_roofline(plan, given.training_batch, say)
    if "store" in parts:
        found["store"] = measure_stored(plan, given.stored, given.resident_mb, say)
    # Last, because threads are set when a model is loaded.
    return circumstances() | found


def parts_of(given: argparse.Namespace) -> tuple[str, ...]:
    """What to measure: by default everything that is possible.

    Raises:
        DataError: T5 was asked for without its tokenizer, or with a shape that is not known.
    """
    from benchmarks.timing.models import T5_SHAPES
    from xdner.errors import DataError

    parts = tuple(given.only or (p for p in PARTS if p != "t5" or given.t5_tokenizer is not None))
    if "t5" in parts and given.t5_tokenizer is None:
        raise DataError("T5 needs a tokenizer", hint="Give its folder with --t5-tokenizer.")
    unknown = [s for s in given.t5_shapes if s not in T5_SHAPES]
    if unknown:
        raise DataError(f"unknown shape of T5: {', '.join(unknown)}", hint=f"Known are {', '.join(T5_SHAPES)}.")
    return parts


def plan_of(given: argparse.Namespace) -> Plan:
    """What is measured with the backbone's own weights."""
    from benchmarks.timing.inference import Plan
    from benchmarks.timing.models import ModelRecipe

    return Plan(
        ModelRecipe(given.backbone, given.device, given.dtype, given.threads), given.data, given.sentences, given.prefix,
        tuple(given.batch), tuple(given.domains), given.rounds, forced=given.forced, memory=not given.no_memory,
        arms=tuple(given.arms),
    )  # fmt: skip


def t5_plans(given: argparse.Namespace, plan: Plan) -> list[Plan]:
    """The same with T5 of random weights, which write the gold targets."""
    from benchmarks.timing.models import ModelRecipe

    return [
        replace(
            plan, recipe=ModelRecipe.random_t5(shape, given.t5_tokenizer, plan.recipe), prefix=None,
            domains=tuple(given.t5_domains), forced=True,
        )
        for shape in given.t5_shapes
    ]  # fmt: skip


def _asked(given: argparse.Namespace) -> dict[str, Any]:
    """The options, without this machine's folders; of the data, its domain's folder and its bytes' hash."""
    from benchmarks.timing.workload import file_hash

    values = {key: value for key, value in vars(given).items() if key not in ELSEWHERE}
    values = {key: value.name if isinstance(value, Path) else value for key, value in values.items()}
    data = given.data.resolve()
    return values | {"data": f"{data.parent.name}/{data.name}", "data_sha256": file_hash(data)}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
