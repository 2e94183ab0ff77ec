"""Texts of many callers, read in turns by one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future

import pytest

from xdner.errors import DataError, EndpointError
from xdner.recognizers.base import Joining, Request, Result
from xdner.serving.batcher import Batcher, BusyError, Watch

LONG = 120.0  # seconds: a test that waits so long has failed


def nothing(count: int) -> None: ...


class Nobody:
    def peek(self) -> None: ...

    def take(self) -> None: ...


def asked(*texts: str) -> list[Request]:
    return [Request(text, "any") for text in texts]


def texts(futures: Iterable[Future[Result]]) -> list[str]:
    return [future.result(LONG).text for future in futures]


NOBODY = Nobody()


class Script:
    """Reads texts as they are, and remembers the batches; the first batch waits for ``go``."""

    def __init__(self, answer: Callable[[str], Result] = lambda text: Result(text, (), "any")) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(
        self, requests: Sequence[Request], watch: Watch = nothing, joining: Joining = NOBODY
    ) -> Iterator[tuple[int, Result]]:
        self.batches.append([str(request.text) for request in requests])
        self.begun.set()
        assert self.go.wait(LONG)
        for place, request in enumerate(requests):
            watch(1)
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
    assert batcher.reading == 1
    script.go.set()
    assert [texts(f) for f in (first, many, one, two)] == [["first"], [*"abcdef"], ["x"], ["y", "z"]]
    assert script.batches == [["first"], ["a", "x", "y", "b"], ["z", "c", "d", "e"], ["f"]]
    assert batcher.waiting == 0
    assert batcher.reading == 0


def test_results_come_as_soon_as_they_are_there() -> None:
    late = threading.Event()

    def read(requests: Sequence[Request], watch: Watch, joining: Joining) -> Iterator[tuple[int, Result]]:
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

    def read(requests: Sequence[Request], watch: Watch, joining: Joining) -> Iterator[tuple[int, Result | Exception]]:
        asked_for.append(len(requests))
        yield 1, EndpointError("down")
        yield 0, Result("a", (), "any")

    first, second = Batcher(read).submit(asked("a", "b"))
    assert first.result(LONG).text == "a"
    with pytest.raises(EndpointError, match="down"):
        second.result(LONG)
    assert asked_for == [2]


def test_a_text_without_a_result_is_an_error_and_not_a_caller_who_waits_for_ever() -> None:
    batcher = Batcher(lambda requests, watch, joining: ())
    for future in batcher.submit(asked("a", "b")):
        with pytest.raises(RuntimeError, match="no result"):
            future.result(LONG)


def test_what_is_canceled_in_time_is_not_read(script: Script) -> None:
    batcher, first = held(script, most=1)
    gone, stays = batcher.submit(asked("gone", "stays"))
    assert gone.cancel()
    script.go.set()
    assert texts([*first, stays]) == ["first", "stays"]
    assert script.batches == [["first"], ["stays"]]


def test_a_batch_goes_on_as_long_as_somebody_waits_for_it(script: Script) -> None:
    batcher, _ = held(script)
    a, b, c = batcher.submit(asked("a", "b", "c"))
    script.begun.clear()
    script.go.set()
    assert script.begun.wait(LONG)
    a.cancel()
    assert texts([b, c]) == ["b", "c"]


def test_a_batch_that_nobody_waits_for_any_more_ends_early() -> None:
    steps: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def read(requests: Sequence[Request], watch: Watch, joining: Joining) -> Iterator[tuple[int, Result | Exception]]:
        for place, request in enumerate(requests):
            steps.append(str(request.text))
            begun.set()
            assert go.wait(LONG)
            watch(place)
            yield place, Result(str(request.text), (), "any")

    batcher = Batcher(read)
    for future in batcher.submit(asked("a", "b")):
        assert begun.wait(LONG)
        assert future.cancel()
    go.set()
    assert texts(batcher.submit(asked("c"))) == ["c"]
    assert steps == ["a", "c"]


def test_too_many_texts_are_turned_away(script: Script) -> None:
    batcher, _ = held(script, waiting=3)
    batcher.submit(asked("a", "b"))
    with pytest.raises(BusyError, match="2 texts are waiting already"):
        batcher.submit(asked("c", "d"))
    assert batcher.submit([]) == []
    kept = batcher.submit(asked("e"))
    with pytest.raises(BusyError):
        batcher.submit(asked("f"))
    assert kept[0].cancel()  # who is gone takes nobody's place
    assert batcher.waiting == 2
    last = batcher.submit(asked("g"))
    script.go.set()
    assert texts(last) == ["g"]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_closed_batcher_takes_nothing_and_ends(script: Script, at_once: bool) -> None:
    batcher, first = held(script)
    waiting = batcher.submit(asked("a"))
    batcher.close(at_once=at_once)
    with pytest.raises(BusyError, match="stopping"):
        batcher.submit(asked("b"))
    script.go.set()
    for future in (*first, *waiting):
        if at_once:  # what is being read, too
            with pytest.raises(CancelledError):
                future.result(LONG)
        else:
            assert future.result(LONG)
    assert batcher.join(LONG)
    assert not batcher.alive


class Sociable:
    """Reads one text at a time, and lets others join; before each text it waits for its turn."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.turn = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, requests: Sequence[Request], watch: Watch, joining: Joining) -> Iterator[tuple[int, Result]]:
        inside = list(requests)
        self.batches.append([])
        for place, request in enumerate(inside):  # it grows on the way
            self.batches[-1].append(str(request.text))
            self.begun.release()
            assert self.turn.acquire(timeout=LONG)
            watch(place)
            if request.text == "bad":
                raise DataError("cannot be read")
            yield place, Result(str(request.text), (), "any")
            while len(inside) < place + 3 and (further := joining.peek()) is not None:
                joining.take()
                inside.append(further)


