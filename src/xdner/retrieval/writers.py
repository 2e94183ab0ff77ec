"""Writers of an index take turns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from xdner.errors import RetrievalError
from xdner.files import storage_errors, taking_turns
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
    with taking_turns(folder, f"the index in {folder}", timeout, RetrievalError):
        try:
            yield
        finally:
            if made and not (folder / MANIFEST).exists():
                _leave_nothing(made)


def _leave_nothing(folders: Sequence[Path]) -> None:
    """Remove empty folders, the innermost first. With the lock in it still held: who waits for it then looks again."""
    with contextlib.suppress(OSError):
        (folders[0] / ".lock").unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()
