"""CP-NER + DAPT, the last row of the paper's Table 1: the same runs on a backbone that `xdner adapt` made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.transfer.beside import stand_beside
from benchmarks.transfer.comparison import Results, load
from benchmarks.transfer.notes import BOOTSTRAP
from benchmarks.transfer.report import Row, always, compared, groups_of, score_table
from xdner.backbone.aliases import MANIFEST
from xdner.errors import SettingsError

__all__ = ["DAPT", "adapted_from", "beside"]

Run = dict[str, Any]
DAPT = "+dapt"
# What an adapted backbone is allowed to differ in.
OWN = ("track", "backbone")


def adapted_from(folder: str) -> dict[str, Any]:
    """What an adapted backbone was made from.

    Returns:
        ``base``, its name; ``tokens`` of the text; ``steps``; ``settings``; and ``kind``: ``instructed`` where the base has
        seen the sources of the instructed backbone, else ``raw``.

    Raises:
        SettingsError: no folder of `xdner adapt`.
    """
    try:
        made = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))["made"] if folder else {}
        base, tokens = made["base"]["name"], made["text"]["tokens"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(
            [f"the track adapted needs a folder that `xdner adapt` made, not {folder!r}"],
            hint="Make one: xdner adapt --corpus TEXT --backbone NAME --out FOLDER; then give --adapted FOLDER.",
        ) from None
    kind = "instructed" if base.endswith("-ner") else "raw"
    return {"base": base, "kind": kind, "tokens": tokens, "steps": made["steps"], "settings": made["settings"]}


def beside(runs: list[Run], folder: Path) -> str:
    """Table 1 without and with DAPT, and the differences.

    Args:
        runs: of the track ``adapted``.
        folder: of the track that they stand beside.

    Raises:
        DataError: there is nothing there, or it was made with other options, from other data or from another base.
    """
    others = load(folder)
    differ = []
    if not runs[0].get("adapted"):
        differ.append("these runs are not of the track adapted")
    elif runs[0]["adapted"]["base"] != others[0]["backbone"]["name"]:
        differ.append(f"the adapted backbone was made from {runs[0]['adapted']['base']}, not from "
                      f"{others[0]['backbone']['name']}")  # fmt: skip
    others = stand_beside(runs, folder, OWN, differ)
    results = Results([*others, *({**run, "method": run["method"] + DAPT} for run in runs)])
    source = runs[0]["asked"]["sources"][0]
    methods = {"none": "no source", f"single-{source}": f"source {source}"}
    rows: list[Row] = []
    for method, name in methods.items():
        rows += [always(f"CP-NER, {name}", method), always(f"CP-NER + DAPT, {name}", method + DAPT)]
    where = [c for c in results.conditions if c.k is None]
    groups = groups_of(where)
    parts = ["## Table 1: CP-NER + DAPT", "", *score_table(results, rows, where, groups, "method")]
    told: list[str] = []
    for plain, adapted in zip(rows[::2], rows[1::2], strict=True):
        lines = compared(results, adapted, [plain], where, groups)
        told += lines[2:] if told else lines
    return "\n".join([*parts, *(["", *told, "", BOOTSTRAP] if told else [])]) + "\n"
