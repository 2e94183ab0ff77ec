"""``xdner serve``: read texts in all domains of a library, for many callers, over HTTP."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xdner.cli.common import BackboneOption, DeviceOption, DtypeOption, LibraryOption, guarded, say_done, say_note
from xdner.errors import LibraryError, SettingsError, XdnerError, install_hint

if TYPE_CHECKING:
    from xdner.serving.desk import Desk

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PATIENCE = 10.0  # seconds for what is being read when the server stops


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen at. Another one than this machine's own opens the server to the network: there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    domain: Annotated[list[str] | None, typer.Option("--domain", "-d", help="Make this domain ready before the first text (repeatable; default: one that has a prefix).", show_default=False)] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Texts that are read together; more memory, more of them a second.")] = 16,
    endpoint: Annotated[list[str] | None, typer.Option("--endpoint", help="An address that imported IF-WRANER domains may send texts to (repeatable).", show_default=False)] = None,
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
        listener = _listener(host, port)
        desk = Desk(
            library, backbone=backbone, dtype=dtype, device=device, most=batch, endpoints=endpoint or (),
        )  # fmt: skip
        try:
            _make_ready(desk, domain)
            at, number = listener.getsockname()[:2]
            own = ipaddress.ip_address(at.partition("%")[0]).is_loopback
            app = create_app(desk, hosts=(*LOOPBACK, host, at) if own else ("*",))
            listener.listen()
            say_done(f"http://{f'[{host}]' if ':' in host else host}:{number} (Ctrl-C stops it)")
            if not own:
                say_note("whoever reaches this address can read texts here: there is no password")
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
            server.handle_exit = _stopping(server, desk)  # type: ignore[method-assign]
            server.run(sockets=[listener])
        finally:
            listener.close()
            desk.close()
            if not desk.join(PATIENCE):  # torch aborts a process that ends in the middle of what it computes
                desk.forget()
                os._exit(0)


def _stopping(server: Any, desk: Desk) -> Any:
    """What Ctrl-C and SIGTERM do: an ordinary end, in which callers are told and temporary files are deleted; a second one hurries."""

    def handle(sig: int, frame: Any) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        desk.close()

    return handle


def _listener(host: str, port: int) -> socket.socket:
    """Asked for before anything is loaded."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no address"
        raise SettingsError(
            [f"cannot listen at {host}, port {port}: {reason}"],
            hint="Choose another --port (0 takes a free one), or an address of this machine.",
        ) from None
    return listener


def _make_ready(desk: Desk, names: list[str] | None) -> None:
    """Load what the first texts need, so that what is missing is told now. Without names it is the first sound domain with a prefix."""
    from xdner.recognizers.base import Request

    for name in names or [one.name for one in desk.known() if one.recognizer == "cp-ner"]:
        try:
            futures = desk.submit([Request("", name)])
        except LibraryError as error:
            if names:
                raise
            say_note(error.message)
            continue
        for future in futures:
            future.result()
        if not names:
            return
