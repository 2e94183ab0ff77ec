"""Domains that are ready to be read in: the recently used ones in memory, others in files.

A ready domain is its prefix in the backbone's type and the keys and values of its context, a few megabytes. A process that
serves thousands cannot keep them all, and to read a context again takes a model call. So those that were not used for the
longest time are written to files; one that is wanted again is mapped into memory, which takes milliseconds, and its
pages belong to the operating system. Memory and files are bounded. What is in neither, because its file had to make room or
could not be written, is made again when it is asked for: nobody's request fails because of another domain's file.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from xdner.generation.jobs import Steering
from xdner.recognizers.reader import Steered

__all__ = ["Residents", "size_of"]

Ready = tuple[Steered, ...]


def size_of(ready: Ready) -> int:
    """Bytes of a ready domain's prefixes and contexts."""
    return sum(sum(one.steering.bytes) for one in ready)


@dataclass(frozen=True, eq=False)
class _Stored:
    """A domain on disk.

    Attributes:
        path, bytes: of its file.
        ready: the domain without its tensors.
        device: of the tensors.
    """

    path: Path
    bytes: int
    ready: Ready
    device: str


class Residents:
    """Ready domains by name; several threads may ask.

    Args:
        budget: bytes of prefixes and contexts in memory, at most; the one that is asked for is there whatever its size.
        disk: bytes of files, at most.
        folder: where a folder for the files is made, and deleted with this object; the system's for temporary files if it is
            not given.

    Attributes:
        bytes, stored: in memory now, and in files.
        made, mapped: how many times a domain had to be made ready, and was mapped from its file.
    """

    def __init__(self, budget: int, *, disk: float = math.inf, folder: str | Path | None = None) -> None:
        self.budget, self.disk = budget, disk
        self.bytes = self.stored = 0
        self.made = self.mapped = 0
        self._parent = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._kept: OrderedDict[str, Ready] = OrderedDict()  # from the longest unused to the last used
        self._stored: dict[str, _Stored] = {}
        self._used: dict[str, int] = {}  # when each was last asked for
        self._of: dict[str, object] = {}  # what each was made of
        self._asked = self._files = 0
        # Also around what makes a domain ready: two threads would make it twice, and count it twice.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Domains in memory now."""
        return len(self._kept)

    def __contains__(self, name: object) -> bool:
        """Whether a domain is in memory or in a file."""
        return name in self._kept or name in self._stored

    def get(self, name: str, make: Callable[[], Ready], of: object = None) -> Ready:
        """A domain, from memory, from its file, or made.

        Args:
            name: of the domain.
            make: makes it ready.
            of: what it would be made of now; one that was made of something else is forgotten first. ``None``: nothing new.
        """
        with self._lock:
            if of is not None and self._of.get(name) != of:
                self.drop(name)
                self._of[name] = of
            self._asked += 1
            self._used[name] = self._asked
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
            ready = self._map(name)
            if ready is None:
                ready = make()
                self.made += 1
            self._kept[name] = ready
            self.bytes += size_of(ready)
            while self.bytes > self.budget and len(self._kept) > 1:
                self._leave(*self._kept.popitem(last=False))
            return ready

    def drop(self, name: str) -> None:
        """Forget a domain."""
        with self._lock:
            if name in self._kept:
                self.bytes -= size_of(self._kept.pop(name))
            self._delete(name)
            self._used.pop(name, None)
            self._of.pop(name, None)

    def discard_files(self) -> None:
        """Delete the files at once, as the end of this object does; domains that were in them are made ready again."""
        with self._lock:
            if self._temporary is not None:
                self._temporary.cleanup()

    def _map(self, name: str) -> Ready | None:
        if name not in self._stored:
            return None
        try:
            ready = _read(self._stored[name])
        except (OSError, SafetensorError):  # somebody tidied up among the system's temporary files
            self._delete(name)
            return None
        self.mapped += 1
        return ready

    def _leave(self, name: str, ready: Ready) -> None:
        self.bytes -= size_of(ready)
        if name in self._stored or size_of(ready) > self.disk:
            return
        # As bytes: a full disk is then the system's error, not the format's.
        data = save({f"{i}.{k}": t for i, one in enumerate(ready) for k, t in _tensors(one.steering).items()})
        while self._stored and self.stored + len(data) > self.disk:
            self._delete(min(self._stored, key=self._used.__getitem__))
        if self.stored + len(data) > self.disk or (path := self._write(data)) is None:
            return
        device = str(ready[0].steering.keys[0].device)
        self._stored[name] = _Stored(path, len(data), tuple(_emptied(one) for one in ready), device)
        self.stored += len(data)

    def _write(self, data: bytes) -> Path | None:
        """The file; nothing where it cannot be written."""
        path = None
        try:
            if self._temporary is None or not Path(self._temporary.name).is_dir():  # never made, or tidied away
                if self._parent is not None:
                    Path(self._parent).mkdir(parents=True, exist_ok=True)
                self._temporary = tempfile.TemporaryDirectory(
                    prefix="xdner-domains-", dir=self._parent, ignore_cleanup_errors=True
                )
            path = Path(self._temporary.name) / f"{self._files}.safetensors"
            self._files += 1
            path.write_bytes(data)
        except OSError:
            _unlink(path)
            return None
        return path

    def _delete(self, name: str) -> None:
        if name in self._stored:
            gone = self._stored.pop(name)
            self.stored -= gone.bytes
            _unlink(gone.path)


def _unlink(path: Path | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):  # on some systems a mapped file cannot go; it goes with its folder
            path.unlink(missing_ok=True)


def _parts(steering: Steering) -> dict[str, Sequence[Tensor]]:
    context = steering.context
    return {
        "keys": steering.keys,
        "values": steering.values,
        "context-keys": context.keys,
        "context-values": context.values,
    }


def _tensors(steering: Steering) -> dict[str, Tensor]:
    return {
        f"{part}.{site}": t.contiguous() for part, tensors in _parts(steering).items() for site, t in enumerate(tensors)
    }


def _emptied(one: Steered) -> Steered:
    steering = one.steering
    return replace(one, steering=Steering((), (), replace(steering.context, keys=(), values=())))


def _read(stored: _Stored) -> Ready:
    found: list[dict[str, list[tuple[int, Tensor]]]] = [{} for _ in stored.ready]
    with safe_open(stored.path, framework="pt", device=stored.device) as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            index, part, site = name.split(".")
            found[int(index)].setdefault(part, []).append((int(site), file.get_tensor(name)))

    def sites(parts: dict[str, list[tuple[int, Tensor]]], part: str) -> list[Tensor]:
        return [tensor for _, tensor in sorted(parts.get(part, []), key=lambda pair: pair[0])]

    return tuple(
        replace(one, steering=Steering(
            sites(parts, "keys"), sites(parts, "values"),
            replace(one.steering.context, keys=sites(parts, "context-keys"), values=sites(parts, "context-values")),
        ))
        for one, parts in zip(stored.ready, found, strict=True)
    )  # fmt: skip
