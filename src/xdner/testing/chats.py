"""Questions to a language model behind an endpoint: for tests of what comes back."""

from __future__ import annotations

from xdner.domain import Domain
from xdner.generation.answers import Answer, Asked, Question
from xdner.generation.endpoint import EndpointModel
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import find_template
from xdner.testing.endpoints import Endpoint
from xdner.text import Sentence

__all__ = ["ASKED", "GOOD", "KEY", "SHOWN", "ask", "model_of"]

KEY = "sk-very-secret-0815"
ASKED = Asked(Domain.from_labels("d", ["person", "place"]), find_template("dictionary"))
SHOWN = tuple(Sentence.from_text(t, [(0, 3, "person")]) for t in ("Eve left.", "Dan came.", "Cid sat."))
GOOD = '{"person": ["Ann"], "place": ["Rome"]}'


def model_of(endpoint: Endpoint | str, *overrides: str) -> EndpointModel:
    """The model behind an endpoint or an address, asked with short waits between two tries.

    How long it waits for an answer is left as it is: a busy machine may stand still for seconds, and a request that is given
    up and sent again is one more than a test counts.
    """
    quick = ["llm.backoff=0.01", "llm.retries=2", *overrides]
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    return EndpointModel(url, "tiny", WranerSettings.build(None, quick))


def ask(model: EndpointModel, count: int = 1, shown: tuple[Sentence, ...] = ()) -> list[Answer]:
    """Its answers to so many questions that differ in their last word."""
    return model.answer([Question(Sentence.from_text(f"Ann in Rome {i}"), ASKED, shown) for i in range(count)])
