"""Training a domain from files, and the library's shared start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from xdner.backbone.base import Backbone
from xdner.backbone.load import load_backbone
from xdner.corpora.corpus import Corpus
from xdner.corpora.io import read_corpus
from xdner.errors import LibraryError, SettingsError, TrainingError
from xdner.library.bundled import find_prefix, known_entries
from xdner.library.entry import DomainEntry
from xdner.library.kinds import Entry, check_kind
from xdner.library.store import Library
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import Selection
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.shared_start import shipped_start
from xdner.recognizers.sources import Source, shared_sentences
from xdner.settings import DOMAIN, PrefixSettings, Settings, domain_use
from xdner.workflows.material import DomainFiles, Material
from xdner.workflows.options import JobOptions

__all__ = ["ABLATIONS", "ALL", "Outcome", "train_domain"]

#: What ``--without`` switches off, and the setting that does it (the paper's Figure 4).
ABLATIONS = {
    "entity-similarity": "selector.alpha=0.0",
    "prefix-similarity": "selector.alpha=1.0",
    "warm-up": "transfer.warmup_share=0.0",
    "options": "codec.options=false",
}
#: Stands for every known domain, among sources.
ALL = "all"


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Outcome(Generic[E]):
    """What :func:`train_domain`, :func:`~xdner.workflows.taggers.train_tagger` or
    :func:`~xdner.workflows.examples_domain.train_examples` did."""

    entry: E
    folder: Path
    dev_f1: float | None
    best_epoch: int
    seconds: float
    padding: float
    stopped: str
    warnings: tuple[str, ...]
    selection: Selection | None = None

    @property
    def kilobytes(self) -> float:
        """Of the stored weights (the first prefix of an ensemble, the adapter of a language model)."""
        own = [*self.folder.glob("*.safetensors"), *self.folder.glob("adapter/*.safetensors")]
        return sum(path.stat().st_size for path in own) / 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "domain": self.entry.domain.name,
            "folder": str(self.folder),
            "dev_f1": self.dev_f1,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 1),
            "padding": round(self.padding, 4),
            "stopped": self.stopped,
            "kilobytes": round(self.kilobytes, 1),
            "warnings": list(self.warnings),
            "selection": None if self.selection is None else self.selection.to_dict(),
            "settings": self.entry.settings.to_dict(),
        }


def train_domain(
    name: str,
    files: DomainFiles,
    options: JobOptions | None = None,
    *,
    backbone: str | Path | None = None,
    sources: Sequence[str] = (),
    source_data: Mapping[str, str | Path] | None = None,
    alphas: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
) -> Outcome[DomainEntry]:
    """Train a domain from files and store it in a library.

    All domains of a library start from one initial prefix δ₀: the library's own; in a new one that of the domains that
    ship for this backbone, or else the instruction's keys and values.

    Settings that are asked for and have no effect are refused, whether by an override or in the file: those of the selector
    where nothing chooses among sources (:func:`~xdner.settings.domain_use`), and another initial prefix than the library's.

    Args:
        name: of the domain.
        files: its sentences and types.
        options: library, settings, seed, and what is shown.
        backbone: alias, hub id or folder; ``None`` is the embedded default.
        sources: known domains to draw on, of the library or shipped, or ``["all"]``; the settings' ``transfer.strategy``
            says how.
        source_data: training sentences of sources, by name, as a chain needs them.
        alphas: α of single sources, by name.
        leave_out: sources to do without, of those that ``all`` stands for.

    Raises:
        XdnerError: see the tree in ``errors.py``; the message names the file, the line and the next step.
    """
    options = options or JobOptions()
    # Mistakes in settings and names, before the backbone is loaded.
    asked = _check_use(options, None if ALL in sources else len(set(sources) - set(leave_out)))
    store = options.store()
    material = files.read(name, asked.training.seed)
    check_kind(store.path(name), DomainEntry)
    warnings: list[str] = []
    run = options.domain_run(name)
    if twice := sorted({source for source in sources if list(sources).count(source) > 1}):
        raise TrainingError(f"{', '.join(twice)} is given twice as a source", hint="Name every source once.")
    named = {source: find_prefix(source, store) for source in sources if source != ALL}
    model = load_backbone(backbone, device=options.device, dtype=options.dtype)
    store.check_backbone(model.fingerprint, model.name)
    settings, initial = _with_initial(store, model, options)
    if ALL in sources:
        known, left_out = known_entries(store, model.fingerprint, initial.hash(), without=[name])
        warnings += [f"{source} {why}" for source, why in left_out.items() if source not in named]
        named = known | named  # what was asked for by name is not left out: what does not fit is refused
        if not named:
            raise TrainingError(
                f"no domain is known that {name} could draw on: none of {model.name} with the initial prefix of {store.folder}",
                hint="Leave --from out, and train some domains first.",
            )
    named = _without(named, leave_out)
    _check_use(options, len(named), model.recommended)
    data = _source_data(source_data or {}, list(named), files.format, settings.transfer.decided(bool(named)).strategy)
    warnings += [remark for corpus in data.values() for remark in corpus.remarks]
    drawn = [Source(entry, data.get(source, ())) for source, entry in named.items()]
    warnings += _doubts(drawn, material, settings)
    recognizer = CPNER(model, settings=settings, initial=initial)
    with run.claimed():
        trained = recognizer.train(
            material.domain, material.sentences, material.dev, sources=drawn, alphas=alphas, run=run
        )
        if store.initial_prefix() is None:
            store.set_initial(initial)
        folder = material.keep(store, trained.entry, run)
    failed = sum(phase.result.failed_checkpoints for phase in trained.transfer.phases)
    remarks = material.remarks(trained.inexpressible, "cannot be expressed", failed)
    result = trained.result
    return Outcome(
        trained.entry, folder, trained.dev_f1, result.best_epoch, trained.transfer.seconds, result.padding,
        result.stopped, (*remarks, *warnings), trained.transfer.selection,
    )  # fmt: skip


def _check_use(options: JobOptions, sources: int | None, base: Mapping[str, Any] | None = None) -> Settings:
    """Refuse what was asked for and has no effect with so many sources (``None``: not known yet)."""
    asked = Settings.build(options.config, options.chosen, base, use=DOMAIN)
    if sources is None:
        return asked
    use = domain_use(asked.transfer.decided(sources > 0).strategy, sources)
    return Settings.build(options.config, options.chosen, base, use=use)


def _without(named: Mapping[str, DomainEntry], leave_out: Sequence[str]) -> dict[str, DomainEntry]:
    if unknown := [source for source in leave_out if source not in named]:
        raise SettingsError(
            [f"nothing is called {source!r}" for source in unknown],
            hint=f"--without takes {', '.join(ABLATIONS)}, or one of the sources: {', '.join(named) or 'none'}.",
        )
    left = {source: entry for source, entry in named.items() if source not in leave_out}
    if named and not left:
        raise SettingsError(["--without leaves no source"], hint="Leave --from out to train without sources.")
    return left


def _source_data(
    files: Mapping[str, str | Path], named: Sequence[str], format: str | None, strategy: str
) -> dict[str, Corpus]:
    if stray := sorted(set(files) - set(named)):
        raise SettingsError(
            [f"--source-data for {source!r}, which is no source" for source in stray],
            hint=f"The sources are: {', '.join(named) or 'none'}.",
        )
    if idle := [source for source in files if strategy != "chain" or source == named[0]]:
        why = (
            "whose prefix a chain begins with"
            if strategy == "chain"
            else f"and strategy {strategy!r} trains on no source's"
        )
        raise SettingsError(
            [f"--source-data for {source!r}, {why}" for source in idle],
            hint="Leave it out: only --strategy chain trains on sources' sentences, on those of all but the first.",
        )
    return {source: read_corpus(path, format=format) for source, path in files.items()}


def _doubts(drawn: Sequence[Source], material: Material, settings: Settings) -> list[str]:
    """Why a source may flatter the target, or help it less than it could."""
    told = []
    for source in drawn:
        if shared := shared_sentences(source.entry, material.sentences, material.dev or ()):
            told.append(f"{source.name} was trained on {shared} of these sentences; scores will flatter it")
        own, theirs = (dataclasses.asdict(s.codec) for s in (settings, source.entry.settings))
        if differ := [f"codec.{key}={theirs[key]} (here {own[key]})" for key in own if own[key] != theirs[key]]:
            told.append(f"{source.name} was trained with {', '.join(differ)}, so its prefix may help less")
    return told


def _with_initial(store: Library, model: Backbone, options: JobOptions) -> tuple[Settings, Prefix]:
    """The settings of a run in a library, and the δ₀ that all its domains share."""
    initial = store.initial_prefix()
    if initial is None:
        settings = Settings.build(options.config, options.chosen, model.recommended, use=DOMAIN)
        initial = shipped_start(model, settings) or CPNER(model, settings=settings).initial_prefix()
        if (expected := store.initial_hash()) not in ("", initial.rounded().hash()):
            raise LibraryError(
                f"the domains of the library {store.folder} started from an initial prefix that is not there "
                f"({expected[:15]}…): a domain trained now could not be combined with them",
                hint="Copy the folder .initial from the library that they came from, export them there again (an export "
                "brings it along), or choose another folder with --library.",
            )
        return settings, initial
    base = {group: dict(values) for group, values in model.recommended.items()}
    base.setdefault("prefix", {})["length"] = initial.length
    asked = Settings.build(options.config, options.chosen, base, use=DOMAIN)
    idle = _idle_start(asked, Settings.build(base=base).prefix, model, initial)
    keys = frozenset(f.name for f in dataclasses.fields(PrefixSettings)) - idle
    use = dataclasses.replace(
        DOMAIN, job="training a domain from the library's own initial prefix", keys={**DOMAIN.keys, "prefix": keys},
        hint="Leave it out, or choose a new folder with --library: all domains of a library start from one prefix.",
    )  # fmt: skip
    return Settings.build(options.config, options.chosen, base, use=use), initial


def _idle_start(asked: Settings, usual: PrefixSettings, model: Backbone, initial: Prefix) -> frozenset[str]:
    """Settings of an initial prefix that say something else than the one that is there: a domain's record would tell them as
    if they had been used."""
    own = dataclasses.replace(asked.prefix, length=initial.length)  # another length is refused by its own name
    if (own.init, own.noise) == (usual.init, usual.noise):
        return frozenset()
    if CPNER(model, settings=asked).initial_prefix(own).hash() != initial.hash():
        return frozenset({"init", "noise"})
    return frozenset() if own.init == "noise" else frozenset({"noise"})
