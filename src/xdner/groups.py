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

__all__ = [
    "Amount", "Count", "GroupedSettings", "Positive", "Rate", "Seed", "Share", "Use", "Within", "parse_value",
]  # fmt: skip

_IDLE = "makes no use of"


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
#: What every generator of random numbers takes.
Seed = Annotated[int, Within(0, 2**63 - 1)]


@dataclass(frozen=True)
class Use:
    """What a job makes of the groups.

    Attributes:
        job: its name, for messages.
        keys: by group, where only some have an effect: these.
        hint: the next step for whoever asked for others; the keys that have an effect if empty.
    """

    job: str = "this"
    keys: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    hint: str = ""

    def has(self, group: str, key: str) -> bool:
        """Whether a setting has an effect."""
        return group not in self.keys or key in self.keys[group]


class GroupedSettings:
    """What all settings share: groups are the fields of a dataclass, and are read, checked and written alike."""

    __slots__ = ()
    #: Defaults over those of the groups' own classes.
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: What is used of groups that others share.
    USE: ClassVar[Use] = Use()

    def __post_init__(self) -> None:
        found = [p for f in dataclasses.fields(cast(Any, self)) for p in _problems(f.name, getattr(self, f.name))]
        if found:
            raise SettingsError(found, hint="Correct these values and start again.")

    @classmethod
    def build(
        cls,
        file: str | Path | None = None,
        overrides: Iterable[str] = (),
        base: Mapping[str, Any] | None = None,
        *,
        use: Use | None = None,
    ) -> Self:
        """Defaults, then ``base``, then a TOML file, then ``group.key=value`` overrides.

        A key without its group is found by itself where only one group has it: ``--set epochs=3``. What has no effect
        (``use``; :attr:`USE` if ``None``), or none beside other settings of its group (``idle_beside`` of its class), is refused
        as an override. A file may be the whole of what another job's settings were: there, what the job makes no use of is
        refused where it is neither the default nor what ``base`` says, and else left as it is here. ``base`` was resolved
        before, and nobody asked for it: it is taken as it is.

        Raises:
            SettingsError: every unknown key, wrong value and setting without effect, at once.
        """
        made = _Builder(cls, use or cls.USE)
        made.take(base or {})
        made.take(_read_toml(file, made.problems), file)
        for override in overrides:
            made.override(override)
        hint = made.hint()
        groups = {g: made.kinds[g](**entries) for g, entries in made.values.items()}
        made.problems += [problem for name, group in groups.items() for problem in _problems(name, group)]
        if not made.problems and (idle := made.beside(groups)):
            raise SettingsError(idle, hint="Leave one of the two out.")
        if made.problems:
            raise SettingsError(made.problems, hint=hint)
        return cls(**groups)

    @classmethod
    def stored(cls, file: str | Path) -> Self:
        """Settings as a domain keeps them (:meth:`to_toml`), what has no effect among them.

        Raises:
            SettingsError: as :meth:`build`.
        """
        problems: list[str] = []
        table = _read_toml(file, problems)
        if problems:
            raise SettingsError(problems, hint="Correct these values and start again.")
        return cls.build(base=table)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by group."""
        return dataclasses.asdict(cast(Any, self))

    def to_toml(self) -> str:
        """The resolved settings as TOML."""
        return tomli_w.dumps(self.to_dict())


class _Builder:
    """Values by group, as they are asked for, and what is wrong with them."""

    def __init__(self, settings: type[GroupedSettings], use: Use) -> None:
        self.use, self.problems = use, list[str]()
        self.kinds = _kinds(cast(Any, settings))
        self.overridden: list[tuple[str, str]] = []
        self.values: dict[str, dict[str, Any]] = {group: dict(settings.DEFAULTS.get(group, {})) for group in self.kinds}
        self.used = {g: [key for key in _fields(kind) if use.has(g, key)] for g, kind in self.kinds.items()}

    def hint(self) -> str:
        """The next step. The whole list is long: it stands there only where nothing comes near what was asked for."""
        lost = [p for p in self.problems if any(what in p for what in ("unknown", "not of the form", _IDLE))]
        if not lost:
            return "Correct these values and start again."
        if self.use.hint and all(_IDLE in problem for problem in lost):
            return self.use.hint
        if all("did you mean" in problem for problem in lost):
            groups = ", ".join(group for group, keys in self.used.items() if keys)
            return f"Groups and keys stand in the settings.toml of every trained domain. The groups: {groups}."
        return f"Groups and keys: {'; '.join(g + ': ' + ', '.join(keys) for g, keys in self.used.items() if keys)}."

    def take(self, table: Mapping[Any, Any], file: str | Path | None = None) -> None:
        """The groups of a file, or (without one) of settings that were made before, which nobody asked for."""
        for group, entries in table.items():
            if group not in self.values:
                self.problems.append(f"unknown group {group!r}{_near(group, self.values)}")
                continue
            if not isinstance(entries, Mapping):
                self.problems.append(f"{group} is a group of settings and cannot be {entries!r}")
                continue
            for key, value in entries.items():
                if file is None or not self._is_idle(group, key):
                    self._put(group, key, value)
                elif value not in self._usual(group, key):
                    self._refuse(f"{group}.{key}, which {file} sets to {value!r}")

    def override(self, text: str) -> None:
        """One ``group.key=value`` or ``key=value``."""
        key, equals, value = text.partition("=")
        if not equals:
            self.problems.append(f"{text!r} is not of the form key=value")
            return
        group, dot, name = key.strip().rpartition(".")
        if not dot:
            every = [g for g, kind in self.kinds.items() if name in _fields(kind)]
            owners = [g for g in every if name in self.used[g]]
            if every and not owners:
                self._refuse(" or ".join(f"{g}.{name}" for g in every))
                return
            if len(owners) > 1:
                self.problems.append(f"{name!r} is ambiguous: write {' or '.join(f'{g}.{name}' for g in owners)}")
                return
            if not owners:
                known = [f"{g}.{n}" for g, keys in self.used.items() for n in keys]
                self.problems.append(f"unknown setting {name!r}{_near(name, known)}")
                return
            group = owners[0]
        if group not in self.values:
            self.problems.append(f"unknown group {group!r}{_near(group, self.values)}")
            return
        if self._is_idle(group, name):
            self._refuse(f"{group}.{name}")
        else:
            self.overridden.append((group, name))
            self._put(group, name, parse_value(value.strip()))

    def beside(self, groups: Mapping[str, Any]) -> list[str]:
        """Overrides that have no effect beside the other settings of their groups, where the job goes by those."""
        found = []
        for name, key in dict.fromkeys(self.overridden):
            reason = groups[name].idle_beside().get(key) if hasattr(groups[name], "idle_beside") else None
            if reason is not None and not self._is_idle(name, reason.partition("=")[0]):
                found.append(f"{name}.{reason} {_IDLE} {name}.{key}")
        return found

    def _is_idle(self, group: str, key: str) -> bool:
        return key in _fields(self.kinds[group]) and key not in self.used[group]

    def _refuse(self, what: str) -> None:
        self.problems.append(f"{self.use.job} {_IDLE} {what}")

    def _usual(self, group: str, key: str) -> tuple[Any, Any]:
        """The class's own default, and what the job has."""
        default = getattr(self.kinds[group](), key)
        return default, self.values[group].get(key, default)

    def _put(self, group: str, key: str, value: Any) -> None:
        fields = _fields(self.kinds[group])
        if key not in fields:
            self.problems.append(f"unknown setting '{group}.{key}'{_near(key, self.used[group])}")
            return
        kind = fields[key].kind
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
        elif kind is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            self.problems.append(f"{group}.{key} must be {getattr(kind, '__name__', kind)}, not {value!r}")
            return
        self.values[group][key] = value


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


def parse_value(text: str) -> Any:
    """A value as an override has it: TOML, or a bare word."""
    try:
        made = tomllib.loads(f"x = {text}")
        return made["x"] if len(made) == 1 else text  # more lines would be more settings
    except (ValueError, RecursionError):  # not a TOML value: a bare word, as in form=paper
        return text
