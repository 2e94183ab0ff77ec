"""The dual-query domain selector: how much of each source goes into the collaborative prefix (Eqs. 5 to 8).

Two questions are asked of every source: do its types mean what the target's types mean (Eq. 5), and does its prefix
point where the target's prefix points (Eq. 6)? Their mixture (Eq. 7) becomes a weight (Eq. 8).

Two modes. ``paper`` takes the equations as they stand. With prefixes that all start from one δ₀ its weights are nearly
uniform: cosines of whole prefixes are close to 1, and a softmax at temperature 1 flattens what differs. ``tuned``
therefore compares what training *changed*, δ − δ₀, and divides by a temperature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from xdner.errors import PrefixMismatchError, SettingsError
from xdner.prefix.prefix import Prefix, short

__all__ = [
    "Candidate",
    "Match",
    "Selection",
    "SourceSimilarity",
    "alpha_of",
    "check_origins",
    "entity_similarity",
    "layer_similarities",
    "match_types",
    "select",
    "softmax_weights",
    "sum_weights",
]

Pool = Literal["mean", "max"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A domain as the selector sees it.

    Attributes:
        name: of the domain.
        types: how its entity types read.
        embeddings: [len(types), d], E of Eq. 5: the backbone's word embeddings of each type, pooled over its pieces.
        prefix: δ.
    """

    name: str
    types: tuple[str, ...]
    embeddings: Tensor
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class Match:
    """A target's type, the source's type that is nearest to it, and their cosine (1: the same words)."""

    target: str
    source: str
    cosine: float

    @property
    def same(self) -> bool:
        """Whether both read alike."""
        return self.target.casefold() == self.source.casefold()


@dataclass(frozen=True, slots=True)
class SourceSimilarity:
    """Everything that went into one source's weight.

    Attributes:
        name: of the source.
        entity: S_e (Eq. 5).
        prefix: S_p (Eq. 6), the mean of ``layers``.
        layers: the cosine at every site, by its name.
        alpha: α of this source.
        total: S (Eq. 7).
        weight: its share (Eq. 8); zero if it was not among the best k.
        matches: for each of the target's types, the nearest of the source's.
    """

    name: str
    entity: float
    prefix: float
    layers: Mapping[str, float]
    alpha: float
    total: float
    weight: float
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What the selector says about a target and its sources, in the order in which these were given.

    Attributes:
        target: name of the domain.
        sources: one record each; the weights sum to one.
        mode: ``paper`` or ``tuned``.
        temperature: of the softmax, which ``sum`` does not have.
        weighting: how weights came from it all: ``softmax`` of the totals (Eq. 8), ``sum`` (totals over their sum), or
            ``loss`` (softmax over minus the loss of each source's prefix on the target's sentences; totals have no part in it).
    """

    target: str
    sources: tuple[SourceSimilarity, ...]
    mode: str
    temperature: float
    weighting: str = "softmax"

    @property
    def weights(self) -> tuple[float, ...]:
        """One a source."""
        return tuple(s.weight for s in self.sources)

    @property
    def effective(self) -> float:
        """Effective number of sources, exp(entropy of the weights): I if all count alike, 1 if one takes all."""
        return math.exp(-sum(w * math.log(w) for w in self.weights if w > 0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for a prefix's manifest."""
        return {
            "target": self.target,
            "mode": self.mode,
            "weighting": self.weighting,
            "temperature": self.temperature,
            "effective_sources": round(self.effective, 4),
            "sources": [
                {
                    "name": s.name,
                    "entity": round(s.entity, 6),
                    "prefix": round(s.prefix, 6),
                    "alpha": s.alpha,
                    "total": round(s.total, 6),
                    "weight": round(s.weight, 6),
                    "layers": {site: round(value, 6) for site, value in s.layers.items()},
                    "matches": [{"target": m.target, "source": m.source, "cosine": round(m.cosine, 4)} for m in s.matches],
                }
                for s in self.sources
            ],
        }  # fmt: skip


