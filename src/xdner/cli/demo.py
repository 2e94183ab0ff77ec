"""``xdner demo``: learn a bundled example domain, without and with the help of known ones, and look at the result."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdner.cli.common import BackboneOption, guarded, say, stderr, stdout
from xdner.errors import LibraryError, SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from xdner.evaluation.report import Report
    from xdner.recognizers.cp_ner import CPNER

    #: A name, its scores, and the seconds that its training took.
    Row = tuple[str, Report, str]


def demo(
    domain: Annotated[str, typer.Option("--domain", "-d", help="cooking, gardening or operations.")] = "cooking",
    backbone: BackboneOption = None,
    library: Annotated[
        Path | None,
        typer.Option(
            "--library", "-l", help="Folder of trained domains (default: a temporary one).", show_default=False
        ),
    ] = None,
    labelled: Annotated[int, typer.Option("--labelled", help="Training sentences to learn from.", min=1)] = 20,
    sentences: Annotated[int, typer.Option("--sentences", help="Unseen sentences to show.", min=0)] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sample and of the training.")] = 1,
) -> None:
    """Learn a bundled example domain from a few sentences, by themselves and with the help of known domains.

    What is learned goes to a new folder in the system's temporary one, or to --library.
    """
    with guarded(), _home(library, domain) as home:
        from xdner.backbone.load import load_backbone
        from xdner.cli.highlight import highlighted, legend
        from xdner.corpora import read_corpus
        from xdner.domain import Domain
        from xdner.library.store import Library
        from xdner.recognizers.cp_ner import CPNER
        from xdner.settings import Settings
        from xdner.training.progress import RichProgress
        from xdner.workflows import ALL, DomainFiles, JobOptions, Outcome, example_folder, train_domain

        folder = example_folder(domain)
        if labelled > (there := len(read_corpus(folder / "train.jsonl"))):
            raise SettingsError(
                [f"--labelled {labelled}: {domain} has {there} training sentences"], hint="Ask for fewer."
            )
        ready = _pulled(backbone)
        test = read_corpus(folder / "test.jsonl")
        rows: list[Row] = []

        def score(name: str, recognizer: CPNER, seconds: str = "") -> None:
            rows.append((name, recognizer.evaluate(test, domain=domain), seconds))
            stderr.print(f"  F1 on {len(test)} test sentences: {rows[-1][1].micro.f1:.3f}", highlight=False)

        def learn(name: str, place: str | Path | None, sources: list[str]) -> tuple[Outcome, CPNER]:
            files = DomainFiles(folder / "train.jsonl", domain=folder / "domain.toml", k_shot=labelled)
            options = JobOptions(place, seed, overrides=DEMO_SETTINGS, dtype="auto", progress=RichProgress(domain),
                                 again=AGAIN)  # fmt: skip
            outcome = train_domain(domain, files, options, backbone=ready, sources=sources)
            trained = CPNER(untrained.backbone, settings=Settings.build(base=outcome.entry.settings.to_dict()))
            trained.add(outcome.entry)
            score(name, trained, f"{outcome.seconds:.0f}")
            return outcome, trained

        stderr.print("[bold]1[/] the frozen model, told only the names of the types …", highlight=False)
        untrained = CPNER(load_backbone(ready, dtype="auto"))  # not from the δ₀ that ships: from nothing
        untrained.add_untrained(Domain.read(folder / "domain.toml"))
        score("untrained", untrained)
        known = _helpers(untrained, home, domain)
        stderr.print(f"[bold]2[/] a prefix from {labelled} labelled sentences, from nothing …", highlight=False)
        with tempfile.TemporaryDirectory() as scratch:
            if known:  # then this one is for comparison only
                Library(scratch).set_initial(untrained.initial_prefix())
            outcome, recognizer = learn("from nothing", scratch if known else home, [])
        if known:
            stderr.print(f"[bold]3[/] the same, with the help of {len(known)} known domains …", highlight=False)
            outcome, recognizer = learn("with known domains", home, [ALL])

        stdout.print(_table(f"{domain}, {labelled} labelled sentences: exact-span micro scores on test", rows))
        if known:
            seen = ", on a model that was itself instructed on four of them" if _instructed(untrained) else ""
            stdout.print(
                f"“from nothing” starts from the words of the instruction{seen};\n"
                "“with known domains” from a prefix that they share, and draws on theirs", style="dim", highlight=False,
            )  # fmt: skip
        if outcome.selection is not None:
            most = sorted(outcome.selection.sources, key=lambda source: -source.weight)[:4]
            stdout.print("helped most by " + ", ".join(f"{s.name} {s.weight:.2f}" for s in most), highlight=False)
        stdout.print(f"the prefix: {outcome.kilobytes:.0f} kB; the model is as it was (seed {seed})\n", highlight=False)
        labels = outcome.entry.domain.label_names
        stdout.print(legend(labels))
        for result in recognizer.predict(list(test)[:sentences], domain=domain):
            stdout.print("•", highlighted(result, labels), soft_wrap=True)
        _next(domain, known, home, library)


#: After Ctrl-C: this command has no --resume.
AGAIN = "Run xdner demo again; it begins anew."


@contextlib.contextmanager
def _home(library: Path | None, domain: str) -> Iterator[Path]:
    """The library of the demonstration: never the user's own, unless it was named. One of its own in which nothing was learned,
    because a pull or a training failed, does not stay.

    Raises:
        LibraryError: it has a domain of that name, which may be the user's work.
    """
    from xdner.library.store import Library

    if library is None:
        home = Path(tempfile.mkdtemp(prefix="xdner-demo-"))
        try:
            yield home
        finally:
            if domain not in Library(home):
                shutil.rmtree(home, ignore_errors=True)
        return
    if domain in Library(library):
        raise LibraryError(
            f"the library {library} has a domain {domain!r} already, which the demonstration would replace",
            hint=f"Choose another --library, leave it out, or `xdner domains remove {domain} --library {library}`.",
        )
    yield library


def _next(domain: str, known: list[str], home: Path, library: Path | None) -> None:
    place = shlex.quote(str(home))
    lines = [f'xdner predict --domain {name} --library {place} "your text"' for name in (domain, *known[:1])]
    own = "" if library is None else f" --library {place}"
    lines.append(f"xdner train NAME --train your.jsonl --dev your-dev.jsonl --from all{own}")
    for begin, line in zip(("next:", *[""] * len(lines)), lines, strict=False):
        say(f"{begin:5} {line}")


def _helpers(recognizer: CPNER, library: Path, domain: str) -> list[str]:
    """Names of the domains that a new one in this library can draw on."""
    from xdner.library.bundled import bundled_initial, known_entries
    from xdner.library.store import Library

    store, plain = Library(library), recognizer.initial_prefix()
    fingerprint = recognizer.backbone.fingerprint
    start = store.initial_prefix() or bundled_initial(fingerprint, plain.length) or plain
    return list(known_entries(store, fingerprint, start.hash(), without=[domain])[0])


def _instructed(recognizer: CPNER) -> bool:
    """Whether the backbone is the embedded one that was tuned on CoNLL-2003, politics, music and literature."""
    from xdner.backbone.aliases import DEFAULT_BACKBONE

    return recognizer.backbone.name == DEFAULT_BACKBONE


def _table(title: str, rows: list[Row]) -> Table:
    from rich.table import Table

    table = Table("", "precision", "recall", "F1", "95 % interval", "s", title=title)
    for name, report, seconds in rows:
        micro, interval = report.micro, report.interval
        ends = "" if interval is None else f"{interval.low:.3f} … {interval.high:.3f}"
        table.add_row(name, f"{micro.precision:.3f}", f"{micro.recall:.3f}", f"{micro.f1:.3f}", ends, seconds)
    return table


# Fewer steps than the default: the demonstration has to be over in minutes on two cores.
DEMO_SETTINGS = ("epochs=14",)


def _pulled(backbone: str | None) -> str | Path:
    """The backbone, pulled first if it is an alias that has not been."""
    from xdner.backbone.aliases import DEFAULT_BACKBONE, aliases, is_pulled
    from xdner.backbone.pull import pull

    name = backbone or DEFAULT_BACKBONE
    known = aliases()
    if name in known and not is_pulled(known[name]):
        stderr.print(f"[bold]0[/] pulling the embedded backbone {name} …", highlight=False)
        pull(name)
    return name
