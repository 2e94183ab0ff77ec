"""A language model behind an endpoint, against a real HTTP server: what passes, what is tried again, what ends a run, and
that the key is in nothing that anybody sees."""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xdner.errors import EndpointError, SettingsError
from xdner.generation.answers import Answer, Question
from xdner.generation.chat import Chat, _Failure
from xdner.generation.endpoint import EndpointModel, is_endpoint
from xdner.prompting.settings import WranerSettings
from xdner.testing.chats import ASKED, GOOD, KEY, SHOWN, ask, model_of
from xdner.testing.endpoints import Endpoint, Said, answering, serving
from xdner.text import Sentence

pytestmark = pytest.mark.usefixtures("with_key")


def hidden(caplog: pytest.LogCaptureFixture, *shown: Any) -> bool:
    """Whether the key is in none of these, nor in any log."""
    return not any(KEY in f"{thing!s} {thing!r}" for thing in (*shown, caplog.text))


def test_a_good_answer(caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda n, body: answering(GOOD)) as endpoint:
        model = model_of(endpoint)
        counts: list[int] = []
        (answer,) = model.answer([Question(Sentence.from_text("Ann in Rome"), ASKED, SHOWN)], done=counts.append)
    assert [(e.start, e.end, e.label) for e in answer.entities] == [(0, 3, "person"), (7, 11, "place")]
    assert answer.notes == {}
    assert counts == [1]
    (request,) = endpoint.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == f"Bearer {KEY}"
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("tiny", 0, 512)
    (message,) = request["messages"]
    prompt = message["content"]
    assert "- person\n- place\n" in prompt
    assert prompt.endswith("\nSentence: Ann in Rome\nAnswer: ")
    # The best demonstration is next to the query.
    assert prompt.index("Cid sat.") < prompt.index("Dan came.") < prompt.index('Eve left.\nAnswer: {"person": ["Eve"]}')
    assert hidden(caplog, model, model.identity, vars(model), answer)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDNER_LLM_KEY")
    with serving(lambda n, body: answering("{}")) as endpoint:
        ask(model_of(endpoint))
    assert "Authorization" not in endpoint.requests[0]["headers"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with serving(lambda n, body: answering(GOOD) if n == 2 else Said({"error": "later"}, status)) as endpoint:
        (answer,) = ask(model_of(endpoint))
    assert len(answer.entities) == 2
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept(form: str) -> None:
    came, wanted = list[float](), list[float]()

    def reply(number: int, body: dict[str, Any]) -> Said:
        came.append(time.time())
        if number:
            return answering(GOOD)
        # A date has whole seconds. Both are of the moment of the reply: what goes before it may take any time.
        wanted.append(came[0] + 1 if form == "seconds" else float(int(came[0] + 2)))
        return Said(
            {}, 429, {"retry-after": "1" if form == "seconds" else email.utils.formatdate(wanted[0], usegmt=True)}
        )

    with serving(reply) as endpoint:
        ask(model_of(endpoint))
    assert len(came) == 2
    assert came[1] > wanted[0] - 0.1  # clocks are a little coarse, and are set now and then


def test_a_wait_that_is_too_long_is_given_up_at_once() -> None:
    with (
        serving(lambda n, body: Said({}, 429, {"retry-after": "86400"})) as endpoint,
        pytest.raises(EndpointError, match=r"failed 1 times.*429.*asks to wait 86400 s"),
    ):
        ask(model_of(endpoint))
    assert len(endpoint.requests) == 1


def test_retries_are_bounded_and_the_last_failure_is_told(caplog: pytest.LogCaptureFixture) -> None:
    told = r"failed 3 times, at last: HTTP 500: no GPU for Bearer \*\*\*"
    broken = Said({"error": {"message": f"no GPU for Bearer {KEY}"}}, 500)
    with serving(lambda n, body: broken) as endpoint, pytest.raises(EndpointError, match=told) as caught:
        ask(model_of(endpoint))
    assert len(endpoint.requests) == 3
    assert caught.value.hint is not None
    assert hidden(caplog, caught.value, caught.value.__cause__, caught.value.__context__)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (Said({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), r"401.*\*\*\*.*was not accepted"),
        (Said({"detail": "Not Found"}, 404), "404: Not Found.*a model 'tiny'"),
        (Said({"error": {"message": "bad", "code": "invalid_request"}}, 400), r"400: bad \(invalid_request\)"),
        (Said(b"<html>moved</html>", 302, {"location": "http://127.0.0.1:9/v1"}), "302"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(said: Said, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda n, body: said) as endpoint, pytest.raises(EndpointError) as caught:
        ask(model_of(endpoint))
    assert len(endpoint.requests) == 1
    assert re.search(text, " ".join(str(caught.value).split()))
    assert hidden(caplog, caught.value)


@pytest.mark.parametrize(
    ("said", "flaw"),
    [
        (Said(b"<html>Welcome</html>"), "not JSON"),
        (Said(b"\xff\xfe"), "not JSON"),
        (Said(b"[" * 100_000), "not JSON"),
        (Said([]), "without choices"),
        (Said({"choices": []}), "without choices"),
        (Said({"choices": {"a": 1}}), "without choices"),
        (Said({"object": "list"}), "without choices"),
        (answering(None), "not text"),
        (answering(["{}"]), "not text"),
    ],
)
def test_replies_that_are_not_what_the_protocol_says(said: Said, flaw: str) -> None:
    with (
        serving(lambda n, body: said) as endpoint,
        pytest.raises(EndpointError, match=f"not as an OpenAI-compatible endpoint does: a reply.*{flaw}"),
    ):
        ask(model_of(endpoint), 2)
    assert len(endpoint.requests) == 6  # each was tried again

    # One such reply among good ones costs its own sentence only, and is counted.
    def reply(number: int, body: dict[str, Any]) -> Said:
        return said if "Rome 1" in body["messages"][0]["content"] else answering(GOOD)

    with serving(reply) as endpoint:
        first, second = ask(model_of(endpoint), 2)
    assert len(first.entities) == 2
    assert (second.entities, second.notes) == ((), {"malformed_answers": 1})


@pytest.mark.parametrize(
    ("code", "requests", "told"),
    [
        (429, 3, "failed 3 times, at last: HTTP 200 with the error 429: no luck"),
        ("503", 3, "failed 3 times, at last: HTTP 200 with the error 503: no luck"),
        (401, 1, "refused the request with HTTP 200 with the error 401: no luck"),
        (400, 1, "refused the request with HTTP 200 with the error 400: no luck"),
        ("server_error", 3, r"an error in place of an answer: no luck \(server_error\)\n.*the server's own log"),
        (None, 3, "an error in place of an answer: no luck"),
    ],
)
def test_an_error_in_a_good_reply_is_taken_as_what_it_is(code: Any, requests: int, told: str) -> None:
    error = Said({"error": {"message": "no luck", "code": code}})
    with serving(lambda n, body: error) as endpoint, pytest.raises(EndpointError, match=told):
        ask(model_of(endpoint))
    assert len(endpoint.requests) == requests
    with serving(lambda n, body: Said({"error": "just so", "choices": None})) as endpoint:
        with pytest.raises(EndpointError, match="just so") as caught:
            ask(model_of(endpoint))
        assert "address" not in str(caught.value.hint)


def test_a_content_in_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"text": "hm"}]},
        {"type": "text", "text": GOOD[:9]},
        {"type": "text", "text": GOOD[9:]},
    ]
    with serving(lambda n, body: answering(parts)) as endpoint:
        (answer,) = ask(model_of(endpoint))
    assert len(answer.entities) == 2


