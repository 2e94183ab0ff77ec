"""IF-WRANER's language model behind an OpenAI-compatible endpoint: questions become prompts, replies become answers.

What is wrong with one question is a note of its answer: a reply without an answer in it, a refusal, a prompt that is too
long. What is wrong with the server ends the run, and the answers until then come with the error. ``chat.py`` tells the two
apart, keeps the time, tries again, and keeps the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING

import anyio
from anyio.from_thread import start_blocking_portal

from xdner.codec.dictionary import parse
from xdner.codec.windows import Window, split_windows
from xdner.errors import CodecError, EndpointError, EndpointInterrupted, SettingsError
from xdner.generation.answers import DROPPED, Answer, Asked, Question
from xdner.generation.chat import Chat, Refused, Stopped, TooLong, checked_url
from xdner.generation.replies import Reply
from xdner.prompting.prompt import demonstration_text, fitting, ordered, prompt_text
from xdner.prompting.settings import WranerSettings
from xdner.text import Sentence

if TYPE_CHECKING:
    import httpx2

__all__ = ["EndpointModel", "is_endpoint"]

#: A token is taken for so many bytes where the tokenizer is not known: prompts are cut rather too early than too late.
_BYTES = 3
_HOPELESS = 8  # questions that all came to nothing: the next would too


def is_endpoint(name: object) -> bool:
    """Whether a model's name is an address."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))


class EndpointModel:
    """A language model behind an endpoint.

    Args:
        url: of the API, as in ``http://localhost:8000/v1``.
        model: its name there.
        settings: the group ``llm``; what a domain may have of its own (:class:`~xdner.generation.answers.Asked`), where it
            has none.

    Raises:
        EndpointError: not an address, one with a password or a query in it, or no model's name.
        SettingsError: answers may be as long as prompt and answer together.
    """

    def __init__(self, url: str, model: str | None, settings: WranerSettings) -> None:
        self.url = checked_url(url)
        if not model or not model.strip():
            raise EndpointError(
                f"which model at {self.url}?", hint="Give its name with --model; GET …/models lists what a server has."
            )
        _check(settings)
        self.model, self.settings = model.strip(), settings
        self.chat = Chat(self.url, self.model, settings.llm)

    def __repr__(self) -> str:
        return f"EndpointModel({self.url!r}, {self.model!r})"

    @property
    def identity(self) -> Mapping[str, str]:
        """Address and name."""
        return {"kind": "endpoint", "name": self.model, "url": self.url}

    def split(self, sentence: Sentence, asked: Asked) -> list[Window]:
        """Windows of ``decoding.window`` words, or fewer where prompt and answer would be longer than ``prompt.max_tokens``.

        Raises:
            SettingsError: of the domain, as of the model's own.
            CodecError: the types alone leave no room for a single word.
        """
        how = asked.how(self.settings)
        _check(how)
        if not sentence.words:
            return []
        room = _room(asked, how, Sentence.from_text(""))
        if room < 1:
            raise CodecError(
                f"a prompt with the types of domain {asked.domain.name!r} and an answer of llm.answer_tokens = "
                f"{how.llm.answer_tokens} are longer than prompt.max_tokens = {how.prompt.max_tokens}",
                hint="Raise prompt.max_tokens, lower llm.answer_tokens, or describe the types in fewer words.",
            )
        cut, bounded = how.decoding, bool(how.prompt.max_tokens)
        lengths = [_size(word.text) + 1 if bounded else 1 for word in sentence.words]  # and the space before it
        pieces = int(room) if bounded else cut.window
        return split_windows(lengths, window=cut.window, overlap=cut.overlap, max_pieces=pieces)

    def capped(self, sentence: Sentence) -> int:
        """None: a prompt is sent as it is."""
        return 0

    def answer(self, questions: Sequence[Question], *, done: Callable[[int], None] | None = None) -> list[Answer]:
        """One answer a question, ``llm.concurrency`` of them at a time; see
        :class:`~xdner.generation.answers.Generator`.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, keeps failing, or answers nothing but nonsense; with what
                was answered before.
            EndpointInterrupted: Ctrl-C, with what was answered before; where nothing was, it is a KeyboardInterrupt as ever.
        """
        if not questions:
            return []
        run = _Run(self, questions, done)
        try:
            # In a thread of its own: the caller may have an event loop already, as notebooks do.
            with start_blocking_portal() as portal:
                portal.call(run.all)
        except KeyboardInterrupt:  # what was under way has ended with the thread
            if not run.good:
                raise
            raise EndpointInterrupted(
                f"interrupted after {run.good} of {len(questions)} answers",
                hint="What was answered is in the error's finished.",
                finished=run.answers,
            ) from None
        if run.failure is None:
            return [answer for answer in run.answers if answer is not None]
        if isinstance(run.failure, EndpointError) and run.good:
            raise EndpointError(run.failure.message, hint=run.failure.hint, finished=run.answers) from None
        raise run.failure

    # -- one question ------------------------------------------------------------------------------------------------

    async def ask(
        self, client: httpx2.AsyncClient, question: Question, stop: Event
    ) -> tuple[Answer, EndpointError | None]:
        """The answer; and what to tell of it if no question has a better one.

        Raises:
            EndpointError: the endpoint has failed.
            Stopped: another question has found that out.
        """
        given, asked = question.demonstrations, question.asked
        how = asked.how(self.settings)
        sizes = [_size(demonstration_text(asked.template, asked.domain, one)) for one in given]
        room = _room(asked, how, question.sentence)
        if room < 0:
            most = f"prompt.max_tokens = {how.prompt.max_tokens}, llm.answer_tokens = {how.llm.answer_tokens} of them"
            return self._too_long(question, most)
        while True:
            kept = fitting(sizes, room)
            shown = [given[i] for i in kept]
            prompt = prompt_text(asked.template, asked.domain, ordered(shown, how.prompt.order), question.sentence)
            try:
                reply = await self.chat.complete(client, prompt, stop, answer_tokens=how.llm.answer_tokens)
                break
            except TooLong as refused:
                if not shown:
                    return self._too_long(question, refused.error.message)
                # Each time shorter by an equal part, for what fits is not known and each try is a request: of like lengths
                # the worst goes, of unlike ones the longest.
                room = sum(sizes[i] for i in kept) - sum(sizes) / (len(sizes) + 1)
            except Refused as refused:
                if not shown:
                    error = refused.error
                    return self._noted(Answer("", (), {"refused_questions": 1}, error.message), question, shown), error
                room = 0  # there are more ways to say that a prompt is too long than anybody knows
        return self._noted(_answer(reply, question), question, shown), (
            EndpointError(
                f"{self.url} answered, but not as an OpenAI-compatible endpoint does: {reply.flaw}",
                hint="See the server's own log, or ask another model there."
                if reply.of_api
                else "Give the address of the API itself, such as http://localhost:8000/v1.",
            )
            if reply.flaw
            else None
        )

    def _too_long(self, question: Question, told: str) -> tuple[Answer, EndpointError]:
        error = EndpointError(
            f"the prompt for {question.sentence.text[:40]!r} is longer than {self.model} reads, even "
            f"without demonstrations: {told}",
            hint="Lower decoding.window or llm.answer_tokens, describe the types in fewer words, or raise prompt.max_tokens.",
        )
        return self._noted(Answer("", (), {"too_long_prompts": 1}, error.message), question, ()), error

    def _noted(self, answer: Answer, question: Question, shown: Sequence[Sentence]) -> Answer:
        missing = len(question.demonstrations) - len(shown)
        notes = {**answer.notes, **({DROPPED: missing} if missing else {})}
        return Answer(answer.text, answer.entities, notes, answer.flaw)


