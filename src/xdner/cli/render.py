"""Reports and comparisons as tables for a terminal.

Every function takes the object or its ``to_dict()`` form, so that results read back from a JSON file look the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table

from xdner.cli.visible import unstyled
from xdner.evaluation import Report
from xdner.prefix.selector import Match, Selection

__all__ = ["matches_table", "report_tables", "selection_table"]

_CONFUSIONS = 10  # pairs of types that are shown; JSON has all
_ERRORS = 6  # errors of one sentence that are shown
_COLUMNS = 3  # sources that have a column of types each; of more, so many matches of a type are shown
#: Columns of counts, and what they are called in a report.
_COUNTS = {"correct": "true_positives", "predicted": "predicted", "gold": "gold"}
_WIDE = 80  # characters; in less, counts are left to JSON
_KINDS = ("correct", "boundary", "type", "both", "missed", "spurious")


def report_tables(report: Report | Mapping[str, Any], *, width: int = _WIDE) -> list[Table]:
    """Scores, counts by scheme, errors, confused types and the worst sentences; empty tables are left out.

    Args:
        report: a report, or what its ``to_dict()`` gave.
        width: characters that there is room for. Below 80, scores come without counts: names of types need the room.
    """
    data = report.to_dict() if isinstance(report, Report) else report
    wide = width >= _WIDE
    tables = [_scores(data, wide), _schemes(data), _errors(data, wide), _confusions(data), _worst(data)]
    return [table for table in tables if table.row_count]


def selection_table(selection: Selection) -> Table:
    """What the dual-query selector says: each part of every source's weight."""
    weight, temperature = {
        "softmax": ("weight (Eq. 8)", f", temperature {selection.temperature:g}"),
        "sum": ("weight: mixtures over their sum", ""),
        "loss": ("weight: by the loss on the target's sentences", f", temperature {selection.temperature:g}"),
    }[selection.weighting]
    caption = (
        f"similarity of types (Eq. 5) and prefixes (Eq. 6), α, their mixture (Eq. 7), {weight}\n"
        f"mode {selection.mode}{temperature}; effective number of sources {selection.effective:.2f}"
    )
    headers = ["source", "types", "prefix", "α", "total", "weight"]
    table = _table(f"sources for {selection.target}", headers, left=1, caption=caption)
    table.min_width = 76  # a caption is broken at the table's width
    for source in sorted(selection.sources, key=lambda s: -s.weight):
        numbers = (source.entity, source.prefix, source.alpha, source.total, source.weight)
        _row(table, source.name, *(f"{number:.3f}" for number in numbers))
    return table


def matches_table(selection: Selection) -> Table:
    """The target's types and the nearest type of each source, or of the nearest few; the same words are marked."""
    sources = selection.sources
    many = len(sources) > _COLUMNS
    caption = "= the same words; otherwise the nearest by word embedding, with its cosine"
    headers = [
        f"type of {selection.target}",
        *(["the nearest types of sources"] if many else [s.name for s in sources]),
    ]
    table = _table("matching types", headers, left=len(headers), caption=caption)
    table.min_width = 76
    for row, match in enumerate(sources[0].matches):
        found = [(s.name, s.matches[row]) for s in sources]
        if many:
            best = sorted(found, key=lambda f: (-f[1].same, -f[1].cosine))[:_COLUMNS]
            shown = "; ".join(f"{_match(m)} ({name})" for name, m in best)
            _row(table, match.target, shown)
        else:
            _row(table, match.target, *(_match(m) for _, m in found))
    return table


def _match(match: Match) -> str:
    return f"= {match.source}" if match.same else f"{match.source} {match.cosine:.2f}"


def _scores(data: Mapping[str, Any], wide: bool) -> Table:
    left_out = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in data["left_out"].items()]
    caption = f"{data['rule']} {data['sentences']:,} sentences."
    caption += f" Not scored: {', '.join(left_out)}." if left_out else ""
    interval = data["interval"]
    if interval is not None:
        caption += f" Interval: {interval['samples']:,} samples, seed {interval['seed']}."
    counts = _COUNTS if wide else {}
    table = _table("Scores (%)", ["", "precision", "recall", "F1", *counts], caption=caption)
    _row(table, "micro", *_score(data["micro"], counts), style="bold")
    if interval is not None:
        _row(table, "  95 %, from", "", "", _percent(interval["low"]))
        _row(table, "  95 %, to", "", "", _percent(interval["high"]))
    _row(table, f"macro ({data['macro']['types']} types)", *_score(data["macro"], counts))
    if data["string_level"] is not None:
        _row(table, "string-level", *_score(data["string_level"], counts))
    table.add_section()
    for label, score in data["per_type"].items():
        _row(table, label, *_score(score, counts))
    return table


