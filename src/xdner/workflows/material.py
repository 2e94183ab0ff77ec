"""What a domain is trained on, from files, and the way of what came of it into a library; the same for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdner.corpora.corpus import Corpus
from xdner.corpora.io import read_corpus
from xdner.corpora.splits import Manifest, sample
from xdner.domain import Domain
from xdner.errors import DomainError, SettingsError
from xdner.library.kinds import Entry
from xdner.library.store import Library
from xdner.text import Sentence
from xdner.training.run import Run

__all__ = ["SAMPLE", "DomainFiles", "Material", "domain_of"]

#: File in a domain's folder that says how its sentences were drawn, where they are a sample.
SAMPLE = "sample.json"


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

    def keep(self, store: Library, entry: Entry, run: Run) -> Path:
        """Store the domain, and remove what its training left.

        Returns:
            The domain's folder.
        """
        folder = store.add(entry, also={} if self.sampled is None else {SAMPLE: self.sampled.to_json()})
        run.remove()
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


@dataclass(frozen=True)
class DomainFiles:
    """Where a domain's sentences and types are.

    Attributes:
        train: labelled sentences to learn from, or to show as examples.
        dev: labelled sentences that choose the best epoch.
        domain: types and verbalizations; without it, the types that occur in the files, in default words.
        format: of the files; by content if ``None``.
        k_shot: a seeded sample of so many sentences of ``train``.
    """

    train: str | Path | None = None
    dev: str | Path | None = None
    domain: str | Path | None = None
    format: str | None = None
    k_shot: int | None = None

    def read(self, name: str, seed: int) -> Material:
        """The domain of this name with its sentences.

        Raises:
            SettingsError: no file with sentences.
            CorpusError, DomainError: a file is broken, or there are no types.
        """
        if self.train is None:
            raise SettingsError(["there is nothing to train on"], hint="Give labelled sentences with --train FILE.")
        corpus, dev = read_corpus(self.train, format=self.format), self.read_dev()
        warnings = corpus.remarks + ([] if dev is None else dev.remarks)
        sentences: Sequence[Sentence] = corpus
        sampled = None
        if self.k_shot is not None:
            sentences, sampled = sample(corpus, "sentences", self.k_shot, seed)
        domain = domain_of(name, self.domain, [*corpus, *(dev or ())], str(self.train))
        seen = {entity.label for sentence in sentences for entity in sentence.entities}
        if strangers := [label for label in domain.label_names if label not in seen]:
            shown = ", ".join(strangers[:5]) + (f" and {len(strangers) - 5} more" if len(strangers) > 5 else "")
            warnings.append(f"no training sentence has the type {shown}: nothing but the name will say what it means")
        return Material(domain, sentences, dev, sampled, tuple(warnings))

    def read_dev(self) -> Corpus | None:
        """The sentences that choose the best epoch, if there are any.

        Raises:
            CorpusError: the file is broken.
        """
        return None if self.dev is None else read_corpus(self.dev, format=self.format)


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