def _check(how: WranerSettings) -> None:
    """Refuse what leaves no prompt any room."""
    limit, answer = how.prompt.max_tokens, how.llm.answer_tokens
    if 0 < limit <= answer:
        raise SettingsError(
            [
                f"prompt.max_tokens = {limit} is for prompt and answer together, and llm.answer_tokens = {answer} uses it up"
            ],
            hint="Raise the one or lower the other, as with --set llm.answer_tokens=256.",
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _room(asked: Asked, how: WranerSettings, sentence: Sentence) -> float:
    """Bytes that a question leaves to demonstrations; negative if it is too long by itself."""
    if not how.prompt.max_tokens:
        return math.inf
    limit = _BYTES * (how.prompt.max_tokens - how.llm.answer_tokens)
    return limit - _size(prompt_text(asked.template, asked.domain, (), sentence))


def _answer(reply: Reply, question: Question) -> Answer:
    notes = dict(reply.notes or {})
    if reply.flaw:
        return Answer(reply.text, (), {**notes, "malformed_answers": 1}, reply.flaw)
    placed = parse(reply.text, question.sentence, question.asked.domain)
    flaw = ""
    if "malformed_answers" in placed.notes:
        flaw = "it is no JSON object" + (f" (finish_reason {reply.finish})" if reply.finish else "")
        flaw += ": llm.answer_tokens cut it off" if reply.finish == "length" else ""
    return Answer(reply.text, placed.entities, {**notes, **placed.notes}, flaw)


class _Run:
    """The questions of one call.

    Attributes:
        answers: one a question; ``None`` while there is none.
        good: answers that a model has given.
        failure: what ended the run.
    """

    def __init__(self, model: EndpointModel, questions: Sequence[Question], done: Callable[[int], None] | None) -> None:
        self.answers: list[Answer | None] = [None] * len(questions)
        self.good = 0
        self.failure: Exception | None = None
        self._model, self._waiting, self._done = model, iter(enumerate(questions)), done
        self._bad: list[EndpointError] = []
        self._stop = Event()

    async def all(self) -> None:
        """Ask them, so many at a time."""
        chat = self._model.chat
        async with chat.client() as client, anyio.create_task_group() as group:
            for _ in range(min(chat.settings.concurrency, len(self.answers))):
                group.start_soon(self._some, client)
        if self.failure is None and not self.good:
            self.failure = self._bad[0]

    async def _some(self, client: httpx2.AsyncClient) -> None:
        """One question after the other, until there is none, or no use in any."""
        for number, question in self._waiting:
            try:
                self.answers[number], bad = await self._model.ask(client, question, self._stop)
                self.good += bad is None
                self._bad += [bad] if bad is not None else []
                if self._done is not None:
                    self._done(self.good + len(self._bad))
            except Stopped:
                return
            except Exception as error:
                self._end(error)
            if not self.good and len(self._bad) >= _HOPELESS:
                self._end(self._bad[0])
            if self.failure is not None:
                return

    def _end(self, error: Exception) -> None:
        """What is under way may end, and is kept: it is paid for."""
        self.failure = self.failure or error
        self._stop.set()
