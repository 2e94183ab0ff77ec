"""Groups of settings: how they are declared, read from TOML, overridden with ``--set group.key=value``, checked and written.

A group is a frozen dataclass; its fields are declared with the values they may have:

>>> @dataclass(frozen=True)
... class Sails:
...     count: Positive = 2
...     reefed: Share = 0.0
...     rig: Literal["sloop", "ketch"] = "sloop"

Every mistake in a file or on the command line is reported at once (:class:`~xdner.errors.SettingsError`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import tomli_w

from xdner.errors import SettingsError

__all__ = ["Amount", "Count", "GroupedSettings", "Positive", "Rate", "Share", "Within"]


@dataclass(frozen=True)
class Within:
    """The finite numbers that a field may have.

    Attributes:
        low, high: the ends.
        above, below: whether the lower end, the upper end, is itself excluded.
    """

    low: float = 0
    high: float = math.inf
    above: bool = False
    below: bool = False

    def has(self, value: float) -> bool:
        """Whether the number is one of them; one that is no number (NaN) is not."""
        over = self.low < value if self.above else self.low <= value
        under = value < self.high if self.below else value <= self.high
        return over and under and value != math.inf

    def __str__(self) -> str:
        low, high = f"{self.low:g}", f"{self.high:g}"
        if self.high == math.inf:
            if self.low:
                return f"must be at least {low}"
            return "must be positive and finite" if self.above else "must not be negative or infinite"
        if self.above:
            return f"must be between {low} and {high}" if self.below else f"must be above {low} and at most {high}"
        return f"must be from {low} to less than {high}" if self.below else f"must be from {low} to {high}"


#: Numbers of something: from 0, from 1. Parts of a whole. Weights and bounds; learning rates and times.
Count = Annotated[int, Within()]
Positive = Annotated[int, Within(1)]
Share = Annotated[float, Within(0, 1)]
Amount = Annotated[float, Within()]
Rate = Annotated[float, Within(0, above=True)]


class GroupedSettings:
    """What all settings share: groups are the fields of a dataclass, and are read, checked and written alike."""

    __slots__ = ()
    #: Defaults over those of the groups' own classes.
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        found = [p for f in dataclasses.fields(cast(Any, self)) for p in _problems(f.name, getattr(self, f.name))]
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
                if group not in values:
                    problems.append(f"unknown group {group!r}{_near(group, values)}")
                    continue
                if not isinstance(entries, Mapping):
                    problems.append(f"{group} is a group of settings and cannot be {entries!r}")
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
                owners = [g for g in values if name in _fields(kinds[g])]
                if len(owners) > 1:
                    problems.append(f"{name!r} is ambiguous: write {' or '.join(f'{g}.{name}' for g in owners)}")
                    continue
                if not owners:
                    every = [f"{g}.{n}" for g in values for n in _fields(kinds[g])]
                    problems.append(f"unknown setting {name!r}{_near(name, every)}")
                    continue
                group = owners[0]
            if group not in values:
                problems.append(f"unknown group {group!r}{_near(group, values)}")
                continue
            _put(values, kinds, group, name, _parse(text.strip()), problems)
        hint = "Correct these values and start again."
        if lost := [p for p in problems if "unknown" in p or "not of the form" in p]:
            hint = (
                f"Groups and keys stand in the settings.toml of every trained domain. The groups: {', '.join(values)}."
            )
            if not all("did you mean" in p for p in lost):  # nothing comes near, so only the whole list helps
                hint = f"Groups and keys: {'; '.join(g + ': ' + ', '.join(_fields(kinds[g])) for g in values)}."
        groups = {g: kinds[g](**entries) for g, entries in values.items()}
        problems += [problem for name, group in groups.items() for problem in _problems(name, group)]
        if problems:
            raise SettingsError(problems, hint=hint)
        return cls(**groups)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by group."""
        return dataclasses.asdict(cast(Any, self))

    def to_toml(self) -> str:
        """The resolved settings as TOML."""
        return tomli_w.dumps(self.to_dict())


@functools.cache  # a domain's settings are read whenever it is loaded
def _kinds(settings: type) -> dict[str, Any]:
    """The groups of a settings class, by name."""
    hints = typing.get_type_hints(settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


@dataclass(frozen=True)
class _Field:
    """What a field may have: values of a type, or one of some values; numbers within bounds."""

    kind: Any
    allowed: tuple[object, ...] = ()
    within: Within | None = None

    @classmethod
    def of(cls, hint: Any) -> _Field:
        if typing.get_origin(hint) is Literal:
            return cls(None, typing.get_args(hint))
        if typing.get_origin(hint) is Annotated:
            kind, within = typing.get_args(hint)
            return cls(kind, within=within)
        return cls(hint)

    def problem(self, value: Any) -> str:
        """What is wrong with a value, or nothing."""
        if self.allowed and not any(type(value) is type(one) and value == one for one in self.allowed):
            return f"must be one of {', '.join(map(repr, self.allowed))}, not {value!r}"
        return f"{self.within}, not {value}" if self.within is not None and not self.within.has(value) else ""


@functools.cache
def _fields(group: Any) -> dict[str, _Field]:
    return {name: _Field.of(hint) for name, hint in typing.get_type_hints(group, include_extras=True).items()}


def _problems(name: str, group: Any) -> Iterable[str]:
    """What is wrong with a group's values: by the declarations, and what the group itself has to say (``problems``)."""
    for key, field in _fields(cast(Any, type(group))).items():
        if problem := field.problem(getattr(group, key)):
            yield f"{name}.{key} {problem}"
    if hasattr(group, "problems"):
        yield from group.problems()


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
    fields = _fields(groups[group])
    if key not in fields:
        problems.append(f"unknown setting '{group}.{key}'{_near(key, fields)}")
        return
    kind = fields[key].kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    elif kind is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        problems.append(f"{group}.{key} must be {kind.__name__}, not {value!r}")
        return
    values[group][key] = value
