"""IF-WRANER: which examples a text is shown, from memory or an index, whole or in windows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xdner.backbone.encoder import load_encoder
from xdner.errors import RetrievalError
from xdner.generation.answers import Question
from xdner.recognizers.base import Result
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.retrievers import Retrievers
from xdner.retrieval.base import Example, Hit, Keys
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.manifest import CACHE
from xdner.retrieval.pool import Pool, open_pool
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.examples import EXAMPLES, PEOPLE, TEMPLATE, TEXTS, people_recognizer, quick
from xdner.text import Sentence


def test_what_is_shown_changes_what_is_read(llm: Path) -> None:
    made = people_recognizer(llm)
    questions: list[Question] = []
    answer = made.llm.answer
    made.llm.answer = lambda qs, done=None: questions.extend(qs) or answer(qs, done=done)  # type: ignore[method-assign]
    made.add_domain(PEOPLE, [*EXAMPLES, *EXAMPLES])
    assert len(made._entry("people").examples) == len({Example.of(s).id for s in EXAMPLES})
    made.predict([EXAMPLES[0].text, "it rained"])
    assert [len(q.demonstrations) for q in questions] == [2, 2]
    assert EXAMPLES[0].text not in {s.text for s in questions[0].demonstrations}
    assert questions[1].demonstrations[0].text == "it rained ."
    made.add_domain(PEOPLE)  # none to show
    made.predict("it rained")
    assert questions[-1].demonstrations == ()


def test_a_prompt_longer_than_the_model_drops_demonstrations_and_says_so(llm: Path) -> None:
    made = people_recognizer(llm, "retrieval.k=5", "prompt.max_tokens=330")
    made.add_domain(PEOPLE, EXAMPLES)
    (result,) = made.predict("Ann saw Oslo .")
    assert 0 < result.diagnostics["dropped_demonstrations"] < 5
    assert result.windows == 1
    wide = people_recognizer(llm, "retrieval.k=5")
    wide.add_domain(PEOPLE, EXAMPLES)
    assert "dropped_demonstrations" not in wide.predict("Ann saw Oslo .")[0].diagnostics
    assert json.dumps(result.to_dict())


def test_a_window_of_an_example_is_not_shown_the_whole_example(llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retriever leaves out what is asked about; a window of it has another text."""
    long = Sentence.from_text("Ann saw Oslo and Bob left Rome . " * 8)
    labelled = replace(long, entities=(long.entity(0, 1, "person", None),))
    made = people_recognizer(llm, "retrieval.k=3", "prompt.max_tokens=900", "decoding.window=20", "decoding.overlap=4")
    made.add_domain(PEOPLE, [*EXAMPLES, labelled])
    asked: list[Question] = []
    answer = made.llm.answer
    monkeypatch.setattr(made.llm, "answer", lambda questions, done=None: asked.extend(questions) or answer(questions))
    (result,) = made.predict([long.text])
    assert result.windows == len(asked) > 1
    assert all(len(q.demonstrations) == 3 for q in asked)
    assert long.text not in {d.text for q in asked for d in q.demonstrations}


