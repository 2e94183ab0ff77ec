"""Unlabelled text as one long line of token ids on disk, cut into blocks: memory does not grow with the text.

Text is tokenized once, two or four bytes a token, into a file beside the checkpoints; training maps it into memory and
reads the blocks of a step. A run that resumes hashes the text again, and uses the file if the text is still the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedTokenizerBase

from xdner.corpora.plain import PlainText
from xdner.errors import BackboneError, CorpusError
from xdner.files import storage_errors, write_atomically

__all__ = ["TokenStore", "open_store", "tokenizer_hash"]

#: A last block with fewer tokens than this is left out: nothing can be learned from so few.
FEWEST = 8
_BATCH = 1 << 18  # characters that are tokenized at a time
_FORMAT = 1


@dataclass(frozen=True)
class TokenStore:
    """The tokens of a corpus.

    Attributes:
        tokens: [N], mapped from disk.
        room: tokens of a block.
        facts: what was read, as plain values: ``files`` (name, sha256, bytes, lines, cut), ``tokens``, ``unknown``.
    """

    tokens: np.ndarray = field(repr=False)
    room: int
    facts: dict[str, Any]

    def __len__(self) -> int:
        """Blocks."""
        whole, rest = divmod(len(self.tokens), self.room)
        return whole + (rest >= FEWEST)

    def block(self, index: int) -> list[int]:
        """The ids of a block; only the last one may be shorter than ``room``."""
        return self.tokens[index * self.room : (index + 1) * self.room].tolist()

    def counts(self, vocabulary: int) -> np.ndarray:
        """[vocabulary]: how often each id occurs."""
        total = np.zeros(vocabulary, dtype=np.int64)
        for start in range(0, len(self.tokens), 1 << 22):
            total += np.bincount(self.tokens[start : start + (1 << 22)], minlength=vocabulary)
        return total


def open_store(
    texts: Sequence[PlainText],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    room: int,
    separator: int | None,
    vocabulary: int,
    told: Callable[[int], None] = lambda read: None,
) -> TokenStore:
    """Tokenize text into ``folder``, or use what is there if it was made from the same text in the same way.

    Args:
        texts: files, one document a line.
        tokenizer: fast; special tokens in the text are read as plain characters.
        folder: gets ``tokens.bin`` and ``tokens.json``.
        room: tokens of a block.
        separator: id that follows each line, or ``None``.
        vocabulary: rows of the model's embedding table.
        told: called with the bytes read so far.

    Raises:
        CorpusError: a file that cannot be used, or too little text.
        BackboneError: the tokenizer has ids that the model does not know.
        StorageError: the disk is full.
    """
    made = {"format": _FORMAT, "tokenizer": tokenizer_hash(tokenizer), "separator": separator}
    file, record = folder / "tokens.bin", folder / "tokens.json"
    kind = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    made["bytes"] = np.dtype(kind).itemsize
    facts = _kept(file, record, made, texts, told)
    if facts is None:
        record.unlink(missing_ok=True)
        facts = _write(texts, tokenizer, file, separator, vocabulary, kind, told)
        write_atomically(record, json.dumps({"made": made, "facts": facts}, indent=1) + "\n")
    if facts["tokens"] < FEWEST:
        raise CorpusError(
            f"there is too little text: {facts['tokens']} tokens in {len(texts)} files",
            path=texts[0].path,
            hint="Continued pre-training needs text, the more the better: give files with many lines.",
        )
    return TokenStore(np.memmap(file, dtype=kind, mode="r"), room, facts)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of all that a fast tokenizer does to a text.

    Truncation and padding are left out: they are set by each call, so that they depend on what was called before.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    described |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _kept(
    file: Path, record: Path, made: dict[str, Any], texts: Sequence[PlainText], told: Callable[[int], None]
) -> dict[str, Any] | None:
    """The facts of a store that is there and still right."""
    try:
        state = json.loads(record.read_text(encoding="utf-8"))
        facts = state["facts"]
        if state["made"] != made or file.stat().st_size != facts["tokens"] * made["bytes"]:
            return None
        before = [(f["name"], f["sha256"]) for f in facts["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if [name for name, _ in before] != [text.path.name for text in texts]:
        return None
    done = 0
    for text in texts:
        for _ in text:
            told(done + text.bytes)
        done += text.bytes
    return facts if [sha for _, sha in before] == [text.sha256 for text in texts] else None


def _write(
    texts: Sequence[PlainText],
    tokenizer: PreTrainedTokenizerBase,
    file: Path,
    separator: int | None,
    vocabulary: int,
    kind: type,
    told: Callable[[int], None],
) -> dict[str, Any]:
    part = file.with_suffix(".part")
    tokens = unknown = done = 0
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as out:
                for text in texts:
                    for ids in _ids(text, tokenizer, separator):
                        tokens += len(ids)
                        unknown += _append(ids, tokenizer, vocabulary, kind, out)
                        told(done + text.bytes)
                    done += text.bytes
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, file)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    files = [{"name": t.path.name, "sha256": t.sha256, "bytes": t.bytes, "lines": t.lines, "cut": t.cut} for t in texts]
    return {"files": files, "tokens": tokens, "unknown": unknown}


def _append(ids: list[int], tokenizer: PreTrainedTokenizerBase, vocabulary: int, kind: type, out: BinaryIO) -> int:
    """Write ids; gives how many are unknown tokens."""
    values = np.asarray(ids, dtype=np.int64)
    if values.size and values.max() >= vocabulary:
        raise BackboneError(
            f"the tokenizer has the id {values.max()}, but the model has only {vocabulary} embeddings",
            hint="Tokenizer and weights must be those of one model; copy the folder again.",
        )
    out.write(values.astype(kind).tobytes())
    return 0 if tokenizer.unk_token_id is None else int((values == tokenizer.unk_token_id).sum())


def _ids(text: PlainText, tokenizer: PreTrainedTokenizerBase, separator: int | None) -> Iterator[list[int]]:
    """The ids of many lines at a time, each followed by the separator; a line without ids leaves nothing."""
    begun = False  # whether the line that is not over has ids
    for pieces in _batches((piece.text, piece.ends) for piece in text):
        encoded = tokenizer(
            [piece for piece, _ in pieces], add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        ids: list[int] = []
        for (_, ends), own in zip(pieces, encoded, strict=True):
            ids += own
            begun = begun or bool(own)
            if ends and begun and separator is not None:
                ids.append(separator)
            begun = begun and not ends
        yield ids


def _batches(pieces: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    batch: list[tuple[str, bool]] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece[0]) + 1
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
