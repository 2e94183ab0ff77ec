"""A domain: its entity types, how each is put into words, and what the model is told to do.

A :class:`Domain` is immutable and small; it is written as TOML or JSON that a person can edit::

    name = "kitchen"
    instruction = "Find the entities in the sentence."

    [[labels]]
    name = "bakedgood"
    verbalization = "baked good"
    description = "bread, cake and pastry that came out of an oven"
"""

from __future__ import annotations

import json
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex
import tomli_w

from xdner.errors import DomainError
from xdner.text import Sentence

__all__ = ["DEFAULT_INSTRUCTION", "Domain", "Label", "verbalize"]

DEFAULT_INSTRUCTION = "Find the named entities in the sentence and give the type of each."

# The benchmarks write some types in one word or as a code; a language model reads them better as people write them.
KNOWN_VERBALIZATIONS = {
    "academicjournal": "academic journal",
    "astronomicalobject": "astronomical object",
    "chemicalcompound": "chemical compound",
    "chemicalelement": "chemical element",
    "fac": "facility",
    "gpe": "country or city",
    "literarygenre": "literary genre",
    "loc": "location",
    "metrics": "metric",
    "misc": "miscellaneous",
    "musicalartist": "musical artist",
    "musicalinstrument": "musical instrument",
    "musicgenre": "music genre",
    "norp": "nationality or religious or political group",
    "org": "organization",
    "organisation": "organization",
    "per": "person",
    "politicalparty": "political party",
    "programlang": "programming language",
    "ratings_average": "average rating",
}
_CAMEL = regex.compile(r"(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})")
_NAME = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]*", regex.VERSION1)


def verbalize(name: str) -> str:
    """Put a label's name into words.

    >>> verbalize("ProgrammingLanguage"), verbalize("Restaurant_Name"), verbalize("programlang"), verbalize("PER")
    ('programming language', 'restaurant name', 'programming language', 'person')
    """
    known = KNOWN_VERBALIZATIONS.get(name.lower())
    if known is not None:
        return known
    words = _CAMEL.sub(" ", name).replace("_", " ").replace("-", " ").replace(".", " ").split()
    return " ".join(word.lower() for word in words) or name


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True)
class Label:
    """An entity type: its name in the corpus, and the words that the model reads and writes for it."""

    name: str
    verbalization: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DomainError("a label's name is empty", hint="Give every label a name, as it stands in the corpus.")
        if any(c.isspace() or not c.isprintable() for c in self.name):
            raise DomainError(
                f"label {self.name!r} holds white space or a control character",
                hint="Label names are single words; put the readable form into 'verbalization'.",
            )
        if not self.verbalization:
            object.__setattr__(self, "verbalization", verbalize(self.name))
        words = "".join(" " if unicodedata.category(c) == "Zs" else c for c in self.verbalization)
        object.__setattr__(self, "verbalization", words)
        # Joiners are letters' own in Persian and in Indian scripts.
        if any(not c.isprintable() and c not in "\u200c\u200d" for c in words) or not words.strip():
            raise DomainError(
                f"the verbalization {self.verbalization!r} of label {self.name!r} is empty or holds control characters",
                hint="Use ordinary words on one line.",
            )
        if not _encodable(self.description):
            raise DomainError(
                f"the description of label {self.name!r} holds half a surrogate pair, which no file can hold",
                hint="Use ordinary characters.",
            )


