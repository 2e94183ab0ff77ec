"""From texts to IF-WRANER's questions, and from the answers to results: windows, examples for each, exact offsets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdner.codec.windows import Found, merge_windows
from xdner.generation.answers import Answer, Asked, Generator, Question
from xdner.prompting.prompt import sub_sentence
from xdner.recognizers.base import Request, Result, Unread, as_sentence
from xdner.retrieval.base import Retriever, text_key
from xdner.text import Sentence

__all__ = ["Batch", "Ready"]


@dataclass(frozen=True, eq=False)
class Ready:
    """A domain that can be asked about.

    Attributes:
        asked: how.
        retriever: of its examples.
        k: examples that a question shows.
    """

    asked: Asked
    retriever: Retriever
    k: int


@dataclass(frozen=True, eq=False)
class _Part:
    """A window of a request, as a sentence of its own; ``first`` is its first word in the request's sentence."""

    request: int
    first: int
    sentence: Sentence


class Batch:
    """Texts of any mix of domains, read in one go: a question for each window.

    Args:
        requests: texts with their domains.
        domain: makes a domain ready, by its name.
        llm: says which windows it can be asked about.

    Raises:
        XdnerError: a text or a domain that cannot be read.
    """

    def __init__(self, requests: Sequence[Request], domain: Callable[[str], Ready], llm: Generator) -> None:
        self.requests = requests
        self.sentences = [as_sentence(r.text) for r in requests]
        self.ready = {name: domain(name) for name in dict.fromkeys(r.domain for r in requests)}
        pairs = zip(requests, self.sentences, strict=True)
        self.windows = [llm.split(sentence, self.ready[request.domain].asked) for request, sentence in pairs]
        self._capped = [llm.capped(sentence) for sentence in self.sentences]
        self._parts = [
            _Part(number, window.first, sub_sentence(self.sentences[number], window))
            for number, windows in enumerate(self.windows)
            for window in windows
        ]

    def questions(self) -> list[Question]:
        """Each window with what was retrieved for it."""
        shown: dict[int, tuple[Sentence, ...]] = {}
        for name, ready in self.ready.items():
            if ready.k:
                shown |= self._examples(ready, [i for i, part in enumerate(self._parts) if self._name(part) == name])
        return [
            Question(part.sentence, self.ready[self._name(part)].asked, shown.get(i, ()))
            for i, part in enumerate(self._parts)
        ]

    def results(self, answers: Sequence[Answer | None]) -> list[Result | None]:
        """One a request, from one answer a question; ``None`` where an answer is missing."""
        of: list[list[tuple[_Part, Answer | None]]] = [[] for _ in self.requests]
        for part, answer in zip(self._parts, answers, strict=True):
            of[part.request].append((part, answer))
        results: list[Result | None] = []
        for number, given in enumerate(of):
            read = [(part, answer) for part, answer in given if answer is not None]
            results.append(self._result(number, read) if len(read) == len(given) else None)
        return results

    def _name(self, part: _Part) -> str:
        return self.requests[part.request].domain

    def _examples(self, ready: Ready, own: Sequence[int]) -> dict[int, tuple[Sentence, ...]]:
        """What the questions about these parts show. A retriever leaves out the query itself; of a window, the whole text has to
        be left out too."""
        parts = [self._parts[i] for i in own]
        whole = [(text_key(self.sentences[part.request]),) for part in parts]
        found = ready.retriever.retrieve([part.sentence for part in parts], ready.k, whole)
        return {i: tuple(hit.example.sentence for hit in hits) for i, hits in zip(own, found, strict=True)}

    def _result(self, number: int, read: Sequence[tuple[_Part, Answer]]) -> Result:
        sentence, windows = self.sentences[number], self.windows[number]
        notes = Counter({"capped_words": self._capped[number]} if self._capped[number] else {})
        found: list[list[Found]] = []
        for part, answer in read:
            notes.update(answer.notes)
            spans = [(*(part.sentence.word_span(e) or (0, 0)), e.label, e.score) for e in answer.entities]
            found.append([(f + part.first, last + part.first, label, score) for f, last, label, score in spans])
        merged = merge_windows(windows, found) if len(windows) > 1 else (found[0] if found else [])
        entities = tuple(sentence.entity(*entity) for entity in merged)
        unread = tuple(Unread(answer.text, answer.flaw) for _, answer in read if answer.flaw)
        domain = self.requests[number].domain
        return Result(sentence.text, entities, domain, max(1, len(windows)), dict(notes), unread)
