"""Variation of prompts and sentences from step to step, so that a few labelled sentences teach more than themselves."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from xdner.domain import Domain, Label
from xdner.text import Sentence

__all__ = ["Augmentation", "augmented", "mention_pool", "with_other_mentions"]

#: Label's name → mentions of that label, each as its words.
MentionPool = Mapping[str, Sequence[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How prompts and sentences vary.

    Attributes:
        shuffle: draw a new order of the options.
        drop: share of the prompts in which each type is left out with probability 0.3, together with its answers.
        add: share of the prompts that also list up to ``add_at_most`` types of other domains, which nothing answers.
        pool: labels to add from.
        add_at_most: see ``add``.
        replace: share of the mentions that another training mention of the same type takes the place of.
        mentions: what to take them from, by domain.
    """

    shuffle: bool = True
    drop: float = 0.0
    add: float = 0.0
    pool: tuple[Label, ...] = ()
    add_at_most: int = 4
    replace: float = 0.0
    mentions: Mapping[str, MentionPool] = field(default_factory=dict)


def augmented(domain: Domain, how: Augmentation, rng: random.Random) -> Domain:
    """The domain with its options shuffled, dropped and added to; never without any."""
    labels = list(domain.labels)
    if how.drop and rng.random() < how.drop:
        kept = [label for label in labels if rng.random() >= 0.3]
        labels = kept or [rng.choice(labels)]
    if how.add and how.pool and rng.random() < how.add:
        taken = {x.verbalization.casefold() for x in domain.labels} | {x.name for x in domain.labels}
        for label in rng.sample(how.pool, k=min(len(how.pool), rng.randint(1, how.add_at_most))):
            if label.verbalization.casefold() not in taken and label.name not in taken:
                labels.append(label)
                taken |= {label.verbalization.casefold(), label.name}
    if how.shuffle:
        rng.shuffle(labels)
    return Domain(domain.name, tuple(labels), domain.instruction)


def mention_pool(sentences: Sequence[Sentence]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """All distinct mentions of each label, in the order of their first occurrence."""
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for sentence in sentences:
        for entity in sentence.entities:
            span = sentence.word_span(entity)
            if span is not None:
                words = tuple(w.text for w in sentence.words[span[0] : span[1]])
                found.setdefault(entity.label, {})[words] = None
    return {label: tuple(mentions) for label, mentions in found.items()}


def with_other_mentions(sentence: Sentence, pool: MentionPool, share: float, rng: random.Random) -> Sentence:
    """The sentence with some of its mentions replaced by others of the same label; words are joined by single spaces.

    A sentence whose mentions overlap or begin inside a word stays as it is.

    Args:
        sentence: with gold entities.
        pool: see :func:`mention_pool`.
        share: probability that a mention is replaced.
        rng: decides.
    """
    spans = [(sentence.word_span(e), e.label) for e in sentence.entities]
    places = sorted((*span, label) for span, label in spans if span is not None)
    overlap = any(a[1] > b[0] for a, b in pairwise(places))
    if not places or overlap or len(places) < len(spans):
        return sentence
    words: list[str] = []
    made: list[tuple[int, int, str]] = []
    at, changed = 0, False
    for first, last, label in places:
        words += [w.text for w in sentence.words[at:first]]
        mention = tuple(w.text for w in sentence.words[first:last])
        choices = pool.get(label, ())
        if choices and rng.random() < share:
            drawn = rng.choice(choices)
            changed |= drawn != mention
            mention = drawn
        made.append((len(words), len(words) + len(mention), label))
        words += mention
        at = last
    words += [w.text for w in sentence.words[at:]]
    return Sentence.from_words(words, made, id=sentence.id) if changed else sentence
