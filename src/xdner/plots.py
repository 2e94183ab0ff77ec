"""Figures, drawn with matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xdner.errors import XdnerError, install_hint
from xdner.files import write_atomically

__all__ = ["selection_figure"]

#: One hue from light to dark: it stays readable in gray print.
COLORS = "Blues"


def selection_figure(selections: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """The paper's Figure 3: similarities of targets (rows) and sources (columns), the weights, and layer by layer.

    Args:
        selections: :meth:`Selection.to_dict` of one or several targets.
        path: where the picture goes; its suffix says in which format (``.png``, ``.svg``, ``.pdf``).

    Returns:
        The path.

    Raises:
        XdnerError: matplotlib is not installed, or cannot write that format.
        StorageError: the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise XdnerError("figures need the package matplotlib", hint=install_hint("plots")) from None
    sources = list(dict.fromkeys(s["name"] for chosen in selections for s in chosen["sources"]))
    targets = [chosen["target"] for chosen in selections]
    pairs = [(c["target"], s) for c in selections for s in c["sources"]]
    sites = list(pairs[0][1]["layers"])
    wide = max(8.5, 1.2 + 3 * (1.1 + 0.62 * len(sources)), 2.2 + 0.24 * len(sites))
    upper, lower = 1.5 + 0.42 * len(targets), 1.1 + 0.26 * len(pairs)
    figure = Figure(figsize=(wide, upper + lower), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper, lower])
    top, bottom = parts
    panels = top.subplots(1, 3)
    weighting = selections[0].get("weighting", "softmax")
    titles = {
        "entity": "similarity of types (Eq. 5)",
        "prefix": "similarity of prefixes (Eq. 6)",
        "weight": {"softmax": "weight (Eq. 8)", "sum": "weight (over the sum)"}.get(weighting, f"weight ({weighting})"),
    }
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        found = {(c["target"], s["name"]): s[key] for c in selections for s in c["sources"]}
        rows = [[found.get((t, s), float("nan")) for s in sources] for t in targets]
        _map(panel, rows, targets if key == "entity" else [""] * len(targets), sources, title, numbers=True)
    rows = [[s["layers"][site] for site in sites] for _, s in pairs]
    # Every other layer is named where there are many: names would run into each other.
    step = 1 if len(sites) <= 16 else 2
    names = [site if i % step == 0 else "" for i, site in enumerate(sites)]
    drawn = _map(
        bottom.subplots(), rows, [f"{t} ← {s['name']}" for t, s in pairs], names, "similarity of prefixes, site by site"
    )
    bottom.colorbar(drawn, shrink=0.9)
    data = io.BytesIO()
    kind = Path(path).suffix.lstrip(".") or "png"
    try:
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
            figure.savefig(data, format=kind, dpi=160)
    except ValueError as error:
        raise XdnerError(f"cannot draw {path}: {error}", hint="Use a name that ends in .png, .svg or .pdf.") from None
    write_atomically(path, data.getvalue())
    return Path(path)


def _map(
    panel: Any,
    rows: Sequence[Sequence[float]],
    left: Sequence[str],
    below: Sequence[str],
    title: str,
    *,
    numbers: bool = False,
) -> Any:
    drawn = panel.imshow(rows, cmap=COLORS, aspect="auto")
    panel.set_title(title, fontsize=10)
    panel.set_yticks(range(len(left)), left, fontsize=8)
    panel.set_xticks(range(len(below)), below, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)
    if numbers:
        low, high = drawn.get_clim()
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                if value == value:  # a target is not its own source: that place stays empty
                    dark = high > low and value > low + 0.6 * (high - low)
                    panel.text(
                        x, y, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
                    )
    return drawn
