"""Whole jobs on files, as the command line does them; each can be called from Python with the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdner.backbone.aliases import MANIFEST
from xdner.backbone.load import load_backbone
from xdner.backbone.lora import merge_lora
from xdner.backbone.sources import resolve
from xdner.corpora.io import read_corpus
from xdner.corpora.splits import sample
from xdner.domain import Domain
from xdner.errors import DomainError, TrainingError, UnknownDomainError
from xdner.evaluation.report import Report
from xdner.files import storage_errors, write_atomically
from xdner.library.entry import DomainEntry
from xdner.library.store import Library
from xdner.recognizers.cp_ner import CPNER
from xdner.settings import Settings
from xdner.text import Sentence
from xdner.training.instruct import Instructed, Source, instruct
from xdner.training.progress import Progress

__all__ = ["Outcome", "evaluate_domain", "example_folder", "instruct_backbone", "open_domain", "train_domain"]


@dataclass(frozen=True)
class Outcome:
    """What :func:`train_domain` did."""

    entry: DomainEntry
    folder: Path
    dev_f1: float | None
    best_epoch: int
    seconds: float
    padding: float
    stopped: str
    warnings: tuple[str, ...]

    @property
    def kilobytes(self) -> float:
        """Of the stored prefix."""
        return (self.folder / "prefix.safetensors").stat().st_size / 1000

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
            "settings": self.entry.settings.to_dict(),
        }


def train_domain(
    name: str,
    train_file: str | Path,
    *,
    dev_file: str | Path | None = None,
    domain_file: str | Path | None = None,
    backbone: str | Path | None = None,
    library: str | Path | None = None,
    format: str | None = None,
    k_shot: int | None = None,
    seed: int = 1,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train a domain from files and store it in a library.

    Args:
        name: of the domain.
        train_file, dev_file: labelled sentences.
        domain_file: types and verbalizations; without it, the types that occur in the files, in default words.
        backbone: alias, hub id or folder; ``None`` is the embedded default.
        library: folder of trained domains.
        format: of the files; by content if ``None``.
        k_shot: train on a seeded sample of so many sentences.
        seed: of everything random.
        config, overrides: settings (:meth:`Settings.build`).
        dtype, device: of the frozen weights.
        resume: go on after an interruption.
        progress: what is shown.

    Raises:
        XdnerError: see the tree in ``errors.py``; the message names the file, the line and the next step.
    """
    corpus = read_corpus(train_file, format=format)
    dev = read_corpus(dev_file, format=format) if dev_file is not None else None
    warnings = [f"{path}: {what} ({n})" for c, path in ((corpus, train_file), (dev, dev_file)) if c is not None
                for what, n in c.warnings.items()]  # fmt: skip
    sentences: Sequence[Sentence] = corpus
    manifest = None
    if k_shot is not None:
        sentences, manifest = sample(corpus, "sentences", k_shot, seed)
    domain = _domain(name, domain_file, [*corpus, *(dev or ())], str(train_file))
    overrides = [*overrides, f"training.seed={seed}"]
    Settings.build(config, overrides)  # mistakes in settings, before the backbone is loaded
    model = load_backbone(backbone, device=device, dtype=dtype)
    recognizer = CPNER(model, settings=Settings.build(config, overrides, model.recommended))
    store = Library(library)
    run_folder = store.folder / ".runs" / name
    trained = recognizer.train(
        domain,
        sentences,
        dev,
        run_folder=run_folder,
        resume=resume,
        resume_hint="Run the same command again with --resume.",
        progress=progress,
    )
    folder = store.add(trained.entry)
    if manifest is not None:
        manifest.write(folder / "sample.json")
    with storage_errors(run_folder):
        shutil.rmtree(run_folder, ignore_errors=True)
    lost = sum(trained.inexpressible.values())
    if lost:
        why = ", ".join(f"{reason}: {count}" for reason, count in trained.inexpressible.items())
        warnings.append(f"{lost} training mentions cannot be expressed and were left out ({why})")
    if dev is None:
        warnings.append("there was no dev file: the last epoch was kept (--dev FILE chooses the best one)")
    result = trained.result
    if result.failed_checkpoints:
        warnings.append(f"{result.failed_checkpoints} checkpoints could not be written (is the disk full?)")
    return Outcome(
        trained.entry, folder, result.best_dev, result.best_epoch, result.seconds, result.padding, result.stopped,
        tuple(warnings),
    )  # fmt: skip


