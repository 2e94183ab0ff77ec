"""Reading texts in known domains, and asking the selector about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from xdner.backbone.load import load_backbone
from xdner.corpora.io import read_corpus
from xdner.errors import TrainingError
from xdner.evaluation.report import Report
from xdner.library.bundled import bundled_initial, find_entry, known_entries
from xdner.library.store import Library
from xdner.prefix.selector import Selection
from xdner.recognizers.cp_ner import CPNER
from xdner.settings import Settings
from xdner.workflows.domains import ALL

__all__ = ["evaluate_domain", "open_domain", "select_sources"]


def open_domain(
    name: str | Sequence[str],
    *,
    backbone: str | Path | None = None,
    library: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Settings | None = None,
) -> CPNER:
    """A recognizer with domains ready, of a library or shipped, on the backbone that they were trained on.

    Args:
        name: of one domain or of several; all on one backbone.
        backbone: another place to load the backbone from; ``None``: where it was loaded from in training.

    Raises:
        UnknownDomainError: neither the library has such a domain nor does one ship.
        PrefixMismatchError: the backbone is another one, or not all domains are for the same.
    """
    store = Library(library)
    names = [name] if isinstance(name, str) else list(dict.fromkeys(name))
    entries = [find_entry(one, store) for one in names]
    source = backbone if backbone is not None else entries[0].prefix.notes.get("backbone_source") or None
    recognizer = CPNER.from_pretrained(source, device=device, dtype=dtype, settings=settings or entries[0].settings)
    for entry in entries:
        recognizer.add(entry)
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
    """
    store, warnings = Library(library), []
    chosen = {name: find_entry(name, store) for name in [*targets, *(s for s in sources if s != ALL)]}
    first = chosen[targets[0]]
    source = backbone if backbone is not None else first.prefix.notes.get("backbone_source") or None
    model = load_backbone(source, device=device, dtype=dtype)
    if ALL in sources:
        known, damaged = known_entries(store, model.fingerprint, first.prefix.initial)
        warnings = [f"{name} is damaged and was left out: {error.message}" for name, error in damaged.items()]
        chosen = known | chosen
        sources = list(known)
    origin = next((o for o in (store.initial_prefix(), bundled_initial(model.fingerprint, first.prefix.length))
                   if o is not None and o.hash() == first.prefix.initial), None)  # fmt: skip
    recognizer = CPNER(model, settings=Settings.build(config, overrides, model.recommended), initial=origin)
    for entry in chosen.values():
        recognizer.add(entry)
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
    done: Callable[[int], None] | None = None,
) -> Report:
    """Score a domain of a library on a file of labelled sentences."""
    corpus = read_corpus(data, format=format)
    recognizer = open_domain(name, backbone=backbone, library=library, dtype=dtype, device=device)
    return recognizer.evaluate(corpus, domain=name, done=done)
