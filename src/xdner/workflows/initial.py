"""A library's shared start: δ₀ trained on source files, before the first domain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xdner.backbone.load import load_backbone
from xdner.corpora.io import read_corpus
from xdner.errors import LibraryError, TrainingError
from xdner.prefix.prefix import Prefix
from xdner.recognizers.reader import Reader
from xdner.recognizers.shared_start import train_shared_start
from xdner.settings import START, Settings
from xdner.training.loop import TrainingResult
from xdner.training.sources import LabelledSource
from xdner.workflows.material import domain_of
from xdner.workflows.options import JobOptions

__all__ = ["sources_of", "train_initial"]

# Several domains at once: types are dropped with their answers, so that δ₀ learns to read the options.
INITIAL_DEFAULTS: dict[str, dict[str, Any]] = {"training": {"drop_options": 0.3, "patience": 0, "epochs": 3}}


def sources_of(files: Sequence[str | Path], *, format: str | None = None) -> tuple[list[LabelledSource], list[str]]:
    """Source domains from files of labelled sentences, one a domain.

    A domain's name is the file's stem, or its folder's name where the stem is ``train`` or ``data``.

    Returns:
        The domains, and what the readers have to say.

    Raises:
        TrainingError: two files would make domains of one name.
        CorpusError, DomainError: a file cannot be read or has no entities.
    """
    sources: list[LabelledSource] = []
    told: list[str] = []
    for file in files:
        path = Path(file)
        name = path.parent.name if path.stem in ("train", "data") and path.parent.name else path.stem
        corpus = read_corpus(path, format=format)
        sources.append(LabelledSource(domain_of(name, None, corpus, str(path)), corpus))
        told += corpus.remarks
    if len({s.domain.name for s in sources}) != len(sources):
        raise TrainingError(
            "two source files would make domains of one name",
            hint="Name the files by their domains, e.g. politics.txt and music.txt.",
        )
    return sources, told


def train_initial(
    source_files: Sequence[str | Path],
    options: JobOptions | None = None,
    *,
    backbone: str | Path | None = None,
    format: str | None = None,
) -> tuple[Prefix, TrainingResult]:
    """Train δ₀ on source files together and make it the start of all domains of a new library.

    Args:
        source_files: labelled sentences, one file a domain; more source domains make a better start.
        options: its library is a folder without domains that have a prefix.
        backbone: alias, hub id or folder; ``None`` is the embedded default.
        format: of the files; by content if ``None``.

    Raises:
        LibraryError: the library has such domains or a δ₀ already; they could not be combined with new ones.
    """
    options = options or JobOptions()
    store = options.store()
    sound, damaged = store.load_all()
    # A LANER domain has no prefix: where it started does not matter.
    if damaged or any(entry.prefixes for entry in sound.values()) or store.initial_prefix() is not None:
        raise LibraryError(
            f"the library {store.folder} has an initial prefix or domains already",
            hint="Choose a new folder with --library: all domains of a library start from one prefix.",
        )
    sources, told = sources_of(source_files, format=format)
    # Mistakes in settings, before the backbone is loaded.
    Settings.build(options.config, options.chosen, INITIAL_DEFAULTS, use=START)
    model = load_backbone(backbone, device=options.device, dtype=options.dtype)
    base = {group: dict(values) for group, values in model.recommended.items()}
    for group, values in INITIAL_DEFAULTS.items():
        base[group] = base.get(group, {}) | values
    settings = Settings.build(options.config, options.chosen, base, use=START)
    run = options.domain_run("initial")
    for remark in told:
        run.progress.note(remark)
    with run.claimed():
        made, result = train_shared_start(Reader(model, settings.decoding), sources, settings, run)
        store.set_initial(made)
        run.remove()
    return made, result
