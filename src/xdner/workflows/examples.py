"""The example domains that ship with the package."""

from __future__ import annotations

from pathlib import Path

from xdner.errors import UnknownDomainError

__all__ = ["example_folder"]


def example_folder(name: str) -> Path:
    """Folder of a bundled example domain: ``domain.toml``, ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``.

    Raises:
        UnknownDomainError: there is no such example.
    """
    examples = Path(__file__).resolve().parent.parent / "data" / "examples"
    known = sorted(p.parent.name for p in examples.glob("*/domain.toml"))
    if name not in known:
        raise UnknownDomainError(f"there is no example domain {name!r}", hint=f"The examples are: {', '.join(known)}.")
    return examples / name
