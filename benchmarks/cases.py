"""Which mentions does only the collaborative prefix find, and which known sentences explain it? The paper's Table 3.

    python benchmarks/cases.py                         # from the runs of cross_domain.py; trains nothing
    python benchmarks/cases.py --targets science --top 5 --evidence 1

A case is a gold mention that ``none`` misses in most seeds and ``collaborative`` finds in most. Beside it stand training
sentences of the sources with the same mention or the same words, or failing that with words of it. It needs the data that
the runs were made from, and takes seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from benchmarks.transfer.evidence import Case, Found
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.specs import Condition

Run = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.transfer.options import add_place, mentions

    made = argparse.ArgumentParser(
        prog="cases.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--targets", nargs="+", metavar="NAME", help="these only")
    add("--k", nargs="+", type=mentions, metavar="K", help="these sizes only")
    add("--top", type=int, default=10, metavar="N", help="cases of each target in the Markdown; the JSON has all")
    add("--evidence", type=int, default=2, metavar="N", help="explaining sentences for each case")
    add_place(made)
    return made


def find(runs: Sequence[Run], data: Path, evidence: int = 2) -> dict[Condition, Found]:
    """The cases of every condition that has runs of both strategies with a seed in common.

    Raises:
        DataError: the data are not those of the runs, or no condition has both.
    """
    from benchmarks.transfer.comparison import Results
    from xdner.errors import DataError

    results, found = Results(runs), {}
    for condition in results.conditions:
        none, collaborative = results.get(condition, "none"), results.get(condition, "collaborative")
        if none.keys() & collaborative.keys():
            found[condition] = _of(none, collaborative, data, evidence)
    if not found:
        raise DataError(
            "no target has runs of 'none' and of 'collaborative' with the same seed",
            hint="Make them with benchmarks/cross_domain.py --strategies none collaborative.",
        )
    return found


def _of(none: Mapping[int, Run], collaborative: Mapping[int, Run], data: Path, evidence: int) -> Found:
    from benchmarks.transfer.costs import mean_weights
    from benchmarks.transfer.evidence import Found, Sources, cases
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.pools import Pools
    from xdner.errors import DataError

    run = next(iter(collaborative.values()))
    options: Options = Options.from_asked(run["asked"], data, Path())
    pools = Pools(options)
    target = pools.target(run["target"])
    if pools.files(run["target"], run["sources"]) != run["data"] or [s.id for s in target.dev] != run["dev_ids"]:
        raise DataError(
            f"the runs on {run['target']} were made from other data than those in {data}",
            hint="Give the folder of the runs with --data.",
        )
    known = [pools.known(name, run["target"]) for name in run["sources"]]
    sources = Sources(known, mean_weights(collaborative.values()))
    dev, domain = target.dev, target.domain
    lost = cases(dev, domain, collaborative, none, Sources([], {}), 0)
    seeds = len(none.keys() & collaborative.keys())
    return Found(tuple(cases(dev, domain, none, collaborative, sources, evidence)), len(lost), seeds)


def markdown(found: Mapping[Condition, Found], runs: Sequence[Run], top: int) -> str:
    """The best cases of each target, and how many there are."""
    from benchmarks.layout import table
    from benchmarks.transfer.notes import caption

    parts = ["# What only the collaborative prefix finds", "", caption(runs), ""]
    parts += [
        "Gold mentions that `none` misses in most seeds and `collaborative` finds in most, those with the strongest "
        "evidence first. The sentences of sources have the mention or words of it in common; that they are the reason is "
        "a guess."
    ]
    for condition, one in found.items():
        seeds = f"{one.seeds} seed{'s' if one.seeds > 1 else ''}"
        counts = f"`collaborative` alone finds {len(one.cases)} mentions, `none` alone {one.lost}; {seeds}."
        parts += ["", f"## {condition}", "", counts, ""]
        lines = [
            [_marked(case), f"{case.label}", f"{case.instead or 'nothing'} ({case.missed} of {case.seeds} missed it)",
             f"{case.found} of {case.seeds}", "<br>".join(_told(e) for e in case.evidence) or "–"]
            for case in one.cases[:top]
        ]  # fmt: skip
        names = ["sentence", "type", "`none` says", "`collaborative` finds it", "known sentences"]
        parts += table(names, [[_cell(text) for text in line] for line in lines], left=5) if lines else ["No case."]
    return "\n".join(parts) + "\n"


def _marked(case: Case) -> str:
    return f"{case.text[: case.start]}**{case.mention}**{case.text[case.end :]}"


def _told(evidence: Any) -> str:
    label = f", {evidence.label}" if evidence.label else ""
    return f"{evidence.source} ({evidence.kind}: {evidence.shared}{label}): {evidence.excerpt}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    from benchmarks.program import guarded
    from xdner.__main__ import prepare_environment

    prepare_environment()
    given = parser().parse_args(arguments)
    return guarded(lambda: _work(given))


def _work(given: argparse.Namespace) -> None:
    from benchmarks.program import say
    from benchmarks.record import write_json
    from benchmarks.transfer.comparison import load
    from xdner.files import write_atomically

    folder = given.out / f"{given.track}-{given.initial}"
    runs = load(folder)
    wanted = [
        run for run in runs
        if (not given.targets or run["target"] in given.targets)
        and (not given.k or (None if run["k"] == "all" else run["k"]) in given.k)
    ]  # fmt: skip
    found = find(wanted, given.data, given.evidence)
    text = markdown(found, wanted, given.top)
    write_json(folder / "cases.json", {str(c): [case.to_dict() for case in one.cases] for c, one in found.items()})
    write_atomically(folder / "cases.md", text)
    print(text, end="")
    say(f"all cases: {folder / 'cases.json'}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
