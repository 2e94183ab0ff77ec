"""Mentions that only the collaborative prefix finds, and the sentences of sources that may explain it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.transfer.pools import Known
from xdner.domain import Domain
from xdner.text import Entity, Sentence

__all__ = ["Case", "Evidence", "Found", "Sources", "cases"]

Run = dict[str, Any]
# What an explaining sentence has in common with the mention, the strongest first.
KINDS = ("the same mention", "the same words in a row", "words of it")
COMMON = 0.05  # a word in a larger share of the sources' sentences explains nothing
AROUND = 9  # words that a table shows on either side of what is shared


@dataclass(frozen=True)
class Evidence:
    """A sentence that a source was trained on.

    Attributes:
        source: name of the domain.
        kind: one of :data:`KINDS`.
        shared: the words that it has in common with the mention.
        label: type of the same mention there, in words; empty if it is none there.
        weight: of the source in the collaborative prefix, mean over seeds.
        text: the sentence.
    """

    source: str
    kind: str
    shared: str
    label: str
    weight: float
    text: str

    @property
    def excerpt(self) -> str:
        """The sentence around the shared words; around the first of them, where they do not stand in a row."""
        words, shared = self.text.split(), _words(self.shared)
        at = _at(shared, _words(self.text))
        at = _at(shared[:1], _words(self.text)) if at is None else at
        assert at is not None, "evidence shares words with a mention"
        begin, end = max(0, at - AROUND), at + len(shared) + AROUND
        return f"{'… ' if begin else ''}{' '.join(words[begin:end])}{' …' if end < len(words) else ''}"


@dataclass(frozen=True)
class Case:
    """A mention that the collaborative prefix finds in most seeds, and the target's own prefix misses in most.

    Attributes:
        target, k: where.
        id, text: of the sentence.
        start, end, mention, label: the gold mention; the type in words.
        found, missed: in how many of ``seeds`` the collaborative prefix found it and ``none`` missed it.
        seeds: that both have.
        instead: what ``none`` said at its place in most of the seeds in which it missed it; empty: nothing.
        evidence: the best first.
    """

    target: str
    k: int | str
    id: str
    text: str
    start: int
    end: int
    mention: str
    label: str
    found: int
    missed: int
    seeds: int
    instead: str
    evidence: tuple[Evidence, ...]

    @property
    def rank(self) -> tuple[int, int, float, str, int]:
        """Cases that sort before others: with stronger evidence, then surer ones."""
        kind = KINDS.index(self.evidence[0].kind) if self.evidence else len(KINDS)
        return (
            kind,
            -(self.found + self.missed),
            -(self.evidence[0].weight if self.evidence else 0),
            self.id,
            self.start,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """What was found on one target.

    Attributes:
        cases: ranked.
        lost: mentions of which the opposite is true: ``none`` finds them in most seeds, the collaborative prefix misses them in
            most. Cases prove little where there are as many of these.
        seeds: that both have.
    """

    cases: tuple[Case, ...]
    lost: int
    seeds: int


class Sources:
    """The sentences that the sources were trained on, ready to be searched.

    Args:
        known: the sources of a target.
        weights: of each in the collaborative prefix.
    """

    def __init__(self, known: Sequence[Known], weights: Mapping[str, float]) -> None:
        self._sentences = [(k.domain, s, _words(s.text)) for k in known for s in k.sentences]
        self._weights = dict(weights)
        counts = Counter(word for _, _, words in self._sentences for word in set(words))
        self._common = {word for word, n in counts.items() if n > max(1, COMMON * len(self._sentences))}

    def explain(self, mention: Sequence[str], label: str, at_most: int) -> tuple[Evidence, ...]:
        """Sentences with the same mention or the same words in a row; only where there are none, with words of it.

        Args:
            mention: its words, in lower case.
            label: its type, in words; the same type in a source goes first.
            at_most: so many.
        """
        rare = {word for word in mention if word not in self._common and any(c.isalnum() for c in word)}
        ranked = []
        for place, (domain, sentence, words) in enumerate(self._sentences):
            weight = self._weights.get(domain.name, 0.0)
            labels = [_verbal(domain, e) for e in sentence.entities if _words(e.text) == tuple(mention)]
            if labels or _at(mention, words) is not None:
                shared = len(mention)
                kind = KINDS[0 if labels else 1]
            else:
                both = rare & set(words)
                shared, kind = len(both), KINDS[2]
                if not both:
                    continue
            said = label if label in labels else (labels or [""])[0]
            common = " ".join(mention) if kind != KINDS[2] else " ".join(w for w in mention if w in rare & set(words))
            order = (KINDS.index(kind), -shared, said != label, -weight, len(words), place)
            ranked.append((order, Evidence(domain.name, kind, common, said, weight, sentence.text)))
        ranked.sort(key=lambda pair: pair[0])
        found = [evidence for _, evidence in ranked]
        exact = [e for e in found if e.kind != KINDS[2]]
        return tuple((exact or found)[:at_most])


def cases(
    dev: Sequence[Sentence],
    domain: Domain,
    none: Mapping[int, Run],
    collaborative: Mapping[int, Run],
    sources: Sources,
    at_most: int = 3,
) -> list[Case]:
    """All cases of a target, ranked.

    Args:
        dev: its sentences, in the order of the runs' ``predicted``.
        domain: for the types' words.
        none, collaborative: seed → run; the seeds that both have count.
        sources: to search.
        at_most: explaining sentences for each case.
    """
    seeds = sorted(none.keys() & collaborative.keys())
    made = []
    for place, sentence in enumerate(dev):
        mine = [{tuple(p) for p in none[s]["predicted"][place]} for s in seeds]
        theirs = [{tuple(p) for p in collaborative[s]["predicted"][place]} for s in seeds]
        for gold in sentence.entities:
            missed = [found for found in mine if gold.key not in found]
            right = sum(gold.key in found for found in theirs)
            if 2 * len(missed) <= len(seeds) or 2 * right <= len(seeds):
                continue
            run = none[seeds[0]]
            evidence = sources.explain(_words(gold.text), _verbal(domain, gold), at_most)
            made.append(
                Case(
                    run["target"], run["k"], sentence.id, sentence.text, gold.start, gold.end, gold.text,
                    _verbal(domain, gold), right, len(missed), len(seeds), _instead(missed, gold, sentence, domain), evidence,
                )
            )  # fmt: skip
    return sorted(made, key=lambda case: case.rank)


def _instead(missed: Sequence[set[tuple[Any, ...]]], gold: Entity, sentence: Sentence, domain: Domain) -> str:
    """What was most often said where the mention stands."""
    said: Counter[str] = Counter()
    for found in missed:
        at = sorted(p for p in found if p[0] < gold.end and gold.start < p[1])
        said["; ".join(f"{domain[label].verbalization}: {sentence.text[start:end]}" for start, end, label in at)] += 1
    return max(sorted(said), key=lambda text: said[text])


def _verbal(domain: Domain, entity: Entity) -> str:
    return domain[entity.label].verbalization


def _words(text: str) -> tuple[str, ...]:
    """Words in lower case; the benchmarks' sentences have spaces between them."""
    return tuple(text.casefold().split())


def _at(mention: Sequence[str], words: Sequence[str]) -> int | None:
    """Where the words stand in a row first."""
    first, length = mention[0], len(mention)
    places = (i for i in range(len(words) - length + 1) if words[i] == first)
    return next((i for i in places if tuple(words[i : i + length]) == tuple(mention)), None)
