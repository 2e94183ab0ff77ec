"""The answers of IF-WRANER: a dictionary from types to mentions, as text, and back to exact characters.

::

    {"person": ["Ann Lee", "Bob"], "city": ["Rome"]}        nothing: {}

The paper (arXiv 2411.00451) asks for such a dictionary; that it is JSON, and the rest of this page, is ours:

1. Types stand in the domain's order, only those that have mentions; a type's mentions stand from left to right, each string
   once. Reading, any order will do, and a type may be called by its name in the corpus, unless that is another type's words.
2. A mention is compared with the sentence's words character by character, white space aside; it must begin and end where
   words do.
3. A string stands for *all* its places: an answer need not repeat what a text repeats. Longer strings are placed first, and
   of equally long ones the one listed first; what is placed is not taken again, so entities never overlap.

What cannot be read is counted: ``malformed_answers`` (no JSON object; a code fence around it is taken off),
``malformed_entries`` (a type without a list of strings), ``unknown_types``, ``absent_mentions`` (not in the text),
``unplaced_mentions`` (in the text, but every place is taken).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xdner.domain import Domain
from xdner.text import Entity, Sentence

__all__ = ["Listed", "Placed", "Written", "align", "bare", "escaped", "parse", "write"]

_FENCE = "```"
#: Characters of an answer that are read at most; a model that has run away writes more.
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A mention as an answer lists it: its characters, its label's name, and the answer's confidence in it."""

    text: str
    label: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """What was read in an answer.

    Attributes:
        entities: sorted, without overlap.
        notes: counts of what could not be read, by the names at the top of this file; empty if all went well.
    """

    entities: tuple[Entity, ...]
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """A sentence's entities as an answer.

    Attributes:
        text: JSON.
        listed: per label, in order, the first place (in words, half-open) of each string.
        lost: entities that are not in it.
        reasons: how many were lost, and why: ``unknown-label``, ``inside-word``, ``overlap``, ``two-types`` (the same words
            under two types), ``other-copy`` (the same words elsewhere, unlabelled).
    """

    text: str
    listed: Mapping[str, tuple[tuple[int, int], ...]]
    lost: tuple[Entity, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)


