"""What is compared, by name: ``laner``, ``plain+none``, ``laner+d50``, ``crf+n20``, ``laner+chain+k10``, ``laner+dapt``.

A name is a method, then what is unusual about it:

==============  ====================================================================================================
``+none``       no source (in-domain, Table 4); without a mark, the one source is learned first
``+chain``      several sources, one after another; ``+ensemble``: a tagger from each of them, and a vote
``+dN``         label dimension N (Figure 3)
``+nN``         N training sentences (Figure 4); ``+kN``: at least N mentions of each type (CP-NER's Table 2)
``+dapt``       on the encoder of ``--adapted``
==============  ====================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from xdner.errors import SettingsError

__all__ = ["CROSSNER", "METHODS", "PLANS", "Part", "Variant", "parts_of"]

#: Settings of each method. Without LB and LC, LANER is ``plain``, the paper's BERT-tagger.
METHODS: dict[str, tuple[str, ...]] = {
    "laner": (),
    "without-lc": ("tagger.label_context=false",),
    "without-lb": ("tagger.label_background=false",),
    "crf": ("tagger.head=crf",),
    "plain": ("tagger.head=plain",),
    "forward": ("tagger.history=forward",),
    "laner-beam": ("tagger.beam=4",),
    "laner-own": ("tagger.own_history=0.3",),
    "laner-names": ("tagger.new_rows=name",),
    "laner-shape": ("tagger.word_shape=true",),
    "crf-shape": ("tagger.head=crf", "tagger.word_shape=true"),
    "plain-shape": ("tagger.head=plain", "tagger.word_shape=true"),
}
#: In the paper's order.
CROSSNER = ("politics", "science", "music", "literature", "ai")
MIT = ("mit-movie-trivia", "mit-restaurant")
FEW_SHOT = ("mit-movie", "mit-restaurant")
DIMENSIONS = (10, 25, 50, 100, 150, 200, 500, 1000)
SIZES = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_MARK = re.compile(r"(none|chain|ensemble)|d(\d+)|([nk]\d+)|(dapt)")


@dataclass(frozen=True)
class Variant:
    """One arm.

    Attributes:
        method: of :data:`METHODS`.
        start: ``single`` (the one source), ``none``, ``chain`` or ``ensemble``.
        size: label dimension; ``None``: the settings'.
        few: ``n10``, ``k10``, ...; empty: all training sentences.
        dapt: whether its encoder is the adapted one.
    """

    method: str
    start: str = "single"
    size: int | None = None
    few: str = ""
    dapt: bool = False

    @property
    def name(self) -> str:
        """In tables and file names."""
        marks = ["" if self.start == "single" else self.start, "" if self.size is None else f"d{self.size}", self.few]
        return "+".join([self.method, *(m for m in marks if m), *(["dapt"] if self.dapt else [])])

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings of its own."""
        return METHODS[self.method] + (() if self.size is None else (f"tagger.label_size={self.size}",))

    @classmethod
    def parse(cls, text: str) -> Variant:
        """The inverse of :attr:`name`.

        Raises:
            SettingsError: no such arm.
        """
        method, *marks = text.split("+")
        made = cls(method)
        wrong = method not in METHODS
        for mark in marks:
            found = _MARK.fullmatch(mark)
            if found is None:
                wrong = True
                break
            start, size, few, dapt = found.groups()
            made = replace(
                made, start=start or made.start, size=int(size) if size else made.size, few=few or made.few,
                dapt=bool(dapt) or made.dapt,
            )  # fmt: skip
        # Two marks of a kind would be one arm under another one's name.
        if wrong or made.name.count("+") != len(marks) or made.size == 0 or made.few[1:] == "0":
            raise SettingsError(
                [f"there is no arm {text!r}"],
                hint=f"An arm is one of {', '.join(METHODS)}, with +none, +chain or +ensemble, +d100, +n20 or +k10, +dapt.",
            )
        return made


@dataclass(frozen=True)
class Part:
    """Arms that are run on the same targets."""

    arms: tuple[str, ...]
    targets: tuple[str, ...]


#: What the papers' tables and figures need, by name; ``core`` is what the project's own goals are about.
PLANS: dict[str, tuple[Part, ...]] = {
    "core": (Part(("plain+none", "plain", "crf", "laner"), CROSSNER),),
    "table2": (Part(("laner",), (*CROSSNER, *MIT)),),
    "table3": (Part(("laner", "without-lc", "without-lb", "crf", "plain", "forward"), (*CROSSNER, *MIT)),),
    "table4": (Part(("plain+none", "laner+none"), CROSSNER),),
    "figure2": (Part(("plain", "laner"), ("ai",)),),
    "figure3": (Part(tuple("laner" if d == 100 else f"laner+d{d}" for d in DIMENSIONS), ("ai",)),),
    "figure4": (Part(tuple(f"{m}+n{n}" for n in SIZES for m in ("plain", "laner")), ("ai",)),),
    "cpner2": (
        Part(("laner+none", "laner+chain", "laner+ensemble"), ("science", "ai")),
        Part(tuple(f"laner+{s}+k{k}" for k in (10, 20, 50) for s in ("none", "chain", "ensemble")), FEW_SHOT),
    ),
}  # fmt: skip


def parts_of(
    plans: Iterable[str], arms: Sequence[str] = (), targets: Sequence[str] = (), dapt: bool = False
) -> Iterator[tuple[tuple[Variant, ...], tuple[str, ...]]]:
    """Arms and targets of plans, or of what is named instead.

    Args:
        plans: of :data:`PLANS`.
        arms: instead of the plans' own.
        targets: instead of the plans' own; a plan's arms go only where the plan has them.
        dapt: each arm on the adapted encoder too.

    Raises:
        SettingsError: no such arm.
    """
    parts = [Part(tuple(arms), tuple(targets or CROSSNER))] if arms else [p for name in plans for p in PLANS[name]]
    for part in parts:
        chosen = tuple(t for t in part.targets if not targets or t in targets)
        if not arms and targets and not chosen:
            continue
        variants = [Variant.parse(name) for name in part.arms]
        if dapt:
            variants += [replace(v, dapt=True) for v in variants if not v.dapt]
        yield tuple(variants), chosen
