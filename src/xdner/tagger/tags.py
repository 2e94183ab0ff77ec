"""BIO tags: from entities to one tag a word, back again, and which tag may follow which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from xdner.text import Entity, Sentence

__all__ = ["OUTSIDE", "bio_entities", "bio_tags", "lost_entities", "tags_for", "transitions"]

OUTSIDE = "O"


def tags_for(labels: Iterable[str]) -> tuple[str, ...]:
    """``O``, then ``B-`` and ``I-`` of every type, in alphabetical order.

    >>> tags_for(["place", "band"])
    ('O', 'B-band', 'I-band', 'B-place', 'I-place')
    """
    return (OUTSIDE, *(f"{prefix}-{label}" for label in sorted(set(labels)) for prefix in "BI"))


def bio_tags(sentence: Sentence) -> list[str]:
    """One tag a word. An entity that begins or ends inside a word has no tags, nor has one that overlaps another.

    >>> bio_tags(Sentence.from_words(["Ann", "Lee", "left"], [(0, 2, "person")]))
    ['B-person', 'I-person', 'O']
    """
    return _tagged(sentence)[0]


def lost_entities(sentences: Iterable[Sentence]) -> dict[str, int]:
    """How many gold entities no tags can express, by reason: the ceiling of recall."""
    counts: dict[str, int] = {}
    for sentence in sentences:
        for reason in _tagged(sentence)[1]:
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def _tagged(sentence: Sentence) -> tuple[list[str], list[str]]:
    tags, lost = [OUTSIDE] * len(sentence.words), []
    for entity in sentence.entities:
        span = sentence.word_span(entity)
        if span is None:
            lost.append("begins or ends inside a word")
        elif any(tag != OUTSIDE for tag in tags[slice(*span)]):
            lost.append("overlaps another")
        else:
            tags[slice(*span)] = [f"B-{entity.label}"] + [f"I-{entity.label}"] * (span[1] - span[0] - 1)
    return tags, lost


def bio_entities(
    sentence: Sentence, tags: Sequence[str], probabilities: Sequence[float] | None = None
) -> tuple[Entity, ...]:
    """The entities that tags say; ``I-x`` that goes on with nothing begins an entity (as in CoNLL's script).

    Args:
        tags: one a word.
        probabilities: of the tags; an entity's score is the product of its words'.

    >>> sentence = Sentence.from_words(["Ann", "Lee", "left"])
    >>> [(e.text, e.label) for e in bio_entities(sentence, ["I-person", "I-person", "O"])]
    [('Ann Lee', 'person')]
    """
    found = []
    first, label = 0, ""  # of the entity that is open
    for index, tag in enumerate([*tags, OUTSIDE]):
        kind, _, name = tag.partition("-")
        if label and not (kind == "I" and name == label):
            score = None if probabilities is None else math.prod(probabilities[first:index])
            found.append(sentence.entity(first, index, label, score))
            label = ""
        if kind != OUTSIDE and not label:
            first, label = index, name
    return tuple(found)


def transitions(tags: Sequence[str]) -> Tensor:
    """Which tag may follow which: bool [K + 2, K].

    Row k: after tag k. Row K: at the start of a sentence, where nothing can go on. Row K + 1: at the start of a window
    within a sentence, where anything can, because the words before it are not seen.
    """
    count = len(tags)
    legal = torch.ones(count + 2, count, dtype=torch.bool)
    for column, tag in enumerate(tags):
        kind, _, name = tag.partition("-")
        if kind == "I":
            before = {f"B-{name}", f"I-{name}"}
            for row, other in enumerate((*tags, "")):
                legal[row, column] = other in before
    return legal