def entity_similarity(source: Tensor, target: Tensor, pool: Pool = "mean") -> float:
    """S_e = cos(Pool(E_src), Pool(E_tgt)) (Eq. 5).

    Args:
        source: [S, d], embeddings of the source's types.
        target: [T, d], of the target's.
        pool: over the types; the paper leaves it open, its code takes the mean.
    """
    return _cosine(_pooled(source, pool), _pooled(target, pool))


def layer_similarities(source: Prefix, target: Prefix, origin: Prefix | None = None) -> dict[str, float]:
    """cos(δ_src, δ_tgt) at every site, keys and values as one vector; their mean is S_p (Eq. 6).

    Args:
        source, target: prefixes of one backbone and one length.
        origin: δ₀; with it, what is compared is δ − δ₀ (mode ``tuned``). A prefix that is δ₀ itself has no direction:
            its similarity is 0.

    Returns:
        Site's name → cosine.

    Raises:
        PrefixMismatchError: the prefixes have different shapes.
    """
    _same_shape(source, target, *([] if origin is None else [origin]))
    similarities = {}
    for index, site in enumerate(target.geometry.sites):
        a, b = (_flat(prefix, index, origin) for prefix in (source, target))
        similarities[site.name] = _cosine(a, b)
    return similarities


def match_types(source: Candidate, target: Candidate) -> tuple[Match, ...]:
    """For each of the target's types the source's type with the nearest embedding; equal words come first."""
    cosines = torch.nn.functional.normalize(target.embeddings.float(), dim=1) @ torch.nn.functional.normalize(
        source.embeddings.float(), dim=1
    ).transpose(0, 1)
    words = {name.casefold(): i for i, name in enumerate(source.types)}
    found = []
    for row, name in enumerate(target.types):
        best = words.get(name.casefold(), int(cosines[row].argmax()))
        found.append(Match(name, source.types[best], float(cosines[row, best])))
    return tuple(found)


def softmax_weights(totals: Sequence[float], temperature: float, top_k: int = 0) -> tuple[float, ...]:
    """Eq. 8: softmax of the total similarities.

    Args:
        totals: S of each source.
        temperature: 1 in the paper; less makes the best source count more.
        top_k: only so many of the most similar sources count (0: all); of equal ones, the first.
    """
    # Behind the best one: divided by next to nothing, the scores themselves would all be infinite.
    scores = (torch.tensor(totals, dtype=torch.float64) - max(totals, default=0.0)) / temperature
    kept = _best(totals, top_k)
    dropped = torch.tensor([i not in kept for i in range(len(totals))], dtype=torch.bool)
    return tuple(scores.masked_fill(dropped, float("-inf")).softmax(0).tolist())


def sum_weights(totals: Sequence[float], top_k: int = 0) -> tuple[float, ...]:
    """The authors' released code: similarities divided by their sum, negative ones taken as zero; ``top_k`` as above."""
    kept = _best(totals, top_k)
    positive = [max(total, 0.0) if i in kept else 0.0 for i, total in enumerate(totals)]
    whole = sum(positive)
    if whole > 0:
        return tuple(p / whole for p in positive)
    return tuple(1 / len(kept) if i in kept else 0.0 for i in range(len(totals)))


