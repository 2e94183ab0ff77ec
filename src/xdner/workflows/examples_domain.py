"""Making an IF-WRANER domain from files: tune a language model on sources, or take one that was tuned; keep the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from xdner.backbone.encoder import load_encoder
from xdner.domain import Domain
from xdner.errors import LibraryError, SettingsError
from xdner.generation.endpoint import is_endpoint
from xdner.library.bundled import find_entry
from xdner.library.entry import sentence_hashes
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.kinds import check_kind
from xdner.library.leftovers import inside, is_begun
from xdner.library.store import Library
from xdner.prompting.settings import LlmSettings, WranerSettings
from xdner.prompting.template import Template, find_template
from xdner.recognizers.if_wraner import IFWRANER, check_same_model
from xdner.recognizers.warmup import check_labels
from xdner.retrieval.build import own_settings, require_packages
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import EMBEDDED
from xdner.training.factors import require_peft
from xdner.training.sources import LabelledSource
from xdner.training.tuning import Tuned
from xdner.workflows.domains import Outcome
from xdner.workflows.indexing import pool_in
from xdner.workflows.initial import sources_of
from xdner.workflows.material import DomainFiles, Material, domain_of
from xdner.workflows.options import JobOptions

__all__ = ["open_examples", "train_examples"]

#: Stands for the start's own template among the settings, until it is known whether another one is asked for.
_OWN = "(the start's own)"


def train_examples(
    name: str,
    files: DomainFiles,
    options: JobOptions | None = None,
    *,
    llm: str | Path | None = None,
    model: str | None = None,
    adapter: str | Path | None = None,
    source_files: Sequence[str | Path] = (),
    start: str | None = None,
) -> Outcome[ExamplesEntry]:
    """Make an IF-WRANER domain from files and store it in a library.

    Args:
        name: of the domain.
        files: ``train`` are sentences that are shown to the model; nothing is trained on them. Without them the domain has
            the types of ``domain``, or else of all sources. ``dev`` chooses the best epoch of the tuning.
        options: library, settings (:class:`~xdner.prompting.settings.WranerSettings`), seed, and what is shown.
        llm: alias, hub id, folder, or address of an endpoint; ``None`` is the embedded ``smollm2-135m``, or that of the start.
        model: name of the model behind an endpoint.
        adapter: LoRA factors of the language model, a folder in peft's format.
        source_files: labelled sentences that the language model is tuned on, one file a domain.
        start: an IF-WRANER domain of the library, whose tuned model is taken: a new domain then takes seconds.

    Raises:
        XdnerError: see the tree in ``errors.py``; the message names the file, the line and the next step.
    """
    options = options or JobOptions()
    sources, told = sources_of(source_files, format=files.format)
    store = options.store()
    ready = None if start is None else _start(start, store)
    # Mistakes in settings, files and names, before weights are loaded.
    pool = pool_of(store, name)
    settings, template = _settings(options, ready, pool)
    require_packages(settings.retrieval)
    if sources:
        require_peft("tuning a language model")
    files = replace(files, domain=files.domain or _begun(store, name))
    material = _material(name, files, sources, pool, settings.training.seed)
    check_kind(store.path(name), ExamplesEntry)
    remote = is_endpoint(llm) or (llm is None and ready is not None and ready.llm["kind"] == "endpoint")
    _check(sources, ready, adapter=adapter is not None, resume=options.resume, endpoint=remote)
    check_labels(material.domain, material.sentences, material.dev or ())
    if pool is not None and pool.holds(material.sentences):
        _check_index(pool, settings, options.device)
    run = options.domain_run(name)
    recognizer = _recognizer(
        ready, settings, template, llm=llm, model=model, adapter=adapter, dtype=options.dtype, device=options.device
    )
    with run.claimed():
        tuned = None
        if sources:
            dev = None if not material.dev else (material.domain, material.sentences, material.dev)
            tuned = recognizer.tune(sources, dev=dev, run=run)
        entry = recognizer.add_domain(material.domain, material.sentences)
        entry = replace(entry, notes={**entry.notes, **_notes(ready, sources, tuned, settings.training.seed)})
        folder = material.keep(store, entry, run)
    remarks = [*material.warnings, *told, *_remarks(entry, material, tuned, settings)]
    if adapter is not None:
        remarks += _unproven(entry)
    if tuned is None and (idle := _idle(settings, WranerSettings.build() if ready is None else ready.settings)):
        remarks.append(f"there is no --source, and so no training: {', '.join(idle)} have no effect")
    if pool is not None and not pool.holds(entry.examples):
        # An index, and then its domain, has no examples without entities.
        loss = "" if all(s.entities for s in entry.examples) else " (without the examples that have no entities)"
        again = f"xdner index {name} --replace{loss}"
        remarks.append(f"the index has other examples and is not used until it is made again: {again}")
    return _outcome(entry, folder, tuned, remarks)


def open_examples(
    entries: Sequence[ExamplesEntry],
    library: Library,
    *,
    llm: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> IFWRANER:
    """The recognizer of IF-WRANER domains, with them ready; they must have one language model and one adapter.

    Args:
        library: whose indexes of examples are used.
        llm: another place of the language model: an address, or what loads the same weights.

    Raises:
        LibraryError: a domain that was imported names an endpoint that nobody has confirmed; or the domains are for several
            endpoints, or talk to one in several ways.
        BackboneMismatchError: the domains are for different language models.
    """
    for entry in entries:
        if entry.examples:
            require_packages(entry.settings.retrieval)
    first = entries[0]
    _one_endpoint(entries, llm)
    kind = "endpoint" if is_endpoint(llm) else "local"
    if llm is not None and kind != first.llm["kind"]:  # told before weights are loaded, or a name is asked for
        check_same_model(first, {"kind": kind, "name": str(llm)}, None)
    recognizer = _recognizer(first, first.settings, first.template, llm=llm, dtype=dtype, device=device)
    for entry in entries:
        recognizer.add(entry, pool_of(library, entry.domain.name))
    return recognizer


def _one_endpoint(entries: Sequence[ExamplesEntry], llm: str | Path | None) -> None:
    """Refuse what would send one domain's texts to another one's server, or with another one's key: a call has one connection.
    What a domain asks with (prompt, windows, length of answers) is its own."""
    remote = [entry for entry in entries if entry.llm["kind"] == "endpoint"]
    for entry in remote if llm is None else ():
        _confirmed(entry)
    for other in remote[1:]:
        first, name = remote[0], other.domain.name
        if llm is None and other.llm["url"] != first.llm["url"]:
            raise LibraryError(
                f"domain {first.domain.name!r} asks {first.llm['url']}, and {name!r} {other.llm['url']}: one call reads domains "
                "of one endpoint",
                hint="Call once for each.",
            )
        own, theirs = first.settings.llm, other.settings.llm
        differ = [
            f"llm.{f.name} ({getattr(own, f.name)} and {getattr(theirs, f.name)})"
            for f in fields(LlmSettings)
            if f.name != "answer_tokens" and getattr(own, f.name) != getattr(theirs, f.name)
        ]
        if differ:
            raise LibraryError(
                f"domains {first.domain.name!r} and {name!r} talk to their endpoint in different ways: {', '.join(differ)}",
                hint="Call once for each.",
            )


def _confirmed(entry: ExamplesEntry) -> None:
    """Refuse an address that came with somebody else's domain."""
    if entry.notes.get("imported"):
        url = entry.llm["url"]
        raise LibraryError(
            f"domain {entry.domain.name!r} was imported, and sends texts to {url}",
            hint=f"If that is where they may go, confirm it: --backbone {url}",
        )


