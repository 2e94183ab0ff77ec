"""What all arms read: the same sentences, in a stream of domains that differ in their prefixes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xdner.codec.instructor import Instructor
from xdner.codec.target import TargetCodec
from xdner.codec.words import WordEncoder
from xdner.corpora.io import read_corpus
from xdner.domain import Domain
from xdner.errors import DataError
from xdner.library.bundled import bundled_initial, shipped_entries
from xdner.library.entry import DomainEntry
from xdner.prefix.prefix import Prefix
from xdner.recognizers.reader import Reader
from xdner.recognizers.warmup import initial_prefix
from xdner.settings import Settings
from xdner.text import Sentence

if TYPE_CHECKING:
    from xdner.backbone.base import Backbone

__all__ = ["Case", "Workload", "file_hash"]

#: Standard deviation of the noise that tells the prefixes of a stream apart, as a share of the prefix's own.
DIFFERENCE = 0.02


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="Name a labeled file with --data.") from None


@dataclass(frozen=True, eq=False)
class Case:
    """One sentence.

    Attributes:
        sentence: with its gold entities.
        words: ids of each word.
        prompt: what a model without a kept context reads: instruction, options and sentence.
        gold: ids of its target, the end included.
        room: tokens that any legal target of it can take.
    """

    sentence: Sentence
    words: tuple[tuple[int, ...], ...]
    prompt: tuple[int, ...]
    gold: tuple[int, ...]
    room: int


class Workload:
    """Sentences, their domain, and as many prefixes as a stream has domains.

    Args:
        backbone: the model.
        data: a labeled file; its folder's name is the domain's.
        count: sentences, the first ones that fit into one window.
        prefix: folder of a prefix or of a library's domain; by default the domain of that name that ships, else δ₀.

    Raises:
        DataError: no sentence of the file fits.
        XdnerError: the file or the prefix cannot be read, or the prefix belongs to another backbone.
    """

    def __init__(self, backbone: Backbone, data: Path, count: int, prefix: Path | None = None) -> None:
        self.settings = Settings.build(None, [], backbone.recommended)
        self.codec = self.settings.codec
        self.encoder = WordEncoder(backbone.tokenizer)
        corpus = read_corpus(data)
        self.domain = Domain.from_corpus(data.resolve().parent.name, corpus)
        target = TargetCodec(self.encoder, self.domain, self.codec)
        instructor = Instructor(self.encoder, self.codec)
        context = instructor.context(self.domain)
        self.end, cost = target.grammar.end, target.grammar.longest_label_cost
        self.cases: list[Case] = []
        for sentence in corpus:
            words = self.encoder.words(sentence)
            if not any(words) or len(words) > self.settings.decoding.window or len(self.cases) == count:
                continue
            gold = target.encode(sentence, words=words).ids
            room = sum(map(len, words)) + len(words) * cost + 2  # as the reader gives
            self.cases.append(Case(sentence, words, (*context, *instructor.source(words)), gold, room))
        if not self.cases:
            raise DataError(
                f"no sentence of {data} has from 1 to {self.settings.decoding.window} words",
                hint="Give a file with shorter sentences with --data.",
            )
        self.prefix = self._prefix(backbone, prefix)

    def _prefix(self, backbone: Backbone, folder: Path | None) -> Prefix:
        if folder is not None:
            found = Prefix.load(folder)
            found.check(backbone.fingerprint, backbone.geometry, backbone.name)
            return found
        ships = shipped_entries().get(self.domain.name)
        if isinstance(ships, DomainEntry) and ships.prefix.backbone == backbone.fingerprint:
            return ships.prefix
        known = bundled_initial(backbone.fingerprint, self.settings.prefix.length)
        return known or initial_prefix(Reader(backbone, self.settings.decoding), self.settings.prefix)

    def keys_values(self, domain: int) -> tuple[list[Tensor], list[Tensor]]:
        """The prefix of a domain, per site [heads, n, head size], in 32 bits: the first has the prefix itself, the
        others have it with a little noise, each its own."""
        parts = [[t.detach().float() for t in side] for side in (self.prefix.keys, self.prefix.values)]
        if not domain:
            return parts[0], parts[1]
        generator = torch.Generator().manual_seed(domain)
        keys, values = (
            [t + DIFFERENCE * t.std() * torch.randn(t.shape, generator=generator) for t in side] for side in parts
        )
        return keys, values

    def stream(self, domains: int) -> list[tuple[Case, int]]:
        """Every sentence once, domains in turn; where there are more domains than sentences, whole repetitions until
        each domain has one."""
        repetitions = -(-max(domains, len(self.cases)) // len(self.cases))
        return [(self.cases[i % len(self.cases)], i % domains) for i in range(repetitions * len(self.cases))]

    def targets(self) -> dict[tuple[tuple[int, ...], ...], Sequence[int]]:
        """Gold targets by the words' ids: two sentences of the same words have one target, the first one's."""
        found: dict[tuple[tuple[int, ...], ...], Sequence[int]] = {}
        for case in self.cases:
            found.setdefault(case.words, case.gold)
        return found
