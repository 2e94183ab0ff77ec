"""A corpus: sentences with their entities, and what was odd about the file they came from."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args, overload

from xdner.corpora.source import Source
from xdner.text import Sentence

__all__ = ["FORMATS", "LABEL_HINT", "WHITE_WORDS", "Corpus", "CorpusBuilder", "Format", "flatten", "usable_label"]

Format = Literal["columns", "spans", "tokens"]
FORMATS: tuple[Format, ...] = get_args(Format)

WHITE_WORDS = "words of white space only (left out, with their tags)"
LABEL_HINT = (
    "A type's name is one word of visible characters: write 'work_of_art', not 'work of art'; "
    "the model reads 'work of art' all the same."
)


@dataclass(frozen=True)
class Corpus(Sequence[Sentence]):
    """Sentences in the order of their file.

    Attributes:
        sentences: with unique ids; from the file, or ``<stem>:<one-based index of the sentence>``.
        path: the file, or ``None``.
        format: ``columns``, ``spans`` or ``tokens``; empty for a corpus that was not read.
        warnings: what was odd but could be read, and how often; of the whole file.
        sha256: of the file's bytes, hexadecimal; empty for a corpus that was not read.
        labels: the types that occur, in alphabetical order.
    """

    sentences: tuple[Sentence, ...]
    path: Path | None = None
    format: str = ""
    warnings: Mapping[str, int] = field(default_factory=dict, hash=False)
    sha256: str = ""
    labels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentences", tuple(self.sentences))
        object.__setattr__(self, "labels", tuple(sorted({e.label for s in self.sentences for e in s.entities})))

    def __len__(self) -> int:
        return len(self.sentences)

    @overload
    def __getitem__(self, index: int) -> Sentence: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Sentence, ...]: ...

    def __getitem__(self, index: int | slice) -> Sentence | tuple[Sentence, ...]:
        return self.sentences[index]

    @property
    def remarks(self) -> list[str]:
        """The warnings in words, with the file and how often."""
        return [f"{self.path}: {what} ({count})" for what, count in self.warnings.items()]

    def pick(self, indices: Iterable[int]) -> Corpus:
        """The corpus of these sentences (zero-based), in the order of the file. Warnings stay those of the file."""
        return replace(self, sentences=tuple(self.sentences[i] for i in sorted(set(indices))))


def usable_label(name: str) -> bool:
    """Whether ``name`` can be a type's name: visible characters without white space."""
    return bool(name) and name.isprintable() and " " not in name


def flatten(spans: Iterable[tuple[int, int, str]], warnings: Counter[str]) -> list[tuple[int, int, str]]:
    """Spans without nesting and overlap, by position: the longest stay, and of two equally long ones the first.

    Args:
        spans: ``(start, end, label)``, half-open; two labels on the same characters overlap, the first in the alphabet
            stays.
        warnings: what was left out is counted here.
    """
    given = list(spans)
    distinct = sorted(set(given))
    if len(distinct) < len(given):
        warnings["spans given twice (one was kept)"] += len(given) - len(distinct)
    if all(left[1] <= right[0] for left, right in pairwise(distinct)):
        return distinct
    kept: list[tuple[int, int, str]] = []
    for span in sorted(distinct, key=lambda s: (s[0] - s[1], s)):
        at = bisect_left(kept, span)
        free = (at == 0 or kept[at - 1][1] <= span[0]) and (at == len(kept) or span[1] <= kept[at][0])
        if free:
            kept.insert(at, span)
    warnings["nested or overlapping spans (the longest was kept)"] += len(distinct) - len(kept)
    return kept


class CorpusBuilder:
    """Collects the sentences of one file, with ids that are unique and warnings that are counted."""

    def __init__(self, source: Source, format: Format) -> None:
        self.source = source
        self.format = format
        self.warnings: Counter[str] = Counter()
        # A file name need not be UTF-8; an id must be, or it could not be written.
        self._stem = source.path.stem.encode("utf-8", "replace").decode()
        self._sentences: list[Sentence] = []
        self._ids: set[str] = set()
        self._again: Counter[str] = Counter()

    def next_id(self, given: str = "") -> str:
        """``given`` or ``<stem>:<index>``; an id that was there before gets ``#2``, ``#3`` … and is counted."""
        wanted = given or f"{self._stem}:{len(self._sentences) + 1}"
        chosen = wanted
        if wanted in self._ids:
            self.warnings["ids given twice (numbered: id#2)"] += 1
            while chosen in self._ids:
                self._again[wanted] += 1
                chosen = f"{wanted}#{self._again[wanted] + 1}"
        self._ids.add(chosen)
        return chosen

    def add(self, sentence: Sentence) -> None:
        """Append a sentence whose id came from :meth:`next_id`."""
        self._sentences.append(sentence)

    def build(self) -> Corpus:
        """The corpus.

        Raises:
            CorpusError: there was no sentence.
        """
        if not self._sentences:
            raise self.source.error(
                f"no sentence was found in this file, read as {self.format!r}",
                hint="Check that this is the file you meant, or name its format with format= (--format on the command line).",
            )
        counted = {text: count for text, count in sorted(self.warnings.items()) if count}
        return Corpus(tuple(self._sentences), self.source.path, self.format, counted, self.source.sha256)
