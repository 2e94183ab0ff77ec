"""The application: four paths over a desk. Nothing is loaded by importing it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xdner import __version__
from xdner.errors import DataError, EndpointError, UnknownDomainError, XdnerError
from xdner.recognizers.base import Result
from xdner.serving.batcher import BusyError
from xdner.serving.desk import Desk
from xdner.serving.schemas import DomainOut, ErrorOut, Health, PredictIn, PredictOut, ResultOut

__all__ = ["MOST_BYTES", "create_app"]

PAGE = Path(__file__).parent / "page" / "index.html"
#: Of a request's body.
MOST_BYTES = 16_000_000
#: Seconds between two looks at whether the caller is still there.
LOOK = 0.5
#: Problems of one body that are told.
TOLD = 5

_log = logging.getLogger("xdner.serving")


def create_app(desk: Desk, *, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application of a desk; stopping it closes the desk.

    Args:
        desk: reads the texts.
        hosts: names under which the server may be asked (``Host``). A server for this machine alone should have its own names
            only: else a web page that calls itself by its address could ask it through the browser of a visitor.
    """

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="xdner",
        version=__version__,
        summary="Cross-domain named-entity recognition: any mix of domains from one process.",
        lifespan=life,
        docs_url=None,  # these pages fetch their scripts from elsewhere
        redoc_url=None,
        responses={code: {"model": ErrorOut} for code in (404, 422, 502, 503)},
    )
    app.add_middleware(_Guarded, hosts=hosts)
    app.add_exception_handler(XdnerError, _told)
    app.add_exception_handler(RequestValidationError, _misread)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _unforeseen)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return FileResponse(PAGE, headers={"Content-Security-Policy": policy})

    @app.get("/health")
    async def health() -> Health:
        """Whether the server runs, and how much it has to do."""
        return Health(status="ok", reading=desk.reading, waiting=desk.waiting)

    @app.get("/domains")
    def domains() -> list[DomainOut]:
        """The domains that can be asked for."""
        return [
            DomainOut(name=one.name, recognizer=one.recognizer, labels=list(one.labels), shipped=one.shipped)
            for one in desk.known()
        ]

    @app.post("/predict")
    async def predict(asked: PredictIn, request: Request) -> PredictOut:
        """Recognize the entities of texts, each in its domain. Callers and domains share batches."""
        futures = await asyncio.to_thread(desk.submit, asked.requests())
        return PredictOut(results=[ResultOut.of(result) for result in await _results(futures, request)])

    return app


async def _results(futures: Sequence[Future[Result]], request: Request) -> list[Result]:
    """The results, in order; texts of a caller who hung up are taken out of the line.

    Raises:
        Exception: of a text that could not be read.
        BusyError: the server is stopping, or nobody is there to be told.
    """
    waiting = {asyncio.wrap_future(future) for future in futures}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=LOOK, return_when=asyncio.FIRST_EXCEPTION)
            if any(one.cancelled() for one in done):
                raise BusyError("the text was not read: the server is stopping", hint="Ask again when it runs.")
            if errors := [error for one in done if (error := one.exception()) is not None]:
                raise errors[0]
            if waiting and await request.is_disconnected():
                raise BusyError("the caller hung up")
    finally:
        for future in futures:
            future.cancel()
    return [future.result() for future in futures]


async def _told(request: Request, error: Exception) -> Response:
    """An error that we raise on purpose. What is the caller's to mend is told; the rest is for who runs the server."""
    assert isinstance(error, XdnerError)
    if isinstance(error, UnknownDomainError):
        return _answer(404, error.message, error.hint)
    if isinstance(error, BusyError):
        return _answer(503, error.message, error.hint, {"Retry-After": "1"})
    if isinstance(error, DataError):
        return _answer(422, error.message, error.hint)
    _log.error("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, EndpointError):
        return _answer(502, "the language model behind this domain gave no answer", "The server's log says why.")
    return _answer(500, "this domain cannot be read", "The server's log says why.")


async def _misread(request: Request, error: Exception) -> Response:
    """A body that is not what it should be."""
    assert isinstance(error, RequestValidationError)
    found = [(".".join(str(part) for part in e["loc"] if part != "body"), e["msg"]) for e in error.errors()]
    told = "; ".join(f"{where}: {what}" if where else what for where, what in found[:TOLD])
    told += f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return _answer(
        422, told, 'Send {"texts": ["…"], "domain": "name"} as application/json; GET /openapi.json has it all.'
    )


async def _refused(request: Request, error: Exception) -> Response:
    """A path or method that is not there, or a body that is too large."""
    assert isinstance(error, HTTPException)
    hint = "Send fewer texts at a time." if error.status_code == 413 else "GET /openapi.json lists what can be asked."
    return _answer(error.status_code, str(error.detail), hint, dict(error.headers or {}))


async def _unforeseen(request: Request, error: Exception) -> Response:
    """The server writes the traceback; the caller does not see it."""
    return _answer(500, "something went wrong in the server", "Its log says what; please report it.")


def _answer(status: int, error: str, hint: str | None, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(ErrorOut(error=error, hint=hint or "").model_dump(), status, headers)


class _Guarded:
    """Refuses requests under other names than the server's, and bodies that are too large before they are in memory."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, {host.strip("[]").lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = _hostname(dict(scope["headers"]).get(b"host", b""))
        if "*" not in self.hosts and name not in self.hosts:
            hint = f"Ask for one of: {', '.join(sorted(self.hosts))}."
            await _answer(400, f"this server is not called {name!r}", hint)(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(413, f"a request has at most {MOST_BYTES // 1_000_000} MB")
            return message

        await self.app(scope, bounded, send)


def _hostname(header: bytes) -> str:
    """The name in a ``Host`` header, without its port."""
    try:
        return urlsplit("//" + header.decode("ascii")).hostname or ""
    except ValueError:
        return ""