def _domain(name: str, file: str | Path | None, sentences: Sequence[Sentence], path: str) -> Domain:
    if file is None:
        if not any(s.entities for s in sentences):
            raise DomainError(
                f"{path} has no entities, so domain {name!r} would have no types",
                hint="Label some sentences, or give the types with --domain-file FILE.toml.",
            )
        return Domain.from_corpus(name, sentences)
    domain = Domain.read(file)
    return domain if domain.name == name else Domain(name, domain.labels, domain.instruction)


def open_domain(
    name: str,
    *,
    backbone: str | Path | None = None,
    library: str | Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Settings | None = None,
) -> CPNER:
    """A recognizer with one domain of a library ready, on the backbone that the domain was trained on.

    Args:
        backbone: another place to load the backbone from; ``None``: where it was loaded from in training.

    Raises:
        UnknownDomainError: the library has no such domain.
        PrefixMismatchError: the backbone is another one.
    """
    entry = Library(library).get(name)
    source = backbone if backbone is not None else entry.prefix.notes.get("backbone_source") or None
    recognizer = CPNER.from_pretrained(source, device=device, dtype=dtype, settings=settings or entry.settings)
    recognizer.add(entry)
    return recognizer


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


def instruct_backbone(
    source_files: Sequence[str | Path],
    out: str | Path,
    *,
    backbone: str | Path | None = None,
    format: str | None = None,
    seed: int = 1,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
) -> Instructed:
    """Instruction tuning on source files, merged into a new backbone folder ``out`` (its factors: ``out-adapter``).

    Args:
        source_files: labelled sentences, one file a domain; the domain's name is the file's stem, or its folder's name
            where the stem is ``train``.
    """
    sources = []
    for file in source_files:
        path = Path(file)
        name = path.parent.name if path.stem in ("train", "data") and path.parent.name else path.stem
        corpus = read_corpus(path, format=format)
        sources.append(Source(_domain(name, None, corpus, str(path)), corpus))
    if len({s.domain.name for s in sources}) != len(sources):
        raise TrainingError(
            "two source files would make domains of one name",
            hint="Name the files by their domains, e.g. politics.txt and music.txt.",
        )
    base = resolve(backbone if backbone is not None else RAW_BACKBONE)
    settings = Settings.build(config, [*overrides, f"training.seed={seed}"], base=INSTRUCT_DEFAULTS)
    model = load_backbone(base.path, device=device, dtype=dtype)
    out = Path(out)
    run_folder = out.with_name(out.name + "-run")
    made = instruct(
        model, sources, out.with_name(out.name + "-adapter"), settings=settings, run_folder=run_folder, resume=resume,
        resume_hint="Run the same command again with --resume.", progress=progress,
    )  # fmt: skip
    merge_lora(base.path, made.folder, out)
    manifest = {
        "name": out.name,
        "kind": model.kind,
        "base": {"name": base.name, "fingerprint": model.fingerprint},
        "recommended": {"codec": settings.to_dict()["codec"]},
        "made": json.loads((made.folder / "instruct.json").read_text(encoding="utf-8")),
    }
    write_atomically(out / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(run_folder, ignore_errors=True)
    return made


def example_folder(name: str) -> Path:
    """Folder of a bundled example domain: ``domain.toml``, ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``.

    Raises:
        UnknownDomainError: there is no such example.
    """
    examples = Path(__file__).resolve().parent / "data" / "examples"
    known = sorted(p.parent.name for p in examples.glob("*/domain.toml"))
    if name not in known:
        raise UnknownDomainError(f"there is no example domain {name!r}", hint=f"The examples are: {', '.join(known)}.")
    return examples / name


#: What is instructed when no backbone is named: the embedded model as it came.
RAW_BACKBONE = "smollm2-135m"
# LoRA wants a lower rate than a prefix, and its own schedule (docs/LOG.md).
INSTRUCT_DEFAULTS: dict[str, Any] = {
    "training": {"learning_rate": 5e-4, "epochs": 3, "drop_options": 0.3, "patience": 0},
}
