"""The folder of a pool: which examples count, and where their rows are.

::

    index.json             the manifest: embedding, place of the rows, what is written and what is left over
    examples.<n>.jsonl     the examples of revision n, with their words, so that a pool can be shown without the corpus
    rows.safetensors       a cache of the rows' vectors (``matrix.py``); may be removed
    xdner_<hex>.db         the rows in Milvus Lite, unless a server has them
    .lock                  held by whoever writes

The manifest is the only thing that decides: rows of examples that it does not count are never shown. It is replaced in
one step, after everything it speaks of is written, so a change is there wholly or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xdner.errors import DataError, RetrievalError
from xdner.files import discard, write_atomically
from xdner.retrieval.base import Example
from xdner.retrieval.embedder import Embedding
from xdner.text import Sentence, Word

__all__ = ["CACHE", "MANIFEST", "Manifest", "read_again", "read_examples", "tidy", "write_examples"]

MANIFEST, CACHE = "index.json", "rows.safetensors"
_FORMAT = 1
_COLLECTION = re.compile(r"xdner_[0-9a-f]{16}")
_LEFT = re.compile(r"xdner_[0-9a-f]{16}\.db|examples\.\d+\.jsonl|\..+\.[0-9a-f]{12}\.part", re.DOTALL)
_HINT = "Restore the folder, or make the index again: xdner index NAME --examples FILE --replace."


@dataclass(frozen=True)
class Manifest:
    """What a pool is.

    Attributes:
        embedding: that made the vectors.
        uri: of a Milvus server, or empty: a file in the folder.
        collection: its name there.
        kind, clusters, indexed: of the vectors' index, and the number of rows that it was made for.
        stop_words: the language that tells content words.
        revision: counts changes.
        next: number of the next new example; numbers are never used twice.
        pending: rows from ``next`` on may be there: somebody was writing them.
        removed: ids of examples whose rows may still be there.
        examples, words: how many.
        sha256: of the examples' file.
    """

    embedding: Embedding
    uri: str
    collection: str
    kind: str = ""
    clusters: int = 0
    indexed: int = 0
    stop_words: str = "english"
    revision: int = 0
    next: int = 0
    pending: bool = False
    removed: tuple[str, ...] = ()
    examples: int = 0
    words: int = 0
    sha256: str = ""

    @property
    def file(self) -> str:
        """Of the examples."""
        return f"examples.{self.revision}.jsonl"

    @property
    def database(self) -> str:
        """Of the rows, where no server has them."""
        return f"{self.collection}.db"

    @property
    def rows(self) -> dict[str, Any]:
        """What a cache of the rows is made of."""
        return {"collection": self.collection, "revision": self.revision, "sha256": self.sha256}

    def with_(self, **changes: Any) -> Manifest:
        """Another one."""
        return replace(self, **changes)

    def write(self, folder: Path) -> None:
        """Replace the folder's.

        Raises:
            StorageError: it cannot be written.
        """
        value = {"format": _FORMAT, **asdict(self)}
        write_atomically(folder / MANIFEST, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The folder's, or ``None``.

        Raises:
            RetrievalError: it is damaged.
        """
        path = folder / MANIFEST
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["format"] != _FORMAT:
                raise RetrievalError(
                    f"{path} has format {value['format']}, this version reads {_FORMAT}", hint="Install a newer xdner."
                )
            del value["format"]
            value["embedding"] = Embedding(**value["embedding"])
            value["removed"] = tuple(map(str, value["removed"]))
            made = cls(**value)
            kinds = {"uri": str, "collection": str, "next": int, "revision": int, "words": int, "sha256": str}
            if any(type(getattr(made, name)) is not kind for name, kind in kinds.items()):
                raise TypeError("a value is of another kind")
            if not _COLLECTION.fullmatch(made.collection):  # a file's name is made of it
                raise ValueError("its collection has another name than xdner gives")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RetrievalError(f"{path} is not the manifest of an index: {error}", hint=_HINT) from None
        return made


def read_again(folder: Path, known: Manifest) -> Manifest:
    """What the folder says now, or what is ``known`` where nothing was written yet.

    Raises:
        RetrievalError: it is damaged, or somebody has removed it: what is written into it now would be all that it has.
    """
    now = Manifest.read(folder)
    if now is None and known.sha256:
        raise RetrievalError(
            f"the index in {folder} has been removed meanwhile",
            hint="Make it again: xdner index NAME --examples FILE.",
        )
    return now or known


def write_examples(folder: Path, manifest: Manifest, examples: Mapping[int, Example]) -> Manifest:
    """Write the examples' file and the manifest that counts them."""
    lines = []
    for number, example in sorted(examples.items()):
        s = example.sentence
        record = {
            "number": number, "id": example.id, "text": s.text, "words": [[w.start, w.end] for w in s.words],
            "spans": [[e.start, e.end, e.label] for e in s.entities], "sentence": s.id,
        }  # fmt: skip
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    data = "".join(lines).encode("utf-8", "surrogatepass")
    made = manifest.with_(
        revision=manifest.revision + 1, examples=len(examples), sha256=hashlib.sha256(data).hexdigest(),
        words=sum(len(e.sentence.words) for e in examples.values()),
    )  # fmt: skip
    write_atomically(folder / made.file, data)
    made.write(folder)
    if manifest.sha256 and manifest.file != made.file:
        with contextlib.suppress(OSError):  # the next writer removes it
            (folder / manifest.file).unlink(missing_ok=True)
    return made


def read_examples(folder: Path, manifest: Manifest) -> dict[int, Example]:
    """The examples of a pool by number.

    Raises:
        RetrievalError: the file is missing or was altered.
    """
    if not manifest.sha256:
        return {}
    path = folder / manifest.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RetrievalError(f"cannot read {path}: {error.strerror}", hint=_HINT) from None
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise RetrievalError(f"{path} is truncated or was altered: its hash is another one", hint=_HINT)
    found: dict[int, Example] = {}
    try:
        # Not splitlines: a text may hold line separators of Unicode.
        for line in data.decode("utf-8", "surrogatepass").split("\n")[:-1]:
            record = json.loads(line)
            found[record["number"]] = Example(record["id"], _sentence(record))
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise RetrievalError(f"{path} is damaged: {error}", hint=_HINT) from None
    return found


def tidy(folder: Path, manifest: Manifest) -> None:
    """Remove the files of writers that were killed; only for whoever holds the lock."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name not in (manifest.database, manifest.file) and _LEFT.fullmatch(path.name):
                discard(path)


def _sentence(record: Mapping[str, Any]) -> Sentence:
    text: str = record["text"]
    words: Sequence[Sequence[int]] = record["words"]
    bare = Sentence(text, tuple(Word(text[a:b], a, b) for a, b in words), id=record["sentence"])
    spans = Sentence.from_text(text, [(a, b, label) for a, b, label in record["spans"]]).entities
    return bare.with_entities(spans)
