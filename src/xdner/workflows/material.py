"""What a domain is trained on, from files, and the way of what came of it into a library; the same for every method."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdner.corpora.io import read_corpus
from xdner.corpora.splits import Manifest, sample
from xdner.domain import Domain
from xdner.errors import DomainError
from xdner.files import storage_errors
from xdner.library.kinds import Entry
from xdner.library.store import Library
from xdner.text import Sentence

__all__ = ["RESUME", "Material", "domain_of", "read_material"]

#: For the message after Ctrl-C.
RESUME = "Run the same command again with --resume."


@dataclass(frozen=True)
class Material:
    """A domain with its sentences.

    Attributes:
        domain: types and verbalizations.
        sentences: to train on.
        dev: to choose the best epoch, or ``None``.
        sampled: how ``sentences`` were drawn, where they are a sample.
        warnings: of the readers.
    """

    domain: Domain
    sentences: Sequence[Sentence]
    dev: Sequence[Sentence] | None
    sampled: Manifest | None
    warnings: tuple[str, ...]

    def keep(self, store: Library, entry: Entry, run_folder: Path) -> Path:
        """Store the trained domain, and remove what the run left.

        Returns:
            The domain's folder.
        """
        folder = store.add(entry)
        if self.sampled is not None:
            self.sampled.write(folder / "sample.json")
        with storage_errors(run_folder):
            shutil.rmtree(run_folder, ignore_errors=True)
        return folder

    def remarks(self, inexpressible: Mapping[str, int], cannot: str, failed_checkpoints: int) -> list[str]:
        """What the user should know after training.

        Args:
            inexpressible: gold entities that were left out, by reason.
            cannot: why, in words: "cannot be expressed".
            failed_checkpoints: that could not be written.
        """
        made = list(self.warnings)
        if lost := sum(inexpressible.values()):
            why = ", ".join(f"{reason}: {count}" for reason, count in inexpressible.items())
            made.append(f"{lost} training mentions {cannot} and were left out ({why})")
        if self.dev is None:
            made.append("there was no dev file: the last epoch was kept (--dev FILE chooses the best one)")
        if failed_checkpoints:
            made.append(f"{failed_checkpoints} checkpoints could not be written (is the disk full?)")
        return made


def read_material(
    name: str,
    train_file: str | Path,
    *,
    dev_file: str | Path | None,
    domain_file: str | Path | None,
    format: str | None,
    k_shot: int | None,
    seed: int,
) -> Material:
    """Read a domain's files; see :func:`~xdner.workflows.domains.train_domain` for the arguments.

    Raises:
        CorpusError, DomainError: a file is broken, or there are no types.
    """
    corpus = read_corpus(train_file, format=format)
    dev = read_corpus(dev_file, format=format) if dev_file is not None else None
    warnings = [f"{path}: {what} ({n})" for c, path in ((corpus, train_file), (dev, dev_file)) if c is not None
                for what, n in c.warnings.items()]  # fmt: skip
    sentences: Sequence[Sentence] = corpus
    sampled = None
    if k_shot is not None:
        sentences, sampled = sample(corpus, "sentences", k_shot, seed)
    domain = domain_of(name, domain_file, [*corpus, *(dev or ())], str(train_file))
    return Material(domain, sentences, dev, sampled, tuple(warnings))


def domain_of(name: str, file: str | Path | None, sentences: Sequence[Sentence], path: str) -> Domain:
    """The domain that a file describes, under this name; without a file, the types that occur in the sentences.

    Raises:
        DomainError: the file is no domain, or there is none and no sentence of ``path`` has an entity.
    """
    if file is None:
        if not any(s.entities for s in sentences):
            raise DomainError(
                f"{path} has no entities, so domain {name!r} would have no types",
                hint="Label some sentences, or give the types with --domain-file FILE.toml.",
            )
        return Domain.from_corpus(name, sentences)
    domain = Domain.read(file)
    return domain if domain.name == name else Domain(name, domain.labels, domain.instruction)
