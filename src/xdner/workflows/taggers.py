"""Training a LANER domain from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdner.errors import LibraryError
from xdner.library.bundled import find_entry
from xdner.library.entry import sentence_hashes
from xdner.library.kinds import check_kind
from xdner.library.store import Library
from xdner.library.tagger_entry import TaggerEntry
from xdner.recognizers.laner import LANER
from xdner.tagger.settings import LanerSettings, TaggerSettings
from xdner.workflows.domains import Outcome
from xdner.workflows.initial import sources_of
from xdner.workflows.material import DomainFiles
from xdner.workflows.options import JobOptions

__all__ = ["TAGGER_ABLATIONS", "train_tagger"]

#: What ``--without`` switches off in LANER, and the setting that does it (the paper's Table 3).
TAGGER_ABLATIONS = {
    "label-background": "tagger.label_background=false",
    "label-context": "tagger.label_context=false",
}


def train_tagger(
    name: str,
    files: DomainFiles,
    options: JobOptions | None = None,
    *,
    encoder: str | Path | None = None,
    source_files: Sequence[str | Path] = (),
    start: str | None = None,
) -> Outcome[TaggerEntry]:
    """Train a LANER domain from files and store it in a library.

    Args:
        name: of the domain.
        files: its sentences and types.
        options: library, settings (:class:`~xdner.tagger.settings.LanerSettings`), seed, and what is shown.
        encoder: alias, hub id or folder; ``None`` is the embedded one, or with ``start`` that of the start.
        source_files: labelled sentences that are learned first, one file a domain.
        start: a LANER domain of the library to go on from: a source stage that is already done.

    Raises:
        XdnerError: see the tree in ``errors.py``; the message names the file, the line and the next step.
    """
    options = options or JobOptions()
    # Mistakes in settings and names, before weights are loaded.
    settings = LanerSettings.build(options.config, options.chosen)
    material = files.read(name, settings.training.seed)
    check_kind(options.store().path(name), TaggerEntry)
    sources, warnings = sources_of(source_files, format=files.format)
    if idle := settings.tagger.idle():
        what = f"head={settings.tagger.head}" if settings.tagger.head != "laner" else "LANER without LB and LC"
        warnings.append(f"{what} makes no use of {', '.join(idle)}")
    if not sources and settings.tagger.source_epochs != TaggerSettings().source_epochs:
        warnings.append("there is no --source: tagger.source_epochs has no effect")
    store, run, device = options.store(), options.domain_run(name), options.device
    ready = None if start is None else _start(start, store)
    if ready is None or encoder is not None:
        recognizer = LANER.from_pretrained(encoder, device=device, settings=settings)
    else:
        recognizer = LANER(settings=settings, device=device)
    seen = frozenset[str]().union(*(sentence_hashes(s.sentences) for s in sources))
    if ready is not None:
        recognizer.add(ready)
        seen |= ready.seen
    if shared := len(seen & sentence_hashes([*material.sentences, *(material.dev or ())])):
        warnings.append(f"the sources have {shared} of these sentences; scores will flatter them")
    with run.claimed():
        trained = recognizer.train(
            material.domain, material.sentences, material.dev, sources=sources, start=start, run=run
        )
        folder = material.keep(store, trained.entry, run)
    failed = sum(result.failed_checkpoints for _, result in trained.run.phases)
    remarks = material.remarks(trained.inexpressible, "have no BIO tags", failed)
    result = trained.result
    return Outcome(
        trained.entry, folder, result.best_dev, result.best_epoch, trained.run.seconds, result.padding, result.stopped,
        (*remarks, *warnings),
    )  # fmt: skip


def _start(name: str, store: Library) -> TaggerEntry:
    entry = find_entry(name, store)
    if not isinstance(entry, TaggerEntry):
        raise LibraryError(
            f"domain {name!r} is no LANER domain: a LANER domain starts from another LANER domain",
            hint=f"Train one first: xdner train {name}-tagger --recognizer laner --train FILE.",
        )
    return entry
