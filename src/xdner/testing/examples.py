"""A retriever small enough to read, and sentences whose types only demonstrations and tuning tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xdner.domain import Domain
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template
from xdner.recognizers.if_wraner import IFWRANER
from xdner.retrieval.base import Example, Hit, Keys, Retriever, hidden, text_key
from xdner.text import Sentence

__all__ = [
    "EXAMPLES",
    "PEOPLE",
    "SHORT",
    "TEMPLATE",
    "TEXTS",
    "SharedWords",
    "people",
    "people_recognizer",
    "quick",
    "shared_words",
    "train_command",
]

#: A template of few words: tiny tokenizers have hardly more than bytes.
SHORT = """
name = "short"
version = 1
head = "{types}\\n"
type = "{type}: {description};"
bare_type = "{type};"
demonstration = "{sentence} = {answer}\\n"
query = "{sentence} ="
"""
TEMPLATE = Template.parse(SHORT)
#: Some like the examples, and some odd ones.
TEXTS = ("Ann saw Oslo .", 'Bob "left" Rome {quickly}', "x", "Eve likes Bonn and Lima and Rome", "nothing here at all")


class SharedWords:
    """Examples that share most words with a query."""

    def __init__(self, pool: Sequence[Example]) -> None:
        self.pool = list(pool)

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        made = []
        for query, kept_out in zip(queries, hidden(queries, without), strict=True):
            own = {w.text.casefold() for w in query.words}
            hits = {
                e.sentence.text: Hit(e, len(own & {w.text.casefold() for w in e.sentence.words}))
                for e in self.pool
                if text_key(e.sentence) not in kept_out
            }
            made.append(tuple(sorted(hits.values(), key=lambda h: (-h.score, h.example.id))[:k]))
        return made


def shared_words(examples: Sequence[Example], settings: WranerSettings) -> Retriever:
    """A retriever factory."""
    return SharedWords(examples)


def people(count: int = 12) -> list[Sentence]:
    """Short sentences with a person and a place each; the last one has neither."""
    names, towns = ("Ann", "Bob", "Cid", "Dan", "Eve"), ("Rome", "Oslo", "Bonn", "Lima")
    made = []
    for i in range(count - 1):
        words = [names[i % 5], ("saw", "left", "likes")[i % 3], towns[i % 4], "."]
        made.append(Sentence.from_words(words, [(0, 1, "person"), (2, 3, "place")], id=f"p{i}"))
    return [*made, Sentence.from_words(["it", "rained", "."], id="none")]


EXAMPLES = people()
PEOPLE = Domain.from_corpus("people", EXAMPLES)


def quick(*overrides: str) -> WranerSettings:
    """Settings of a tuning that takes seconds, with two demonstrations."""
    few = ["epochs=3", "training.batch_size=4", "accumulation=1", "rank=4", "retrieval.k=2", "learning_rate=0.02"]
    return WranerSettings.build(None, [*few, *overrides])


def people_recognizer(llm: Path, *overrides: str, **options: Any) -> IFWRANER:
    """A recognizer that asks in few words, and shows what shares words with a text."""
    how: dict[str, Any] = {"retriever": shared_words, "template": TEMPLATE, "settings": quick(*overrides)}
    return IFWRANER.from_pretrained(llm, **how | options)


def train_command(name: str, library: Path, *more: str | Path) -> list[str]:
    """``train NAME --recognizer if-wraner … more…``"""
    return ["train", name, "--recognizer", "if-wraner", "--library", str(library), *map(str, more)]