def pool_of(library: Library, name: str) -> Pool | None:
    """A domain's index of examples, if it has one (``xdner index``).

    Raises:
        RetrievalError: it is damaged.
    """
    return pool_in(library.path(name)) if inside(name) else None


def _settings(options: JobOptions, ready: ExamplesEntry | None, pool: Pool | None) -> tuple[WranerSettings, Template]:
    """The settings of a new domain, and its template. A model is asked as it was tuned to be, unless somebody says otherwise:
    a file that is named again is read again, for it may have changed."""
    base: dict[str, dict[str, Any]] = ready.settings.to_dict() if ready is not None else {}
    if pool is not None:  # an index goes by its own embedding, unless another is asked for (and refused)
        base["retrieval"] = base.get("retrieval", {}) | own_settings(pool)
    if ready is not None:
        base["prompt"]["template"] = _OWN
    settings = WranerSettings.build(options.config, options.chosen, base)
    # One seed of everything random, the retriever's too, if its method draws; what --set says of it counts.
    if options.seed is not None and not any(o.partition("=")[0].strip() == "retrieval.seed" for o in options.overrides):
        settings = replace(settings, retrieval=replace(settings.retrieval, seed=options.seed))
    if ready is None or settings.prompt.template != _OWN:
        return settings, find_template(settings.prompt.template)
    kept = replace(settings.prompt, template=ready.settings.prompt.template)
    return replace(settings, prompt=kept), ready.template


