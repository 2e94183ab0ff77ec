"""Texts of many callers, read in turns by one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future

import pytest

from xdner.errors import DataError, EndpointError
from xdner.recognizers.base import Request, Result
from xdner.serving.batcher import Batcher, BusyError

LONG = 10.0  # seconds: a test that waits so long has failed


def asked(*texts: str) -> list[Request]:
    return [Request(text, "any") for text in texts]


def texts(futures: Iterable[Future[Result]]) -> list[str]:
    return [future.result(LONG).text for future in futures]


class Script:
    """Reads texts as they are, and remembers the batches; the first batch waits for ``go``."""

    def __init__(self, answer: Callable[[str], Result] = lambda text: Result(text, (), "any")) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result]]:
        self.batches.append([str(request.text) for request in requests])
        self.begun.set()
        assert self.go.wait(LONG)
        for place, request in enumerate(requests):
            yield place, self.answer(str(request.text))


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    yield made
    made.go.set()


def held(script: Script, **options: int) -> tuple[Batcher, list[Future[Result]]]:
    """A batcher whose thread is in the middle of a first batch."""
    batcher = Batcher(script, **options)
    futures = batcher.submit(asked("first"))
    assert script.begun.wait(LONG)
    return batcher, futures


def test_callers_take_turns_and_share_batches(script: Script) -> None:
    batcher, first = held(script, most=4)
    many, one = batcher.submit(asked(*"abcdef")), batcher.submit(asked("x"))
    two = batcher.submit(asked("y", "z"))
    assert batcher.waiting == 9
    script.go.set()
    assert [texts(f) for f in (first, many, one, two)] == [["first"], [*"abcdef"], ["x"], ["y", "z"]]
    assert script.batches == [["first"], ["a", "x", "y", "b"], ["z", "c", "d", "e"], ["f"]]
    assert batcher.waiting == 0


def test_results_come_as_soon_as_they_are_there() -> None:
    late = threading.Event()

    def read(requests: Sequence[Request]) -> Iterator[tuple[int, Result]]:
        yield 1, Result("b", (), "any")
        assert late.wait(LONG)
        yield 0, Result("a", (), "any")

    first, second = Batcher(read).submit(asked("a", "b"))
    assert second.result(LONG).text == "b"
    assert not first.done()
    late.set()
    assert first.result(LONG).text == "a"


def test_trouble_of_one_text_is_not_its_neighbors() -> None:
    def answer(text: str) -> Result:
        if text == "bad":
            raise DataError("no good")
        return Result(text, (), "any")

    script = Script(answer)
    script.go.set()
    futures = Batcher(script).submit(asked("a", "bad", "b"))
    assert texts([futures[0], futures[2]]) == ["a", "b"]
    with pytest.raises(DataError, match="no good"):
        futures[1].result(LONG)
    assert script.batches == [["a", "bad", "b"], ["bad"], ["b"]]  # what had been read is not read again


def test_errors_that_are_given_are_not_tried_again() -> None:
    asked_for: list[int] = []

    def read(requests: Sequence[Request]) -> Iterator[tuple[int, Result | Exception]]:
        asked_for.append(len(requests))
        yield 1, EndpointError("down")
        yield 0, Result("a", (), "any")

    first, second = Batcher(read).submit(asked("a", "b"))
    assert first.result(LONG).text == "a"
    with pytest.raises(EndpointError, match="down"):
        second.result(LONG)
    assert asked_for == [2]


def test_a_text_without_a_result_is_an_error_and_not_a_caller_who_waits_for_ever() -> None:
    batcher = Batcher(lambda requests: ())
    for future in batcher.submit(asked("a", "b")):
        with pytest.raises(RuntimeError, match="no result"):
            future.result(LONG)


def test_what_is_canceled_in_time_is_not_read(script: Script) -> None:
    batcher, first = held(script)
    gone, stays = batcher.submit(asked("gone", "stays"))
    assert gone.cancel()
    assert not first[0].cancel()  # it is being read
    script.go.set()
    assert stays.result(LONG).text == "stays"
    assert script.batches == [["first"], ["stays"]]


def test_nobody_waits_for_a_batch_of_canceled_texts(script: Script) -> None:
    batcher, _ = held(script, most=1)
    gone = batcher.submit(asked("gone"))[0]
    stays = batcher.submit(asked("stays"))
    assert gone.cancel()
    script.go.set()
    assert texts(stays) == ["stays"]


def test_too_many_texts_are_turned_away(script: Script) -> None:
    batcher, _ = held(script, waiting=3)
    batcher.submit(asked("a", "b"))
    with pytest.raises(BusyError, match="2 texts are waiting already"):
        batcher.submit(asked("c", "d"))
    assert batcher.submit([]) == []
    kept = batcher.submit(asked("e"))
    script.go.set()
    assert texts(kept) == ["e"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_closed_batcher_takes_nothing_and_ends(script: Script, at_once: bool) -> None:
    batcher, first = held(script)
    waiting = batcher.submit(asked("a"))
    batcher.close(at_once=at_once)
    with pytest.raises(BusyError, match="stopping"):
        batcher.submit(asked("b"))
    script.go.set()
    assert texts(first) == ["first"]
    if at_once:
        with pytest.raises(CancelledError):
            waiting[0].result(LONG)
    else:
        assert texts(waiting) == ["a"]
    batcher.join(LONG)
    assert not any(thread.name == "xdner-batcher" and thread is batcher._thread for thread in threading.enumerate())
