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
        RetrievalError: another process is still writing, or has removed the index.
        StorageError: the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    there = (folder / MANIFEST).exists()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with taking_turns(folder, f"the index in {folder}", timeout, RetrievalError):
        try:
            yield
        finally:
            if not (folder / MANIFEST).exists():
                # Where an index was removed while we waited, filelock before version 4 has made the folders anew.
                _leave_nothing([folder, folder.parent] if there else made)


def _leave_nothing(folders: Sequence[Path]) -> None:
    """Remove empty folders, the innermost first. With the lock in it still held: who waits for it then looks again."""
    with contextlib.suppress(OSError):
        for folder in folders:
            if folder == folders[0]:
                (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()
