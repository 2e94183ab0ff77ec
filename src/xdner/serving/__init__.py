"""Reading for many callers from one process, over HTTP. ``xdner serve`` opens it; :func:`create_app` is the application."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdner.serving.app import create_app
    from xdner.serving.desk import Desk

__all__ = ["Desk", "create_app"]


def __getattr__(name: str) -> object:
    if name == "create_app":
        from xdner.serving.app import create_app

        return create_app
    if name == "Desk":
        from xdner.serving.desk import Desk

        return Desk
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
