"""Writing files so that nobody ever sees half of one, and the manifests that say what a folder holds."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from xdner.errors import StorageError, XdnerError

__all__ = [
    "check_replaceable",
    "discard",
    "holds",
    "read_manifest",
    "replace_folder",
    "storage_errors",
    "taking_turns",
    "write_atomically",
    "write_manifest",
]

#: Whether a folder is one that we made.
Ours = Callable[[Path], bool]


@contextlib.contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn the system's refusals (full disk, no permission) into a :class:`StorageError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}",
            hint="Free some space or choose another folder; nothing half-written was left behind.",
        ) from error


@contextlib.contextmanager
def taking_turns(folder: Path, what: str, timeout: float, error: type[XdnerError]) -> Iterator[None]:
    """Hold the lock of a folder that is there: its writers take turns. The system frees it however a process ends.

    Args:
        folder: of the lock.
        what: the folder in words, for the message.
        timeout: seconds to wait for another writer.
        error: of a writer that does not end.

    Raises:
        error: another process is still writing, or has removed the folder.
        StorageError: the lock cannot be written.
    """
    lock = FileLock(folder / ".lock")
    with storage_errors(folder):
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise error(
                f"another process is writing to {what} (waited {timeout:g} s)", hint="Try again when it has ended."
            ) from None
        except FileNotFoundError:  # whoever had the lock has moved the folder away
            raise error(f"{what} has been removed meanwhile", hint="Make it again if it is wanted.") from None
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` in one step: readers see the old file or the new one, never a part.

    A link is followed. Text is written as UTF-8, with its line ends as they are. What is no ordinary file, such as
    ``/dev/stdout``, is written to, not replaced.

    Raises:
        StorageError: the disk is full, the folder cannot be written, or the text has no UTF-8 form.
    """
    target = _usable(path)
    try:
        payload = data.encode("utf-8") if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise StorageError(
            f"cannot write {path}: character {error.start} of the text is half a surrogate pair",
            hint="Remove the character; it has no form in UTF-8.",
        ) from None
    with storage_errors(path):
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(payload)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(target)
        try:
            # Not tempfile: it makes files that only their owner may read, whatever the umask says.
            with open(part, "xb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def holds(*names: str) -> Ours:
    """Whether a folder has one of these files; for :func:`replace_folder`."""
    return lambda folder: any((folder / name).is_file() for name in names)


def check_replaceable(path: str | Path, ours: Ours | None = None) -> None:
    """Ask before long work whether :func:`replace_folder` would take a place.

    Raises:
        StorageError: there is a file, or a folder with something in it that is not ``ours``.
    """
    target = _usable(path)
    with storage_errors(path):
        if not target.exists():
            return
        if not target.is_dir():
            raise StorageError(
                f"cannot write {path}: it is a file, and a folder is to be written",
                hint="Choose another name, or move the file away.",
            )
        if any(target.iterdir()) and not (ours is not None and ours(target)):
            raise StorageError(
                f"cannot write {path}: the folder holds something else, which would be lost",
                hint="Choose a new or an empty folder; only one that was written in the same way is replaced.",
            )


@contextlib.contextmanager
def replace_folder(path: str | Path, ours: Ours | None = None) -> Iterator[Path]:
    """Give a fresh folder to fill; when the block ends well it takes ``path``'s place, otherwise it is removed.

    Args:
        path: nothing yet, an empty folder, or one that is ``ours``.
        ours: tells a folder that may be replaced by what it holds; by default none.

    Raises:
        StorageError: the disk is full, the parent folder cannot be written, or something else is at ``path``.
    """
    target = _usable(path)
    check_replaceable(path, ours)
    fresh = _beside(target)
    old = fresh.with_suffix(".old")
    with storage_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
    try:
        with storage_errors(path):
            yield fresh
            check_replaceable(path, ours)  # somebody may have put something there meanwhile
            if target.exists():
                os.replace(target, old)
            os.replace(fresh, target)
    except BaseException:
        discard(fresh)
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    finally:
        # If neither move could be made, the old folder is the only copy: it stays.
        if os.path.exists(target):
            discard(old)


def _usable(path: str | Path) -> Path:
    """The file or folder itself, behind all links; paths that no system call accepts are refused here."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a NUL character, or half a surrogate pair
        raise StorageError(f"cannot write {str(path)!r}: {error}", hint="Choose another name.") from None


def _beside(path: Path) -> Path:
    """A new name in the same folder, thus on the same disk; short, because names have a greatest length."""
    return path.parent / f".{path.name[:32]}.{secrets.token_hex(6)}.part"


def discard(path: Path) -> None:
    """Delete a file or folder as far as possible; what is left is for whoever comes next."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest; it goes last: until it is there, nothing is believed."""
    write_atomically(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def read_manifest(
    path: Path, kinds: Mapping[str, type], format: int, error: type[XdnerError], what: str, hint: str
) -> dict[str, Any]:
    """A manifest whose entries have these types.

    Args:
        kinds: of its entries, by name; ``format`` among them.
        format: that this version reads.
        what: it should be, in words: "a tagger's manifest".

    Raises:
        error: it is not.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        manifest = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError:
        raise error(f"there is no {path}", hint=hint) from None
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{path} is not {what}: {reason}", hint=hint) from None
    wrong = [k for k, kind in kinds.items() if not isinstance(manifest, dict) or not isinstance(manifest.get(k), kind)]
    if wrong:
        raise error(f"{path} lacks {', '.join(wrong)}", hint=hint)
    if manifest["format"] != format:
        raise error(
            f"{path} has format {manifest['format']}, this version reads {format}", hint="Install a newer xdner."
        )
    return dict(manifest)