def test_texts_join_a_batch_in_their_callers_turns() -> None:
    script = Sociable()
    batcher = Batcher(script, most=2)
    first = batcher.submit(asked("first"))
    assert script.begun.acquire(timeout=LONG)
    many, one = batcher.submit(asked(*"abc")), batcher.submit(asked("x"))
    assert (batcher.reading, batcher.waiting) == (1, 4)
    script.turn.release()
    assert script.begun.acquire(timeout=LONG)
    assert (batcher.reading, batcher.waiting) == (2, 2), "two of them have joined"
    assert many[1].cancel()
    gone = batcher.submit(asked("gone"))[0]
    assert gone.cancel()
    assert batcher.waiting == 1
    for _ in range(9):
        script.turn.release()
    assert texts([*first, many[0], *one, many[2]]) == ["first", "a", "x", "c"]
    assert script.batches == [["first", "a", "x", "c"]]
    assert batcher.waiting == 0


def test_who_joined_is_read_again_when_another_text_ends_the_batch() -> None:
    script = Sociable()
    batcher = Batcher(script, most=1)
    first = batcher.submit(asked("first"))
    assert script.begun.acquire(timeout=LONG)
    bad, good = batcher.submit(asked("bad", "good"))
    for _ in range(9):
        script.turn.release()
    assert texts([*first, good]) == ["first", "good"]
    with pytest.raises(DataError, match="cannot be read"):
        bad.result(LONG)
    assert script.batches == [["first", "bad"], ["bad"], ["good"]], "one by one, and nobody joins"


def test_who_has_joined_keeps_a_batch_going_that_others_have_left() -> None:
    script = Sociable()
    batcher = Batcher(script, most=2)
    first, gone = batcher.submit(asked("first", "gone"))
    assert script.begun.acquire(timeout=LONG)
    kept = batcher.submit(asked("kept"))
    script.turn.release()
    assert script.begun.acquire(timeout=LONG)  # "gone" is read, and "kept" has joined
    assert gone.cancel()
    script.turn.release()
    script.turn.release()
    assert texts([first, *kept]) == ["first", "kept"]
    assert script.batches == [["first", "gone", "kept"]]
