"""Reading texts in known domains, and asking the selector about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from xdner.backbone.load import check_device, load_backbone
from xdner.corpora.io import read_corpus
from xdner.errors import EndpointError, LibraryError, PrefixFormatError, SettingsError, TrainingError
from xdner.evaluation.report import Report
from xdner.library.bundled import bundled_initial, find_entry, find_prefix, known_entries
from xdner.library.entry import DomainEntry
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.kinds import Shelf
from xdner.library.store import Library
from xdner.library.tagger_entry import TaggerEntry
from xdner.prefix.selector import Selection
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.laner import LANER
from xdner.settings import SELECTION, Settings
from xdner.text import Sentence
from xdner.workflows.domains import ALL
from xdner.workflows.examples_domain import open_examples

__all__ = ["evaluate_domain", "open_domain", "open_prefixes", "select_sources"]


def open_domain(
    name: str | Sequence[str],
    *,
    backbone: str | Path | None = None,
    library: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    beam: int | None = None,
) -> CPNER | LANER | IFWRANER:
    """The recognizer of domains of a library or shipped, with them ready, on the backbone that they were trained on.

    Args:
        name: of one domain or of several; all of one recognizer, and prefixes all on one backbone.
        backbone: another place to load the backbone from; ``None``: where it was loaded from in training. A LANER domain
            brings its own encoder; of an IF-WRANER domain it is the language model, or the address of an endpoint.
        beam: hypotheses that LANER keeps, instead of what its domains' settings say.

    Raises:
        UnknownDomainError: neither the library has such a domain nor does one ship.
        PrefixMismatchError: the backbone is another one, or not all domains are for the same.
        LibraryError: domains of two recognizers in one call.
        SettingsError: a backbone or dtype for a domain that brings its own, or a beam that cannot be or for another method.
    """
    store = Library(library)
    names = [name] if isinstance(name, str) else list(dict.fromkeys(name))
    found = [find_entry(one, store) for one in names]
    entries = [entry for entry in found if isinstance(entry, DomainEntry)]
    taggers = [entry for entry in found if isinstance(entry, TaggerEntry)]
    examples = [entry for entry in found if isinstance(entry, ExamplesEntry)]
    kinds = [(what, of[0].domain.name) for what, of in
             (("a CP-NER", entries), ("a LANER", taggers), ("an IF-WRANER", examples)) if of]  # fmt: skip
    if len(kinds) > 1:
        raise LibraryError(
            " and ".join(f"{name!r} is {what} domain" for what, name in kinds)
            + ": one call reads domains of one recognizer",
            hint="Call once for each.",
        )
    if taggers:
        return _taggers(taggers, backbone=backbone, dtype=dtype, device=device, beam=beam)
    if beam is not None:
        raise SettingsError(
            [f"--beam is for LANER domains, and {names[0]!r} is {kinds[0][0]} domain"], hint="Leave it out."
        )
    if examples:
        return open_examples(examples, store, llm=backbone, dtype=dtype, device=device)
    source = backbone if backbone is not None else _loaded_from(entries[0])
    recognizer = CPNER.from_pretrained(source, device=device, dtype=dtype, settings=entries[0].settings)
    for entry in entries:
        recognizer.add(entry)
    return recognizer


def open_prefixes(
    entry: DomainEntry,
    shelf: Shelf,
    *,
    backbone: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> CPNER:
    """A recognizer for all domains of a shelf that have prefixes for one backbone; each is loaded when it is first asked for.

    Args:
        entry: a domain that says which backbone.
        shelf: where domains are looked for by name.
        backbone: as for :func:`open_domain`.

    Raises:
        BackboneNotFoundError, PrefixMismatchError: the backbone cannot be loaded, or is another one.
    """
    source = backbone if backbone is not None else _loaded_from(entry)
    recognizer = CPNER.from_pretrained(source, device=device, dtype=dtype)
    model = recognizer.backbone
    entry.prefix.check(model.fingerprint, model.geometry, model.name)
    recognizer.attach(shelf)
    return recognizer


def _loaded_from(entry: DomainEntry) -> str | None:
    """Where the backbone of a domain was loaded from in training; ``None``: the default one.

    Raises:
        PrefixFormatError: its manifest holds something else than a name there.
    """
    source = entry.prefix.notes.get("backbone_source") or None
    if source is not None and not isinstance(source, str):
        raise PrefixFormatError(
            f"prefix.json of domain {entry.domain.name!r}: 'backbone_source' must be text, not {source!r}",
            hint="Say where the backbone is with --backbone, or restore the file.",
        )
    return source


def _taggers(
    entries: Sequence[TaggerEntry], *, backbone: str | Path | None, dtype: str, device: str, beam: int | None
) -> LANER:
    problems = ["--backbone has no use for a LANER domain: it brings its own encoder"] if backbone is not None else []
    problems += (
        [f"--dtype {dtype} has no use for a LANER domain: it is read in float32"]
        if dtype not in ("float32", "auto")
        else []
    )
    if beam is not None:
        problems += [
            f"--beam has no use for {entry.domain.name!r}: its head ({entry.settings.tagger.head}) knows no labels before"
            for entry in entries
            if not entry.settings.tagger.autoregressive
        ]
    if problems:
        raise SettingsError(problems, hint="Leave these options out.")
    check_device(device)
    recognizer = LANER(device=device)
    for entry in entries:
        how = entry.settings
        wide = (
            how if beam is None else replace(how, tagger=replace(how.tagger, beam=beam))
        )  # refuses one that cannot be
        recognizer.add(replace(entry, settings=wide))
    return recognizer


def select_sources(
    targets: Sequence[str],
    sources: Sequence[str],
    *,
    backbone: str | Path | None = None,
    library: str | Path | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    alphas: Mapping[str, float] | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> tuple[list[Selection], list[str]]:
    """Ask the selector about known domains (Eqs. 5 to 8); nothing is trained.

    Args:
        targets: known domains, each asked about by itself.
        sources: known domains, or ``["all"]``; a target is never its own source.

    Returns:
        One selection a target, and warnings.

    Raises:
        UnknownDomainError: a name that neither the library has nor xdner ships.
        PrefixMismatchError: domains of different backbones or initial prefixes.
        SettingsError: an impossible α, or one for a domain that is no source.
    """
    store, warnings = Library(library), []
    Settings.build(config, overrides, use=SELECTION)  # mistakes, before weights are loaded
    chosen = {name: find_prefix(name, store) for name in [*targets, *(s for s in sources if s != ALL)]}
    first = chosen[targets[0]]
    source = backbone if backbone is not None else _loaded_from(first)
    model = load_backbone(source, device=device, dtype=dtype)
    if ALL in sources:
        known, left_out = known_entries(store, model.fingerprint, first.prefix.initial)
        warnings = [f"{name} {why}" for name, why in left_out.items() if name not in targets]
        chosen = known | chosen
        sources = list(known)
    origin = next((o for o in (store.initial_prefix(), bundled_initial(model.fingerprint, first.prefix.length))
                   if o is not None and o.hash() == first.prefix.initial), None)  # fmt: skip
    recognizer = CPNER(
        model, settings=Settings.build(config, overrides, model.recommended, use=SELECTION), initial=origin
    )
    for entry in chosen.values():
        recognizer.add(entry)
    if stray := sorted(set(alphas or {}) - {s for s in sources if any(target != s for target in targets)}):
        raise SettingsError(
            [f"α for {name!r}, which is no source" for name in stray], hint=f"The sources are: {', '.join(sources)}."
        )
    made = [
        recognizer.select(target, names, alphas={n: a for n, a in (alphas or {}).items() if n in names})
        for target in targets
        if (names := [s for s in sources if s != target])
    ]
    if not made:
        raise TrainingError(
            f"there is no source for {', '.join(targets)}",
            hint="Name known domains with --from a,b; a domain is not its own source.",
        )
    return made, warnings


def evaluate_domain(
    name: str,
    data: str | Path,
    *,
    backbone: str | Path | None = None,
    library: str | Path | None = None,
    format: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    beam: int | None = None,
    done: Callable[[int], None] | None = None,
) -> Report:
    """Score a domain of a library on a file of labelled sentences; what it cannot know is counted in the report's notes.

    Arguments and errors as :func:`open_domain` and :func:`~xdner.corpora.io.read_corpus`; ``done`` is called with the number
    of windows read so far. An endpoint that fails in the middle raises an :class:`~xdner.errors.EndpointError` whose
    ``report`` has the scores of what was read until then.
    """
    corpus = read_corpus(data, format=format)
    recognizer = open_domain(name, backbone=backbone, library=library, dtype=dtype, device=device, beam=beam)

    def told(report: Report, read: Iterable[Sentence]) -> Report:
        strange = sum(e.label not in recognizer.labels(name) for sentence in read for e in sentence.entities)
        more = {"gold_entities_of_types_that_the_domain_does_not_have": strange} if strange else {}
        return replace(report, notes={**report.notes, **corpus.warnings, **more})

    try:
        return told(recognizer.evaluate(corpus, domain=name, done=done), corpus)
    except EndpointError as error:
        if error.report is not None:
            read = (s for s, result in zip(corpus, error.finished, strict=True) if result is not None)
            error.report = told(error.report, read)
        raise
