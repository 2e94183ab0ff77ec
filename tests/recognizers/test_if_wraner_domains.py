"""IF-WRANER domains side by side: each is asked as it was made, whoever else is in the call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdner.domain import Domain
from xdner.generation.endpoint import EndpointModel
from xdner.prompting.settings import WranerSettings
from xdner.recognizers.base import Request
from xdner.recognizers.if_wraner import IFWRANER
from xdner.retrieval.base import text_key
from xdner.testing.endpoints import answering, serving
from xdner.testing.examples import EXAMPLES, TEMPLATE, shared_words
from xdner.testing.models import save_tiny_backbone
from xdner.text import Sentence

TEXT = "Ann saw Oslo and Bob left Rome . " * 3


def settings_of(*overrides: str) -> WranerSettings:
    return WranerSettings.build(None, ["retrieval.k=3", *overrides])


def add(recognizer: IFWRANER, name: str, *overrides: str) -> None:
    """A domain that was made with settings of its own."""
    maker = IFWRANER(recognizer.llm, settings=settings_of(*overrides), retriever=shared_words, template=TEMPLATE)
    recognizer.add(maker.add_domain(Domain(name, Domain.from_corpus(name, EXAMPLES).labels), EXAMPLES))


@pytest.mark.parametrize("window", [8, 80])
@pytest.mark.parametrize("method", ["densest", "shared words"])
def test_as_many_examples_are_shown_whatever_copies_of_a_text_there_are(window: int, method: str) -> None:
    """Copies of a long text in other letters are left out of what its windows are shown; others take their places."""
    long = TEXT.strip()
    spans = [(m.start(), m.end(), "place") for m in re.finditer("Ann|Oslo|Bob|Rome", long)]
    copies = [Sentence.from_text(text, spans) for text in (long, long.upper(), long.lower())]
    how = settings_of("retrieval.method=densest", f"decoding.window={window}", "decoding.overlap=0")
    retriever = shared_words if method == "shared words" else None
    with serving(lambda n, body: answering("{}")) as endpoint:
        made = IFWRANER(EndpointModel(endpoint.url, "m", how), settings=how, retriever=retriever, template=TEMPLATE)
        made.add_domain(Domain.from_corpus("people", EXAMPLES), [*copies, *EXAMPLES])
        made.predict([long, "Cy saw Lima ."])
    shown = [
        [line.partition(" = {")[0] for line in r["messages"][0]["content"].splitlines() if " = {" in line]
        for r in endpoint.requests
    ]
    assert len(shown) == (2 if window == 80 else 4)
    assert [len(lines) for lines in shown] == [3] * len(shown)
    whole = [
        lines for lines, r in zip(shown, endpoint.requests, strict=True) if "Cy saw" not in r["messages"][0]["content"]
    ]
    assert not {text_key(c) for c in copies} & {"".join(t.split()).casefold() for lines in whole for t in lines}


OWN = {
    "plain": [],
    "turned": ["prompt.order=best-first"],
    "short": ["prompt.max_tokens=330"],
    "cut": ["decoding.window=8", "decoding.overlap=2"],
}


def test_local_domains_of_one_model_are_each_read_with_their_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_backbone(tmp_path / "llm")

    def opened(*names: str) -> IFWRANER:
        first = settings_of(*OWN[names[0]])
        made = IFWRANER.from_pretrained(folder, settings=first, retriever=shared_words, template=TEMPLATE)
        for name in names:
            add(made, name, *OWN[name])
        return made

    together = opened(*OWN)
    jobs: list[tuple[int, ...]] = []
    run = together.llm.engine.run  # type: ignore[attr-defined]
    monkeypatch.setattr(
        together.llm.engine,  # type: ignore[attr-defined]
        "run",
        lambda made, done=None: jobs.extend(tuple(j.source) for j in made) or run(made, done=done),
    )
    results = together.recognize([Request(TEXT, name) for name in OWN])
    assert len(set(jobs[:3])) == 3, "the prompts differ"
    assert results[2].diagnostics["dropped_demonstrations"] > 0
    assert [r.windows for r in results][:2] == [1, 1]
    assert results[3].windows > 2
    for name, result in zip(OWN, results, strict=True):
        (alone,) = opened(name).predict(TEXT)
        assert [(e.key, alone.windows) for e in alone.entities] == [(e.key, result.windows) for e in result.entities]


def test_domains_of_one_endpoint_are_each_asked_with_their_own_settings() -> None:
    own = {**OWN, "short": ["prompt.max_tokens=580"], "long": ["llm.answer_tokens=77"]}
    with serving(lambda n, body: answering("{}")) as endpoint:
        model = EndpointModel(endpoint.url, "m", settings_of("llm.concurrency=1"))
        made = IFWRANER(model, settings=model.settings, retriever=shared_words, template=TEMPLATE)
        for name, overrides in own.items():
            add(made, name, *overrides)
        results = made.recognize([Request(TEXT, name) for name in own])
    prompts = [r["messages"][0]["content"] for r in endpoint.requests]
    first, second = ([line for line in p.splitlines() if " = {" in line] for p in prompts[:2])
    assert len(first) == 3
    assert first == second[::-1] != second
    assert [r.windows for r in results] == [1, 1, 1, results[3].windows, 1]
    assert results[3].windows > 2
    assert results[2].diagnostics["dropped_demonstrations"] > 0
    assert [r["max_tokens"] for r in endpoint.requests] == [512] * (len(prompts) - 1) + [77]
