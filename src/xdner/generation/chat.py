"""Requests to an OpenAI-compatible endpoint (``POST …/chat/completions``): one prompt, one reply.

Failures that may pass (429, 5xx, timeouts, broken connections, replies that are not what the protocol says) are tried
again, a bounded number of times, each wait twice as long, or as long as ``Retry-After`` says. A server that refuses
``max_tokens`` or ``temperature`` is asked without from then on.

The API key is read from the environment when a request is made. It is in no object, no file, no log and no message; what
a server sends back is shown without it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from xdner.errors import EndpointError
from xdner.generation.replies import Reply, Said, masked, read_error, read_reply, seconds_to_wait
from xdner.prompting.settings import LlmSettings

if TYPE_CHECKING:
    import httpx2

__all__ = ["Chat", "Refused", "Stopped", "TooLong", "checked_url"]

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
#: What is about this one request, and may be other for the next.
_OF_THE_REQUEST = {400, 413, 422}
#: What a client takes from the environment.
_ENVIRONMENT = (
    "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
_LARGEST = 8_000_000  # bytes of a reply


class Stopped(Exception):
    """Another request has failed for good; its error is the one to tell."""


class Refused(Exception):
    """The endpoint does not take this request; another one it may.

    Attributes:
        error: to tell if it takes none.
    """

    def __init__(self, error: EndpointError) -> None:
        super().__init__(error.message)
        self.error = error


class TooLong(Refused):
    """The prompt does not fit the endpoint's model."""


@dataclass(frozen=True)
class _Failure:
    """One that may pass.

    Attributes:
        told: in words.
        wait: seconds that the server asks for.
    """

    told: str
    wait: float | None = None


@dataclass(frozen=True)
class _Parameters:
    """Of a request, what not every server takes.

    Attributes:
        limit: name of the bound on an answer's tokens.
        temperature: whether one is given.
    """

    limit: str
    temperature: bool


