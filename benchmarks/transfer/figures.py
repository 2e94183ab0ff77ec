"""Lines and bars with error bars, as PNG (needs the extra ``plots``)."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdner.errors import XdnerError
from xdner.evaluation import SeedSummary
from xdner.files import write_atomically

__all__ = ["Bars", "Line", "Panel", "draw_bars", "draw_groups", "draw_lines"]

# Colors that people with any color vision can tell apart (Okabe and Ito), each with its own mark.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
STROKES = ("-", "--", ":")  # when all colors have been used
ACROSS = 3  # fields side by side
WIDE = 60  # letters below a field


@dataclass(frozen=True)
class Line:
    """A line: its name, and (x, score) for each point."""

    name: str
    points: Sequence[tuple[float, SeedSummary]]


@dataclass(frozen=True)
class Panel:
    """Some lines in one field."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Bars:
    """Bars in one field, and the score that the dashed line stands at."""

    title: str
    bars: Sequence[tuple[str, SeedSummary]]
    level: SeedSummary


def draw_lines(
    panels: Sequence[Panel], path: Path, *, across: str, ticks: Sequence[float],
    up: str = "dev micro-F1 in %, mean ± sd over seeds",
) -> Path:  # fmt: skip
    """Fields in rows of three, with one legend; a point of one seed has no error bar.

    Args:
        panels: at least one.
        path: of the PNG.
        across: what the horizontal axis shows.
        ticks: its values; they stand at equal distances.
        up: what the vertical axis shows, in percent.

    Raises:
        XdnerError: matplotlib is not installed.
    """
    columns = min(ACROSS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure((1.6 + 4.2 * columns, 0.7 + 3.2 * rows))
    fields = [field for row in figure.subplots(rows, columns, squeeze=False) for field in row]
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    places = {value: place for place, value in enumerate(ticks)}
    shown: dict[str, Any] = {}
    for field, panel in zip(fields, panels, strict=False):
        for line in panel.lines:
            which = names.index(line.name)
            # Beside each other, so that error bars do not hide each other.
            shift = min(0.06, 0.5 / len(names)) * (which - (len(names) - 1) / 2)
            shown[line.name] = field.errorbar(
                [places[x] + shift for x, _ in line.points], [100 * s.mean for _, s in line.points],
                yerr=[_deviation(s) for _, s in line.points], markersize=5, linewidth=1.5, capsize=3, elinewidth=1,
                **_style(which),
            )  # fmt: skip
        field.set_xticks(range(len(ticks)), [f"{x:g}" for x in ticks])
        field.set_xlim(-0.4, len(ticks) - 0.6)
        _dress(field, panel.title, across)
    for field in fields[0 : len(panels) : columns]:
        field.set_ylabel(up, fontsize=9)
    for field in fields[len(panels) :]:
        field.set_visible(False)
    beside = min(5 if len(panels) > 1 else 4, len(shown))
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=beside, fontsize=8, frameon=False
    )  # fmt: skip
    return _save(figure, path)


def draw_bars(groups: Sequence[Bars], path: Path) -> Path:
    """One field for each group, at most two in a row; the axis does not begin at zero, as the dashed line says.

    Raises:
        XdnerError: matplotlib is not installed.
    """
    columns = min(2, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = _figure((1.0 + 4.6 * columns, 3.6 * rows))
    fields = [field for row in figure.subplots(rows, columns, squeeze=False) for field in row]
    for field, group in zip(fields, groups, strict=False):
        heights = [100 * s.mean for _, s in group.bars]
        spread = [_deviation(s) for _, s in group.bars]
        reach = [0.0 if math.isnan(s) else s for s in spread]
        field.bar(
            range(len(heights)), heights, yerr=spread, color=COLORS[4], edgecolor=COLORS[0], linewidth=0.8, capsize=3,
            error_kw={"elinewidth": 1, "ecolor": "#222222"},
        )  # fmt: skip
        field.axhline(100 * group.level.mean, color=COLORS[1], linestyle="--", linewidth=1.5)
        field.set_xticks(
            range(len(heights)), [name for name, _ in group.bars], rotation=35, ha="right", rotation_mode="anchor"
        )
        ends = [100 * group.level.mean, *(h - s for h, s in zip(heights, reach, strict=True))]
        tops = [100 * group.level.mean, *(h + s for h, s in zip(heights, reach, strict=True))]
        room = max(1.0, 0.25 * (max(tops) - min(ends)))
        field.set_ylim(max(0.0, min(ends) - 2 * room), max(tops) + room)
        _dress(field, group.title, "")
        field.set_ylabel("dev micro-F1 in %", fontsize=9)
    for field in fields[len(groups) :]:
        field.set_visible(False)
    figure.suptitle("dashed: nothing left out; bars: mean ± sd over seeds; axes do not begin at 0", fontsize=9)
    return _save(figure, path)


def draw_groups(names: Sequence[str], groups: Sequence[tuple[str, Sequence[SeedSummary]]], path: Path) -> Path:
    """Bars side by side: one place for each name, in it one bar of each group.

    Args:
        names: along the axis.
        groups: a name for the legend, and a score for each place.
        path: of the PNG.

    Raises:
        XdnerError: matplotlib is not installed.
    """
    figure = _figure((2.0 + 0.75 * len(names), 4.2))
    field = figure.subplots()
    width = 0.8 / len(groups)
    for number, (group, scores) in enumerate(groups):
        field.bar(
            [place - 0.4 + (number + 0.5) * width for place in range(len(names))], [100 * s.mean for s in scores],
            width=width, yerr=[_deviation(s) for s in scores], color=COLORS[number % len(COLORS)], capsize=2, label=group,
            error_kw={"elinewidth": 1, "ecolor": "#222222"},
        )  # fmt: skip
    field.set_xticks(range(len(names)), list(names), rotation=35, ha="right", rotation_mode="anchor")
    _dress(field, "", "")
    field.set_ylabel("dev F1 in %, mean ± sd over seeds", fontsize=9)
    figure.legend(loc="outside lower center", ncols=min(4, len(groups)), fontsize=8, frameon=False)
    return _save(figure, path)


def _style(which: int) -> dict[str, str]:
    """Color, mark and stroke of a line: no two of the first 24 are the same."""
    number, place = divmod(which, len(COLORS))
    return {"color": COLORS[place], "marker": MARKS[place], "linestyle": STROKES[number % len(STROKES)]}


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise XdnerError("figures need the package matplotlib", hint="pip install 'xdner[plots]'") from None
    return Figure(figsize=size, layout="constrained")


def _dress(field: Any, title: str, across: str) -> None:
    field.set_title(title, fontsize=10)
    field.set_xlabel(textwrap.fill(across, WIDE), fontsize=9)  # layouts make room for lines, not for a long one
    field.tick_params(labelsize=8)
    field.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    field.set_axisbelow(True)
    for side in ("top", "right"):
        field.spines[side].set_visible(False)


def _deviation(scores: SeedSummary) -> float:
    """In percent; not a number with one seed, of which no error bar is drawn: a bar of no length would say that it is sure."""
    return math.nan if scores.standard_deviation is None else 100 * scores.standard_deviation


def _save(figure: Any, path: Path) -> Path:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=160)
    write_atomically(path, data.getvalue())
    return path
