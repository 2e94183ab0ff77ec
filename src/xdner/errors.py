"""The exceptions of xdner.

Every error says what was wrong and carries a ``hint``: the next step for the person who reads it.

::

    XdnerError
    ├── DataError                 what the user gave us cannot be used
    │   ├── CorpusError           a corpus file: knows the path and the line
    │   ├── DomainError           a domain's name, labels or verbalizations
    │   ├── CodecError            a sentence or target that cannot be expressed
    │   └── TemplateError         a prompt's template
    ├── SettingsError             unknown or impossible settings, all of them at once
    ├── BackboneError
    │   ├── BackboneNotFoundError a name that leads to no weights
    │   └── BackboneMismatchError weights that are not the ones they should be
    ├── EndpointError             a language model behind an endpoint: down, slow, or unwilling
    │   └── EndpointInterrupted   stopped on request; what was answered before comes with it
    ├── PrefixError
    │   ├── PrefixFormatError     a file that is not, or is no longer, a prefix
    │   └── PrefixMismatchError   a good prefix, on the wrong backbone or with the wrong shape
    ├── TaggerFormatError         a folder that is not, or is no longer, a trained tagger
    ├── RetrievalError            an index of examples, or the server that holds it
    │   └── IndexMismatchError    a good index, made with another embedding
    ├── LibraryError
    │   └── UnknownDomainError    no domain of that name in the library
    ├── TrainingError
    │   └── TrainingInterrupted   stopped on request; a checkpoint is kept
    └── StorageError              the disk is full, read-only or otherwise unwilling
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "BackboneError",
    "BackboneMismatchError",
    "BackboneNotFoundError",
    "CodecError",
    "CorpusError",
    "DataError",
    "DomainError",
    "EndpointError",
    "EndpointInterrupted",
    "IndexMismatchError",
    "LibraryError",
    "PrefixError",
    "PrefixFormatError",
    "PrefixMismatchError",
    "RetrievalError",
    "SettingsError",
    "StorageError",
    "TaggerFormatError",
    "TemplateError",
    "TrainingError",
    "TrainingInterrupted",
    "UnknownDomainError",
    "XdnerError",
    "install_hint",
    "is_out_of_memory",
]


class XdnerError(Exception):
    """Base of all errors that xdner raises on purpose.

    Args:
        message: what was expected and what came.
        hint: what to do next; shown on its own line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class DataError(XdnerError):
    """What the user gave cannot be used."""


class CorpusError(DataError):
    """A corpus file cannot be read or written.

    Args:
        message: what is wrong.
        path: the file, if there is one.
        line: the one-based line, if one is to blame.
        hint: the next step.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message, hint=hint)
        self.path = None if path is None else Path(path)
        self.line = line


class DomainError(DataError):
    """A domain's name, labels or verbalizations are unusable."""


class CodecError(DataError):
    """A sentence, label or target cannot be expressed in the target language."""


class TemplateError(DataError):
    """A prompt's template is missing or unusable."""


class SettingsError(XdnerError):
    """Settings are wrong; ``problems`` lists every mistake that was found."""

    def __init__(self, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems), hint=hint)


class BackboneError(XdnerError):
    """Something about the frozen language model."""


class BackboneNotFoundError(BackboneError):
    """A backbone's name leads to no weights."""


class BackboneMismatchError(BackboneError):
    """The weights are not the ones they should be."""


class EndpointError(XdnerError):
    """A language model behind an endpoint is down, slow, refuses, or is not what it should be.

    Args:
        message: what was expected and what came.
        hint: the next step.
        finished: what was read before, one for each thing that was asked: a result, or ``None``; empty if nothing was.
        report: of an evaluation, the :class:`~xdner.evaluation.report.Report` on what was read before, or ``None``.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, finished: Sequence[Any] = (), report: Any = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.finished, self.report = tuple(finished), report


class EndpointInterrupted(EndpointError):
    """Ctrl-C while an endpoint was asked, after it had answered something: that is paid for, and is in ``finished``."""


class PrefixError(XdnerError):
    """Something about a prefix."""


class PrefixFormatError(PrefixError):
    """The file is not a prefix, or has been truncated or altered."""


class PrefixMismatchError(PrefixError):
    """The prefix was made for another backbone, or has another shape."""


class TaggerFormatError(XdnerError):
    """The folder is not a trained tagger, or has been truncated or altered."""


class RetrievalError(XdnerError):
    """An index of examples cannot be read, written or asked."""


class IndexMismatchError(RetrievalError):
    """The index was made with another embedding than the one that asks."""


class LibraryError(XdnerError):
    """Something about the folder of domains."""


class UnknownDomainError(LibraryError):
    """The library has no domain of that name."""


class TrainingError(XdnerError):
    """Training cannot start, go on or be resumed."""


class TrainingInterrupted(TrainingError):
    """Training was stopped on request; the checkpoint says where to go on."""


class StorageError(XdnerError):
    """The disk is full, read-only or otherwise unwilling; nothing half-written is left behind."""


def install_hint(extra: str) -> str:
    """How to install what an optional part needs, beside an installed xdner and in a checkout."""
    return f"in a checkout: pip install -e '.[{extra}]', else: pip install 'xdner[{extra}]'"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was used up. On a CPU, torch has no type of its own for that."""
    if isinstance(error, RuntimeError):  # torch.OutOfMemoryError is one too
        return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError)