def test_a_window_of_an_example_is_shown_what_it_is_shown_without_that_example(
    llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole text is most like its windows: it would answer their words, and others would be chosen for what it leaves."""
    own = [f"retrieval.encoder={save_tiny_encoder(tmp_path / 'encoder')}", "retrieval.layer=1", "retrieval.k=3"]
    made = people_recognizer(llm, *own, "decoding.window=20", "decoding.overlap=4", retriever=None)
    long = Sentence.from_text("Ann saw Oslo and Bob left Rome . " * 8)
    labelled = replace(long, entities=(long.entity(0, 1, "person", None),))
    asked: list[tuple[Sentence, ...]] = []
    answer = made.llm.answer

    def noted(questions: Sequence[Question], **how: Any) -> Any:
        asked.append(tuple(d for q in questions for d in q.demonstrations))
        return answer(questions, **how)

    monkeypatch.setattr(made.llm, "answer", noted)
    for examples in (EXAMPLES, [labelled, *EXAMPLES]):
        made.add_domain(PEOPLE, examples)
        assert made.predict([long.text])[0].windows > 1
    assert asked[0] == asked[1]


@pytest.mark.parametrize("method", ["word", "random"])
def test_what_a_text_is_shown_does_not_depend_on_a_long_neighbour(
    llm: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    made = people_recognizer(
        llm, "retrieval.k=3", f"retrieval.method={method}", "decoding.window=20", "decoding.overlap=4"
    )
    made.add_domain(PEOPLE, EXAMPLES)
    asked: list[Question] = []
    answer = made.llm.answer
    monkeypatch.setattr(made.llm, "answer", lambda questions, done=None: asked.extend(questions) or answer(questions))
    made.predict(["Cy saw Lima ."])
    made.predict(["Cy saw Lima .", "Ann saw Oslo and Bob left Rome . " * 8])
    alone, beside, *windows = asked
    assert len(windows) > 1
    assert alone.demonstrations == beside.demonstrations
    assert all(len(q.demonstrations) == 3 for q in asked)


def test_the_baselines_by_name() -> None:
    pool = [Example.of(s) for s in EXAMPLES]
    queries = [EXAMPLES[0], Sentence.from_text("new")]
    drawn = Retrievers()(pool, quick("retrieval.method=random")).retrieve(queries, 4)
    assert [len({h.example.sentence.text for h in hits}) for hits in drawn] == [4, 4]
    assert EXAMPLES[0].text not in {h.example.sentence.text for h in drawn[0]}
    assert Retrievers()(pool, quick("retrieval.method=random")).retrieve(queries[1:], 4) == drawn[1:]
    assert Retrievers()(pool, quick("retrieval.method=random", "retrieval.seed=2")).retrieve(queries, 4) != drawn
    assert Retrievers()(pool, quick("retrieval.method=none")).retrieve(queries, 4) == [(), ()]


def test_an_index_shows_what_examples_in_memory_show(llm: Path, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder")
    settings = quick(f"retrieval.encoder={encoder}", "retrieval.layer=1", "retrieval.k=3")
    pool = Pool.create(
        tmp_path / "index", (embedder := WordEmbedder(load_encoder(encoder), settings.retrieval)).embedding
    )
    known = [s for s in EXAMPLES if s.entities]
    pool.add(known, embedder)
    asked: list[tuple[Any, ...]] = []

    def shown(entries: Sequence[Sentence], index: Pool | None) -> Any:
        made = IFWRANER.from_pretrained(llm, template=TEMPLATE, settings=settings)
        made.add(made.add_domain(PEOPLE, entries), index)
        monkey = made.llm.answer
        made.llm.answer = lambda questions, **how: (
            asked.append(tuple(q.demonstrations for q in questions))
            or monkey(  # type: ignore
                questions, **how
            )
        )
        return made.predict(TEXTS), asked[-1]

    assert shown(known, pool) == shown(known, None)
    assert {len(demonstrations) for demonstrations in asked[0]} == {3}
    # A text with two labellings is one example in both: the last.
    twice = [known[0].with_entities(known[0].entities[:1]), *known]
    assert shown(twice, pool) == shown(known, None)
    # An index of other examples than the domain's is not asked.
    assert not {s.text for d in shown(known[:3], pool)[1] for s in d} - {s.text for s in known[:3]}


@pytest.mark.parametrize("change", ["same", "other", "layer", "fewer", "gone", "damaged"])
def test_an_index_that_is_changed_before_it_is_asked_stops_nobody(llm: Path, tmp_path: Path, change: str) -> None:
    encoder = load_encoder(save_tiny_encoder(tmp_path / "encoder"))
    settings = quick(f"retrieval.encoder={encoder.source}", "retrieval.layer=1", "retrieval.k=3")
    embedder, known = WordEmbedder(encoder, settings.retrieval), [s for s in EXAMPLES if s.entities]
    pool = Pool.create(tmp_path / "index", embedder.embedding)
    pool.add(known, embedder)
    made = IFWRANER.from_pretrained(llm, template=TEMPLATE, settings=settings)
    entry = made.add_domain(PEOPLE, known)
    wanted = made.predict(TEXTS)
    made.add(entry, open_pool(pool.folder))  # a server starts, and has not been asked yet
    if change == "same":
        pool.replace(known[::-1], embedder)
    elif change == "other":
        pool.replace(known[:1], embedder)
    elif change == "layer":
        pool.replace(known, WordEmbedder(encoder, replace(settings.retrieval, layer=2)))
    elif change == "fewer":
        pool.remove([known[0].text])
    else:
        shutil.rmtree(pool.folder / pool.manifest.database if change == "damaged" else pool.folder)
        (pool.folder / CACHE).unlink(missing_ok=True)
    if change == "damaged":
        with pytest.raises(RetrievalError, match="has no collection"):
            made.predict(TEXTS)
    else:
        assert found(made.predict(TEXTS)) == found(wanted)


def found(results: Sequence[Result]) -> list[list[tuple[int, int, str]]]:
    return [[e.key for e in r.entities] for r in results]


def test_a_domain_that_is_replaced_lets_go_of_its_index(llm: Path) -> None:
    class Open:
        closed = 0

        def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
            return [()] * len(queries)

        def close(self) -> None:
            self.closed += 1

    waiting = [Open(), Open()]
    first, second = waiting
    recognizer = people_recognizer(llm, retriever=lambda *_: waiting.pop(0))
    for _ in range(2):
        recognizer.add_domain(PEOPLE, EXAMPLES)
        recognizer.predict(["x"], domain="people")
    assert (first.closed, second.closed) == (1, 0)