def test_a_model_that_refuses_a_text_is_told_in_its_words() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        no = {"content": None, "refusal": f"I can't,\n{KEY}"}
        return Said({"choices": [{"message": no}]}) if "Rome 1" in body["messages"][0]["content"] else answering(GOOD)

    with serving(reply) as endpoint:
        first, second = ask(model_of(endpoint), 2)
    assert len(first.entities) == 2
    assert second.notes == {"refused_questions": 1}
    assert second.flaw == "the model tiny refuses to answer: I can't, ***"
    assert len(endpoint.requests) == 2  # it would say so again


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("I cannot do that.", {"malformed_answers": 1}),
        ('{"river": ["Ann"], "person": ["Bob"]}', {"unknown_types": 1, "absent_mentions": 1}),
    ],
)
def test_answers_that_cannot_be_read_are_counted(text: str, notes: dict[str, int]) -> None:
    with serving(lambda n, body: answering(text)) as endpoint:
        (answer,) = ask(model_of(endpoint))
    assert (answer.text, answer.entities, answer.notes) == (text, (), notes)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "slow",
    [{}, {"trickle": 0.1}, {"trickle_headers": 0.1}],
    ids=["silent", "trickling", "trickling headers"],
)
def test_a_server_that_is_too_slow(slow: dict[str, Any]) -> None:
    """It says nothing until it is left, or something every now and then for minutes: whoever waits for more hears more."""
    left = threading.Event()
    said = Said({"choices": ["x" * 3000]}, until=None if slow else left, **slow)
    with serving(lambda n, body: said) as endpoint:
        with pytest.raises(EndpointError, match=r"failed 2 times, at last: no answer within 0\.3 s"):
            ask(model_of(endpoint, "llm.timeout=0.3", "llm.retries=1"))
        left.set()


