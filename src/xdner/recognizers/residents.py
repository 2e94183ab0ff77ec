"""Domains that are ready to be read in: the recently used ones in memory, the others in files.

A ready domain is its prefix in the backbone's type and the keys and values of its context, a few megabytes. A process that
serves thousands cannot keep them all, and to read a context again takes a model call. So those that were not used for the
longest time are written to files; one that is wanted again is mapped into memory, which takes milliseconds, and its
pages belong to the operating system.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from xdner.files import storage_errors
from xdner.generation.engine import Steering
from xdner.recognizers.reader import Steered

__all__ = ["Residents", "size_of"]

Ready = tuple[Steered, ...]


def size_of(ready: Ready) -> int:
    """Bytes of a ready domain's prefixes and contexts."""
    return sum(sum(one.steering.bytes) for one in ready)


class Residents:
    """Ready domains by name.

    Args:
        budget: bytes of prefixes and contexts in memory, at most; the one that is asked for is there whatever its size.
        folder: of the files; a temporary one, deleted with this object, if it is not given.

    Attributes:
        bytes: in memory now.
        made, mapped: how many times a domain had to be made ready, and was mapped from its file.
    """

    def __init__(self, budget: int, folder: Path | None = None) -> None:
        self.budget, self.bytes = budget, 0
        self.made = self.mapped = 0
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._kept: OrderedDict[str, Ready] = OrderedDict()
        # On disk; here without their tensors, and for which device.
        self._stored: dict[str, tuple[Path, Ready, str]] = {}
        self._files = 0

    def __len__(self) -> int:
        """Domains in memory now."""
        return len(self._kept)

    def get(self, name: str, make: Callable[[], Ready]) -> Ready:
        """A domain, from memory, from its file, or made.

        Raises:
            StorageError: another domain has to leave memory, and its file cannot be written.
        """
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        if name in self._stored:
            ready = _read(*self._stored[name])
            self.mapped += 1
        else:
            ready = make()
            self.made += 1
        self._kept[name] = ready
        self.bytes += size_of(ready)
        while self.bytes > self.budget and len(self._kept) > 1:
            self._leave(*self._kept.popitem(last=False))
        return ready

    def drop(self, name: str) -> None:
        """Forget a domain."""
        if name in self._kept:
            self.bytes -= size_of(self._kept.pop(name))
        if name in self._stored:
            self._stored.pop(name)[0].unlink(missing_ok=True)

    def _leave(self, name: str, ready: Ready) -> None:
        self.bytes -= size_of(ready)
        if name in self._stored:
            return
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="xdner-domains-", ignore_cleanup_errors=True)
            self._folder = Path(self._temporary.name)
        path = self._folder / f"{self._files}.safetensors"
        self._files += 1
        with storage_errors(path):
            save_file({f"{i}.{k}": t for i, one in enumerate(ready) for k, t in _tensors(one.steering).items()}, path)
        device = str(ready[0].steering.keys[0].device)
        self._stored[name] = (path, tuple(_emptied(one) for one in ready), device)


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


def _read(path: Path, ready: Ready, device: str) -> Ready:
    found: list[dict[str, list[tuple[int, Tensor]]]] = [{} for _ in ready]
    with safe_open(path, framework="pt", device=device) as file:
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
        for one, parts in zip(ready, found, strict=True)
    )  # fmt: skip
