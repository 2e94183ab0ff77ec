"""What is compared, by name: ``word``, ``random+own``, ``word+k3``, ``bm25+n25``, ``word+plain``, ``word+rule-cover``.

A name is a retriever, then what is unusual about it:

==================  ================================================================================================
``+kN``             N examples in the prompt (else ``retrieval.k``); ``none`` has none
``+nN``             a pool of N examples, drawn anew with each seed (else all)
``+rule-R``         aggregation from words to examples; ``+pool-P``: of a word's sub-words; ``+layerN``: of the encoder
``+enc-E``          another encoder, E of ``--encoders``
``+dup``            tuned with duplicates whose types are removed, and without shuffling; ``+shuf``: the reverse;
                    ``+plain``: with neither. Without a mark: both, the paper's regularization
``+raw``            the language model as it came, not tuned
``+own``            tuned with the retriever and k that it reads with (else with those of ``--tune-with``, ``--tune-k``)
==================  ================================================================================================

Rows that are read with the same tuned model share it: retriever, k and pool differ in the prompts only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_type_hints

from benchmarks.tagging.variants import CROSSNER, Part
from xdner.errors import SettingsError
from xdner.retrieval.settings import RetrievalSettings

__all__ = ["PLANS", "RETRIEVERS", "RULES", "TUNINGS", "Variant", "chosen"]

_USUAL, _CHOICES = RetrievalSettings(), get_type_hints(RetrievalSettings)
RETRIEVERS, RULES, POOLINGS = (get_args(_CHOICES[name]) for name in ("method", "aggregation", "pooling"))
#: Settings of each way of tuning; the empty one is the settings' own rates. ``raw`` is not tuned.
TUNINGS: dict[str, tuple[str, ...]] = {
    "": (),
    "dup": ("tune.shuffle=0",),
    "shuf": ("tune.duplicate=0",),
    "plain": ("tune.duplicate=0", "tune.shuffle=0"),
    "raw": (),
}
_MARK = re.compile(
    rf"k(?P<k>\d+)|n(?P<n>\d+)|rule-(?P<rule>{'|'.join(RULES)})|pool-(?P<pooling>{'|'.join(POOLINGS)})|layer(?P<layer>\d+)"
    rf"|enc-(?P<encoder>[\w.-]+)|(?P<tuning>dup|shuf|plain|raw)|(?P<own>own)"
)


@dataclass(frozen=True)
class Variant:
    """One arm.

    Attributes:
        retriever: of :data:`RETRIEVERS`.
        k: examples in the prompt; ``None``: the settings'.
        n: examples in the pool; ``None``: all.
        rule, pooling, layer: of words; ``None``: the settings'.
        encoder: name of another encoder, or nothing.
        tuning: of :data:`TUNINGS`.
        own: whether it is tuned as it reads.
    """

    retriever: str
    k: int | None = None
    n: int | None = None
    rule: str = ""
    pooling: str = ""
    layer: int | None = None
    encoder: str = ""
    tuning: str = ""
    own: bool = False

    @property
    def name(self) -> str:
        """In tables and file names."""
        marks = (
            "" if self.k is None else f"k{self.k}", "" if self.n is None else f"n{self.n}", self.rule and f"rule-{self.rule}",
            self.pooling and f"pool-{self.pooling}", "" if self.layer is None else f"layer{self.layer}",
            self.encoder and f"enc-{self.encoder}", self.tuning, "own" if self.own else "",
        )  # fmt: skip
        return "+".join([self.retriever, *(mark for mark in marks if mark)])

    @property
    def retrieval(self) -> tuple[str, ...]:
        """Settings of what is shown, but for the encoder."""
        k = 0 if self.retriever == "none" else self.k
        given = {"k": k, "aggregation": self.rule or None, "pooling": self.pooling or None, "layer": self.layer}
        return (
            f"retrieval.method={self.retriever}",
            *(f"retrieval.{n}={v}" for n, v in given.items() if v is not None),
        )

    @property
    def seeded(self) -> bool:
        """Whether anything in it is drawn; else all seeds would give the same."""
        return self.tuning != "raw" or self.n is not None or self.retriever == "random"

    @property
    def plainly(self) -> Variant:
        """Without the marks of sweeps: k, pool, rule, pooling, layer, encoder."""
        return Variant(self.retriever, tuning=self.tuning, own=self.own)

    @classmethod
    def parse(cls, text: str) -> Variant:
        """The inverse of :attr:`name`.

        Raises:
            SettingsError: no such arm.
        """
        retriever, *marks = text.split("+")
        made, wrong = cls(retriever), retriever not in RETRIEVERS
        for mark in marks:
            found = _MARK.fullmatch(mark)
            if found is None:
                wrong = True
                break
            (key, value), = ((k, v) for k, v in found.groupdict().items() if v is not None)  # fmt: skip
            typed: Any = int(value) if key in ("k", "n", "layer") else key == "own" or value
            made = replace(made, **{key: typed})
        worded = bool(made.rule or made.pooling or made.layer is not None)
        wrong = wrong or made.n == 0 or (worded and retriever != "word") or (made.tuning == "raw" and made.own)
        wrong = wrong or (retriever == "none" and (made.k is not None or made.n is not None or bool(made.encoder)))
        if wrong or (made.encoder and retriever not in ("word", "sentence")):
            raise SettingsError(
                [f"there is no arm {text!r}"],
                hint=f"An arm is one of {', '.join(RETRIEVERS)}, with +k3, +n25, +dup, +shuf, +plain, +raw, +own; word also "
                "with +rule-cover, +pool-first, +layer6; word and sentence with +enc-NAME.",
            )
        return made


def _plan(*arms: str) -> tuple[Part, ...]:
    return (Part(arms, CROSSNER),)


#: By name; ``core`` is what the project's own goals are about.
PLANS: dict[str, tuple[Part, ...]] = {
    "core": _plan("word", "random", "word+plain"),
    "retrievers": _plan(*RETRIEVERS),
    "own": _plan("word+own", "sentence+own", "bm25+own", "random+own", "none+own"),
    "untuned": _plan("word+raw", "sentence+raw", "bm25+raw", "random+raw", "none+raw"),
    "k": _plan("none", *(f"{m}+k{k}" if k != 5 else m for m in ("word", "random") for k in (1, 2, 3, 4, 5, 6, 8, 10))),
    "pool": _plan(*(f"{m}{n}" for m in ("word", "random") for n in ("+n10", "+n25", "+n50", ""))),
    "regularization": _plan("word", "word+dup", "word+shuf", "word+plain"),
    "rules": _plan(
        "word",
        *(f"word+rule-{r}" for r in RULES if r != _USUAL.aggregation),
        *(f"word+pool-{p}" for p in POOLINGS if p != _USUAL.pooling),
    ),
}


def chosen(
    plans: Iterable[str],
    arms: Sequence[str] = (),
    targets: Sequence[str] = (),
    *,
    sources: Sequence[str] = (),
    encoders: Sequence[str] = (),
) -> tuple[tuple[Variant, ...], tuple[str, ...]]:
    """Arms and targets of plans, or of what is named instead; an arm of several plans comes once.

    Args:
        plans: of :data:`PLANS`.
        arms: instead of the plans' own.
        targets: instead of all domains of CrossNER that are no sources.
        sources: of the tuned models; they are no targets.
        encoders: names; the arms ``word`` and ``sentence`` also with each of them.

    Raises:
        SettingsError: no such arm.
    """
    named = list(arms) or [name for plan in plans for part in PLANS[plan] for name in part.arms]
    variants = list(dict.fromkeys(Variant.parse(name) for name in named))
    bare = [v for v in variants if v.retriever in ("word", "sentence") and v == Variant(v.retriever)]
    more = [replace(v, encoder=e) for v in bare for e in encoders]
    return tuple(dict.fromkeys([*variants, *more])), tuple(targets or (t for t in CROSSNER if t not in sources))
