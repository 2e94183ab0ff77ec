"""Settings: small frozen dataclasses, read from TOML, overridden with ``--set group.key=value``.

Every mistake in a file or on the command line is reported at once (:class:`~xdner.errors.SettingsError`).
The defaults come from experiments that ``docs/LOG.md`` records.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import tomli_w

from xdner.errors import SettingsError

__all__ = [
    "CodecSettings",
    "DecodingSettings",
    "GroupedSettings",
    "InstructSettings",
    "PrefixSettings",
    "SelectorSettings",
    "Settings",
    "TrainingSettings",
    "TransferSettings",
]


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
    repeats: int = 2
    options: bool = True
    version: int = 1

    def problems(self) -> Iterable[str]:
        if self.repeats not in (1, 2):
            yield f"codec.repeats must be 1 or 2, not {self.repeats}"
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

    length: int = 20
    init: Literal["instruction", "noise"] = "instruction"
    noise: float = 0.02
    reparametrization: Literal["none", "mlp"] = "none"
    hidden: int = 800

    def problems(self) -> Iterable[str]:
        if not 1 <= self.length <= 512:
            yield f"prefix.length must be from 1 to 512, not {self.length}"
        if not 0 <= self.noise < math.inf:
            yield f"prefix.noise must not be negative or infinite, not {self.noise}"
        if self.hidden < 1:
            yield f"prefix.hidden must be positive, not {self.hidden}"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The one training loop.

    Attributes:
        epochs: passes over the training sentences, at most; 0 is 12, and more where sentences are few (:meth:`scheduled`).
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
        drop_options: share of the steps in which some options are left out, together with their answers.
        replace_mentions: share of the mentions that another training mention of the same type takes the place of.
        prefix_dropout: share of the prefix's positions that are left out in a step.
        anchor: weight of the squared distance to the initial prefix.
        backbone_dropout: whether the frozen model's own dropout is on.
        max_pieces: sub-word pieces of the longest prompt with target; longer sentences are split into windows.
        checkpoint_every: optimizer steps between checkpoints (0 = only at the end of an epoch).
        seed: of everything random.
    """

    epochs: int = 0
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 2e-2
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: float = 0.1
    patience: int = 3
    evaluate_every: int = 2
    evaluate_from: int = 4
    dev_limit: int = 0
    likelihood: Literal["grammar", "vocabulary"] = "grammar"
    shuffle_options: bool = True
    drop_options: float = 0.0
    replace_mentions: float = 0.5
    prefix_dropout: float = 0.2
    anchor: float = 0.0
    backbone_dropout: bool = False
    max_pieces: int = 512
    checkpoint_every: int = 50
    seed: int = 1

    def problems(self) -> Iterable[str]:
        for name in ("batch_size", "accumulation", "evaluate_every", "evaluate_from"):
            if getattr(self, name) < 1:
                yield f"training.{name} must be at least 1, not {getattr(self, name)}"
        for name in ("weight_decay", "clip", "patience", "dev_limit", "checkpoint_every", "anchor", "seed", "epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                yield f"training.{name} must not be negative or infinite, not {getattr(self, name)}"
        if not 0 < self.learning_rate < math.inf:
            yield f"training.learning_rate must be positive and finite, not {self.learning_rate}"
        for name in ("warmup", "drop_options", "replace_mentions", "prefix_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"training.{name} must be from 0 to 1, not {getattr(self, name)}"
        if self.max_pieces < 64:
            yield f"training.max_pieces must be at least 64, not {self.max_pieces}"

    def scheduled(self, sentences: int) -> TrainingSettings:
        """With a number of epochs: where it is 0, 12, or with few sentences what some 120 optimizer steps take (at most
        60); dev evaluations then keep their distance in the run."""
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
            loss of each source's prefix on the target's own sentences).
    """

    mode: Literal["paper", "tuned"] = "tuned"
    alpha: float = 0.5
    temperature: float = 0.0
    top_k: int = 0
    pool: Literal["mean", "max"] = "mean"
    weighting: Literal["softmax", "sum", "loss"] = "softmax"

    def problems(self) -> Iterable[str]:
        if not 0 <= self.alpha <= 1:
            yield f"selector.alpha must be from 0 to 1, not {self.alpha}"
        if not 0 <= self.temperature < math.inf:
            yield f"selector.temperature must not be negative or infinite, not {self.temperature}"
        if self.top_k < 0:
            yield f"selector.top_k must not be negative, not {self.top_k}"

    @property
    def effective_temperature(self) -> float:
        """The temperature that is used."""
        return self.temperature or {"paper": 1.0, "tuned": 0.1}[self.mode]


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How a new domain draws on known ones (``recognizers/transfer.py``).

    Attributes:
        strategy: ``none``, ``single`` (one source), ``collaborative`` (CP-NER), ``chain`` (train through the sources in
            turn) or ``ensemble`` (one single-source prefix for each source, and a vote).
        warmup_share: of the epochs, how many warm the target's own prefix up before sources are mixed in; 0 is without
            warm-up (an ablation: δ_tgt is δ₀, and only the types' names choose the sources).
        learn_alpha: train α together with the target's prefix (a variant).
    """

    strategy: Literal["none", "single", "collaborative", "chain", "ensemble"] = "none"
    warmup_share: float = 0.5
    learn_alpha: bool = False

    def problems(self) -> Iterable[str]:
        if not 0 <= self.warmup_share < 1:
            yield f"transfer.warmup_share must be from 0 to less than 1, not {self.warmup_share}"


@dataclass(frozen=True, slots=True)
class InstructSettings:
    """Instruction tuning of a backbone with LoRA (``xdner instruct``).

    Attributes:
        rank, alpha, lora_dropout: of the LoRA factors, on all linear layers.
        per_source: at most so many sentences of each source, a seeded sample (0 = all).
        add_options: share of the prompts that also list types of other sources, which nothing answers.
    """

    rank: int = 16
    alpha: int = 32
    lora_dropout: float = 0.0
    per_source: int = 400
    add_options: float = 0.3

    def problems(self) -> Iterable[str]:
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                yield f"instruct.{name} must be at least 1, not {getattr(self, name)}"
        if self.per_source < 0:
            yield f"instruct.per_source must not be negative, not {self.per_source}"
        for name in ("lora_dropout", "add_options"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"instruct.{name} must be from 0 to 1, not {getattr(self, name)}"


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How texts are read at prediction.

    Attributes:
        batch_size: sentences in the engine at a time.
        window: words in a window; about the length seen in training.
        overlap: words that two neighboring windows share.
        resident_mb: megabytes of prefixes and contexts in memory at most; domains beyond it are mapped from files.
    """

    batch_size: int = 32
    window: int = 80
    overlap: int = 16
    resident_mb: int = 1024

    def problems(self) -> Iterable[str]:
        if self.batch_size < 1:
            yield f"decoding.batch_size must be at least 1, not {self.batch_size}"
        if self.window < 4:
            yield f"decoding.window must be at least 4 words, not {self.window}"
        if self.resident_mb < 1:
            yield f"decoding.resident_mb must be at least 1, not {self.resident_mb}"
        if not 0 <= self.overlap <= self.window // 2:
            yield f"decoding.overlap must be from 0 to half the window ({self.window // 2}), not {self.overlap}"


class GroupedSettings:
    """What all settings share: groups are the fields of a dataclass, and are read, checked and written alike."""

    __slots__ = ()
    #: Defaults over those of the groups' own classes.
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        found = [p for f in dataclasses.fields(cast(Any, self)) for p in getattr(self, f.name).problems()]
        if found:
            raise SettingsError(found, hint="Correct these values and start again.")

    @classmethod
    def build(
        cls, file: str | Path | None = None, overrides: Iterable[str] = (), base: Mapping[str, Any] | None = None
    ) -> Self:
        """Defaults, then ``base``, then a TOML file, then ``group.key=value`` overrides.

        A key without its group is found by itself where only one group has it: ``--set epochs=3``.

        Raises:
            SettingsError: every unknown key and wrong value, at once.
        """
        problems: list[str] = []
        kinds = _kinds(cast(Any, cls))
        values: dict[str, dict[str, Any]] = {group: dict(cls.DEFAULTS.get(group, {})) for group in kinds}
        for table in (base or {}, _read_toml(file, problems)):
            for group, entries in table.items():
                if group not in values or not isinstance(entries, Mapping):
                    problems.append(f"unknown group {group!r}{_near(group, values)}")
                    continue
                for key, value in entries.items():
                    _put(values, kinds, group, key, value, problems)
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                problems.append(f"{override!r} is not of the form key=value")
                continue
            group, dot, name = key.strip().rpartition(".")
            if not dot:
                owners = [g for g in values if name in _types(kinds[g])]
                if len(owners) > 1:
                    problems.append(f"{name!r} is ambiguous: write {' or '.join(f'{g}.{name}' for g in owners)}")
                    continue
                if not owners:
                    every = [f"{g}.{n}" for g in values for n in _types(kinds[g])]
                    problems.append(f"unknown setting {name!r}{_near(name, every)}")
                    continue
                group = owners[0]
            if group not in values:
                problems.append(f"unknown group {group!r}{_near(group, values)}")
                continue
            _put(values, kinds, group, name, _parse(text.strip()), problems)
        hint = f"Groups and keys: {'; '.join(g + ': ' + ', '.join(_types(kinds[g])) for g in values)}."
        if not any("unknown" in problem or "not of the form" in problem for problem in problems):
            hint = "Correct these values and start again."
        groups = {g: kinds[g](**entries) for g, entries in values.items()}
        problems += [problem for group in groups.values() for problem in group.problems()]
        if problems:
            raise SettingsError(problems, hint=hint)
        return cls(**groups)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by group."""
        return dataclasses.asdict(cast(Any, self))

    def to_toml(self) -> str:
        """The resolved settings as TOML."""
        return tomli_w.dumps(self.to_dict())


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


@functools.cache  # a domain's settings are read whenever it is loaded
def _kinds(settings: type) -> dict[str, Any]:
    """The groups of a settings class, by name."""
    hints = typing.get_type_hints(settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


@functools.cache
def _types(group: Any) -> dict[str, Any]:
    return typing.get_type_hints(group)


def _near(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _read_toml(file: str | Path | None, problems: list[str]) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number too long
        problems.append(f"cannot read settings from {file}: {error}")
        return {}


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):  # not a TOML value: a bare word, as in form=paper
        return text


def _put(
    values: dict[str, dict[str, Any]], groups: Mapping[str, Any], group: str, key: str, value: Any, problems: list[str]
) -> None:
    kinds = _types(groups[group])
    if key not in kinds:
        problems.append(f"unknown setting '{group}.{key}'{_near(key, kinds)}")
        return
    kind = kinds[key]
    if typing.get_origin(kind) in (Literal, types.UnionType):
        allowed = typing.get_args(kind)
        if value not in allowed:
            problems.append(f"{group}.{key} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
            return
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problems.append(f"{group}.{key} must be {kind.__name__}, not {value!r}")
        return
    values[group][key] = value
