"""The table of ``choosing.py`` as Markdown, and its place in a page."""

from __future__ import annotations

import shlex
import statistics
from pathlib import Path
from typing import Any

from benchmarks.choices import CHOICES
from benchmarks.choosing import parser
from benchmarks.layout import flat, percent, table
from benchmarks.record import read_json
from benchmarks.transfer.comparison import spread
from xdner.errors import DataError
from xdner.evaluation import seed_summary
from xdner.files import write_atomically

__all__ = ["BEGIN", "END", "command", "markdown", "write_page"]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Run = dict[str, Any]
#: Of the options, the names under which runs keep them, where they are others.
_KEPT = {"set": "overrides", "tagger_set": "tagger_overrides", "wraner_set": "wraner_overrides"}
_PAGE = "docs/CHOOSING.md"


def command(runs: list[Run]) -> str:
    """The command that makes these runs and writes the page, with every option that is not the default.

    It is made from what the runs keep: they may have come of several commands, or of one that only printed them again. Where
    data and runs are is left out, and of a model's folder there is its name only.
    """
    names = [name for name in CHOICES if any(run["choice"] == name for run in runs)]
    made = runs[0]["asked"] | {"choices": names, "seeds": sorted({run["seed"] for run in runs})}
    words = ["python", "benchmarks/choosing.py"]
    for option, default in vars(parser().parse_args([])).items():
        key = _KEPT.get(option, option)
        if key in made and made[key] != default:
            values = made[key] if isinstance(made[key], list) else [made[key]]
            words += [f"--{option.replace('_', '-')}", *(_without_folder(str(value)) for value in values)]
    return shlex.join([*words, "--write", _PAGE])


def _without_folder(value: str) -> str:
    """A value, or of ``key=/a/path`` and ``/a/path`` the last part of the path: a page is for other machines."""
    key, equals, path = value.rpartition("=")
    return f"{key}{equals}{Path(path).name}" if Path(path).is_absolute() else value


def markdown(out: Path) -> str:
    """One row a recognizer, in the order of :data:`~benchmarks.choices.CHOICES`.

    Raises:
        DataError: there are no runs, or they were made with different options.
    """
    runs = [run for path in sorted(out.glob("*/seed*.json")) if "choice" in (run := read_json(path))]
    if not runs:
        raise DataError(f"there are no runs in {out}", hint="Run the program first, or give its folder with --out.")
    for what in ("asked", "data"):
        if any(run[what] != runs[0][what] for run in runs):
            mixed = "options" if what == "asked" else "data"
            raise DataError(f"{out} mixes runs of different {mixed}", hint="Give each an --out of its own.")
    rows = []
    for name in CHOICES:
        own = [run for run in runs if run["choice"] == name]
        if own:
            rows.append(_row(own))
    names = [
        "recognizer", "dev F1", "95 % interval", "training, s", "source stage, s", "memory training, MiB",
        "memory reading, MiB", "sentences/s", "per processor s", "domain, MB",
    ]  # fmt: skip
    return "\n".join([*table(names, rows, left=1), "", *(f"- {note}" for note in _notes(runs))]) + "\n"


def write_page(page: Path, text: str) -> None:
    """Put the text between the marks of a page.

    Raises:
        DataError: the page cannot be read or has no such marks.
    """
    try:
        old = page.read_text(encoding="utf-8")
        before, after = old.split(BEGIN)[0], old.split(END)[1]
        if old.count(BEGIN) != 1 or old.count(END) != 1:
            raise IndexError
    except (OSError, UnicodeDecodeError, IndexError):
        raise DataError(
            f"{page} has no place for the table", hint=f"It needs the lines {BEGIN} and {END}, once each."
        ) from None
    write_atomically(page, f"{before}{BEGIN}\n{text}{END}{after}")


def _row(runs: list[Run]) -> list[str]:
    def mean(values: list[float]) -> float:
        return statistics.fmean(values)

    def megabytes(memories: list[dict[str, float] | None]) -> str:
        known = [m["peak"] for m in memories if m]
        return f"{max(known):,.0f}" if known else "–"

    f1 = seed_summary([run["dev"]["micro"]["f1"] for run in runs])
    interval = runs[0]["dev"]["interval"]
    sources = [run["sources"] for run in runs if run["sources"] is not None]
    return [
        runs[0]["title"], spread(f1), f"{percent(interval['low'])} to {percent(interval['high'])}" if len(runs) == 1 else "–",
        f"{mean([run['training'] for run in runs]):,.0f}", f"{mean(sources):,.0f}" if sources else "–",
        megabytes([run["memory"] for run in runs]), megabytes([run["reading"]["memory"] for run in runs]),
        f"{mean([run['reading']['sentences_per_second'] for run in runs]):.1f}",
        f"{mean([run['reading']['per_processor_second'] for run in runs]):.1f}",
        f"{mean([run['bytes'] for run in runs]) / 1e6:,.1f}",
    ]  # fmt: skip


def _notes(runs: list[Run]) -> list[str]:
    first, asked = runs[0], runs[0]["asked"]
    seeds = sorted({run["seed"] for run in runs})
    made = [
        f"{asked['target']}: {first['train_sentences']} training sentences; F1 (exact spans) on {first['dev_sentences']} dev "
        f"sentences, which also chose the epoch; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}.",
        "Training without the source stage, which is done once for many targets: "
        f"{asked['per_source']} sentences of {asked['source']}, {asked['source_epochs']} epochs of a tagger, of IF-WRANER as "
        "many as its settings say. IF-WRANER trains nothing on the target: it embeds its sentences.",
        "Memory: the most that a process of its own held. Reading: 96 sentences of 30 words, from text to entities. A domain "
        "of a tagger holds all weights of its encoder, one of IF-WRANER its examples and what was tuned; language models, which "
        "domains share, are not counted.",
        "Prefixes on {backbone}, IF-WRANER on {llm}, both {dtype}; taggers on {encoder}. Settings: those of `xdner train`".format(
            **{key: _without_folder(str(asked[key])) for key in ("backbone", "llm", "dtype", "encoder")}
        )
        + "".join(f"; {k}: {', '.join(map(_without_folder, v))}"
                  for k, v in (("prefixes", asked["overrides"]), ("taggers", asked["tagger_overrides"]),
                               ("IF-WRANER", asked["wraner_overrides"])) if v) + ".",
    ]  # fmt: skip
    if asked["limit"] is not None:
        made.insert(0, f"**A trial: the first {asked['limit']} sentences of each file only. These are no results.**")
    if "-ner" in str(asked["backbone"]):
        made.append(
            "smollm2-135m-ner has seen CoNLL-2003, politics, music and literature in its instruction tuning; a tagger "
            "without a source has seen no labelled sentence but the target's."
        )
    made.append(f"command: `{command(runs)}`")
    for what in ("commit", "machine", "versions"):
        made.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return made
