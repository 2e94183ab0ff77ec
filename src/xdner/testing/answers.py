"""Sentences, domains and texts that hypothesis draws for what a model writes; it needs the extra ``dev``."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from xdner.domain import Domain, Label
from xdner.errors import DomainError
from xdner.text import Entity, Sentence

__all__ = ["PEOPLE", "domain_of", "labelled", "labels", "relaxed", "texts"]

PEOPLE = Domain.from_labels("d", ["person", "place"])
relaxed = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Short alphabets make repeated words, and what means something in JSON, likely.
texts = st.one_of(st.text(max_size=30), st.text(alphabet='ab "\\{}[],:\n-é①', max_size=30))
labels = st.lists(st.text(alphabet='abc "\\{é', min_size=1, max_size=8), min_size=1, max_size=4)


def domain_of(verbalizations: list[str]) -> Domain:
    """With these words for its types, if they make one."""
    made = []
    for index, words in enumerate(verbalizations):
        assume(words.strip() and words.isprintable())
        made.append(Label(f"L{index}", words))
    try:
        return Domain("any", tuple(made))
    except DomainError:
        assume(False)
        raise


def labelled(text: str, domain: Domain, seed: int) -> Sentence:
    """Random entities, whole words or not, overlapping or not, of words that may recur."""
    sentence, rng = Sentence.from_text(text), random.Random(seed)
    found = set()
    for _ in range(rng.randint(0, 5)):
        if sentence.words and rng.random() < 0.85:
            first = rng.randrange(len(sentence.words))
            last = min(len(sentence.words), first + rng.randint(1, 3))
            found.add(sentence.entity(first, last, rng.choice(domain.label_names)))
        elif text:
            start = rng.randrange(len(text))
            end = min(len(text), start + rng.randint(1, 3))
            found.add(Entity(start, end, rng.choice([*domain.label_names, "other"]), text[start:end]))
    return sentence.with_entities(found)
