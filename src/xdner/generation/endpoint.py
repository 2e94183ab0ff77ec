"""IF-WRANER's language model behind an OpenAI-compatible endpoint (``POST …/chat/completions``).

Failures that may pass (429, 5xx, timeouts, broken connections, replies that are not what the protocol says) are tried
again, a bounded number of times, each wait twice as long, or as long as ``Retry-After`` says. What stays is an
:class:`~xdner.errors.EndpointError`, except for a reply without an answer in it: that is counted with the malformed answers.

The API key is read from the environment when a request is made. It is in no object, no file, no log and no message; what
a server sends back is shown without it.
"""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xdner.codec.dictionary import parse
from xdner.codec.windows import Window, split_windows
from xdner.errors import EndpointError
from xdner.generation.answers import DROPPED, Answer, Asked, Question
from xdner.prompting.prompt import ordered, prompt_text
from xdner.prompting.settings import LlmSettings, WranerSettings
from xdner.text import Sentence

if TYPE_CHECKING:
    import httpx2

__all__ = ["EndpointModel", "is_endpoint"]

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
#: A token is taken for so many bytes where the tokenizer is not known: prompts are cut rather too early than too late.
_BYTES = 3
_LARGEST = 8_000_000  # bytes of a reply


def is_endpoint(name: object) -> bool:
    """Whether a model's name is an address."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))


class _Stopped(Exception):
    """Another request has failed for good; its error is the one to tell."""


class _TooLong(Exception):
    """The endpoint says that the prompt does not fit its model."""


@dataclass(frozen=True)
class _Reply:
    """A model's answer, or why there is none: the server spoke, but not as the protocol says."""

    text: str
    flaw: str = ""