def escaped(text: str) -> str:
    """Characters as they stand inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def bare(text: str) -> str:
    """Characters that count in a comparison: all but white space."""
    return "".join(text.split())


class _Places:
    """Where strings stand in a sentence."""

    def __init__(self, sentence: Sentence) -> None:
        stripped = [bare(word.text) for word in sentence.words]
        self.line = "".join(stripped)
        self.begins: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        at = 0
        for index, word in enumerate(stripped):
            self.begins.setdefault(at, index)
            at += len(word)
            self.ends[at] = index + 1

    def of(self, text: str) -> list[tuple[int, int]]:
        """All places of a string without white space, in words, half-open, from left to right."""
        found = []
        at = self.line.find(text) if text else -1
        while at >= 0:
            first, last = self.begins.get(at), self.ends.get(at + len(text))
            if first is not None and last is not None and first < last:
                found.append((first, last))
            at = self.line.find(text, at + 1)
        return found


def align(sentence: Sentence, listed: Sequence[Listed]) -> Placed:
    """Find the places of listed mentions, by rules 2 and 3 at the top of this file."""
    places = _Places(sentence)
    taken = bytearray(len(sentence.words))
    entities: list[Entity] = []
    notes: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    # By characters, because words are not always what separates a text (Han, Thai).
    keyed = [(bare(item.text), item) for item in listed]
    for text, item in sorted(keyed, key=lambda k: -len(k[0])):
        if (text, item.label) in seen:
            continue
        seen.add((text, item.label))
        found = places.of(text)
        placed = 0
        for first, last in found:
            if not any(taken[first:last]):
                taken[first:last] = b"\1" * (last - first)
                entities.append(sentence.entity(first, last, item.label, item.score))
                placed += 1
        if not placed:
            notes["unplaced_mentions" if found else "absent_mentions"] += 1
    return Placed(tuple(sorted(entities, key=lambda e: e.key)), dict(notes))


def parse(text: str, sentence: Sentence, domain: Domain) -> Placed:
    """Read an answer, whoever wrote it.

    Args:
        text: the answer.
        sentence: what it is about.
        domain: its types.
    """
    try:
        pairs = json.loads(_unfenced(text[:_LONGEST]), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return Placed((), {"malformed_answers": 1})
    if not isinstance(pairs, _Pairs):
        return Placed((), {"malformed_answers": 1})
    # Answers are in words; a name counts where it is nobody's words.
    words = {_folded(label.verbalization): label.name for label in domain.labels}
    notes: Counter[str] = Counter()
    listed: list[Listed] = []
    for key, value in pairs:
        label = words.get(_folded(key)) or (key.strip() if key.strip() in domain else None)
        if label is None:
            notes["unknown_types"] += 1
        elif not isinstance(value, list) or isinstance(value, _Pairs) or not all(isinstance(x, str) for x in value):
            notes["malformed_entries"] += 1
        else:
            listed += [Listed(x, label) for x in value]
    placed = align(sentence, listed)
    return Placed(placed.entities, dict(notes) | dict(placed.notes))


class _Pairs(list[tuple[str, object]]):
    """A JSON object as it stands: a type that is written twice keeps both its lists."""


def _unfenced(text: str) -> str:
    """Without the code fence around it, if it has one."""
    inner = text.strip()
    if not (inner.startswith(_FENCE) and inner.endswith(_FENCE) and "\n" in inner):
        return text
    opening, _, rest = inner.partition("\n")
    language = opening.removeprefix(_FENCE).strip().lower()
    return rest.removesuffix(_FENCE) if language in ("", "json") else text


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def write(sentence: Sentence, domain: Domain) -> Written:
    """A sentence's entities as an answer; :func:`parse` gives back all that are not reported as lost."""
    lost: list[Entity] = []
    reasons: Counter[str] = Counter()

    def lose(entities: Iterable[Entity], reason: str) -> None:
        for entity in entities:
            lost.append(entity)
            reasons[reason] += 1

    kept: list[tuple[int, int, Entity]] = []
    # The longest first: of overlapping mentions the longest stays.
    for entity in sorted(sentence.entities, key=lambda e: (e.start - e.end, e.start, e.label)):
        span = sentence.word_span(entity)
        if entity.label not in domain:
            lose([entity], "unknown-label")
        elif span is None:
            lose([entity], "inside-word")
        elif any(span[0] < last and first < span[1] for first, last, _ in kept):
            lose([entity], "overlap")
        else:
            kept.append((*span, entity))
    kept.sort(key=lambda k: k[:2])
    while True:
        groups = _grouped(sentence, [(first, last, e.label) for first, last, e in kept], domain)
        found = align(sentence, [Listed(text, label) for label, texts in groups.items() for text in texts])
        if [e.key for e in found.entities] == [e.key for _, _, e in kept]:
            break
        # What an answer would place elsewhere too, or not at all, is rather not said.
        wrong, reason = _inexpressible(sentence, kept, found.entities)
        lose([e for _, _, e in kept if (bare(e.text), e.label) == wrong], reason)
        kept = [k for k in kept if (bare(k[2].text), k[2].label) != wrong]
    answer = {domain[label].verbalization: list(texts) for label, texts in groups.items()}
    listed = {label: tuple(texts.values()) for label, texts in groups.items()}
    return Written(json.dumps(answer, ensure_ascii=False), listed, tuple(lost), dict(reasons))


def _grouped(
    sentence: Sentence, spans: Sequence[tuple[int, int, str]], domain: Domain
) -> dict[str, dict[str, tuple[int, int]]]:
    """Per label in the domain's order: each string, and its first place."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    for label in domain.label_names:
        seen: set[str] = set()
        for first, last, name in spans:
            # As the sentence has it: "St. John's", not "St . John 's", or models behind an endpoint learn to copy wrongly.
            text = " ".join(sentence.text[sentence.words[first].start : sentence.words[last - 1].end].split())
            if name == label and bare(text) not in seen:
                seen.add(bare(text))
                groups.setdefault(label, {})[text] = (first, last)
    return groups


def _inexpressible(
    sentence: Sentence, kept: Sequence[tuple[int, int, Entity]], found: Sequence[Entity]
) -> tuple[tuple[str, str], str]:
    """A string and its label that an answer would not place as it should, and why."""
    wanted: dict[tuple[str, str], set[tuple[int, int]]] = {}
    came: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for group, entities in ((wanted, [e for _, _, e in kept]), (came, found)):
        for e in entities:
            group.setdefault((bare(e.text), e.label), set()).add((e.start, e.end))
    wrong = next(key for key, places in wanted.items() if came.get(key) != places)
    rivals = [key for key in wanted if key[0] == wrong[0] and key != wrong]
    return wrong, "two-types" if rivals else "other-copy"
