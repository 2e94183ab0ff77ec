"""A small training file, or a dev split, from a labelled file: what was drawn is written with the list of its sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdner.corpora.corpus import Corpus
from xdner.corpora.io import read_corpus, write_corpus
from xdner.corpora.splits import Definition, Manifest, carve_dev, sample
from xdner.errors import SettingsError, StorageError

__all__ = ["Part", "Sampled", "sample_file"]

#: How a file of each format is called.
_SUFFIX = {"columns": ".txt", "spans": ".jsonl", "tokens": ".jsonl"}


@dataclass(frozen=True)
class Part:
    """A file that was written.

    Attributes:
        path: of the sentences, in the format of the file that they come from.
        sentences: how many.
        mentions: of each type of the whole file, how many.
        manifest: the file that lists the sentences; ``None`` for what is left when dev is carved out.
        scarce: types that have fewer mentions than were asked for, because no more were left.
    """

    path: Path
    sentences: int
    mentions: Mapping[str, int]
    manifest: Path | None
    scarce: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampled:
    """What was drawn.

    Attributes:
        train, dev: the files; ``dev`` only where it was asked for.
        unused: sentences that are in neither.
        warnings: of the reader.
    """

    train: Part
    dev: Part | None
    unused: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""

        def plain(part: Part | None) -> dict[str, Any] | None:
            if part is None:
                return None
            manifest = None if part.manifest is None else str(part.manifest)
            return {
                "path": str(part.path), "sentences": part.sentences, "mentions": dict(part.mentions),
                "manifest": manifest, "scarce": list(part.scarce),
            }  # fmt: skip

        made = {"train": plain(self.train), "dev": plain(self.dev), "unused": self.unused}
        return made | {"warnings": list(self.warnings)}


def sample_file(
    file: str | Path,
    out: str | Path,
    *,
    k: int | None = None,
    unit: Definition | None = None,
    dev: int = 0,
    seed: int = 1,
    format: str | None = None,
) -> Sampled:
    """Draw a k-shot training file, a dev split, or both (dev first) from a labelled file.

    The folder ``out`` gets ``train`` and ``dev``, each with ``….sample.json``, the manifest of its sentences
    (:class:`~xdner.corpora.splits.Manifest`). Sentences with the same text are never in both.

    Args:
        file: labelled sentences.
        k: mentions of each type, at least, or sentences, by ``unit``; ``None``: all that dev leaves.
        unit: what ``k`` counts, ``mentions`` (also if ``None``) or ``sentences``; both are defined in ``corpora/splits.py``.
        dev: sentences of the dev split; 0 is without.
        seed: of the drawing.
        format: of the file; by content if ``None``.

    Raises:
        SettingsError: neither ``k`` nor ``dev``, or ``unit`` without ``k``.
        CorpusError: the file cannot be read, or has too few sentences or no mentions.
        StorageError: one of the files is there already, or cannot be written.
    """
    if k is None and not dev:
        raise SettingsError(["there is nothing to draw"], hint="Give --k NUMBER, --dev NUMBER, or both.")
    if k is None and unit is not None:
        raise SettingsError([f"--unit {unit} says what --k counts, and there is no --k"], hint="Give --k NUMBER, too.")
    corpus = read_corpus(file, format=format)
    rest, carved = carve_dev(corpus, count=dev, seed=seed) if dev else (corpus, None)
    drawn, manifest = (rest, None) if k is None else sample(rest, unit or "mentions", k, seed)
    folder, suffix = Path(out), _SUFFIX[corpus.format]
    planned = [("train", drawn, manifest)]
    if carved is not None:
        planned.append(("dev", carved, Manifest.of(carved, definition="dev", k=dev, seed=seed)))
    for name, _, listed in planned:
        for path in (folder / f"{name}{suffix}", *([folder / f"{name}.sample.json"] if listed else [])):
            if path.exists():
                raise StorageError(f"{path} is there already", hint="Choose another --out, or remove it first.")
    parts = [_write(folder, name, suffix, part, listed, corpus.labels) for name, part, listed in planned]
    used = len(drawn) + (0 if carved is None else len(carved))
    return Sampled(parts[0], parts[1] if carved is not None else None, len(corpus) - used, tuple(corpus.remarks))


def _write(
    folder: Path, name: str, suffix: str, corpus: Corpus, manifest: Manifest | None, labels: Iterable[str]
) -> Part:
    """``labels`` are the whole file's: a type may have no mention left here."""
    path = folder / f"{name}{suffix}"
    write_corpus(corpus, path, format=corpus.format)
    found = Counter(entity.label for sentence in corpus for entity in sentence.entities)
    counts = {label: found[label] for label in labels}
    if manifest is None:
        return Part(path, len(corpus), counts, None)
    listed = folder / f"{name}.sample.json"
    manifest.write(listed)
    few = tuple(t for t, n in counts.items() if manifest.definition == "mentions" and n < manifest.k)
    return Part(path, len(corpus), counts, listed, few)
