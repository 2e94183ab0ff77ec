"""Writers of an index take turns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from xdner.errors import RetrievalError
from xdner.files import storage_errors
from xdner.retrieval.manifest import MANIFEST

__all__ = ["writing"]


@contextlib.contextmanager
def writing(folder: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of an index's folder, which is made if need be. If it holds no index at the end, what was made goes again.

    Args:
        folder: of the index.
        timeout: seconds to wait for another writer.

    Raises:
        RetrievalError: another process is still writing.
        StorageError: the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise RetrievalError(
                f"another process is writing to the index in {folder} (waited {timeout:g} s)",
                hint="Try again when it has ended.",
            ) from None
    try:
        yield
    finally:
        if made and not (folder / MANIFEST).exists():
            _leave_nothing(made)
        lock.release()


def _leave_nothing(folders: Sequence[Path]) -> None:
    """Remove empty folders, the innermost first. With the lock in it still held: who waits for it then looks again."""
    with contextlib.suppress(OSError):
        (folders[0] / ".lock").unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()