def _recognizer(
    ready: ExamplesEntry | None,
    settings: WranerSettings,
    template: Template,
    *,
    llm: str | Path | None,
    model: str | None = None,
    adapter: str | Path | None = None,
    dtype: str,
    device: str,
) -> IFWRANER:
    """A recognizer as a domain remembers it, or a fresh one."""
    if ready is None:
        return IFWRANER.from_pretrained(
            llm, model=model, adapter=adapter, device=device, dtype=dtype, settings=settings, template=template
        )
    if ready.llm["kind"] == "endpoint" and (llm is None or is_endpoint(llm)):
        if llm is None:
            _confirmed(ready)
        name = model or ready.llm["name"]
        return IFWRANER.from_pretrained(
            llm or ready.llm["url"], model=name, device=device, settings=settings, template=template
        )
    made = IFWRANER.from_pretrained(
        llm or ready.llm["source"], model=model, device=device, dtype=dtype, settings=settings, template=template
    )
    if ready.adapter is not None:
        check_same_model(ready, made.llm.identity, ready.adapter)  # factors of one model would fit many
        made.adopt(ready.adapter, ready.seen)
    return made


def _start(name: str, store: Library) -> ExamplesEntry:
    entry = find_entry(name, store)
    if not isinstance(entry, ExamplesEntry):
        raise LibraryError(
            f"domain {name!r} is no IF-WRANER domain: it has no language model to take",
            hint="Make one first: xdner train NAME --recognizer if-wraner --source FILE.",
        )
    return entry


def _begun(library: Library, name: str) -> Path | None:
    """The types of a domain that so far is an index of examples only."""
    folder = library.path(name)
    return folder / "domain.toml" if is_begun(folder) else None


def _check(
    sources: Sequence[LabelledSource], ready: ExamplesEntry | None, *, adapter: bool, resume: bool, endpoint: bool
) -> None:
    problems = []
    if adapter and (sources or ready is not None):
        problems.append("--adapter, --source and --from each say how the language model was tuned: give one of them")
    if sources and ready is not None:
        problems.append("--source tunes a language model, --from takes one that was tuned: give one of them")
    if sources and endpoint:
        problems.append("--source tunes a language model, which one behind an endpoint cannot be")
    if resume and not sources:
        problems.append("--resume goes on with a tuning, which needs --source")
    if problems:
        raise SettingsError(problems, hint="Leave one of the options out.")


def _check_index(pool: Pool, settings: WranerSettings, device: str) -> None:
    """Refuse an embedding that the domain's index does not have, rather than leave it to the first text.

    Raises:
        IndexMismatchError: another encoder, layer or pooling is asked for.
    """
    how = settings.retrieval
    if how.method in EMBEDDED and any(getattr(how, key) != value for key, value in own_settings(pool).items()):
        pool.require(WordEmbedder(load_encoder(how.encoder, device=device), how).embedding)


