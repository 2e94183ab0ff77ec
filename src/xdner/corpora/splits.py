"""Seeded samples: k-shot training sets and dev splits, with a manifest that says exactly which sentences they hold.

What is drawn depends on the seed and on the order of the sentences in the file, and on nothing else: not on the version
of Python, not on the file's name. Sentence number *i* is ranked by the SHA-256 of the seed and *i*. Samples keep the
order of the file.

"k-shot" is defined in two ways:

``sentences``
    k sentences, each as likely as any other, with entities or without: the first k by rank. With the same seed, ten
    sentences are thus among twenty.
``mentions``
    Sentences in which each type has at least k mentions (or all it has, where the corpus has fewer), none of which
    could be left out. Types are served from the rarest to the most frequent: sentences that hold the type are added in
    the order of their rank until it has k mentions, those of sentences added before included. Then, last added first,
    each sentence is taken out again that no type needs. As sentences are taken whole, frequent types end up with more
    than k.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from xdner.corpora.checks import TextIndex
from xdner.corpora.corpus import Corpus
from xdner.corpora.source import read_source
from xdner.errors import CorpusError
from xdner.files import write_atomically

__all__ = ["Definition", "Manifest", "carve_dev", "sample", "sample_mentions", "sample_sentences"]

Definition = Literal["sentences", "mentions"]

_MANIFEST_HINT = "Write it anew with `xdner sample`; a manifest is JSON and is not edited by hand."


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was drawn, and from what.

    Attributes:
        definition: ``sentences``, ``mentions`` or ``dev``.
        k: what was asked for: sentences, or mentions per type.
        seed: of the drawing.
        source: the file's name, for people.
        sha256: of the file that was drawn from; empty if the corpus was not read from a file.
        ids: of the sentences, in the order of the file.
        mentions: how many mentions of each type the sample holds.
    """

    definition: str
    k: int
    seed: int
    source: str
    sha256: str
    ids: tuple[str, ...]
    mentions: Mapping[str, int]

    @classmethod
    def of(cls, drawn: Corpus, *, definition: Definition | Literal["dev"], k: int, seed: int) -> Manifest:
        """The manifest of a corpus that one of this module's functions drew."""
        counts = Counter(entity.label for sentence in drawn for entity in sentence.entities)
        name = drawn.path.name if drawn.path else ""
        ids = tuple(sentence.id for sentence in drawn)
        return cls(definition, k, seed, name, drawn.sha256, ids, dict(sorted(counts.items())))

    def select(self, corpus: Corpus) -> Corpus:
        """The sample, taken from the corpus that it was drawn from.

        Raises:
            CorpusError: the file has changed since, or lacks a sentence.
        """
        if self.sha256 and corpus.sha256 and self.sha256 != corpus.sha256:
            raise CorpusError(
                f"the manifest was made from another file: sha256 {self.sha256[:12]}…, not {corpus.sha256[:12]}…",
                path=corpus.path,
                hint=f"Give the very file that was sampled ({self.source or 'see the manifest'}), or sample again.",
            )
        places = {sentence.id: index for index, sentence in enumerate(corpus)}
        missing = [id for id in self.ids if id not in places]
        if missing:
            raise CorpusError(
                f"{len(missing)} of the manifest's {len(self.ids)} sentences are not here, such as {missing[0]!r}",
                path=corpus.path,
                hint=f"Give the very file that was sampled ({self.source or 'see the manifest'}), or sample again.",
            )
        return corpus.pick(places[id] for id in self.ids)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def write(self, path: str | Path) -> None:
        """Write the manifest as JSON."""
        write_atomically(path, self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read a manifest.

        Raises:
            CorpusError: the file is missing or is no manifest.
        """
        text = "\n".join(read_source(path).lines)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"not JSON: {error}", path=path, hint=_MANIFEST_HINT) from None
        names = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            came = f"the keys {', '.join(data) or 'none'}" if isinstance(data, dict) else type(data).__name__
            expected = f"expected a manifest with {', '.join(sorted(names))}"
            raise CorpusError(f"{expected}; found {came}", path=path, hint=_MANIFEST_HINT)
        if problem := _problem(data):
            raise CorpusError(problem, path=path, hint=_MANIFEST_HINT)
        return cls(**{**data, "ids": tuple(data["ids"])})


def _problem(data: dict[str, Any]) -> str:
    for key in ("definition", "source", "sha256"):
        if not isinstance(data[key], str):
            return f"'{key}' must be text"
    if data["definition"] not in (*get_args(Definition), "dev"):
        return f"unknown definition {data['definition']!r}; known are {', '.join(get_args(Definition))}, dev"
    for key in ("k", "seed"):
        if type(data[key]) is not int:
            return f"'{key}' must be a whole number"
    ids, mentions = data["ids"], data["mentions"]
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        return "'ids' must be a list of texts"
    if not isinstance(mentions, dict) or not all(type(count) is int for count in mentions.values()):
        return "'mentions' must map types to whole numbers"
    return ""


def sample(corpus: Corpus, definition: Definition, k: int, seed: int) -> tuple[Corpus, Manifest]:
    """A k-shot sample by either definition, with its manifest. Errors as the two functions below.

    Raises:
        CorpusError: also where the definition is unknown.
    """
    if definition not in get_args(Definition):
        known = ", ".join(get_args(Definition))
        raise CorpusError(f"unknown definition of k-shot: {definition!r}", hint=f"Known are: {known}.")
    drawn = sample_sentences(corpus, k, seed) if definition == "sentences" else sample_mentions(corpus, k, seed)
    return drawn, Manifest.of(drawn, definition=definition, k=k, seed=seed)


def sample_sentences(corpus: Corpus, k: int, seed: int) -> Corpus:
    """k sentences: the definition ``sentences`` at the top of this file.

    Raises:
        CorpusError: k is not from 1 to the number of sentences.
    """
    if not 1 <= k <= len(corpus):
        raise CorpusError(
            f"{k} sentences were asked for; the corpus has {len(corpus)}",
            path=corpus.path,
            hint=f"Ask for 1 to {len(corpus)}.",
        )
    return corpus.pick(_ranked(range(len(corpus)), seed)[:k])


def sample_mentions(corpus: Corpus, k_per_type: int, seed: int) -> Corpus:
    """At least k mentions of each type: the definition ``mentions`` at the top of this file.

    A type that has fewer than k mentions in the corpus brings all its sentences; the manifest's ``mentions`` show it.

    Raises:
        CorpusError: k is less than 1, or the corpus has no entities.
    """
    if k_per_type < 1:
        message = f"{k_per_type} mentions per type were asked for"
        raise CorpusError(message, path=corpus.path, hint="Ask for 1 or more.")
    counts = [Counter(entity.label for entity in sentence.entities) for sentence in corpus]
    total: Counter[str] = sum(counts, Counter())
    if not total:
        raise CorpusError(
            "the corpus has no entities, so no type has mentions to sample",
            path=corpus.path,
            hint="Sample sentences instead of mentions, or check that the file is labeled.",
        )
    holders: dict[str, list[int]] = {label: [] for label in total}
    for index in _ranked((i for i, count in enumerate(counts) if count), seed):
        for label in counts[index]:
            holders[label].append(index)
    needed = {label: min(k_per_type, total[label]) for label in total}
    have: Counter[str] = Counter()
    taken: dict[int, None] = {}  # in the order of taking
    for label in sorted(total, key=lambda name: (total[name], name)):
        for index in holders[label]:
            if have[label] >= needed[label]:
                break
            if index not in taken:
                taken[index] = None
                have.update(counts[index])
    for index in reversed(list(taken)):
        if all(have[label] - count >= needed[label] for label, count in counts[index].items()):
            have.subtract(counts[index])
            del taken[index]
    return corpus.pick(taken)


def carve_dev(
    corpus: Corpus, *, share: float | None = None, count: int | None = None, seed: int
) -> tuple[Corpus, Corpus]:
    """Split a corpus into train and dev, without leaks: sentences with the same normalized text stay together.

    Args:
        corpus: what to split.
        share: the part of the sentences that goes to dev, more than 0 and less than 1 (at least one sentence); or
        count: how many do. Where repeated sentences do not fit in, dev can be a little smaller.
        seed: of the drawing.

    Returns:
        (train, dev)

    Raises:
        CorpusError: not exactly one of share and count, or one that leaves train or dev empty.
    """
    if (share is None) == (count is None):
        raise CorpusError("a dev split needs either share or count", hint="Give one: share=0.1, or count=100.")
    if share is not None:
        if not 0 < share < 1:
            message = f"the share of dev must be more than 0 and less than 1, not {share}"
            raise CorpusError(message, path=corpus.path, hint="A tenth is share=0.1.")
        count = max(1, round(share * len(corpus)))
    if count is None or not 1 <= count < len(corpus):
        raise CorpusError(
            f"{count} dev sentences cannot be carved from {len(corpus)}, with some left to train on",
            path=corpus.path,
            hint=f"Ask for 1 to {len(corpus) - 1}." if len(corpus) > 1 else "Bring more sentences.",
        )
    groups = {indices[0]: indices for indices in TextIndex(corpus).by_text.values()}
    dev: list[int] = []
    for first in _ranked(groups, seed):
        if len(dev) + len(groups[first]) <= count:
            dev += groups[first]
    if not dev:
        raise CorpusError(
            f"every sentence recurs more than {count} times, so dev would share its sentences with train",
            path=corpus.path,
            hint="Ask for a larger dev split, or remove the repetitions.",
        )
    chosen = set(dev)
    return corpus.pick(i for i in range(len(corpus)) if i not in chosen), corpus.pick(dev)


def _ranked(indices: Iterable[int], seed: int) -> list[int]:
    return sorted(indices, key=lambda index: hashlib.sha256(f"{seed} {index}".encode()).digest())
