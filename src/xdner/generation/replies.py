"""What an endpoint sends back: an answer, or what it says of a failure. The API key is masked in all of it."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Reply", "Said", "masked", "read_error", "read_reply", "seconds_to_wait"]

#: How servers say that a prompt is too long: OpenAI, vLLM, llama.cpp, TGI, Gemini, Anthropic, SGLang, Mistral.
_LENGTH = re.compile(
    r"context[ _-]?(length|window|size)|too long|too many (input )?tokens|reduce the length"
    r"|inputs?\W.{0,20}tokens?.{0,60}must be <=|exceeds? the (maximum|allowed|available) (number of|context|input|prompt)"
    r"|longer than the (model|maximum)|too large for model",
    re.IGNORECASE | re.DOTALL,
)
#: A request in what a server says of it: its words are ours.
_ECHO = re.compile(r"""\bmessages\b\\?['"]?\s*[:=]\s*\\?[\[(]""")


@dataclass(frozen=True)
class Reply:
    """A model's answer, or why there is none: the server spoke, but not as the protocol says.

    Attributes:
        text: of the answer.
        flaw: what is wrong with the reply.
        finish: the protocol's ``finish_reason``, if it was given.
        notes: what was done without, counted.
        refusal: what the model says in place of an answer.
        status: of an error that came in place of an answer, if it is one that HTTP knows.
        of_api: whether it has the form of a reply of the API at all, if not of an answer.
    """

    text: str
    flaw: str = ""
    finish: str = ""
    notes: Mapping[str, int] | None = None
    refusal: str = ""
    status: int = 0
    of_api: bool = True


@dataclass(frozen=True)
class Said:
    """What a server says about a failure.

    Attributes:
        text: without the key.
        names: the error's ``type``, ``code`` and ``param``, and where in the request it is.
        echo: whether the text repeats the request.
    """

    text: str
    names: tuple[str, ...] = ()
    echo: bool = False

    @property
    def line(self) -> str:
        """For a message."""
        return self.text if len(self.text) <= 200 else self.text[:200] + "…"

    def means(self, parameter: str) -> bool:
        """Whether it is about a parameter; that a repeated request holds it says nothing."""
        return parameter in self.names or (not self.echo and re.search(rf"\b{parameter}\b", self.text) is not None)

    @property
    def too_long(self) -> bool:
        """Whether it is about the length of the prompt; what a repeated request says of lengths is a text's words."""
        return any(map(_LENGTH.search, self.names if self.echo else (self.text, *self.names)))


def seconds_to_wait(value: str | None) -> float | None:
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


def read_reply(content: bytes, key: str) -> Reply:
    """The answer in a reply, without the key."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return Reply("", "a reply that is not JSON", of_api=False)
    if isinstance(data, dict) and data.get("error") and not data.get("choices"):
        flaw = f"an error in place of an answer: {read_error(content, key).line}"
        return Reply("", flaw, status=_status(data["error"]))
    try:
        choice = data["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        refusal = message.get("refusal")
        text = message["content"] if not refusal else message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Reply("", "a reply without choices[0].message.content", of_api=False)
    finish = masked(finish, key) if isinstance(finish, str) else ""
    text = _joined(text)
    if isinstance(refusal, str) and refusal and not text:
        return Reply("", "a refusal", finish, refusal=_in_a_line(masked(refusal, key)))
    if not isinstance(text, str):
        return Reply("", "a reply whose content is not text" + (f" (finish_reason {finish})" if finish else ""), finish)
    return Reply(masked(text, key), "", finish)


def _joined(content: Any) -> Any:
    """The text of a content in parts, without parts of other kinds (reasoning); any other content as it is."""
    if not isinstance(content, list):
        return content
    parts = [p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
    return "".join(parts) if parts else content


def _status(error: Any) -> int:
    """An error's code, where it is one of HTTP's."""
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 0


def _in_a_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text[:4000]).split())


def masked(text: str, key: str) -> str:
    """The text without the key."""
    return text.replace(key, "***") if key else text


def read_error(content: bytes, key: str) -> Said:
    """What a server says of a failure, whatever its form; without the key, in one line."""
    text, names = content.decode("utf-8", "replace"), []
    try:
        data = json.loads(text)
        error = data.get("error", data.get("message", data.get("detail", data))) if isinstance(data, dict) else data
        inner = error.get("message", error) if isinstance(error, dict) else error
        for table in (data, error):
            if isinstance(table, dict):
                names += [v for k in ("type", "code", "param", "error_type") if isinstance(v := table.get(k), str)]
        code = error.get("code") if isinstance(error, dict) else None
        places, listed = _listed(inner)
        names += places
        text = inner if isinstance(inner, str) else listed or json.dumps(inner)
        text += f" ({code})" if isinstance(code, str) and code not in text else ""
    except (ValueError, RecursionError):
        pass
    # Before it is cut: half a key would not be found, and an echo may end later.
    echo, line = _ECHO.search(text) is not None, _in_a_line(masked(text, key))
    return Said(line, tuple(names), echo)


def _listed(errors: Any) -> tuple[list[str], str]:
    """Of a list of mistakes with their places, as FastAPI gives it: the places' parts, and the text without what was sent."""
    found, lines = [], []
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, dict) or not isinstance(error.get("msg"), str):
            return [], ""
        place = error.get("loc")
        parts = [str(part) for part in place] if isinstance(place, list) else []
        found += parts
        lines.append(": ".join(filter(None, (".".join(parts), error["msg"]))))
    return found, "; ".join(lines)