def _material(
    name: str, files: DomainFiles, sources: Sequence[LabelledSource], pool: Pool | None, seed: int
) -> Material:
    if files.train is not None:
        return files.read(name, seed)
    if files.domain is None and not sources and pool is None:
        raise SettingsError(
            ["there is nothing that says which types the domain has"],
            hint="Give labelled sentences with --examples FILE, or types with --domain-file FILE.toml.",
        )
    if files.k_shot is not None:
        raise SettingsError(["--k-shot samples examples, and there are none"], hint="Give --examples FILE.")
    dev = files.read_dev()
    examples = () if pool is None else tuple(e.sentence for e in pool.examples.values())
    if files.domain is not None or examples:
        return Material(domain_of(name, files.domain, examples, "the index"), examples, dev, None, ())
    every = {label.name: label for s in sources for label in s.domain.labels}
    return Material(Domain(name, tuple(every.values())), (), dev, None, ())


def _idle(settings: WranerSettings, default: WranerSettings) -> list[str]:
    """What was asked for of a tuning, but for the seed, which every command sets."""
    asked, own = settings.to_dict(), default.to_dict()
    return [
        f"{group}.{key}"
        for group in ("training", "tune")
        for key, value in asked[group].items()
        if value != own[group][key] and key != "seed"
    ]


def _notes(
    ready: ExamplesEntry | None, sources: Sequence[LabelledSource], tuned: Tuned | None, seed: int
) -> dict[str, object]:
    kept = {} if ready is None else {k: ready.notes[k] for k in ("sources", "steps", "losses") if k in ready.notes}
    if tuned is None:
        return kept
    return {
        "sources": [{"name": s.domain.name, "sentences": len(s.sentences)} for s in sources],
        "seed": seed,
        "best_epoch": tuned.result.best_epoch,
        "dev_f1": tuned.result.best_dev,
        "steps": tuned.result.steps,
        "losses": [round(record.loss, 4) for record in tuned.result.history],
    }


def _remarks(entry: ExamplesEntry, material: Material, tuned: Tuned | None, settings: WranerSettings) -> list[str]:
    made = []
    if not entry.examples:
        made.append("there are no examples: the model will be asked without demonstrations")
    elif empty := sum(not s.entities for s in entry.examples):
        have = "has" if empty == 1 else "have"
        made.append(f"{empty} of {len(entry.examples)} examples {have} no entities: they show what to leave alone")
    if shared := len(entry.seen & sentence_hashes([*entry.examples, *(material.dev or ())])):
        made.append(f"the sources have {shared} of these sentences; scores will flatter them")
    if tuned is None:
        if material.dev is not None:
            made.append(
                "--dev chooses the best epoch of a tuning (--source FILE), and nothing was tuned: it was not used"
            )
        if entry.adapter is None and entry.llm["kind"] == "local":
            made.append("the language model was not tuned: a small one hardly knows the task (--source FILE tunes it)")
        return made
    missing, short = tuned.dropped
    if missing:
        made.append(
            f"{missing} demonstrations in {short} prompts were left out in training "
            f"(longer than training.max_pieces = {settings.training.max_pieces})"
        )
    if tuned.lost:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(tuned.lost.items()))
        made.append(f"{sum(tuned.lost.values())} source mentions cannot be expressed and were left out ({why})")
    if tuned.result.failed_checkpoints:
        made.append(f"{tuned.result.failed_checkpoints} checkpoints could not be written (is the disk full?)")
    return made


def _unproven(entry: ExamplesEntry) -> list[str]:
    """That an adapter names another model than it was merged into, where there is no fingerprint to tell."""
    made, llm = entry.adapter, entry.llm
    if made is None or made.base or Path(made.base_name).name in ("", llm["name"], Path(llm["source"]).name):
        return []
    return [
        f"the adapter says it was trained on {made.base_name}; whether {llm['name']} has its weights, nobody can tell"
    ]


def _outcome(
    entry: ExamplesEntry, folder: Path, tuned: Tuned | None, warnings: Sequence[str]
) -> Outcome[ExamplesEntry]:
    if tuned is None:
        return Outcome(entry, folder, None, 0, 0.0, 0.0, "not trained", tuple(warnings))
    run = tuned.result
    return Outcome(entry, folder, run.best_dev, run.best_epoch, run.seconds, run.padding, run.stopped, tuple(warnings))