@dataclass(frozen=True)
class Domain:
    """A domain's name, its labels and the instruction that the model reads (CP-NER's *s* and *o*, Eq. 1).

    Raises:
        DomainError: no labels, labels of one name, labels that read alike, or an unusable name. All at once.
    """

    name: str
    labels: tuple[Label, ...]
    instruction: str = DEFAULT_INSTRUCTION
    _by_name: Mapping[str, Label] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        problems = []
        # File systems take 255 bytes, and what is written next to a domain has a longer name.
        long = len(self.name) > 100 or len(self.name.encode("utf-8", "replace")) > 200
        unusable = long or not _NAME.fullmatch(self.name)
        if long:
            problems.append(f"the domain's name {self.name!r} is too long: over 100 characters, or 200 bytes")
        elif unusable:
            problems.append(f"the domain's name {self.name!r} is not one word of letters, digits, '.', '_' and '-'")
        if not self.labels:
            problems.append("the label set is empty")
        if not self.instruction.strip():
            problems.append("the instruction is empty")
        if not _encodable(self.instruction):
            problems.append("the instruction holds half a surrogate pair, which no file can hold")
        by_name: dict[str, Label] = {}
        by_words: dict[str, Label] = {}
        for label in self.labels:
            if label.name in by_name:
                problems.append(f"label {label.name!r} is given twice")
            words = " ".join(label.verbalization.casefold().split())
            if words in by_words and by_words[words].name != label.name:
                problems.append(f"labels {by_words[words].name!r} and {label.name!r} both read {label.verbalization!r}")
            by_name[label.name] = label
            by_words.setdefault(words, label)
        if problems:
            hint = "Edit the domain's file, or pass verbalizations={'label': 'words for it'} to Domain.from_labels."
            if not self.labels:
                hint = "Name at least one type: a domain finds nothing without."
            elif unusable and len(problems) == 1:
                hint = "Choose another name, such as 'my-domain'."
            raise DomainError(f"domain {self.name!r}: " + "; ".join(problems), hint=hint)
        object.__setattr__(self, "_by_name", by_name)

    @classmethod
    def from_labels(
        cls,
        name: str,
        labels: Iterable[str],
        *,
        verbalizations: Mapping[str, str] | None = None,
        instruction: str = DEFAULT_INSTRUCTION,
    ) -> Domain:
        """A domain from label names, with default verbalizations unless they are given.

        Raises:
            DomainError: see :class:`Domain`; also a verbalization for a label that is not there.
        """
        if isinstance(labels, str):
            raise DomainError(
                f"labels are a list of names, not the text {labels!r}", hint=f"Pass [{labels!r}] for a single label."
            )
        names = list(labels)
        given = dict(verbalizations or {})
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise DomainError(
                f"verbalizations for unknown labels: {', '.join(unknown)}", hint=f"The labels are: {', '.join(names)}."
            )
        return cls(name, tuple(Label(n, given.get(n, "")) for n in names), instruction)

    @classmethod
    def from_corpus(cls, name: str, sentences: Iterable[Sentence], **options: Any) -> Domain:
        """A domain from the labels that occur in a corpus, in alphabetical order. Options as :meth:`from_labels`."""
        return cls.from_labels(name, sorted({e.label for s in sentences for e in s.entities}), **options)

    @property
    def options(self) -> tuple[str, ...]:
        """The verbalized types in their order: the paper's domain-related options *o*."""
        return tuple(label.verbalization for label in self.labels)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names in their order."""
        return tuple(label.name for label in self.labels)

    def __getitem__(self, name: str) -> Label:
        try:
            return self._by_name[name]
        except KeyError:
            raise DomainError(
                f"domain {self.name!r} has no label {name!r}", hint=f"Its labels are: {', '.join(self.label_names)}."
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def with_labels(self, names: Sequence[str]) -> Domain:
        """The same domain with these of its labels, in this order (options shuffled or dropped)."""
        return Domain(self.name, tuple(self[n] for n in names), self.instruction)

    # -- reading and writing -------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for TOML and JSON."""
        labels = []
        for label in self.labels:
            entry = {"name": label.name, "verbalization": label.verbalization}
            labels.append(entry | ({"description": label.description} if label.description else {}))
        return {"name": self.name, "instruction": self.instruction, "labels": labels}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Domain:
        """The inverse of :meth:`to_dict`.

        Raises:
            DomainError: a key that is missing, unknown or of the wrong kind.
        """
        hint = "A domain has 'name', 'instruction' and [[labels]] with 'name', 'verbalization' and 'description'."
        if not isinstance(data, Mapping):
            raise DomainError(f"a domain is a table, not {type(data).__name__}", hint=hint)
        unknown = sorted(str(key) for key in set(data) - {"name", "instruction", "labels"})
        if unknown:
            raise DomainError(f"unknown keys in the domain: {', '.join(unknown)}", hint=hint)
        if not isinstance(data.get("name"), str) or not isinstance(data.get("labels"), list):
            raise DomainError("a domain needs a 'name' (text) and 'labels' (a list)", hint=hint)
        labels = []
        for item in data["labels"]:
            item = {"name": item} if isinstance(item, str) else item
            known = {"name", "verbalization", "description"}
            if not isinstance(item, Mapping) or set(item) - known or "name" not in item:
                raise DomainError(f"this is not a label: {item!r}", hint=hint)
            if not all(isinstance(value, str) for value in item.values()):
                raise DomainError(f"a label's entries are text: {item!r}", hint=hint)
            labels.append(Label(**item))
        instruction = data.get("instruction", DEFAULT_INSTRUCTION)
        if not isinstance(instruction, str):
            raise DomainError("the instruction must be text", hint=hint)
        return cls(data["name"], tuple(labels), instruction)

    def to_toml(self) -> str:
        """The domain as TOML."""
        return tomli_w.dumps(self.to_dict())

    def to_json(self) -> str:
        """The domain as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    @classmethod
    def read(cls, path: str | Path) -> Domain:
        """Read a domain from a ``.toml`` or ``.json`` file.

        Raises:
            DomainError: the file is missing, not UTF-8, not TOML or JSON, or not a domain.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        except FileNotFoundError:
            raise DomainError(f"there is no file {path}", hint="Check the path of the domain's file.") from None
        except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, JSON or TOML, a number too long
            raise DomainError(
                f"{path}: {error}", hint="A domain's file is UTF-8 TOML (or JSON, named .json)."
            ) from None
        try:
            return cls.from_dict(data)
        except DomainError as error:
            raise DomainError(f"{path}: {error.message}", hint=error.hint) from None
