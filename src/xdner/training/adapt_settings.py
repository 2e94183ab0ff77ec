"""Settings of continued pre-training on unlabelled text (``xdner adapt``): ``adapt`` is its own group, ``training`` that of
the house's loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from xdner.groups import Count, GroupedSettings, Positive, Rate, Use, Within
from xdner.settings import LOOP, TrainingSettings

__all__ = ["AdaptSettings", "AdaptationSettings", "adaptation"]


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """Continued pre-training of a backbone (``xdner adapt``).

    Steps, epochs and rates are those of the group ``training``; its ``batch_size`` counts blocks.

    Attributes:
        weights: ``full`` (all of them) or ``lora`` (factors on all linear layers, merged into new weights).
        block: tokens that are read at a time, the model's own first and last token included; an encoder with fewer
            positions takes what it can.
        share: of an encoder's or T5's tokens that are hidden.
        span: length of hidden spans; 0 is the kind's own. Encoders: words, a geometric distribution with p = 1 / span
            (own: 5, as SpanBERT). T5: tokens, the mean (own: 3).
        longest_span: words of an encoder's longest span; T5's have no bound.
        max_blocks: a sample of so many blocks of the text is enough (0 = all).
        held_out: so many blocks, at most a twentieth of all, are never trained on; the loss on them is told before and
            after.
        head_steps: optimizer steps for an output layer alone, where one must be made (an encoder without its own).
        head_rate: learning rate of these steps.
        lora_rank, lora_alpha: of the factors.
    """

    weights: Literal["full", "lora"] = "full"
    block: Annotated[int, Within(16, 1 << 20)] = 128
    share: Annotated[float, Within(0, 1, above=True, below=True)] = 0.15
    span: float = 0.0
    longest_span: Positive = 10
    max_blocks: Count = 0
    held_out: Count = 64
    head_steps: Count = 300
    head_rate: Rate = 1e-3
    lora_rank: Positive = 16
    lora_alpha: Positive = 32

    def problems(self) -> Iterable[str]:
        if self.span != 0 and not 1 <= self.span <= 100:
            yield f"adapt.span must be 0 or from 1 to 100, not {self.span}"


@dataclass(frozen=True, slots=True)
class AdaptationSettings(GroupedSettings):
    """All groups of continued pre-training. Of ``training``, what speaks of prefixes, prompts, options or a dev split is
    refused."""

    USE: ClassVar[Use] = Use("continued pre-training", {"training": LOOP | {"backbone_dropout"}})

    # The rate is that of all weights; factors take ten times it (``xdner.workflows.adaptation``).
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {
            "learning_rate": 5e-5, "weight_decay": 0.01, "batch_size": 16, "epochs": 1, "warmup": 0.06, "patience": 0,
            "backbone_dropout": True, "checkpoint_every": 500,
        },
    }  # fmt: skip

    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)


#: What of ``adapt`` says nothing to a kind of model: a causal one hides nothing, T5's spans are tokens without a bound, and
#: only an encoder may come without an output layer.
_IDLE: Mapping[str, frozenset[str]] = {
    "encoder": frozenset(),
    "seq2seq": frozenset({"longest_span", "head_steps", "head_rate"}),
    "causal": frozenset({"share", "span", "longest_span", "head_steps", "head_rate"}),
}
_NAMES = {"encoder": "an encoder", "seq2seq": "a T5", "causal": "a causal model"}


def adaptation(kind: str, weights: str) -> Use:
    """What the continued pre-training of a backbone makes of the groups.

    Whether an encoder has an output layer of its own, which ``head_steps`` and ``head_rate`` would say nothing to, is
    known only once it is loaded: an encoder takes them.

    Args:
        kind: ``encoder``, ``seq2seq`` or ``causal``.
        weights: ``full`` or ``lora``.
    """
    factors = frozenset({"lora_rank", "lora_alpha"}) if weights == "full" else frozenset()
    used = frozenset(f.name for f in fields(AdaptSettings)) - _IDLE[kind] - factors
    what = "all weights" if weights == "full" else "LoRA factors"
    return Use(f"continued pre-training of {what} of {_NAMES[kind]}", {**AdaptationSettings.USE.keys, "adapt": used})