class EndpointModel:
    """A language model behind an endpoint.

    Args:
        url: of the API, as in ``http://localhost:8000/v1``.
        model: its name there.
        settings: groups ``llm``, ``prompt`` and ``decoding``.

    Raises:
        EndpointError: not an address, one with a password or a query in it, or no model's name.
    """

    def __init__(self, url: str, model: str | None, settings: WranerSettings) -> None:
        self.url = _checked(url)
        if not model or not model.strip():
            raise EndpointError(
                f"which model at {self.url}?", hint="Give its name with --model; GET …/models lists what a server has."
            )
        self.model, self.settings = model.strip(), settings

    def __repr__(self) -> str:
        return f"EndpointModel({self.url!r}, {self.model!r})"

    @property
    def identity(self) -> Mapping[str, str]:
        """Address and name."""
        return {"kind": "endpoint", "name": self.model, "url": self.url}

    def split(self, sentence: Sentence, asked: Asked) -> list[Window]:
        """Windows of ``decoding.window`` words."""
        how = self.settings.decoding
        lengths = [1] * len(sentence.words)
        return split_windows(lengths, window=how.window, overlap=how.overlap, max_pieces=how.window)

    def answer(self, questions: Sequence[Question], *, done: Callable[[int], None] | None = None) -> list[Answer]:
        """One answer a question, ``llm.concurrency`` of them at a time; see
        :class:`~xdner.generation.answers.Generator`.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, keeps failing, or answers nothing but nonsense.
        """
        if not questions:
            return []
        how = self.settings.llm
        stop, lock = threading.Event(), threading.Lock()
        ready = 0
        with _client(how) as client, ThreadPoolExecutor(how.concurrency) as pool:

            def one(question: Question) -> tuple[Answer, str]:
                nonlocal ready
                made = self._ask(client, question, stop)
                with lock:
                    ready += 1
                    if done is not None:
                        done(ready)
                return made

            futures = [pool.submit(one, q) for q in questions]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # after a failure or Ctrl-C nothing more is sent
                stop.set()
                for future in futures:
                    future.cancel()
            failed = [e for f in futures if f.done() and not f.cancelled() and (e := f.exception()) is not None]
            for error in failed:
                if not isinstance(error, _Stopped):
                    raise error
            made = [future.result() for future in futures]
        if all(flaw for _, flaw in made):
            raise EndpointError(
                f"{self.url} answered, but not as an OpenAI-compatible endpoint does: {made[0][1]}",
                hint="Give the address of the API itself, such as http://localhost:8000/v1.",
            )
        return [answer for answer, _ in made]

    # -- one question ------------------------------------------------------------------------------------------------

    def _ask(self, client: httpx2.Client, question: Question, stop: threading.Event) -> tuple[Answer, str]:
        """The answer; and what was wrong with the reply, if there was no answer in it."""
        shown = list(question.demonstrations)
        while True:
            prompt = prompt_text(
                question.asked.template, question.asked.domain, ordered(shown, self.settings.prompt.order),
                question.sentence,
            )  # fmt: skip
            try:
                if shown and self._too_long(prompt):
                    raise _TooLong
                reply = self._complete(client, prompt, stop)
                break
            except _TooLong:
                if not shown:
                    raise EndpointError(
                        f"the prompt for {question.sentence.text[:40]!r} is longer than {self.model} reads, even "
                        "without demonstrations",
                        hint="Lower decoding.window, or describe the types in fewer words.",
                    ) from None
                shown.pop()  # the worst one
        if reply.flaw:
            answer = Answer("", (), {"malformed_answers": 1})
        else:
            placed = parse(reply.text, question.sentence, question.asked.domain)
            answer = Answer(reply.text, placed.entities, placed.notes)
        if missing := len(question.demonstrations) - len(shown):
            answer = Answer(answer.text, answer.entities, {**answer.notes, DROPPED: missing})
        return answer, reply.flaw

    def _too_long(self, prompt: str) -> bool:
        limit = self.settings.prompt.max_tokens
        size = len(prompt.encode("utf-8", "replace")) / _BYTES + self.settings.llm.answer_tokens
        return bool(limit) and size > limit

    def _complete(self, client: httpx2.Client, prompt: str, stop: threading.Event) -> _Reply:
        how = self.settings.llm
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt.encode("utf-8", "replace").decode()}],
            "temperature": 0,
            "max_tokens": how.answer_tokens,
        }
        failure, flaw = "", None
        for attempt in range(how.retries + 1):
            if stop.is_set():
                raise _Stopped
            pause = min(how.backoff * 2.0 ** min(attempt, 60), how.longest_wait)
            reply, failure, asked = self._once(client, body)
            if reply is not None:
                flaw = reply if reply.flaw else None
                if flaw is None:
                    return reply
            if asked is not None:
                if asked > how.longest_wait:
                    failure += f"; it asks to wait {asked:.0f} s"
                    break
                pause = asked
            if attempt < how.retries:
                stop.wait(pause)
        if flaw is not None:
            return flaw
        raise EndpointError(
            f"{self.url} failed {attempt + 1} times, at last: {failure}",
            hint="Is the server up, and is the address right? llm.timeout, llm.retries and llm.concurrency are settings.",
        )

    def _once(self, client: httpx2.Client, body: Mapping[str, Any]) -> tuple[_Reply | None, str, float | None]:
        """One request: a reply; or a failure that may pass, and the seconds that the server asks to wait.

        Raises:
            EndpointError: a failure that will not pass.
            _TooLong: the prompt does not fit.
        """
        import httpx2

        key = _key(self.settings.llm.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        deadline = time.monotonic() + self.settings.llm.timeout
        content = b""
        try:
            # The client's own timeout is between two bytes; a server that trickles would never run into it.
            with client.stream("POST", f"{self.url}/chat/completions", json=body, headers=headers) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > deadline:
                        raise httpx2.ReadTimeout("too slow")
                    if len(content) > _LARGEST:
                        return _Reply("", "a reply that does not end"), "", None
        except httpx2.TimeoutException:
            return None, f"no answer within {self.settings.llm.timeout:g} s", None
        except httpx2.HTTPError as error:  # refused, reset, no such host, not HTTP
            return None, _without(str(error) or type(error).__name__, key), None
        status = response.status_code
        if status == 200:
            return _read(content), "", None
        said = _message(content, key)
        told = f"HTTP {status}" + (f": {said}" if said else "")
        if status in _PASSING:
            return None, told, _retry_after(response.headers.get("retry-after"))
        if status in (400, 413, 422) and _about_length(status, said):
            raise _TooLong
        raise EndpointError(
            f"{self.url} refused the request with {told}", hint=_hint(status, self.settings.llm, self.model)
        )


def _client(how: LlmSettings) -> httpx2.Client:
    import httpx2

    # No redirects: the key goes to the address that was given, and nowhere else.
    limits = httpx2.Limits(max_connections=how.concurrency)
    return httpx2.Client(timeout=how.timeout, follow_redirects=False, limits=limits)


def _checked(url: str) -> str:
    hint = "Write it as http://localhost:8000/v1; the key goes into an environment variable (llm.key_variable)."
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
        (host or "").encode("idna")  # empty or endless parts of a name
        if not url.isprintable() or " " in url:
            raise ValueError
    except ValueError:
        raise EndpointError("the endpoint's address is not a URL", hint=hint) from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # It would be stored with the domain; so it is not even repeated here.
        raise EndpointError("the endpoint's address holds a password or a query", hint=hint)
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise EndpointError(f"{url!r} is not the address of an endpoint", hint=hint)
    return url.rstrip("/").removesuffix("/chat/completions")


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(
            f"the environment variable {variable} holds characters that no API key has",
            hint="Set it anew, to the key and nothing else.",
        )
    return key


def _without(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text


def _message(content: bytes, key: str) -> str:
    """What a server says about a failure, in one short line, without the key."""
    text = content.decode("utf-8", "replace")
    try:
        data = json.loads(text)
        error = data.get("error", data.get("message", data.get("detail", data))) if isinstance(data, dict) else data
        inner = error.get("message", error) if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        text = inner if isinstance(inner, str) else json.dumps(inner)
        text += f" ({code})" if isinstance(code, str) and code not in text else ""
    except (ValueError, RecursionError):
        pass
    # Before it is cut: half a key would not be found.
    text = _without(text, key)[:4000]
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 200 else line[:200] + "…"


def _about_length(status: int, said: str) -> bool:
    low = said.lower()
    return (
        status == 413
        or "context_length" in low
        or ("context" in low and ("length" in low or "window" in low))
        or ("too long" in low)
    )


def _hint(status: int, how: LlmSettings, model: str) -> str:
    if status in (401, 403):
        given = "was not accepted" if os.environ.get(how.key_variable) else "is not set"
        return f"The key in the environment variable {how.key_variable} {given}."
    if status == 404:
        return f"Does the address end as the API's does (…/v1), and has the server a model {model!r}?"
    return "See what the server says; the request is that of OpenAI's chat completions."


def _retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header: a number, or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _read(content: bytes) -> _Reply:
    """The answer in a reply."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return _Reply("", "a reply that is not JSON")
    try:
        text = data["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return _Reply("", "a reply without choices[0].message.content")
    return _Reply(text) if isinstance(text, str) else _Reply("", "a reply whose content is not text")
