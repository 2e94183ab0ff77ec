"""Unlabelled text: the same lines whatever the chunks, little memory, one clear error."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from xdner.corpora import plain
from xdner.corpora.plain import PlainText
from xdner.errors import CorpusError


def lines(text: PlainText) -> list[str]:
    """Whole lines again."""
    found, rest = [], ""
    for piece in text:
        rest += piece.text
        if piece.ends:
            found.append(rest)
            rest = ""
    assert rest == ""
    return found


@given(text=st.text(alphabet="ab \n\ré漢😀", max_size=60), chunk=st.integers(1, 7), longest=st.integers(2, 9))
@example(text="a\n     \nb     c", chunk=64, longest=2)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)  # fmt: skip
def test_chunks_and_pieces_do_not_change_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk: int, longest: int
) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode())
    monkeypatch.setattr(plain, "_CHUNK", chunk)
    monkeypatch.setattr(plain, "LONGEST", longest)
    wanted = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    source = PlainText(path)
    if not wanted:
        with pytest.raises(CorpusError, match="empty"):
            list(source)
        return
    pieces = list(source)
    assert all(len(piece.text) <= longest for piece in pieces)
    got = lines(PlainText(path))
    # Blank pieces of a gigantic line are left out; nothing else is lost.
    assert [line.replace(" ", "") for line in got] == [line.replace(" ", "") for line in wanted]
    assert source.lines == len(wanted)
    ends = [index for index, piece in enumerate(pieces) if piece.ends]
    assert source.cut == sum(before + 1 < end for before, end in pairwise([-1, *ends])), "lines of several pieces"
    assert all(piece.text.strip() for index, piece in enumerate(pieces) if index not in ends)
    assert source.bytes == len(text.encode())


def test_a_gigantic_line_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    with open(path, "wb") as file:
        for _ in range(64):
            file.write(b"word " * 100_000)  # 32 MB in one line
    tracemalloc.start()
    source = PlainText(path)
    count = sum(len(piece.text.split()) for piece in source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 6_400_000, "cut between words"
    assert (source.lines, source.cut) == (1, 1)
    assert peak < 12_000_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "t.txt: the file is empty"),
        (b" \n\t\r\n", "t.txt: the file is empty"),
        (b"ok\ncaf\xe9 au lait\n", "t.txt:2: byte 0xe9 is not UTF-8"),
        (b"ok\nends in half \xc3", "t.txt:2: byte 0xc3 is not UTF-8"),
        (b"a\nb\n\0c\n", "t.txt:3: a NUL character"),
        ("é\n".encode("utf-16"), "t.txt: the file is in UTF-16; UTF-8 was expected"),
        (b"\x1f\x8b\x08\0", "t.txt: the file is compressed"),
    ],
)
@pytest.mark.parametrize("chunk", [2, 1 << 20])
def test_what_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str, chunk: int
) -> None:
    if chunk < 4 and "UTF-16" not in message:
        monkeypatch.setattr(plain, "_CHUNK", chunk)
    (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        list(PlainText(tmp_path / "t.txt"))
    assert message in caught.value.message.replace(f"{tmp_path}/", "")
    assert caught.value.hint


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "none", "no such file"),
        (tmp_path, "this is a folder"),
        (Path("/dev/zero"), "no ordinary file"),
        (Path("a\0b"), "cannot be read"),
    ]:
        with pytest.raises(CorpusError, match=message):
            PlainText(path).check()


def test_a_mark_at_the_beginning_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfa\n")
    assert [p.text for p in PlainText(tmp_path / "t.txt")] == ["a"]
