"""CP-NER's settings, and those that all recognizers share (``training``, ``decoding``): small frozen dataclasses.

``groups.py`` says how they are read and checked. The defaults come from experiments that ``docs/LOG.md`` records.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from xdner.groups import Amount, Count, GroupedSettings, Positive, Rate, Seed, Share, Use, Within

__all__ = [
    "CHOICE",
    "DOMAIN",
    "INSTRUCTION",
    "LOOP",
    "START",
    "WINDOWS",
    "CodecSettings",
    "DecodingSettings",
    "InstructSettings",
    "PrefixSettings",
    "SelectorSettings",
    "Settings",
    "TrainingSettings",
    "TransferSettings",
    "SELECTION",
    "domain_use",
]

#: Settings of ``training`` that any training by the one loop uses.
LOOP = frozenset({
    "epochs", "batch_size", "accumulation", "learning_rate", "weight_decay", "clip", "warmup", "checkpoint_every", "seed",
    "gradient_checkpointing",
})  # fmt: skip
#: What chooses the best epoch, where there is a dev split.
CHOICE = frozenset({"patience", "evaluate_every", "evaluate_from", "dev_limit"})
#: What says how sentences become prompts and targets, and how they vary.
TEXTS = frozenset({
    "likelihood", "shuffle_options", "drop_options", "replace_mentions", "backbone_dropout", "max_pieces",
})  # fmt: skip
#: Settings of ``decoding`` that say how texts become windows.
WINDOWS = frozenset({"batch_size", "window", "overlap"})


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """How a sentence is asked and answered. Stored with every prefix: both sides must agree.

    Attributes:
        form: ``lines`` (mention, tab, type, newline; separators proven disjoint from words) or ``paper``
            (``((person: Johnson) (location: Baltimore))``).
        order: whether the mention or its type is written first.
        repeats: how often the sentence stands in the prompt; at 2, a causal model sees each word's right context too.
        options: whether the prompt lists the domain's types (without them: an ablation of the paper's Figure 4).
        version: of the templates in ``codec/instructor.py``.
    """

    form: Literal["lines", "paper"] = "lines"
    order: Literal["mention-first", "type-first"] = "mention-first"
    repeats: Literal[1, 2] = 2
    options: bool = True
    version: int = 1

    def problems(self) -> Iterable[str]:
        if self.version != 1:
            yield f"codec.version {self.version} is not known here (known: 1)"


@dataclass(frozen=True, slots=True)
class PrefixSettings:
    """The trained part.

    Attributes:
        length: prefix keys per attention site (the paper's prefix length is 10).
        init: ``instruction`` (keys and values of the instruction text under the frozen model) or ``noise``.
        noise: standard deviation for ``init = "noise"``.
        reparametrization: ``none`` (train keys and values themselves) or ``mlp`` (embedding, linear, tanh, linear).
        hidden: width of that MLP.
    """

    length: Annotated[int, Within(1, 512)] = 20
    init: Literal["instruction", "noise"] = "instruction"
    noise: Amount = 0.02
    reparametrization: Literal["none", "mlp"] = "none"
    hidden: Positive = 800

    def idle_beside(self) -> Mapping[str, str]:
        """Settings that have no effect beside the others: which one makes no use of each."""
        idle = {} if self.init == "noise" else {"noise": f"init={self.init}"}
        return idle | (
            {} if self.reparametrization == "mlp" else {"hidden": f"reparametrization={self.reparametrization}"}
        )

    def start(self) -> tuple[int | str | float, ...]:
        """What the initial prefix depends on (``recognizers/warmup.py``); how it is trained afterwards is no part of it."""
        return (self.length, self.init, *([self.noise] if self.init == "noise" else []))


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The one training loop.

    Attributes:
        epochs: passes over the training sentences, at most; 0 is 12, and more where sentences are few: ``evaluate_every`` and
            ``evaluate_from`` are then stretched in proportion (:meth:`scheduled`).
        batch_size: sentences per forward pass.
        accumulation: forward passes per optimizer step.
        learning_rate, weight_decay, clip: AdamW and the gradient-norm bound (0 = no bound).
        warmup: share of the steps in which the rate rises; afterwards it falls linearly to zero.
        patience: dev evaluations without improvement before training stops (0 = never).
        evaluate_every: epochs between dev evaluations.
        evaluate_from: first epoch whose end is worth a dev evaluation.
        dev_limit: at most so many dev sentences are scored during training, a seeded sample (0 = all).
        likelihood: ``grammar`` (softmax over the legal tokens) or ``vocabulary`` (the paper's Eq. 4).
        shuffle_options: whether each step draws a new order of the domain's options.
        drop_options: share of the steps in which some options are left out, together with their answers; without options
            in the prompt (``codec.options=false``) none are.
        replace_mentions: share of the mentions that another training mention of the same type takes the place of.
        prefix_dropout: share of the prefix's positions that are left out in a step.
        anchor: weight of the squared distance to the initial prefix.
        backbone_dropout: whether the frozen model's own dropout is on.
        gradient_checkpointing: whether the inside of a model's layers is computed again in the backward pass instead of being
            kept: less memory, more time, the same gradients.
        max_pieces: sub-word pieces of the longest prompt with target; longer sentences are split into windows. Where many
            types leave too few for the words, they come on top.
        checkpoint_every: optimizer steps between checkpoints, fewer where they take more than ten minutes (0 = at the end of
            every epoch, and only there).
        seed: of everything random.
    """

    epochs: Count = 0
    batch_size: Positive = 8
    accumulation: Positive = 1
    learning_rate: Rate = 2e-2
    weight_decay: Amount = 0.0
    clip: Amount = 1.0
    warmup: Share = 0.1
    patience: Count = 3
    evaluate_every: Positive = 2
    evaluate_from: Positive = 4
    dev_limit: Count = 0
    likelihood: Literal["grammar", "vocabulary"] = "grammar"
    shuffle_options: bool = True
    drop_options: Share = 0.0
    replace_mentions: Share = 0.5
    prefix_dropout: Share = 0.2
    anchor: Amount = 0.0
    backbone_dropout: bool = False
    gradient_checkpointing: bool = False
    max_pieces: Annotated[int, Within(64)] = 512
    checkpoint_every: Count = 50
    seed: Seed = 1

    def scheduled(self, sentences: int) -> TrainingSettings:
        """With a number of epochs: where it is 0, 12, or with few sentences what 120 steps of whole batches take (at most
        60; batches of sentences that differ much in length are smaller, and there are more of them). Dev evaluations, asked
        for or not, then keep their places in the run: epoch 4 of 12 is epoch 20 of 60."""
        if self.epochs:
            return self
        steps = math.ceil(max(1, sentences) / (self.batch_size * self.accumulation))
        epochs = min(60, max(12, math.ceil(120 / steps)))
        stretch = epochs // 12
        first, every = self.evaluate_from * stretch, self.evaluate_every * stretch
        return dataclasses.replace(self, epochs=epochs, evaluate_from=first, evaluate_every=every)


@dataclass(frozen=True, slots=True)
class SelectorSettings:
    """How sources are weighed (Eqs. 5 to 8; ``prefix/selector.py``).

    Attributes:
        mode: ``paper`` (the equations as they stand) or ``tuned`` (prefixes are compared by δ − δ₀).
        alpha: share of the entity similarity (Eq. 7): 1 is without prefix similarity, 0 without entity similarity.
        temperature: of the softmax (Eq. 8); 0 is the mode's own, 1 for ``paper`` and 0.1 for ``tuned``.
        top_k: only so many sources count (0 = all).
        pool: over a domain's types (Eq. 5).
        weighting: ``softmax`` (Eq. 8), or as variants ``sum`` (the authors' code) and ``loss`` (a softmax over minus the
            loss of each source's prefix on the target's own sentences: those of dev, or without dev the training sentences).
    """

    mode: Literal["paper", "tuned"] = "tuned"
    alpha: Share = 0.5
    temperature: Amount = 0.0
    top_k: Count = 0
    pool: Literal["mean", "max"] = "mean"
    weighting: Literal["softmax", "sum", "loss"] = "softmax"

    def idle_beside(self) -> Mapping[str, str]:
        """As of the prefix. Losses are of whole prefixes, and a sum has no temperature."""
        of = {"softmax": (), "sum": ("temperature",), "loss": ("alpha", "pool")}[self.weighting]
        return dict.fromkeys(of, f"weighting={self.weighting}")

    @property
    def effective_temperature(self) -> float:
        """The temperature that is used."""
        return self.temperature or {"paper": 1.0, "tuned": 0.1}[self.mode]


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How a new domain draws on known ones (``recognizers/transfer.py``).

    Attributes:
        strategy: ``none``, ``single`` (one source), ``collaborative`` (CP-NER), ``chain`` (train through the sources in
            turn), ``ensemble`` (one single-source prefix for each source, and a vote), or ``auto``: ``collaborative``
            where there are sources, ``none`` otherwise.
        warmup_share: of the epochs, how many warm the target's own prefix up before sources are mixed in, one at least; 0 is
            without warm-up (an ablation: δ_tgt is δ₀, and only the types' names choose the sources).
        source_share: of the prefix that training goes on from, how much is the sources' mixture; 1 begins where the sources
            are and uses the warm-up for the choice of sources only, ½ is the mean of Eq. 10 (with a ``warmup_share`` of ½: of
            equal steps, half are the warm-up's then, and half of what they brought is given up; docs/LOG.md).
        learn_alpha: train α together with the target's prefix (a variant).
    """

    strategy: Literal["auto", "none", "single", "collaborative", "chain", "ensemble"] = "auto"
    warmup_share: Annotated[float, Within(0, 1, below=True)] = 0.07
    source_share: Annotated[float, Within(0, 1, above=True)] = 1.0
    learn_alpha: bool = False

    def decided(self, sources: bool) -> TransferSettings:
        """With a strategy instead of ``auto``; ``sources`` says whether there are any."""
        if self.strategy != "auto":
            return self
        return dataclasses.replace(self, strategy="collaborative" if sources else "none")


@dataclass(frozen=True, slots=True)
class InstructSettings:
    """Instruction tuning of a backbone with LoRA (``xdner instruct``).

    Attributes:
        rank, alpha, lora_dropout: of the LoRA factors, on all linear layers.
        per_source: at most so many sentences of each source, a seeded sample (0 = all).
        add_options: share of the prompts that also list types of other sources, which nothing answers.
    """

    rank: Positive = 16
    alpha: Positive = 32
    lora_dropout: Annotated[float, Within(0, 1, below=True)] = 0.0
    per_source: Count = 400
    add_options: Share = 0.3


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How texts are read at prediction.

    Attributes:
        batch_size: sentences in the engine at a time.
        window: words in a window; about the length seen in training.
        overlap: words that two neighboring windows share.
        resident_mb: megabytes of prefixes and contexts in memory at most; domains beyond it are mapped from files.
        resident_disk_mb: megabytes of these files at most; domains beyond it are made ready again (0 = no files).
    """

    batch_size: Positive = 32
    window: Annotated[int, Within(4)] = 80
    overlap: Count = 16
    resident_mb: Positive = 1024
    resident_disk_mb: Count = 8192

    def problems(self) -> Iterable[str]:
        if not 0 <= self.overlap <= self.window // 2:
            yield f"decoding.overlap must be from 0 to half the window ({self.window // 2}), not {self.overlap}"


@dataclass(frozen=True, slots=True)
class Settings(GroupedSettings):
    """All groups of CP-NER together; the resolved settings are saved with every result."""

    codec: CodecSettings = field(default_factory=CodecSettings)
    prefix: PrefixSettings = field(default_factory=PrefixSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    selector: SelectorSettings = field(default_factory=SelectorSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    instruct: InstructSettings = field(default_factory=InstructSettings)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)


_NONE: frozenset[str] = frozenset()
#: Jobs that use these settings in part: training a domain, the prefix that domains start from, and instruction tuning, where
#: no prefix steers. The latter two have no dev split that would choose an epoch; an initial prefix is trained as it is,
#: without a reparametrization.
DOMAIN = Use("training a domain", {"instruct": _NONE})
START = Use("training an initial prefix", {
    "prefix": frozenset({"length", "init", "noise"}), "training": LOOP | TEXTS, "selector": _NONE, "transfer": _NONE,
    "decoding": _NONE, "instruct": frozenset({"per_source", "add_options"}),
})  # fmt: skip
INSTRUCTION = Use("instruction tuning", {
    "prefix": _NONE, "training": LOOP | TEXTS, "selector": _NONE, "transfer": _NONE, "decoding": _NONE,
})  # fmt: skip


#: To ask the selector without training.
SELECTION = Use("choosing among sources", dict.fromkeys(
    ("codec", "prefix", "training", "transfer", "instruct", "decoding"), _NONE,
))  # fmt: skip


def domain_use(strategy: str, sources: int) -> Use:
    """What training a domain makes of the groups, its sources being known: nothing chooses among no sources, among those of a
    chain, or where there is one, as for each member of an ensemble.

    Args:
        strategy: as it was decided (:meth:`TransferSettings.decided`).
        sources: their number.
    """
    hint = "Leave it out (--set, --alpha, --without): it acts where --strategy collaborative has two or more known domains."
    used = frozenset({"strategy", "warmup_share", "source_share"})
    if not sources:
        job, used = "training a domain without sources", frozenset({"strategy"})
        hint = "Leave it out (--set, --alpha, --without), or name known domains with --from: it says how they are drawn on."
    elif strategy == "chain":
        job, used = "the strategy chain", frozenset({"strategy"})
    elif strategy == "ensemble":
        job = "the strategy ensemble, whose members have one source each,"
    elif sources == 1:
        job = "training a domain with one source"
    else:
        return DOMAIN
    return Use(job, {**DOMAIN.keys, "selector": _NONE, "transfer": used}, hint)
