"""The shape of a prefix: which attention sites a backbone has, and how large their keys are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PrefixGeometry", "SiteShape"]


@dataclass(frozen=True, slots=True)
class SiteShape:
    """An attention site's name, its key-value heads and their size."""

    name: str
    heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class PrefixGeometry:
    """The sites of a backbone, in order: everything about a prefix's shape but its length."""

    sites: tuple[SiteShape, ...]

    def __str__(self) -> str:
        shapes = {(s.heads, s.head_dim) for s in self.sites}
        return f"{len(self.sites)} sites of {', '.join(f'{h} heads × {d}' for h, d in sorted(shapes))}"
