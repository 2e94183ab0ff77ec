"""Text on disk as tokens: packed without padding, kept for a run that resumes, cheap in memory."""

from __future__ import annotations

import errno
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from xdner.corpora import plain
from xdner.corpora.plain import PlainText
from xdner.errors import BackboneError, CorpusError, StorageError
from xdner.testing.encoders import word_piece_tokenizer
from xdner.training import token_store
from xdner.training.token_store import open_store, tokenizer_hash

SEP = 3


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "t.txt"
    path.write_text("the ship sails\n\nin the sea [MASK]\n ~ \n", encoding="utf-8")
    return path


def opened(path: Path, folder: Path, *, room: int = 8, separator: int | None = SEP, vocabulary: int = 80):
    return open_store(
        [PlainText(path)], word_piece_tokenizer(), folder, room=room, separator=separator, vocabulary=vocabulary
    )  # fmt: skip


def test_lines_follow_one_another_with_separators(text: Path, tmp_path: Path) -> None:
    tokenizer = word_piece_tokenizer()
    store = opened(text, tmp_path / "run")
    tokens = tokenizer.convert_ids_to_tokens(store.tokens.tolist())
    assert tokens[:4] == ["the", "ship", "sails", "[SEP]"]
    assert tokens[4:7] == ["in", "the", "sea"]
    assert tokenizer.mask_token_id not in store.tokens, "a special token in the text is plain characters"
    assert tokens.count("[SEP]") == 3
    assert store.facts["tokens"] == len(tokens)
    assert store.facts["unknown"] == tokens.count("[UNK]") > 0
    assert store.tokens.dtype == np.uint16
    joined = [token for block in range(len(store)) for token in store.block(block)]
    assert joined == store.tokens.tolist()[: len(joined)]
    assert len(store.tokens) - len(joined) < token_store.FEWEST
    assert all(len(store.block(b)) == 8 for b in range(len(store) - 1)), "no padding but in the last block"
    assert store.counts(80).tolist() == np.bincount(store.tokens, minlength=80).tolist()
    assert opened(text, tmp_path / "wide", vocabulary=70_000).tokens.dtype == np.uint32


def test_pieces_of_a_long_line_have_no_separator_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.txt"
    path.write_text("the sea in the north wind of the ship\nthe sea\n" * 3)
    whole = opened(path, tmp_path / "a").tokens.tolist()
    monkeypatch.setattr(plain, "LONGEST", 12)
    monkeypatch.setattr(token_store, "_BATCH", 5)
    store = opened(path, tmp_path / "b")
    assert store.tokens.tolist() == whole
    assert store.facts["files"][0]["cut"] == 3


def test_what_is_kept_is_used_only_for_the_same_text(text: Path, tmp_path: Path, monkeypatch) -> None:
    opened(text, tmp_path / "run")

    def fails(*_: object) -> None:
        raise AssertionError("tokenized again")

    write = token_store._write
    monkeypatch.setattr(token_store, "_write", fails)
    again = opened(text, tmp_path / "run")
    assert again.facts["files"][0]["lines"] == 3
    with pytest.raises(AssertionError, match="again"):
        opened(text, tmp_path / "run", separator=None)
    text.write_text("the ship sails\n\nin the SEA [MASK]\n ~ \n")
    with pytest.raises(AssertionError, match="again"):
        opened(text, tmp_path / "run")
    monkeypatch.setattr(token_store, "_write", write)
    opened(text, tmp_path / "run")
    (tmp_path / "run" / "tokens.bin").write_bytes(b"xx")
    assert opened(text, tmp_path / "run").tokens.tolist() == again.tokens.tolist(), "a cut file is made again"


def test_a_tokenizer_has_the_same_hash_before_and_after_it_was_used() -> None:
    tokenizer = word_piece_tokenizer()
    before = tokenizer.backend_tokenizer.to_str()
    named = tokenizer_hash(tokenizer)
    tokenizer(["the sea"], add_special_tokens=False)
    assert tokenizer.backend_tokenizer.to_str() != before, "as MiniLM's: a call changes what it says of itself"
    assert tokenizer_hash(tokenizer) == named


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    peaks = []
    for times in (1, 8):
        path = tmp_path / f"{times}.txt"
        path.write_text("the ship sails in the sea\n" * 20_000 * times)
        tracemalloc.start()
        store = opened(path, tmp_path / f"run{times}", room=126)
        store.counts(80)
        store.block(len(store) - 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert store.facts["tokens"] == 7 * 160_000
    assert peaks[1] < 1.3 * peaks[0] + (1 << 20)


def test_too_little_text_and_a_foreign_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("the sea\n")
    with pytest.raises(CorpusError, match="too little text: 3 tokens"):
        opened(tmp_path / "t.txt", tmp_path / "run")
    (tmp_path / "t.txt").write_text("the sea in the north\n")
    with pytest.raises(BackboneError, match="only 40 embeddings"):
        opened(tmp_path / "t.txt", tmp_path / "run", vocabulary=40)


def test_a_full_disk_leaves_nothing(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        opened(text, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
