"""What goes in and out over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xdner.recognizers.base import Request, Result

__all__ = ["DomainOut", "EntityOut", "ErrorOut", "Health", "PredictIn", "PredictOut", "ResultOut", "UnreadOut"]

MOST_TEXTS = 1_000
MOST_CHARACTERS = 100_000

MOST_KEYS = 10

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Name = Annotated[str, Field(max_length=1_000)]


class PredictIn(BaseModel):
    """Texts, and one domain for all of them or one for each."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["Liszt died in Bayreuth.", "BERT is by Google."], "domain": ["music", "ai"]}]},
    )  # fmt: skip

    # The first wrong one of a list is told: a million of them would take minutes.
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    domain: Name | Annotated[list[Name], Field(max_length=MOST_TEXTS, fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MOST_KEYS:
            raise ValueError(f"{len(value)} keys, where texts and domain are asked for")
        return value

    @model_validator(mode="after")
    def _one_each(self) -> PredictIn:
        if isinstance(self.domain, list) and len(self.domain) != len(self.texts):
            raise ValueError(f"{len(self.texts)} texts came with {len(self.domain)} domains")
        return self

    def requests(self) -> list[Request]:
        """As recognizers take them."""
        domains = [self.domain] * len(self.texts) if isinstance(self.domain, str) else self.domain
        return [Request(text, domain) for text, domain in zip(self.texts, domains, strict=True)]


class EntityOut(BaseModel):
    """Characters ``start`` to ``end`` of the text, counted in Unicode code points, ``end`` not included."""

    start: int
    end: int
    label: str
    text: str
    score: float | None = None


class UnreadOut(BaseModel):
    """An answer of a language model in which nothing could be read."""

    answer: str
    why: str


class ResultOut(BaseModel):
    """What was found in one text."""

    text: str
    domain: str
    entities: list[EntityOut]
    windows: int
    diagnostics: Mapping[str, int] = {}
    unread: list[UnreadOut] = []

    @classmethod
    def of(cls, result: Result) -> ResultOut:
        """From a recognizer's result."""
        return cls.model_validate(result.to_dict())


class PredictOut(BaseModel):
    """One result for each text, in the texts' order."""

    results: list[ResultOut]


class DomainOut(BaseModel):
    """A domain that can be asked for; ``shipped``: it came with xdner."""

    name: str
    recognizer: str
    labels: list[str]
    shipped: bool


class Health(BaseModel):
    """``reading``: texts that are being read and have no result yet; ``waiting``: texts that nobody has begun to read."""

    status: str
    reading: int
    waiting: int


class ErrorOut(BaseModel):
    """What was wrong, and what to do next."""

    error: str
    hint: str = ""
