"""Cross-domain named-entity recognition: one frozen language model, a small trained prefix for each domain.

>>> import xdner
>>> domain = xdner.Domain.from_labels("cooking", ["ingredient", "utensil"])
>>> recognizer = xdner.CPNER.from_pretrained("smollm2-135m-ner")          # doctest: +SKIP
>>> recognizer.train(domain, xdner.read_corpus("train.jsonl"))             # doctest: +SKIP
>>> recognizer.predict("Whisk the egg whites.", domain="cooking")          # doctest: +SKIP

Importing this package is light: torch and transformers are loaded with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdner.corpora import read_corpus as read_corpus
    from xdner.domain import Domain as Domain
    from xdner.domain import Label as Label
    from xdner.errors import XdnerError as XdnerError
    from xdner.evaluation.report import evaluate as evaluate
    from xdner.library.store import Library as Library
    from xdner.recognizers.base import Result as Result
    from xdner.recognizers.cp_ner import CPNER as CPNER
    from xdner.recognizers.if_wraner import IFWRANER as IFWRANER
    from xdner.recognizers.laner import LANER as LANER
    from xdner.settings import Settings as Settings
    from xdner.text import Entity as Entity
    from xdner.text import Sentence as Sentence
    from xdner.training.run import Run as Run

__version__ = "0.1.0"

_HOMES = {
    "CPNER": "xdner.recognizers.cp_ner",
    "Domain": "xdner.domain",
    "Entity": "xdner.text",
    "IFWRANER": "xdner.recognizers.if_wraner",
    "LANER": "xdner.recognizers.laner",
    "Label": "xdner.domain",
    "Library": "xdner.library.store",
    "Result": "xdner.recognizers.base",
    "Run": "xdner.training.run",
    "Sentence": "xdner.text",
    "Settings": "xdner.settings",
    "XdnerError": "xdner.errors",
    "evaluate": "xdner.evaluation.report",
    "read_corpus": "xdner.corpora",
}

__all__ = [
    "CPNER",
    "Domain",
    "Entity",
    "IFWRANER",
    "LANER",
    "Label",
    "Library",
    "Result",
    "Run",
    "Sentence",
    "Settings",
    "XdnerError",
    "evaluate",
    "read_corpus",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'xdner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
