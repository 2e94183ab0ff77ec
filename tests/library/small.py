"""Small domains without a backbone: the library does not need one. Tests and the writers they start import this."""

from __future__ import annotations

import torch

from xdner.domain import Domain
from xdner.geometry import PrefixGeometry, SiteShape
from xdner.library.entry import DomainEntry
from xdner.prefix.prefix import Prefix
from xdner.settings import Settings

GEOMETRY = PrefixGeometry((SiteShape("self.0", 1, 4), SiteShape("self.1", 2, 3)))
BACKBONE = "sha256:" + "b" * 64


def make_prefix(seed: int = 0, *, initial: str = "sha256:start", backbone: str = BACKBONE, **notes: object) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (
        tuple(torch.randn(s.heads, 2, s.head_dim, generator=generator) for s in GEOMETRY.sites) for _ in range(2)
    )
    return Prefix(GEOMETRY, keys, values, backbone, initial, {"backbone_name": "tiny", **notes}).rounded()


def make_entry(
    name: str = "seas", seed: int = 0, *, members: int = 1, card: str = "# Seas\n\nAll of them.\n", **more: str
) -> DomainEntry:
    """A domain whose types tell its seed, so that parts of two cannot pass for one."""
    first, *others = (make_prefix(1000 * seed + i, **{"domain": name, **more}) for i in range(members))
    domain = Domain.from_labels(name, ["sea", f"place{seed}"])
    seen = frozenset({f"{seed:016x}", "cd34"})
    return DomainEntry(domain, first, Settings(), members=tuple(others), seen=seen, card=card)


def same(a: DomainEntry, b: DomainEntry) -> bool:
    """Everything but the notes."""
    return [(p.hash(), p.initial, p.backbone) for p in a.prefixes] == [
        (p.hash(), p.initial, p.backbone) for p in b.prefixes
    ] and (a.domain, a.settings, a.seen, a.card) == (b.domain, b.settings, b.seen, b.card)