class Chat:
    """The requests to one model behind an endpoint. All in one thread.

    Args:
        url: checked (:func:`checked_url`).
        model: its name there.
        settings: of the requests.
    """

    def __init__(self, url: str, model: str, settings: LlmSettings) -> None:
        self.url, self.model, self.settings = url, model, settings
        self._parameters = _Parameters(settings.token_limit, settings.send_temperature)
        self._limit_told = False

    def client(self) -> httpx2.AsyncClient:
        """Connections for some requests; a context manager.

        Raises:
            EndpointError: proxies or certificates that the environment names cannot be used.
        """
        import httpx2

        # At DEBUG it writes headers, and a server may repeat the key in one.
        logging.getLogger("httpcore2").setLevel(logging.INFO)
        # No redirects: the key goes to the address that was given, and nowhere else. So the environment's proxies are for
        # https, where they see no key; of http they would see all. The time is kept by `_once`.
        secure = self.url.lower().startswith("https:")
        limits = httpx2.Limits(max_connections=self.settings.concurrency)
        try:
            return httpx2.AsyncClient(timeout=None, follow_redirects=False, limits=limits, trust_env=secure)
        except httpx2.InvalidURL:  # which may hold a password
            told = "a proxy's address is not a URL"
        except (
            ImportError,
            ValueError,
            OSError,
        ) as error:  # no SOCKS; no such scheme; no such file, or no certificates
            told = str(error)
        raise EndpointError(
            f"cannot connect with this environment's proxy or certificate settings: {told}",
            hint=f"Look at {', '.join(name for name in _ENVIRONMENT if os.environ.get(name)) or 'them'}.",
        )

    async def complete(
        self, client: httpx2.AsyncClient, prompt: str, stop: Event, *, answer_tokens: int | None = None
    ) -> Reply:
        """The reply to a prompt.

        Args:
            client: see :meth:`client`.
            prompt: of the user.
            stop: once it is set, what is under way may end, and nothing is tried again.
            answer_tokens: of the answer, at most; ``None``: as the settings say.

        Raises:
            TooLong, Refused: this prompt is not taken.
            Stopped: ``stop`` was set before there was a reply.
            EndpointError: a failure that will not pass, or has not.
        """
        how = self.settings
        failure, flawed, tries = _Failure(""), None, 0
        chosen = self._parameters
        while tries <= how.retries:
            if stop.is_set():
                raise Stopped
            outcome = await self._once(client, self._body(prompt, chosen, answer_tokens))
            if isinstance(outcome, _Parameters):  # refused, but only for a parameter
                chosen = outcome
                continue
            if isinstance(outcome, Reply) and not outcome.flaw:
                self._parameters = chosen
                return Reply(outcome.text, "", outcome.finish, self._notes(chosen))
            tries += 1
            pause = min(how.backoff * 2.0 ** min(tries - 1, 60), how.longest_wait)
            if isinstance(outcome, Reply):
                flawed, failure = outcome, _Failure(outcome.flaw)
            else:
                flawed, failure = None, outcome
                if failure.wait is not None and failure.wait > how.longest_wait:
                    failure = _Failure(f"{failure.told}; it asks to wait {failure.wait:.0f} s")
                    break
                pause = pause if failure.wait is None else failure.wait
            if tries <= how.retries:
                await _sleep(pause, stop)
        if flawed is not None:
            return flawed
        raise EndpointError(
            f"{self.url} failed {tries} times, at last: {failure.told}",
            hint="Is the server up, and is the address right? Settings of the domain: llm.timeout, llm.retries, llm.concurrency.",
        )

    # -- parameters --------------------------------------------------------------------------------------------------

    def _body(self, prompt: str, chosen: _Parameters, answer_tokens: int | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt.encode("utf-8", "replace").decode()}],
            chosen.limit: self.settings.answer_tokens if answer_tokens is None else answer_tokens,
        }
        return body | ({"temperature": 0} if chosen.temperature else {})

    def _notes(self, chosen: _Parameters) -> dict[str, int]:
        """What people should know: once that a limit has another name, and of every answer another temperature."""
        notes = {}
        # Requests that are under way together find it out together.
        if chosen.limit != self.settings.token_limit and not self._limit_told:
            self._limit_told = True
            notes["refused_max_tokens"] = 1
        return notes | ({"without_temperature": 1} if self.settings.send_temperature and not chosen.temperature else {})

    # -- one request -------------------------------------------------------------------------------------------------

    async def _once(self, client: httpx2.AsyncClient, body: Mapping[str, Any]) -> Reply | _Failure | _Parameters:
        """One request: a reply; a failure that may pass; or the parameters to ask with instead.

        Raises:
            EndpointError: a failure that will not pass.
            TooLong, Refused: the prompt is not taken.
        """
        import httpx2

        key = _key(self.settings.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        content = b""
        try:
            # Of the whole request: a client's own timeout is between two bytes, and a server that trickles never runs into it.
            with anyio.fail_after(self.settings.timeout):
                async with client.stream(
                    "POST", f"{self.url}/chat/completions", json=dict(body), headers=headers
                ) as response:
                    async for part in response.aiter_bytes():
                        content += part
                        if len(content) > _LARGEST:
                            return Reply("", "a reply that does not end", of_api=False)
        except TimeoutError:
            return _Failure(f"no answer within {self.settings.timeout:g} s")
        except httpx2.HTTPError as error:  # refused, reset, no such host, not HTTP
            return _Failure(masked(str(error) or type(error).__name__, key))
        status = response.status_code
        told = f"HTTP {status}"
        if status == 200:
            # What the prompt itself holds is no secret: a local server's key may be any word.
            sent = any(key in message["content"] for message in body["messages"])
            reply = read_reply(content, "" if sent else key)
            if reply.refusal:
                no = f"the model {self.model} refuses to answer: {reply.refusal}"
                raise Refused(EndpointError(no, hint="Ask another model, or leave the text out."))
            if not reply.status:
                return reply
            status, told = reply.status, f"HTTP 200 with the error {reply.status}"  # of a server behind this one
        said = read_error(content, key)
        told += f": {said.line}" if said.line else ""
        if status in _PASSING:
            return _Failure(told, seconds_to_wait(response.headers.get("retry-after")))
        refusal = EndpointError(
            f"{self.url} refused the request with {told}", hint=_hint(status, self.settings, self.model)
        )
        if status not in _OF_THE_REQUEST:
            raise refusal
        if status == 413 or said.too_long:
            raise TooLong(refusal)
        if (instead := _instead(said, body)) is not None:
            return instead
        raise Refused(refusal)


async def _sleep(seconds: float, stop: Event) -> None:
    """Or less, if nothing is to be tried again."""
    until = time.monotonic() + seconds
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        await anyio.sleep(min(left, 0.1))


def _instead(said: Said, body: Mapping[str, Any]) -> _Parameters | None:
    """The parameters without the one that a server objects to; ``None`` if it objects to something else.

    There are two names for one limit, and models that have one temperature. A value out of bounds is none of that.
    """
    temperature = "temperature" in body
    if (
        "max_tokens" in body
        and said.means("max_tokens")
        and ("max_completion_tokens" in said.text or "unsupported_parameter" in said.names)
    ):
        return _Parameters("max_completion_tokens", temperature)
    if temperature and said.means("temperature"):
        return _Parameters("max_tokens" if "max_tokens" in body else "max_completion_tokens", False)
    return None


def checked_url(url: str) -> str:
    """The address of an API, without what follows it.

    Raises:
        EndpointError: not an address, or one with a password or a query in it.
    """
    import httpx2

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
    try:
        httpx2.URL(url)  # which is stricter: no numbers above 255, no names that no server may have
    except httpx2.InvalidURL as error:
        raise EndpointError(f"{url!r} is not the address of an endpoint: {error}", hint=hint) from None
    return url.rstrip("/").removesuffix("/chat/completions")


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(
            f"the environment variable {variable} holds characters that no API key has",
            hint="Set it anew, to the key and nothing else.",
        )
    return key


def _hint(status: int, how: LlmSettings, model: str) -> str:
    if status in (401, 403):
        given = "was not accepted" if os.environ.get(how.key_variable) else "is not set"
        return f"The key in the environment variable {how.key_variable} {given}."
    if status == 404:
        return f"Does the address end as the API's does (…/v1), and has the server a model {model!r}?"
    return "See what the server says; the request is that of OpenAI's chat completions."
