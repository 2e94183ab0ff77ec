"""Intrinsic decomposition: the collaborative prefix as a mixture of prefixes (Eqs. 9 and 10).

What is mixed is δ itself, the keys and values, not the parameters of whatever emitted them: averaging parameters is
right only where all domains share one reparametrization, and none is kept after training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from xdner.errors import PrefixMismatchError
from xdner.prefix.parametrization import DirectParametrization, Parametrization
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import Selection

__all__ = ["LearnedMixture", "learned", "merge", "mix", "weights_of"]

_COLDEST = 1e-30  # temperature; less is zero in 32 bits


def mix(prefixes: Sequence[Prefix], weights: Sequence[float]) -> Prefix:
    """δ̂_src = Σ wᵢ δᵢ (Eq. 9).

    Args:
        prefixes: of one backbone, one length and one initial prefix.
        weights: one each.

    Returns:
        A prefix with the backbone and δ₀ of the first. One source with weight 1 is that source.

    Raises:
        PrefixMismatchError: they do not belong together.
    """
    first = _together(prefixes)
    keys, values = (
        tuple(_weighted([getattr(p, kind)[site] for p in prefixes], weights) for site in range(len(first.keys)))
        for kind in ("keys", "values")
    )
    return replace(first, keys=keys, values=values, notes={})


def merge(target: Prefix, source: Prefix, share: float = 0.5) -> Prefix:
    """δ̂_tgt = (1 − share) δ_tgt + share δ̂_src, for ½ Eq. 10; it is then trained on the target again."""
    return mix([target, source], [1 - share, share])


class LearnedMixture(Parametrization):
    """A named variant, not in the paper: α is trained together with the target's prefix.

    It emits (1 − share) δ_tgt + share Σ wᵢ(α) δᵢ with w = softmax((α S_e + (1 − α) S_p) / temperature) and α = sigmoid of
    one trained number; δ_tgt is trained as well, the sources are not.

    Args:
        target: δ_tgt, where training starts.
        sources: δᵢ.
        weights: gives w [I] for α as a scalar tensor, differentiable.
        alpha: where α starts, strictly between 0 and 1.
        share: of the sources, below 1; ½ in Eq. 10.
    """

    def __init__(
        self,
        target: Prefix,
        sources: Sequence[Prefix],
        weights: Callable[[Tensor], Tensor],
        alpha: float,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        _together([target, *sources])
        self.geometry, self._weights, self._share = target.geometry, weights, share
        self.target = DirectParametrization(target.geometry, target.keys, target.values)
        stacked = [torch.cat([t.detach().float().reshape(-1) for t in (*s.keys, *s.values)]) for s in sources]
        self.sources: Tensor
        self.register_buffer("sources", torch.stack(stacked))
        self.logit = nn.Parameter(torch.logit(torch.tensor(float(alpha)), eps=1e-4))

    @property
    def alpha(self) -> float:
        """α as it is now."""
        return float(torch.sigmoid(self.logit.detach()))

    def mixture(self) -> Tensor:
        """w [I] as it is now; gradients flow into α."""
        return self._weights(torch.sigmoid(self.logit))

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        own = [torch.cat([t.reshape(-1) for t in part]) for part in self.target()]
        mixed = self.mixture().to(self.sources) @ self.sources
        whole = (1 - self._share) * torch.cat(own) + self._share * mixed
        return self.target.parts(whole)


def weights_of(selection: Selection) -> Callable[[Tensor], Tensor]:
    """w(α) [I] of Eqs. 7 and 8 for α as a scalar tensor, with the similarities as they were measured."""
    entity = torch.tensor([s.entity for s in selection.sources])
    prefix = torch.tensor([s.prefix for s in selection.sources])

    def weights(alpha: Tensor) -> Tensor:
        totals = alpha * entity.to(alpha.device) + (1 - alpha) * prefix.to(alpha.device)
        return ((totals - totals.max()) / max(selection.temperature, _COLDEST)).softmax(0)

    return weights


def learned(selection: Selection, mixture: LearnedMixture) -> Selection:
    """The selection with α and weights as training left them."""
    alpha, weights = mixture.alpha, iter(mixture.mixture().detach().tolist())
    return replace(
        selection,
        sources=tuple(
            replace(
                s,
                alpha=alpha,
                total=alpha * s.entity + (1 - alpha) * s.prefix,
                weight=next(weights) if s.weight else 0.0,
            )
            for s in selection.sources
        ),
    )


def _weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0], dtype=torch.float32)
    for tensor, weight in zip(tensors, weights, strict=True):
        total = total + weight * tensor.detach().float()
    return total


def _together(prefixes: Sequence[Prefix]) -> Prefix:
    first = prefixes[0]
    for other in prefixes[1:]:
        same = {
            "backbone": other.backbone == first.backbone,
            "shape": other.geometry == first.geometry and other.length == first.length,
            "initial prefix": other.initial == first.initial,
        }
        wrong = [what for what, ok in same.items() if not ok]
        if wrong:
            names = [str(p.notes.get("domain", "?")) for p in (first, other)]
            raise PrefixMismatchError(
                f"the prefixes of {names[0]!r} and {names[1]!r} differ in {' and '.join(wrong)}, "
                "so they cannot be combined",
                hint="Combine prefixes of one library only: one backbone, one length, one initial prefix.",
            )
    return first
