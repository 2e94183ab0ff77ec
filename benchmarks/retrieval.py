"""Do the words of a sentence find better examples than the sentence as a whole? No language model is asked.

    python benchmarks/retrieval.py                    # five CrossNER domains: train is the pool, dev the queries
    python benchmarks/retrieval.py --table            # the tables and the figure again, from the JSON file

A query's examples are good if they have its types: the share of its gold types, and of its gold mentions by their types,
that k examples have; at equal k, and at equal prompt tokens (examples best first, each that there is still room for, as
``Sentence: TEXT`` and a line with its entities, counted by the generator's tokenizer). Values are means over the queries with
mentions of a domain, then over domains; intervals are bootstrap over queries; random is the mean over its seeds.

It needs the data, `xdner backbones pull` of minilm-l6 and smollm2-135m (its tokenizer counts), and the extra `retrieval`;
about six minutes of a core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CROSSNER = ("politics", "science", "music", "literature", "ai")
METHODS = ("word", "word/types", "word/cover", "sentence", "bm25", "random", "densest", "none")


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import positive

    made = argparse.ArgumentParser(
        prog="retrieval.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--domains", nargs="+", default=list(CROSSNER), metavar="NAME", help="folders of the data")
    add("--methods", nargs="+", default=list(METHODS), metavar="M", help="word/RULE is another aggregation")
    add("--k", nargs="+", type=int, default=list(range(1, 11)), metavar="K", help="examples shown")
    add("--budgets", nargs="+", type=int, default=[200, 400, 800], metavar="T", help="prompt tokens for examples")
    add("--pools", nargs="+", type=int, default=[25, 50, 100], metavar="N", help="sizes of smaller pools")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="of random, and of smaller pools")
    add("--layers", nargs="+", type=int, default=list(range(7)), metavar="L", help="of the grid")
    add("--grid-queries", type=int, default=60, metavar="N", help="of each domain in the grid (0: no grid)")
    add("--encoder", default="minilm-l6", metavar="BACKBONE", help="alias, hub id or folder")
    add("--generator", default="smollm2-135m", metavar="BACKBONE", help="whose tokens are counted")
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of retrieval")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with NAME/train.txt, NAME/dev.txt")
    add("--out", type=Path, default=Path("runs/retrieval"), help="folder of the JSON file and the figure")
    add("--limit", type=positive, metavar="N", help="a trial: only the first N sentences of each file")
    add("--table", action="store_true", help="measure nothing; print the tables of the JSON file")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="nothing: it begins anew")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.program import tell_drawn
    from benchmarks.record import read_json, write_json

    file = options.out / "retrieval.json"
    if not options.table:
        write_json(file, measure(options))
    run = read_json(file)
    print(markdown(run), end="")
    tell_drawn(figure(run, options.out / "retrieval.png"))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""
    from dataclasses import asdict

    from benchmarks.coverage import POOLINGS, RULES, Bench, Remembered
    from benchmarks.program import say
    from benchmarks.record import circumstances
    from xdner.backbone.encoder import load_encoder
    from xdner.retrieval.embedder import layer_of
    from xdner.retrieval.settings import IndexSettings

    settings = IndexSettings.build(None, options.set).retrieval
    encoder = load_encoder(options.encoder)
    kind = (layer_of(encoder, settings.layer), settings.pooling)
    embedder = Remembered(encoder, [kind], settings.sentence_pooling)
    bench = Bench.read(
        options.data, options.domains, options.limit, embedder=embedder, settings=settings,
        tokens=token_counter(options.generator),
    )  # fmt: skip
    methods = {m: options.seeds if m == "random" else options.seeds[:1] for m in options.methods}
    say("at equal k")
    at_k = bench.at_k(methods, sorted({*options.k, settings.k}))  # tables are about the setting's
    say("at equal tokens")
    at_budget = bench.at_budget(methods, options.budgets)
    say("by size of the pool")
    plain = {m: s for m, s in methods.items() if m != "none" and "/" not in m}
    by_pool = bench.by_pool(plain, options.pools, options.seeds)
    grid: list[dict[str, Any]] = []
    if options.grid_queries:
        say("layers, poolings, rules")
        kinds = [(layer, pooling) for layer in options.layers for pooling in POOLINGS]
        bench.embedder = Remembered(encoder, kinds, settings.sentence_pooling)
        grid = bench.grid(kinds, RULES, options.grid_queries, [1, 5])
    return {
        **circumstances(), "domains": options.domains, "limit": options.limit, "settings": asdict(settings),
        "encoder": encoder.name, "generator": options.generator, "seeds": options.seeds, "k": settings.k,
        "sizes": {n: [len(bench.pools[n]), len(bench.queries[n])] for n in options.domains},
        "at_k": at_k, "at_budget": at_budget, "by_pool": by_pool, "grid": grid, "grid_queries": options.grid_queries,
    }  # fmt: skip


def token_counter(name: str) -> Any:
    """How many tokens of a generator an example takes."""
    import json
    from functools import cache

    from transformers import AutoTokenizer

    from xdner.backbone.sources import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve(name).path, local_files_only=True)

    @cache
    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def count(example: Any) -> int:
        entities: dict[str, list[str]] = {}
        for entity in example.sentence.entities:
            entities.setdefault(entity.label, []).append(entity.text)
        return tokens(f"Sentence: {example.sentence.text}\nEntities: {json.dumps(entities, ensure_ascii=False)}\n")

    return count


def markdown(run: Mapping[str, Any]) -> str:
    """The tables, and what one must know to read them."""
    from benchmarks.layout import flat, table

    k = str(run["k"])
    parts = [] if run["limit"] is None else [f"**A trial: {run['limit']} sentences of each file. No results.**", ""]
    parts += [f"## Types covered at k = {k}, in %", "", *_by_domain(run, k)]
    found = _difference(run, k)
    parts += ["", found] if found else []
    ks = list(next(iter(run["at_k"].values())))
    for what in ("types", "mentions"):
        parts += ["", f"## {what.capitalize()} covered by k, in %", ""]
        rows = [[m, *(_mean(v[x][what]) for x in ks)] for m, v in run["at_k"].items()]
        parts += table(["method", *(f"k = {x}" for x in ks)], rows, left=1)
    parts += ["", "## At equal prompt tokens, in %", ""]
    budgets = list(next(iter(run["at_budget"].values())))
    names = ["method", *(f"{what}, {b}" for b in budgets for what in ("types", "mentions"))]
    rows = [[m, *(_mean(v[b][w]) for b in budgets for w in ("types", "mentions"))] for m, v in run["at_budget"].items()]
    parts += table(names, rows, left=1)
    sizes = list(next(iter(run["by_pool"].values())))
    parts += ["", f"## Types covered at k = {k} by the size of the pool, in %", ""]
    rows = [
        [m, *(_mean(v[s]["types"]) for s in sizes), _mean(run["at_k"][m][k]["types"])]
        for m, v in run["by_pool"].items()
    ]
    parts += table(["method", *sizes, "all"], rows, left=1)
    if run["grid"]:
        parts += ["", f"## Layer, pooling and rule: types at k = 5, in % ({run['grid_queries']} queries a domain)", ""]
        rules = list(dict.fromkeys(row["rule"] for row in run["grid"]))
        at = {(r["layer"], r["pooling"], r["rule"]): r["types"] for r in run["grid"] if r["k"] == 5}
        kinds = list(dict.fromkeys((row["layer"], row["pooling"]) for row in run["grid"]))
        rows = [[str(x), p, *(f"{100 * at[x, p, r]:.1f}" for r in rules)] for x, p in kinds]
        parts += table(["layer", "pooling", *rules], rows, left=2)
    used = ", ".join(f"{n} {v}" for n, v in run["settings"].items())
    pools = ", ".join(f"{n} {a} and {b}" for n, (a, b) in run["sizes"].items())
    parts += ["", "## Notes", "", f"- {run['encoder']}: {used}.", f"- Examples and queries: {pools}."]
    parts += [f"- Tokens of {run['generator']}; random and smaller pools: seeds {', '.join(map(str, run['seeds']))}."]
    parts += [f"- {what}: {flat(run[what])}" for what in ("commit", "machine", "versions")]
    return "\n".join(parts) + "\n"


def _by_domain(run: Mapping[str, Any], k: str) -> list[str]:
    import numpy as np

    from benchmarks.coverage import bootstrap_mean
    from benchmarks.layout import percent, table

    rows = []
    for method, values in run["at_k"].items():
        types = [np.array(v) for v in values[k]["types"]]
        mean, low, high = bootstrap_mean(types)
        tokens = f"{np.mean(values[k]['tokens']):.0f}"
        interval = f"[{percent(low)}, {percent(high)}]"
        rows.append([method, *(percent(float(v.mean())) for v in types), percent(mean), interval, tokens])
    return table(["method", *run["domains"], "mean", "95 % interval", "tokens"], rows, left=1)


def _difference(run: Mapping[str, Any], k: str) -> str:
    import numpy as np

    from benchmarks.coverage import bootstrap_difference
    from benchmarks.layout import points

    lines = []
    if "sentence" not in run["at_k"] or not any(m.startswith("word") for m in run["at_k"]):
        return ""
    other = [np.array(v) for v in run["at_k"]["sentence"][k]["types"]]
    for method in (m for m in run["at_k"] if m.startswith("word")):
        own = [np.array(v) for v in run["at_k"][method][k]["types"]]
        delta, low, high = bootstrap_difference(own, other)
        lines.append(f"**{method} - sentence: {points(delta)} points** [{points(low)}, {points(high)}]")
    return "; ".join(lines) + "."


def _mean(values: Sequence[Sequence[float]]) -> str:
    from benchmarks.layout import percent

    return percent(sum(sum(v) / len(v) for v in values) / len(values))


def figure(run: Mapping[str, Any], path: Path) -> Iterator[Path]:
    """Types and mentions by k, as PNG."""
    from benchmarks.transfer.figures import Line, Panel, draw_lines
    from xdner.evaluation import seed_summary

    def line(method: str, what: str) -> Line:
        values = run["at_k"][method]
        return Line(method, [(int(k), seed_summary([float(_mean(v[what])) / 100])) for k, v in values.items()])

    panels = [Panel(what, [line(m, what) for m in run["at_k"] if m != "none"]) for what in ("types", "mentions")]
    ks = [int(k) for k in next(iter(run["at_k"].values()))]
    yield draw_lines(panels, path, across="examples", ticks=ks, up="covered, in %")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
