"""``xdner serve``: read texts in all domains of a library, for many callers, over HTTP."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from xdner.cli.common import BackboneOption, DeviceOption, DtypeOption, LibraryOption, guarded, say_done, say_note
from xdner.errors import SettingsError, XdnerError, install_hint

if TYPE_CHECKING:
    from xdner.serving.desk import Desk

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen at. Another one than this machine's own opens the server to the network: there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    domain: Annotated[list[str] | None, typer.Option("--domain", "-d", help="Make this domain ready before the first text (repeatable; default: one that has a prefix).", show_default=False)] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Texts that are read together: who comes in the middle waits for their end.")] = 16,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
) -> None:  # fmt: skip
    """Serve all domains of a library, and those that ship, from one process: a page for people, JSON for programs.

    Texts of different callers and domains share batches. POST /predict takes {"texts": ["…"], "domain": "music"}, GET /domains lists
    domains, GET /openapi.json has it all.

    Example: xdner serve --dtype bfloat16, then open http://127.0.0.1:8000
    """
    with guarded():
        try:
            import uvicorn

            from xdner.serving.app import create_app
            from xdner.serving.desk import Desk
        except ModuleNotFoundError as error:
            raise XdnerError(f"serving needs {error.name}", hint=f"Install it: {install_hint('serve')}") from None
        desk = Desk(library, backbone=backbone, dtype=dtype, device=device, most=batch)
        listener = _listener(host, port)
        try:
            _make_ready(desk, domain)
            at = listener.getsockname()[1]
            own = host in LOOPBACK
            app = create_app(desk, hosts=LOOPBACK if own else ("*",))
            say_done(f"http://{f'[{host}]' if ':' in host else host}:{at} (Ctrl-C stops it)")
            if not own:
                say_note("whoever reaches this address can read texts here: there is no password")
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
            with contextlib.suppress(KeyboardInterrupt):  # the way to end it
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            desk.close()
            listener.close()


def _listener(host: str, port: int) -> socket.socket:
    """Asked for before anything is loaded."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SettingsError(
            [f"cannot listen at {host}, port {port}: {error.strerror}"],
            hint="Choose another --port (0 takes a free one), or an address of this machine.",
        ) from None
    return listener


def _make_ready(desk: Desk, names: list[str] | None) -> None:
    """Load what the first texts need, so that what is missing is told now."""
    from xdner.recognizers.base import Request

    chosen = names or [one.name for one in desk.known() if one.recognizer == "cp-ner"][:1]
    for future in desk.submit([Request("", name) for name in chosen]):
        future.result()
