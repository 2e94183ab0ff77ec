"""The types of an index: those of its examples, and those that somebody wrote into ``domain.toml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdner.domain import Domain, Label
from xdner.errors import DomainError, RetrievalError
from xdner.files import storage_errors, write_atomically
from xdner.library.leftovers import is_domain
from xdner.library.parts import INDEX
from xdner.retrieval.pool import Pool, has_pool
from xdner.text import Sentence
from xdner.workflows.material import domain_of

__all__ = ["check_types", "types_of", "write_types"]


def types_of(pool: Pool) -> set[str]:
    """Of all its examples."""
    return {entity.label for example in pool.examples.values() for entity in example.sentence.entities}


def check_types(name: str, folder: Path, sentences: Sequence[Sentence], file: str) -> None:
    """Before anything is embedded.

    Raises:
        DomainError: the name cannot be one, or a domain that was trained does not know a type.
    """
    found, path = domain_of(name, None, sentences, file), folder / "domain.toml"
    if not is_domain(folder) or not path.exists():
        return
    known = Domain.read(path)
    if new := [label.name for label in found.labels if label.name not in known]:
        raise DomainError(
            f"domain {name!r} does not know the types {', '.join(new)}",
            hint=f"Add them to {path}, or index these examples under another name.",
        )


def write_types(name: str, folder: Path, before: set[str] | None, pool: Pool) -> list[str]:
    """Give a domain that is nothing but an index the types of its examples, and those that somebody wrote into its file.

    Args:
        before: types of the examples before the change; ``None`` if the index was damaged.

    Returns:
        What is to be told of types without examples.
    """
    if not has_pool(folder / INDEX):  # to write into its folder now would make it anew, with nothing else in it
        raise RetrievalError(
            f"the index in {folder / INDEX} has been removed meanwhile",
            hint=f"Make it again: xdner index {name} --examples FILE.",
        )
    path, now = folder / "domain.toml", types_of(pool)
    known = Domain.read(path) if path.exists() else None
    made = known or Domain.from_labels(name, sorted(now))
    if known is not None and not is_domain(folder):
        # What has lost its last example was a mistake, or is over; what never had one was written by hand.
        plain = {label.name for label in known.labels if label == Label(label.name)}
        gone = (plain if before is None else before) - now
        labels = [label for label in known.labels if label.name not in gone]
        labels += [Label(label) for label in sorted(now) if label not in known]
        made = Domain(name, tuple(labels) or known.labels, known.instruction)
    if made != known:
        with storage_errors(folder):
            write_atomically(path, made.to_toml())
    idle = [label for label in made.label_names if label not in now]
    return [f"no example has these types of {path}, which every prompt lists: {', '.join(idle)}"] if idle else []