def test_nobody_is_there(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        # Who binds a port and does not listen refuses; a port that was given back may be another server's by now.
        with pytest.raises(EndpointError, match="failed 3 times") as caught:
            ask(model_of(f"http://127.0.0.1:{port}/v1"), 3)
    assert "Is the server up" in str(caught.value)
    assert hidden(caplog, caught.value)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_a_time_than_allowed(limit: int) -> None:
    together = threading.Barrier(limit)

    def reply(number: int, body: dict[str, Any]) -> Said:
        together.wait(60)  # as many as are allowed do come
        return Said(answering(GOOD).body, after=0.05)  # and a moment for one too many

    with serving(reply) as endpoint:
        answers = ask(model_of(endpoint, f"llm.concurrency={limit}"), 9)
    assert endpoint.most == limit
    assert len(answers) == len(endpoint.requests) == 9


def test_answers_come_in_the_order_of_the_questions() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        word = body["messages"][0]["content"].split()[-2]  # the last one is the cue
        return Said(answering(json.dumps({"place": [word]})).body, after=0.1 if number == 0 else 0.0)

    with serving(reply) as endpoint:
        assert [a.entities[0].text for a in ask(model_of(endpoint), 6)] == [str(i) for i in range(6)]


def test_one_failure_for_good_ends_the_rest() -> None:
    with serving(lambda n, body: Said({"error": "no"}, 403)) as endpoint, pytest.raises(EndpointError, match="403"):
        ask(model_of(endpoint, "llm.concurrency=1"), 50)
    assert len(endpoint.requests) < 5


def test_whoever_has_an_event_loop_can_ask() -> None:
    async def asks(endpoint: Endpoint) -> list[Answer]:
        return ask(model_of(endpoint), 2)

    with serving(lambda n, body: answering(GOOD)) as endpoint:
        assert [len(a.entities) for a in asyncio.run(asks(endpoint))] == [2, 2]


def test_an_error_of_whoever_counts_is_told_as_it_is() -> None:
    def counts(number: int) -> None:
        raise ZeroDivisionError

    with serving(lambda n, body: answering(GOOD)) as endpoint, pytest.raises(ZeroDivisionError):
        model_of(endpoint).answer([Question(Sentence.from_text("Ann"), ASKED)] * 9, done=counts)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: EndpointModel("http://x/v1", None, WranerSettings.build()), "which model"),
        (lambda: EndpointModel("ftp://x", "m", WranerSettings.build()), "not the address"),
        (lambda: EndpointModel("http://", "m", WranerSettings.build()), "not the address"),
        (lambda: EndpointModel("http://[", "m", WranerSettings.build()), "not a URL"),
        (lambda: EndpointModel("http://x/v1\n", "m", WranerSettings.build()), "not a URL"),
        (lambda: EndpointModel("http://a b/v1", "m", WranerSettings.build()), "not a URL"),
        (lambda: EndpointModel("http://\u00fc..x/v1", "m", WranerSettings.build()), "not a URL"),
        (lambda: EndpointModel(f"http://{'a' * 70}.com/v1", "m", WranerSettings.build()), "not a URL"),
        (
            lambda: EndpointModel("http://192.168.1.300:8000/v1", "m", WranerSettings.build()),
            "'http://192.168.1.300:8000/v1' is n",
        ),
        (
            lambda: EndpointModel("http://\u2603.invalid/v1", "m", WranerSettings.build()),
            "\u2603.invalid/v1' is not the address",
        ),
        (lambda: EndpointModel("http://me:sk-very-secret-0815@x/v1", "m", WranerSettings.build()), "holds a password"),
        (lambda: EndpointModel("http://x/v1?key=sk-very-secret-0815", "m", WranerSettings.build()), "or a query"),
    ],
)
def test_addresses_that_are_none(make: Callable[[], EndpointModel], text: str) -> None:
    with pytest.raises(EndpointError, match=text) as caught:
        make()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", "SOCKS"),
        ("HTTPS_PROXY", "foo://x", "Unknown scheme"),
        ("HTTPS_PROXY", f"http://me:{KEY}@x:{KEY}", "a proxy's address is not a URL"),
        ("SSL_CERT_FILE", "", "No such file"),
    ],
)
def test_proxies_and_certificates_that_cannot_be_used(
    name: str, value: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value or str(tmp_path / "nothing.pem"))
    with pytest.raises(EndpointError, match=f"this environment's proxy or certificate settings: .*{told}") as caught:
        ask(model_of("https://127.0.0.1:9/v1", "llm.retries=0"))
    assert name in str(caught.value.hint)
    assert KEY not in str(caught.value)
    # Without encryption a proxy would see the key: none is asked.
    with serving(lambda n, body: answering(GOOD)) as endpoint:
        assert ask(model_of(endpoint))[0].entities


