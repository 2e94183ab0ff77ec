"""A real HTTP server with an OpenAI-compatible API whose replies are a script: for tests of what talks to one."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Endpoint", "Said", "answering", "serving"]


@dataclass(frozen=True)
class Said:
    """One reply.

    Attributes:
        body: a JSON value, or bytes as they go out.
        status, headers: of the reply.
        after: seconds before it begins.
        until: what has to happen before it begins, however long that takes; given up after ten minutes.
        trickle: seconds between two of its bytes.
        trickle_headers: seconds between two bytes of the headers.
    """

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    until: threading.Event | None = None
    trickle: float = 0.0
    trickle_headers: float = 0.0


def answering(text: Any) -> Said:
    """The reply of a chat completion."""
    return Said({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


@dataclass
class Endpoint:
    """What was served.

    Attributes:
        url: of the API.
        requests: bodies, in the order they came; with the headers under ``headers`` and the path under ``path``.
        most: requests that were under way at the same time, at most.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    most: int = 0


@contextlib.contextmanager
def serving(reply: Callable[[int, dict[str, Any]], Said]) -> Iterator[Endpoint]:
    """Serve on this machine until the block ends.

    Args:
        reply: from the request's number (from 0) and its body to what is said.
    """
    lock = threading.Lock()
    now = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(endpoint.requests)
                endpoint.requests.append(body | {"headers": dict(self.headers.items()), "path": self.path})
                now += 1
                endpoint.most = max(endpoint.most, now)
            said = reply(number, body)
            time.sleep(said.after)
            if said.until is not None:
                said.until.wait(600)
            with lock:  # before the reply is out, or the next request may come first
                now -= 1
            data = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            with contextlib.suppress(OSError):  # whoever asked may be gone
                for byte in b"HTTP/1.0 200 OK\r\nx-slow: " + b"x" * 1000 if said.trickle_headers else b"":
                    self.wfile.write(bytes([byte]))
                    time.sleep(said.trickle_headers)
                self.send_response(said.status)
                for name, value in {"content-length": str(len(data)), **said.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for byte in data if said.trickle else ():
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(said.trickle)
                self.wfile.write(b"" if said.trickle else data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
