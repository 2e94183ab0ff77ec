"""What is in corpus files, in plain values; the command line makes tables of them."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from xdner.corpora.checks import Conflict, TextIndex
from xdner.corpora.corpus import Corpus, Format
from xdner.corpora.io import read_corpus
from xdner.errors import CorpusError
from xdner.text import Sentence

__all__ = ["FileReport", "Inspection", "LeakReport", "Lengths", "inspect_corpora"]

EXAMPLES = 5  # conflicts and leaks that are shown; all are counted


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long something is, in words."""

    shortest: int
    median: float
    mean: float
    longest: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths | None:
        """The lengths of these, or ``None`` where there are none."""
        if not values:
            return None
        return cls(min(values), statistics.median(values), round(statistics.fmean(values), 2), max(values))


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file.

    Attributes:
        path, format, sha256: as in :class:`~xdner.corpora.corpus.Corpus`.
        sentences, words, entities: how many.
        without_entities: sentences that have none.
        types: mentions per type, in alphabetical order.
        sentence_lengths, mention_lengths: in words; a mention that lies inside a word counts as one.
        repeated: sentences whose text stood in the file before.
        conflicts: texts that the file labels in more than one way.
        examples: the first of these conflicts.
        warnings: what the reader forgave, and how often.
    """

    path: str
    format: str
    sha256: str
    sentences: int
    words: int
    entities: int
    without_entities: int
    types: Mapping[str, int]
    sentence_lengths: Lengths | None
    mention_lengths: Lengths | None
    repeated: int
    conflicts: int
    examples: tuple[Conflict, ...]
    warnings: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The sentences that two files share.

    Attributes:
        first, second: the paths.
        in_first: sentences of the first file whose text is in the second.
        in_second: sentences of the second file whose text is in the first.
        identical: those of ``in_second`` whose text is in the first character for character.
        differing: how many of the shared texts the two label differently.
        examples: ``(id in the first, id in the second)`` of the first few.
    """

    first: str
    second: str
    in_first: int
    in_second: int
    identical: int
    differing: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """All files, and each pair of them that shares sentences."""

    files: tuple[FileReport, ...]
    leaks: tuple[LeakReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def inspect_corpora(paths: Iterable[str | Path], *, format: Format | str | None = None) -> Inspection:
    """Count, measure and compare corpus files.

    Args:
        paths: one or more files; each pair is searched for shared sentences.
        format: of all of them; told from each file's content where it is not given.

    Raises:
        CorpusError: a file that cannot be read, or none at all.
    """
    # A path need not be UTF-8; what is printed and written must be.
    corpora = [(str(path).encode("utf-8", "replace").decode(), read_corpus(path, format=format)) for path in paths]
    if not corpora:
        raise CorpusError("there is no file to inspect", hint="Name one or more corpus files.")
    indexed = [(name, corpus, TextIndex(corpus)) for name, corpus in corpora]
    files = tuple(_report(*entry) for entry in indexed)
    pairs = combinations(((name, index) for name, _, index in indexed), 2)
    found = (_leaks(*first, *second) for first, second in pairs)
    return Inspection(files, tuple(report for report in found if report.in_first))


def _report(name: str, corpus: Corpus, index: TextIndex) -> FileReport:
    types = Counter(entity.label for sentence in corpus for entity in sentence.entities)
    lengths = [len(sentence.words) for sentence in corpus]
    conflicts = index.conflicts()
    return FileReport(
        path=name,
        format=corpus.format,
        sha256=corpus.sha256,
        sentences=len(corpus),
        words=sum(lengths),
        entities=sum(types.values()),
        without_entities=sum(not sentence.entities for sentence in corpus),
        types=dict(sorted(types.items())),
        sentence_lengths=Lengths.of(lengths),
        mention_lengths=Lengths.of([n for sentence in corpus for n in _mention_lengths(sentence)]),
        repeated=index.repeated,
        conflicts=len(conflicts),
        examples=conflicts[:EXAMPLES],
        warnings=dict(corpus.warnings),
    )


def _mention_lengths(sentence: Sentence) -> list[int]:
    """Words that each mention touches."""
    words = sentence.words
    return [
        bisect_left(words, e.end, key=lambda word: word.start) - bisect_right(words, e.start, key=lambda word: word.end)
        for e in sentence.entities
    ]


def _leaks(first: str, one: TextIndex, second: str, two: TextIndex) -> LeakReport:
    leaks = one.leaks(two)
    texts = {sentence.text for sentence in one.sentences}
    return LeakReport(
        first=first,
        second=second,
        in_first=sum(len(leak.first) for leak in leaks),
        in_second=sum(len(leak.second) for leak in leaks),
        identical=sum(sentence.text in texts for sentence in two.sentences) if leaks else 0,
        differing=sum(leak.differs for leak in leaks),
        examples=tuple((leak.first[0], leak.second[0]) for leak in leaks[:EXAMPLES]),
    )