def test_no_proxy_sees_a_key_that_is_not_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda n, body: answering(GOOD)) as proxy, serving(lambda n, body: answering(GOOD)) as endpoint:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        ask(model_of(endpoint))
    assert (len(proxy.requests), len(endpoint.requests)) == (0, 1)


def test_a_key_in_a_header_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    echo = Said(answering(GOOD).body, headers={"x-key": KEY})
    with serving(lambda n, body: echo) as endpoint:
        ask(model_of(endpoint))
    assert "HTTP Request: POST" in caplog.text
    assert hidden(caplog)


def test_keys_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda n, body: answering(GOOD)) as endpoint:
        monkeypatch.setenv("XDNER_LLM_KEY", f"{KEY}\u00e9 x")
        with pytest.raises(EndpointError, match="XDNER_LLM_KEY holds characters") as caught:
            ask(model_of(endpoint))
    assert KEY not in str(caught.value)
    for key in (KEY, "hf_QwErTyUiOpAsDfGhJk", "gsk_0815", "sk"):
        with pytest.raises(SettingsError, match="not the key itself") as wrong:
            WranerSettings.build(None, [f"llm.key_variable={key}"])
        assert key not in str(wrong.value).replace("itself", "")
    monkeypatch.setenv("my_key", KEY)
    assert WranerSettings.build(None, ["llm.key_variable=my_key"]).llm.key_variable == "my_key"


@pytest.mark.parametrize("before", [0, 180, 199, 3990])
def test_a_key_is_masked_before_a_message_is_cut(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "sk-" + "0123456789abcdef" * 10
    monkeypatch.setenv("XDNER_LLM_KEY", long)
    echo = "x" * before + f" wrong key {long}."
    for body in (
        echo.encode(),
        {"error": {"message": echo}},
        json.dumps({"error": echo}).replace("k", "\\u006b").encode(),
    ):
        with serving(lambda n, _, body=body: Said(body, 401)) as endpoint, pytest.raises(EndpointError) as caught:
            ask(model_of(endpoint))
        assert not any(long[:n] in str(caught.value) for n in (5, 8, 20))


def test_a_key_in_an_answer_is_masked(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"I was called with Bearer {KEY}"
    choice = {"message": {"content": said}, "finish_reason": f"stop {KEY}"}
    for content in (said, None, f'{{"person": ["Ann", "{KEY}"]}}'):
        choice["message"] = {"content": content}
        with serving(lambda n, _: answering(GOOD) if n else Said({"choices": [choice]})) as endpoint:
            answers = ask(model_of(endpoint, "llm.retries=0", "llm.concurrency=1"), 2)
        assert hidden(caplog, answers)
        assert "***" in f"{answers[0].text} {answers[0].flaw}"
    # A local server's key may be any word; what the prompt holds itself stays as it is.
    monkeypatch.setenv("XDNER_LLM_KEY", "Rome")
    with serving(lambda n, _: answering(GOOD)) as endpoint:
        (answer,) = ask(model_of(endpoint))
    assert [e.text for e in answer.entities] == ["Ann", "Rome"]


def test_waits_grow_to_the_longest_whatever_the_number_of_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object) -> _Failure:
        return _Failure("busy")

    monkeypatch.setattr(Chat, "_once", busy)
    with pytest.raises(EndpointError, match="failed 1101 times, at last: busy"):
        ask(model_of("http://127.0.0.1:9/v1", "llm.retries=1100", "llm.longest_wait=0"))


def test_which_names_are_addresses() -> None:
    assert is_endpoint("http://localhost:8000/v1")
    assert is_endpoint("HTTPS://x")
    assert not is_endpoint("org/model")
    assert not is_endpoint(None)
