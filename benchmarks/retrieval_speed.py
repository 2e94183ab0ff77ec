"""How long does it take to index words, and to find the examples of a sentence?

    python benchmarks/retrieval_speed.py                    # 100,000 words, rows in memory, sentences alone and 32 at once
    python benchmarks/retrieval_speed.py --search milvus    # the database is asked for every sentence
    python benchmarks/retrieval_speed.py --table            # the table again, from the JSON file

Indexed are the labelled training sentences of the domains, in turn, until there are enough words. Where they are too few they
come again, with other words in their places: words of the same sentences, drawn with a seed, under the labels that were there
(what is found is then nonsense; how long it takes is not). Queries are dev sentences. A retrieval is measured end to end:
embedding the sentence, searching the rows of its words, and choosing examples, which is the rest. Wall time is the median of the
rounds, with the fastest and the slowest; the processor's time, of all threads, is told beside it, since machines are seldom idle.

It needs the data, `xdner backbones pull minilm-l6` and the extra `retrieval`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = ("politics", "science", "music", "literature", "ai", "conll2003")
QUERIES = ("politics", "science", "music", "literature", "ai")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="retrieval_speed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--words", type=int, default=100_000, metavar="N", help="that are indexed")
    add("--domains", nargs="+", default=list(DOMAINS), metavar="NAME", help="whose training sentences are indexed")
    add("--query-domains", nargs="+", default=list(QUERIES), metavar="NAME", help="whose dev sentences are asked about")
    add("--queries", type=int, default=192, metavar="N", help="sentences that are asked about, drawn with the seed")
    add("--batches", nargs="+", type=int, default=[1, 32], metavar="N", help="sentences at once")
    add("--rounds", type=int, default=3, metavar="N", help="of all queries")
    add("--search", default="memory", choices=("memory", "milvus"), help="where rows are searched")
    add("--seed", type=int, default=1, metavar="N", help="of what is drawn")
    add("--encoder", default="minilm-l6", metavar="BACKBONE", help="alias, hub id or folder")
    add("--device", default="cpu", help="cpu, cuda, ...")
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of retrieval")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with NAME/train.txt, NAME/dev.txt")
    add("--out", type=Path, default=Path("runs/retrieval-speed"), help="folder of the JSON file")
    add("--table", action="store_true", help="measure nothing; print the table of the JSON file")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="nothing: it begins anew")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.record import read_json, write_json

    file = options.out / f"{options.search}.json"
    if not options.table:
        write_json(file, measure(options))
    print(markdown(read_json(file)), end="")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""
    from benchmarks.program import say
    from benchmarks.record import circumstances
    from xdner.backbone.encoder import load_encoder
    from xdner.corpora.io import read_corpus
    from xdner.retrieval.build import build_retriever
    from xdner.retrieval.embedder import WordEmbedder
    from xdner.retrieval.pool import Pool
    from xdner.retrieval.settings import IndexSettings

    chosen = [*options.set, f"retrieval.search={options.search}"]
    settings = IndexSettings.build(None, chosen).retrieval
    labelled = [s for n in options.domains for s in read_corpus(options.data / n / "train.txt") if s.entities]
    asked = [s for n in options.query_domains for s in read_corpus(options.data / n / "dev.txt") if s.words]
    sentences = enough(labelled, options.words, options.seed)
    queries = random.Random(options.seed).sample(asked, min(options.queries, len(asked)))
    embedder = WordEmbedder(load_encoder(options.encoder, device=options.device), settings)
    with tempfile.TemporaryDirectory(prefix="xdner-speed-") as folder:
        say("indexing")
        pool = Pool.create(Path(folder) / "index", embedder.embedding, settings=settings)
        indexing = index(pool, sentences, embedder)
        retriever: Any = build_retriever(pool, settings, embedder)
        batches = {}
        for size in options.batches:
            say(f"{size} at once")
            batches[str(size)] = [rounds(retriever, queries, size, settings.k) for _ in range(options.rounds)]
        getattr(retriever, "close", lambda: None)()
    return {
        **circumstances(), "settings": asdict(settings), "encoder": str(embedder.embedding), "words": pool.manifest.words,
        "examples": len(pool), "from_corpora": sum(len(s.words) for s in labelled), "kind": pool.manifest.kind,
        "queries": len(queries), "query_words": sum(len(q.words) for q in queries), "domains": options.domains,
        "query_domains": options.query_domains, "seed": options.seed, "device": options.device,
        "indexing": indexing, "batches": batches,
    }  # fmt: skip


def enough(sentences: Sequence[Any], words: int, seed: int) -> list[Any]:
    """Labelled sentences with so many words, or a few more: the given ones, then the same with other words.

    Args:
        sentences: with entities; of one text the first counts.
        words: at least.
        seed: of the other words.
    """
    from xdner.text import Sentence

    rng = random.Random(seed)
    known = list({s.text: s for s in sentences}.values())
    vocabulary = [w.text for s in known for w in s.words]  # by frequency, as words are
    made: dict[str, Any] = {}
    total, before = 0, -1
    while before < total < words:  # or until there is nothing new to say
        before = total
        for sentence in known:
            if total >= words:
                break
            if before:  # a further time round
                spans = [(*(sentence.word_span(e) or (0, 1)), e.label) for e in sentence.entities]
                drawn = [rng.choice(vocabulary) for _ in sentence.words]
                sentence = Sentence.from_words(drawn, spans)
            if sentence.text not in made:
                made[sentence.text] = sentence
                total += len(sentence.words)
    return list(made.values())


def index(pool: Any, sentences: Sequence[Any], embedder: Any) -> dict[str, float]:
    """Add the sentences; seconds of embedding and of storing, and of the processor."""
    begun: dict[str, float] = {}

    def told(what: str, done: int, of: int) -> None:
        begun.setdefault(what, time.perf_counter())

    cpu = time.process_time()
    pool.add(sentences, embedder, told)
    end = time.perf_counter()
    first, second = begun["embedding words"], begun["storing words"]
    return {"embedding": second - first, "storing": end - second, "processor": time.process_time() - cpu}


def rounds(retriever: Any, queries: Sequence[Any], size: int, k: int) -> dict[str, float]:
    """All queries once, so many at a time: milliseconds a sentence, of the whole and of its parts."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                spent[name] += time.perf_counter() - began

        return timed

    parts = {"embedding": (retriever.embedder, "embed"), "searching": (retriever, "_search")}
    kept = {name: getattr(of, method) for name, (of, method) in parts.items()}
    for name, (of, method) in parts.items():
        setattr(of, method, clocked(name, kept[name]))
    try:
        retriever.retrieve(queries[:size], k)  # what happens once
        spent.clear()
        began, cpu = time.perf_counter(), time.process_time()
        for at in range(0, len(queries), size):
            retriever.retrieve(queries[at : at + size], k)
        whole, processor = time.perf_counter() - began, time.process_time() - cpu
    finally:
        for of, method in parts.values():
            delattr(of, method)
    spent["choosing"] = whole - sum(spent.values())
    each = {"whole": whole, "processor": processor, **spent}
    return {name: 1000 * seconds / len(queries) for name, seconds in each.items()}


