"""The paths of the server, their answers, and what is wrong with a request."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from xdner.errors import BackboneError, DataError, EndpointError, UnknownDomainError
from xdner.recognizers.base import Request, Result, Unread
from xdner.serving import app as module
from xdner.serving.app import create_app
from xdner.serving.batcher import BusyError
from xdner.serving.desk import Desk
from xdner.serving.schemas import MOST_CHARACTERS, MOST_TEXTS
from xdner.serving.shelves import Known
from xdner.text import Entity
from xdner.workflows import open_domain

TROUBLE: dict[str, Exception] = {
    "gone": UnknownDomainError("there is no domain 'gone' here", hint="GET /domains lists those that are."),
    "busy": BusyError("7 texts are waiting already", hint="Ask again later, or with fewer texts."),
    "bad": DataError("not a text", hint="Send one."),
    "silent": EndpointError("http://10.0.0.7/v1 does not answer", hint="key in /home/me/key"),
    "broken": BackboneError("cannot read /home/me/weights", hint="Pull it."),
    "bug": ZeroDivisionError("secret of the house"),
}


class Script(Desk):
    """Finds the first character of every text; some domains are trouble, and one is never read."""

    def __init__(self) -> None:
        self.given: list[Future[Result]] = []
        self.closed = False

    @property
    def waiting(self) -> int:
        return 3

    @property
    def reading(self) -> int:
        return 2

    def known(self) -> list[Known]:
        return [Known("any", "cp-ner", ("first", "last"), True)]

    def submit(self, requests: Sequence[Request]) -> list[Future[Result]]:
        made = [self._future(str(request.text), request.domain) for request in requests]
        self.given += made
        return made

    def _future(self, text: str, domain: str) -> Future[Result]:
        future: Future[Result] = Future()
        if domain in TROUBLE and domain in ("gone", "busy"):
            raise TROUBLE[domain]
        if domain in TROUBLE:
            future.set_exception(TROUBLE[domain])
        elif domain != "never":
            first = (Entity(0, 1, "first", text[:1], 0.51239),)
            future.set_result(Result(text, first, domain, 2, {"capped_words": 1}, (Unread("?", "no list"),)))
        return future

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def desk() -> Script:
    return Script()


@pytest.fixture
def client(desk: Script) -> Iterator[TestClient]:
    with TestClient(create_app(desk), raise_server_exceptions=False) as made:
        yield made


def post(client: TestClient, texts: Any, domain: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    answer = client.post("/predict", json={"texts": texts, "domain": domain, **more})
    return answer.status_code, answer.json()


def test_texts_come_back_in_order_with_all_that_is_known_of_them(client: TestClient) -> None:
    status, found = post(client, ["one", "😀 two"], "any")
    assert status == 200
    assert [result["text"] for result in found["results"]] == ["one", "😀 two"]
    assert found["results"][1] == {
        "text": "😀 two", "domain": "any", "windows": 2, "diagnostics": {"capped_words": 1},
        "entities": [{"start": 0, "end": 1, "label": "first", "text": "😀", "score": 0.5124}],
        "unread": [{"answer": "?", "why": "no list"}],
    }  # fmt: skip
    status, found = post(client, ["a", "b"], ["any", "other"])
    assert [result["domain"] for result in found["results"]] == ["any", "other"]


def test_real_domains_are_read_as_predict_reads_them(made: Path) -> None:
    names = ["people", "towns", "guests", "seas"]
    with TestClient(create_app(Desk(made))) as client:
        status, found = post(client, ["Ann Lee saw Rome"] * 4, names)
        listed = {one["name"]: one for one in client.get("/domains").json()}
    assert status == 200
    for name, result in zip(names, found["results"], strict=True):
        alone = open_domain(name, library=made).predict("Ann Lee saw Rome", domain=name)[0].to_dict()
        assert {key: result[key] for key in alone} == alone
    assert listed["towns"] == {"name": "towns", "recognizer": "laner", "labels": ["city", "person"], "shipped": False}


def test_health_and_domains(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "reading": 2, "waiting": 3}
    assert client.get("/domains").json() == [
        {"name": "any", "recognizer": "cp-ner", "labels": ["first", "last"], "shipped": True}
    ]


@pytest.mark.parametrize(
    ("domain", "status", "error", "hint"),
    [
        ("gone", 404, "there is no domain 'gone' here", "GET /domains lists those that are."),
        ("busy", 503, "7 texts are waiting already", "Ask again later, or with fewer texts."),
        ("bad", 422, "not a text", "Send one."),
        ("silent", 502, "the language model behind this domain gave no answer", "The server's log says why."),
        ("broken", 500, "this domain cannot be read", "The server's log says why."),
        ("bug", 500, "something went wrong in the server", "Its log says what; please report it."),
    ],
)
def test_the_caller_is_told_what_the_caller_can_mend(
    client: TestClient, caplog: pytest.LogCaptureFixture, domain: str, status: int, error: str, hint: str
) -> None:
    with caplog.at_level(logging.ERROR, "xdner.serving"):
        answer = client.post("/predict", json={"texts": ["a", "b"], "domain": ["any", domain]})
    assert (answer.status_code, answer.json()) == (status, {"error": error, "hint": hint})
    assert (answer.headers.get("retry-after") == "1") == (status == 503)
    if domain in ("silent", "broken"):  # who runs the server reads it
        assert str(TROUBLE[domain]) in caplog.text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"texts": [], "domain": "any"}, "texts: List should have at least 1 item"),
        ({"texts": ["a"] * (MOST_TEXTS + 1), "domain": "any"}, "texts: List should have at most 1000 items"),
        ({"texts": ["a" * (MOST_CHARACTERS + 1)], "domain": "any"}, "texts.0: String should have at most 100000"),
        ({"texts": ["a", "b"], "domain": ["any"]}, "2 texts came with 1 domains"),
        ({"texts": "a", "domain": "any"}, "texts: Input should be a valid list"),
        ({"texts": [3], "domain": "any"}, "texts.0: Input should be a valid string"),
        ({"texts": ["a"]}, "domain: Field required"),
        ({"texts": ["a"], "domain": "any", "beam": 4}, "beam: Extra inputs are not permitted"),
        ([], "Input should be a valid dictionary"),
        ({"texts": ["a"], "domain": [1] * 200_000}, "domain"),
        ({"texts": [1] * 200_000, "domain": "any"}, "texts.0: Input should be a valid string"),
        ({str(i): i for i in range(100_000)}, "100000 keys, where texts and domain are asked for"),
        ({"texts": ["a"], "domain": "any", **dict.fromkeys("abcdef", 1)}, "; and 1 more"),
        ({"texts": ["a"], "domain": "x" * 2_000}, "at most 1000 characters"),
    ],
)
def test_a_wrong_body_is_told(client: TestClient, desk: Script, body: object, told: str) -> None:
    answer = client.post("/predict", json=body)
    assert answer.status_code == 422
    assert told in answer.json()["error"]
    assert len(answer.json()["error"]) < 1_000
    assert "application/json" in answer.json()["hint"]
    assert not desk.given


def test_what_is_not_json_is_not_read(client: TestClient, desk: Script) -> None:
    body = json.dumps({"texts": ["a"], "domain": "any"})
    # A form of a page that somebody visits can send this type to any address without being asked.
    assert client.post("/predict", content=body, headers={"Content-Type": "text/plain"}).status_code == 422
    assert client.post("/predict", content="{", headers={"Content-Type": "application/json"}).status_code == 422
    assert not desk.given


def test_a_body_is_bounded_before_it_is_in_memory(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2_000_000)
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 100_000

    answer = client.post("/predict", content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json() == {"error": "a request has at most 2 MB", "hint": "Send fewer texts at a time."}


def test_paths_and_methods_that_are_not_there(client: TestClient) -> None:
    assert client.get("/nothing").json()["hint"] == "GET /openapi.json lists what can be asked."
    assert client.get("/predict").status_code == 405
    assert {"/predict", "/domains", "/health"} <= set(client.get("/openapi.json").json()["paths"])
    assert client.get("/docs").status_code == 404  # that page would fetch its scripts from elsewhere


def test_a_server_of_this_machine_is_not_asked_under_other_names(desk: Script) -> None:
    with TestClient(create_app(desk, hosts=["localhost"]), base_url="http://localhost:8000") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"Host": "LOCALHOST:80"}).status_code == 200
        answer = client.get("/health", headers={"Host": "elsewhere.example"})
        assert (answer.status_code, answer.json()["error"]) == (400, "this server is not called 'elsewhere.example'")
        assert client.get("/health", headers={"Host": "[odd"}).status_code == 400
    with TestClient(create_app(desk, hosts=["::1"])) as client:
        assert client.get("/health", headers={"Host": "[::1]:8000"}).status_code == 200


def test_stopping_the_application_closes_the_desk(desk: Script) -> None:
    with TestClient(create_app(desk)):
        assert not desk.closed
    assert desk.closed


def test_the_page_needs_nothing_from_elsewhere_and_may_fetch_nothing(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"https?://|\bsrc=|\bhref=|@import|innerHTML", answer.text)
    asked = set(re.findall(r'at\("(\w+)"\)', answer.text))
    assert len(asked) >= 7
    assert asked <= set(re.findall(r'\bid="(\w+)"', answer.text))


class Caller:
    """Hangs up when it is first looked at."""

    async def is_disconnected(self) -> bool:
        return True


def test_nobody_is_read_for_who_hung_up(desk: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    futures = desk.submit([Request("a", "never"), Request("b", "never")])
    with pytest.raises(BusyError):
        asyncio.run(module._results(futures, Caller()))  # type: ignore[arg-type]
    assert all(future.cancelled() for future in futures)


def test_the_first_failure_ends_the_waiting(desk: Script) -> None:
    futures = desk.submit([Request("a", "never"), Request("b", "bad"), Request("c", "bad")])
    with pytest.raises(DataError, match="not a text"):
        asyncio.run(module._results(futures, Caller()))  # type: ignore[arg-type]
    assert futures[0].cancelled()


def test_texts_that_are_given_up_are_told_as_such(desk: Script, client: TestClient) -> None:
    futures = desk.submit([Request("a", "never")])
    futures[0].cancel()
    with pytest.raises(BusyError, match="stopping"):
        asyncio.run(module._results(futures, Caller()))  # type: ignore[arg-type]
