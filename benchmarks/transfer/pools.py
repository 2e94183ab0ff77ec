"""Sentences of targets and sources: what is trained on, what is scored, and that sources do not know the answers.

A target's dev sentences are the same in every run: its ``dev.txt``, or where there is none a part carved from train
before anything is sampled from the rest; in both cases at most ``--dev-cap`` sentences, drawn with a fixed seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.transfer.options import Options
from xdner.corpora.corpus import Corpus
from xdner.corpora.io import read_corpus
from xdner.corpora.splits import Manifest, carve_dev, sample, sample_sentences
from xdner.domain import Domain
from xdner.errors import DataError, SettingsError
from xdner.library.entry import sentence_hashes
from xdner.text import Sentence

__all__ = ["DRAW", "Known", "Pools", "Target", "digest"]

#: Seed of every drawing that is the same for all runs: dev sentences, and the sentences of large sources.
DRAW = 0


@dataclass(frozen=True)
class Target:
    """A domain to be learned.

    Attributes:
        domain: types that occur in its files.
        pool: sentences to train on or to sample from; none of them is in dev.
        dev: sentences to score.
        files: file below the data folder → its sha256.
    """

    domain: Domain
    pool: Corpus
    dev: Corpus
    files: Mapping[str, str]


@dataclass(frozen=True)
class Known:
    """A source domain and its training sentences.

    Attributes:
        domain: types that occur in its file.
        sentences: to train on.
        files: see :class:`Target`.
        dropped: sentences that were taken out because the target has them, or another of ``drop_also``.
    """

    domain: Domain
    sentences: tuple[Sentence, ...]
    files: Mapping[str, str]
    dropped: int = 0


def digest(*corpora: Sequence[Sentence]) -> str:
    """A hash over texts and entities, in their order."""
    plain = [[[s.text, [e.key for e in s.entities]] for s in corpus] for corpus in corpora]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


class Pools:
    """The corpora of a data folder, each read once.

    Args:
        options: folder, caps, sources, and whether shared sentences are taken out.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._corpora: dict[str, Corpus] = {}
        self._targets: dict[str, Target] = {}
        self._known: dict[tuple[str, str], Known] = {}

    def target(self, name: str) -> Target:
        """A target's pool and dev sentences.

        Raises:
            CorpusError: a file is missing or cannot be read, or is too small for a dev split.
        """
        if name not in self._targets:
            train, cap = self._corpus(name, "train"), self.options.dev_cap
            if (self.options.data / name / "dev.txt").exists():
                whole = self._corpus(name, "dev")
                kept = self._first(whole)
                dev = sample_sentences(kept, cap, DRAW) if len(kept) > cap else kept
                pool, labelled = self._first(train), [*train, *whole]
            else:
                rest = self._first(train)
                pool, dev = carve_dev(rest, count=max(1, min(cap, len(rest) // 2)), seed=DRAW)
                labelled = list(train)
            files = {f"{name}/{split}.txt": self._corpora[f"{name}/{split}"].sha256 for split in ("train", "dev")
                     if f"{name}/{split}" in self._corpora}  # fmt: skip
            self._targets[name] = Target(Domain.from_corpus(name, labelled), pool, dev, files)
        return self._targets[name]

    def train(self, name: str, k: int | None, seed: int) -> tuple[Corpus, Manifest | None]:
        """What a run is trained on: the whole pool, or at least k mentions of each type of it, with the manifest."""
        pool = self.target(name).pool
        return (pool, None) if k is None else sample(pool, "mentions", k, seed)

    def known(self, source: str, target: str) -> Known:
        """A source for a target; with ``drop_shared``, without the sentences that the target has too.

        Raises:
            SettingsError: nothing is left of it.
            CorpusError: a file of a target cannot be read.
        """
        if (source, target) not in self._known:
            self._known[source, target] = self._read_known(source, target)
        return self._known[source, target]

    def shared(self, source: str, target: str) -> dict[str, int]:
        """How many different sentences of a source the target has: ``train`` and ``dev``, where there are any.

        Compared as :func:`xdner.recognizers.sources.shared_sentences` does, with all that the target may be trained on.
        """
        mine, data = sentence_hashes(self.known(source, target).sentences), self.target(target)
        found = {"train": len(mine & sentence_hashes(data.pool)), "dev": len(mine & sentence_hashes(data.dev))}
        return {split: count for split, count in found.items() if count}

    def refuse_shared(self, target: str, sources: Sequence[str]) -> None:
        """Stop before anything is trained on a source that knows the answers.

        Raises:
            DataError: sources share sentences with the target's train or dev.
        """
        found = {source: counts for source in sources if (counts := self.shared(source, target))}
        if found:
            told = "; ".join(
                f"{source} has " + " and ".join(f"{n} of its {split} sentences" for split, n in counts.items())
                for source, counts in found.items()
            )
            raise DataError(
                f"sources of {target} know some of its sentences: {told}",
                hint="Take these sentences out of the sources with --drop-shared, or choose other --sources.",
            )

    def files(self, target: str, sources: Sequence[str]) -> dict[str, str]:
        """The hashes of all files that a run reads."""
        files = dict(self.target(target).files)
        for source in sources:
            files |= self.known(source, target).files
        return files

    def source_hash(self, name: str) -> str:
        """Of a source's file."""
        return self._corpus(name, "train").sha256

    # -- parts -----------------------------------------------------------------------------------------------------

    def _corpus(self, name: str, split: str) -> Corpus:
        key = f"{name}/{split}"
        if key not in self._corpora:
            self._corpora[key] = read_corpus(self.options.data / name / f"{split}.txt")
        return self._corpora[key]

    def _read_known(self, source: str, target: str) -> Known:
        corpus = self._corpus(source, "train")
        kept = self._first(corpus)
        if len(kept) > self.options.conll_cap:
            kept = sample_sentences(kept, self.options.conll_cap, DRAW)
        whole = Known(Domain.from_corpus(source, corpus), kept.sentences, {f"{source}/train.txt": corpus.sha256})
        if not self.options.drop_shared:
            return whole
        there = frozenset[str]().union(*(self._seen(name) for name in {target, *self.options.drop_also}))
        left = tuple(s for s in kept if sentence_hashes([s]).isdisjoint(there))
        if not left:
            raise SettingsError(
                [f"{source} has no sentence that {target} does not have too"], hint="Leave it out of --sources."
            )
        return replace(whole, sentences=left, dropped=len(kept) - len(left))

    def _first(self, corpus: Corpus) -> Corpus:
        limit = self.options.limit
        return corpus if limit is None else corpus.pick(range(min(limit, len(corpus))))

    def _seen(self, target: str) -> frozenset[str]:
        data = self.target(target)
        return sentence_hashes(data.pool) | sentence_hashes(data.dev)
