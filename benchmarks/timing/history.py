"""The history of speed: one line a measurement, so that a change that made something slower is seen.

Times of a shared machine scatter; what is kept beside them are ratios of arms that ran in turns in one process, which
scatter far less.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.layout import table
from benchmarks.record import WAITING
from benchmarks.timing.inference import ARMS
from benchmarks.timing.training import TRAINERS
from xdner.errors import DataError
from xdner.files import write_atomically

__all__ = ["append", "figures_of", "markdown"]

SHOWN = 8  # last measurements of a kind
ALIKE = ("processor", "cores", "torch_threads", *WAITING, "gpu")  # of machines that compare
PLAIN = ("data", "data_sha256", "sentences", "dtype", "device", "backbone", "forced")  # of what was asked


def figures_of(found: Mapping[str, Any]) -> dict[str, float]:
    """What is kept of a measurement: sentences a second, how many times faster than each other arm, shares, by name."""
    figures: dict[str, float] = {}
    for part in [*([found["inference"]] if "inference" in found else []), *found.get("t5", [])]:
        for cell in part["cells"]:
            where = f"{part['backbone']} {part['dtype']} domains {cell['domains']} batch {cell['batch']}"
            ours = _median(cell["arms"]["xdner"])
            figures[f"{where}: sentences/s"] = ours
            figures[f"{where}: calls/sentence"] = cell["arms"]["xdner"]["calls_per_sentence"]
            for name, arm in cell["arms"].items():
                if name != "xdner":
                    figures[f"{where}: faster than {ARMS[name]}"] = ours / _median(arm)
    if "training" in found:
        part, where = found["training"], f"training {found['training']['dtype']} batch {found['training']['batch']}"
        ours = _median(part["arms"]["xdner"])
        figures[f"{where}: sentences/s"] = ours
        for name, arm in part["arms"].items():
            if name != "xdner":
                figures[f"{where}: faster than {TRAINERS[name]}"] = ours / _median(arm)
    for name, work in found.get("roofline", {}).get("work", {}).items():
        figures[f"{name}: share of the layers' rate"] = work["share_of_layers"]
    for name, work in found.get("store", {}).get("passes", {}).items():
        figures[f"store of {found['store']['domains']}, {name}: sentences/s"] = work["sentences_per_second"]
    return {name: round(value, 4) for name, value in figures.items()}


def append(path: Path, found: Mapping[str, Any]) -> None:
    """Add a measurement; the file is written whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    line = {"date": found["date"], "commit": found["commit"], **_compared(found), "figures": figures_of(found)}
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_atomically(path, before + json.dumps(line, ensure_ascii=False) + "\n")


def markdown(path: Path, found: Mapping[str, Any]) -> str:
    """The last measurements that compare with this one (its machine, model, sentences and type), oldest first. Lines of a
    time when data and waiting threads were not recorded stay in the file, and compare with nothing newer.

    Raises:
        DataError: a line of the file is damaged.
    """
    here = _compared(found)
    lines = [line for line in _read(path) if all(line[part] == values for part, values in here.items())]
    names = [name for name in figures_of(found) if sum(name in line["figures"] for line in lines) > 1]
    if not names:
        return ""
    lines = [line for line in lines if line["figures"].keys() & set(names)][-SHOWN:]
    rows = [[name, *(_figure(line["figures"].get(name)) for line in lines)] for name in names]
    heads = ["", *(f"{line['date'][:10]} {line['commit'][:7]}" for line in lines)]
    return "\n".join(["", "## History on this machine", "", *table(heads, rows, left=1), ""])


def _compared(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What two measurements must have in common."""
    parts = {"machine": ALIKE, "asked": PLAIN}
    return {part: {k: found[part][k] for k in keys if k in found[part]} for part, keys in parts.items()}


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            value = json.loads(line)
            value["machine"], value["asked"], value["figures"].keys(), value["date"][:10], value["commit"][:7]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DataError(
                f"{path}:{number}: no line of a history", hint="Remove the line, or choose another file with --history."
            ) from None
        found.append(value)
    return found


def _median(arm: Mapping[str, Any]) -> float:
    return float(arm["sentences_per_second"]["median"])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