def markdown(run: Mapping[str, Any]) -> str:
    """The tables, and what one must know to read them."""
    from benchmarks.layout import flat, table

    took = run["indexing"]
    seconds = took["embedding"] + took["storing"]
    parts = [f"## Indexing {run['words']:,} words", ""]
    parts += table(
        ["", "words a second", "seconds"],
        [
            ["all", f"{run['words'] / seconds:,.0f}", f"{seconds:.1f} ({took['processor']:.1f} of the processor)"],
            *([what, f"{run['words'] / took[what]:,.0f}", f"{took[what]:.1f}"] for what in ("embedding", "storing")),
        ],
        left=1,
    )  # fmt: skip
    parts += ["", f"## Retrieval, milliseconds a sentence, k = {run['settings']['k']}", ""]
    names = ("whole", "processor", "embedding", "searching", "choosing")
    rows = [[size, *(_spread([r[n] for r in of]) for n in names)] for size, of in run["batches"].items()]
    parts += table(["sentences at once", *names], rows, left=1)
    again = max(0, run["words"] - run["from_corpora"])
    used = ", ".join(f"{n} {v}" for n, v in run["settings"].items())
    parts += ["", "## Notes", "", f"- {run['examples']:,} examples of {', '.join(run['domains'])} in {run['kind']}."]
    parts += [f"- About {again:,} words are in sentences that came again with drawn words."] if again else []
    mean = run["query_words"] / run["queries"]
    parts += [f"- {run['queries']} queries of {mean:.0f} words on average: {', '.join(run['query_domains'])}."]
    parts += [f"- {run['encoder']} on {run['device']}; {used}."]
    parts += [f"- {what}: {flat(run[what])}" for what in ("commit", "machine", "versions")]
    return "\n".join(parts) + "\n"


def _spread(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.1f}" + (f" ({low:.1f} to {high:.1f})" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
