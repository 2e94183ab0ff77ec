"""What native code writes to standard error about small indexes is no news to anybody.

Milvus Lite clusters what an index gains by itself, however little that is, and Faiss then asks for more points. There is no
setting against it, and no Python in between. A process that dies meanwhile takes along what was held back: this is for calls that
cluster, and for no others.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

__all__ = ["without_advice"]

_STDERR = 2
_ADVICE = b"WARNING clustering "
_one = threading.Lock()


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Hold back what is written to standard error, by anybody in this process, and let it out at the end without Faiss's advice.
    One thread at a time does so; for others, and without a standard error, nothing is changed."""
    with contextlib.ExitStack() as undo:
        if _one.acquire(blocking=False):
            undo.callback(_one.release)
            with contextlib.suppress(OSError):
                _hold_back(undo)
        yield


def _hold_back(undo: contextlib.ExitStack) -> None:
    held = undo.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    _flush()
    real = os.dup(_STDERR)

    def restore() -> None:
        _flush()
        os.dup2(real, _STDERR)
        os.close(real)
        held.seek(0)
        with contextlib.suppress(OSError):  # it went where nobody can be told: a full disk, a pipe without a reader
            for line in held:
                if not line.startswith(_ADVICE):
                    os.write(_STDERR, line)

    os.dup2(held.fileno(), _STDERR)
    undo.callback(restore)


def _flush() -> None:
    with contextlib.suppress(Exception):  # it may be closed, or no file at all
        sys.stderr.flush()