def select(
    target: Candidate,
    sources: Sequence[Candidate],
    *,
    origin: Prefix | None,
    mode: Literal["paper", "tuned"] = "tuned",
    alpha: float = 0.5,
    alphas: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    pool: Pool = "mean",
    weighting: Literal["softmax", "sum"] = "softmax",
) -> Selection:
    """Weigh sources for a target (Eqs. 5 to 8).

    Args:
        target: the domain that is to be learned, after its warm-up.
        sources: at least one.
        origin: δ₀, which ``tuned`` needs.
        mode: see the top of this file.
        alpha: share of the entity similarity (Eq. 7), for all sources;
        alphas: and for single ones, by name.
        temperature, top_k: see :func:`softmax_weights`.
        pool: see :func:`entity_similarity`.
        weighting: Eq. 8, or the authors' normalization by the sum.

    Raises:
        SettingsError: no sources, one of them twice, α outside [0, 1], or an α for a domain that is no source.
        PrefixMismatchError: prefixes of different shapes, or of different initial prefixes.
    """
    given = alpha_of([s.name for s in sources], alpha, alphas or {})
    check_origins([(c.name, c.prefix) for c in (*sources, target)], origin)
    start = origin if mode == "tuned" else None
    if mode == "tuned" and origin is None:
        raise SettingsError(
            ["mode 'tuned' compares with the initial prefix, and there is none"], hint="Use mode=paper."
        )
    entity = [entity_similarity(s.embeddings, target.embeddings, pool) for s in sources]
    layers = [layer_similarities(s.prefix, target.prefix, start) for s in sources]
    prefix = [sum(by_site.values()) / len(by_site) for by_site in layers]
    totals = [a * e + (1 - a) * p for a, e, p in zip(given, entity, prefix, strict=True)]
    weights = sum_weights(totals, top_k) if weighting == "sum" else softmax_weights(totals, temperature, top_k)
    records = tuple(
        SourceSimilarity(s.name, entity[i], prefix[i], layers[i], given[i], totals[i], weights[i], match_types(s, target))
        for i, s in enumerate(sources)
    )  # fmt: skip
    return Selection(target.name, records, mode, temperature, weighting)


def check_origins(prefixes: Sequence[tuple[str, Prefix]], origin: Prefix | None) -> None:
    """All prefixes must come from one δ₀: what started apart cannot be averaged.

    Args:
        prefixes: with their domains' names.
        origin: δ₀; without it, the last prefix says which.

    Raises:
        PrefixMismatchError: they do not.
    """
    expected = origin.hash() if origin is not None else prefixes[-1][1].initial
    for name, prefix in prefixes:
        if prefix.initial != expected:
            raise PrefixMismatchError(
                f"the prefix of {name!r} started from another initial prefix "
                f"({short(prefix.initial)}, expected {short(expected)}), so it cannot be combined",
                hint=f"Leave {name!r} out, or train it again in this library.",
            )


def alpha_of(names: Sequence[str], alpha: float, alphas: Mapping[str, float]) -> list[float]:
    """α of each source.

    Raises:
        SettingsError: no sources, one of them twice, α outside [0, 1], or an α for a domain that is no source; all at once.
    """
    problems = [] if names else ["there is no source to select from"]
    problems += [f"{name} is given twice as a source" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [f"α for {name!r}, which is no source" for name in alphas if name not in names]
    given = [alphas.get(name, alpha) for name in names]
    problems += [f"α must be from 0 to 1, not {a:g}" for a in sorted({*given, alpha}) if not 0 <= a <= 1]
    if problems:
        raise SettingsError(problems, hint=f"The sources are: {', '.join(names) or 'none'}.")
    return given


def _best(totals: Sequence[float], top_k: int) -> frozenset[int]:
    """Places of the highest k, all for 0; of equal ones, the first."""
    return frozenset(sorted(range(len(totals)), key=lambda i: (-totals[i], i))[: top_k or None])


def _pooled(embeddings: Tensor, pool: Pool) -> Tensor:
    values = embeddings.detach().double()
    return values.mean(0) if pool == "mean" else values.amax(0)


def _cosine(a: Tensor, b: Tensor) -> float:
    """0 where one of them is zero; computed in 64 bits, so that equal vectors give 1 up to the last digits."""
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else 0.0


def _flat(prefix: Prefix, site: int, origin: Prefix | None) -> Tensor:
    parts = []
    for kind in ("keys", "values"):
        tensor = getattr(prefix, kind)[site].detach().double()
        parts.append(tensor if origin is None else tensor - getattr(origin, kind)[site].detach().double())
    return torch.cat([p.reshape(-1) for p in parts])


def _same_shape(*prefixes: Prefix) -> None:
    first = prefixes[0]
    for other in prefixes[1:]:
        if other.geometry != first.geometry or other.length != first.length:
            raise PrefixMismatchError(
                f"prefixes of different shapes cannot be compared: {first.geometry}, length {first.length}, "
                f"and {other.geometry}, length {other.length}",
                hint="Combine prefixes of one backbone and one length only.",
            )