def _schemes(data: Mapping[str, Any]) -> Table:
    schemes = data["schemes"]
    table = _table("Schemes (F1 in %)", ["", *schemes])
    for name in ("correct", "incorrect", "partial", "missed", "spurious"):
        _row(table, name, *(f"{found[name]:,}" for found in schemes.values()))
    _row(table, "F1", *(_percent(found["f1"]) for found in schemes.values()), style="bold")
    return table


def _errors(data: Mapping[str, Any], wide: bool) -> Table:
    caption = "boundary: same type, overlapping span. type: same span, other type. both: overlap, other type."
    kinds = _KINDS if wide else _KINDS[1:]
    table = _table("Errors", ["", *kinds], caption=caption, tight=not wide)
    if not data["errors_per_type"]:
        return table
    _row(table, "all", *(f"{data['errors'][kind]:,}" for kind in kinds), style="bold")
    for label, counts in data["errors_per_type"].items():
        _row(table, label, *(f"{counts[kind]:,}" for kind in kinds))
    return table


def _confusions(data: Mapping[str, Any]) -> Table:
    labels, counts = data["confusion"]["labels"], data["confusion"]["counts"]
    pairs = [
        (gold, predicted, counts[row][column])
        for row, gold in enumerate(labels)
        for column, predicted in enumerate(labels)
        if row != column and counts[row][column]
    ]
    pairs.sort(key=lambda pair: -pair[2])
    more = len(pairs) - _CONFUSIONS
    caption = f"and {more} more pairs of types, in the JSON form" if more > 0 else None
    table = _table("Types taken for others", ["gold", "predicted", "times"], left=2, caption=caption)
    for gold, predicted, count in pairs[:_CONFUSIONS]:
        _row(table, gold, predicted, f"{count:,}")
    return table


def _worst(data: Mapping[str, Any]) -> Table:
    table = _table("Sentences with the most errors", ["sentence", "errors", "what"], left=1)
    table.columns[2].justify, table.columns[2].no_wrap = "left", False
    for sentence in data["worst"]:
        errors = sentence["errors"]
        lines = [_error(case) for case in errors[:_ERRORS]]
        lines += [f"and {len(errors) - _ERRORS} more"] if len(errors) > _ERRORS else []
        _row(table, sentence["id"] or f"#{sentence['index']}", f"{len(errors)}", "\n".join(lines))
    return table


def _error(case: Mapping[str, Any]) -> str:
    gold, predicted = (_mention(case[side]) for side in ("gold", "predicted"))
    if gold and predicted:
        return f"{case['kind']}: {gold} → {predicted}"
    return f"{case['kind']}: {gold or predicted}"


def _mention(entity: Mapping[str, Any] | None) -> str:
    if entity is None:
        return ""
    words = " ".join(entity["text"].split()) or f"{entity['start']}–{entity['end']}"
    return f"{words} ({entity['label']})"


def _score(score: Mapping[str, Any], counts: Mapping[str, str]) -> Iterable[str]:
    yield from (_percent(score[name]) for name in ("precision", "recall", "f1"))
    yield from (f"{score[name]:,}" if name in score else "" for name in counts.values())


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _table(title: str, columns: list[str], *, left: int = 1, caption: str | None = None, tight: bool = False) -> Table:
    """A table whose first ``left`` columns are text; the others are numbers, stand to the right and are never broken."""
    # Few lines: seven columns and the name of a type have to fit into 80 characters.
    table = Table(
        title=unstyled(title), title_justify="left", title_style="bold", caption_justify="left", box=box.MINIMAL,
        show_edge=False, padding=(0, 0, 0, 1) if tight else (0, 1),
    )  # fmt: skip
    table.caption = None if caption is None else unstyled(caption)
    for index, column in enumerate(columns):
        text = index < left
        table.add_column(unstyled(column), justify="left" if text else "right", overflow="fold", no_wrap=not text)
    return table


def _row(table: Table, *cells: str, style: str | None = None) -> None:
    table.add_row(*(unstyled(cell) for cell in cells), style=style)
