"""Unlabelled text, read as a stream: of a file of any size, one piece of a line is in memory at a time.

A line is a document (a sentence, a paragraph, an article). The rules for bytes are those of labelled corpora
(:mod:`xdner.corpora.source`): UTF-8, a byte order mark is accepted, LF, CRLF or CR, no NUL character.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xdner.corpora.source import OTHER_MARKS
from xdner.errors import CorpusError

__all__ = ["LONGEST", "Piece", "PlainText"]

#: Characters of a line that are read at once; what is longer comes in pieces.
LONGEST = 1 << 16
_CHUNK = 1 << 20  # bytes
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Piece:
    """A line, or a piece of a gigantic one.

    Attributes:
        text: without its line end; not blank, but for the last piece of a line that came in several.
        ends: whether the line ends here; the next piece belongs to the same line if it does not.
    """

    text: str
    ends: bool


class PlainText:
    """One file; iterate to read it once more from its beginning.

    Args:
        path: a UTF-8 text file.

    Attributes:
        bytes, lines: read so far; lines are those that are not blank.
        cut: lines that were longer than :data:`LONGEST` characters and came in pieces.
        sha256: of the whole file, once it was read to its end; empty before.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.bytes = self.lines = self.cut = 0
        self.sha256 = ""

    def __iter__(self) -> Iterator[Piece]:
        """The pieces, in order.

        Raises:
            CorpusError: the file is missing, no ordinary file, unreadable, empty, not UTF-8 or not text.
        """
        self.bytes = self.lines = self.cut = 0
        self.sha256 = ""
        rest, long = "", False  # of the line that is not over; whether pieces of it were given
        for text in self._texts():
            *whole, rest = (rest + text).split("\n")
            for line in whole:
                yield from self._line(line, long)
                long = False
            while len(rest) > LONGEST:
                at = _cut(rest)
                if rest[:at].strip():
                    self.cut += not long
                    long = True
                    yield Piece(rest[:at], False)
                rest = rest[at:]
        if rest or long:
            yield from self._line(rest, long)
        if not self.lines:
            raise self._error("the file is empty", None, "Check that it was downloaded or written to the end.")

    def check(self) -> None:
        """Whether the file can be opened and begins like text.

        Raises:
            CorpusError: it does not.
        """
        with self._opened() as file:
            try:
                self._check_mark(file.read(4))
            except OSError as error:
                raise self._unreadable(error) from None

    def _line(self, line: str, long: bool) -> Iterator[Piece]:
        """The end of a line, of which pieces may have been given before."""
        if not long and not line.strip():
            return
        self.lines += 1
        while len(line) > LONGEST:
            at = _cut(line)
            if line[:at].strip():
                self.cut += not long
                long = True
                yield Piece(line[:at], False)
            line = line[at:]
        yield Piece(line, True)

    def _texts(self) -> Iterator[str]:
        """Decoded chunks with LF as the only line end."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        digest = hashlib.sha256()
        number, held = 1, ""  # of the line that comes next; CRs whose LF may be in the next chunk
        with self._opened() as file:
            while True:
                try:
                    data = file.read(_CHUNK)
                except OSError as error:
                    raise self._unreadable(error) from None
                if not self.bytes:
                    self._check_mark(data)
                digest.update(data)
                self.bytes += len(data)
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise self._error(
                        f"byte 0x{error.object[error.start]:02x} is not UTF-8",
                        number + error.object.count(b"\n", 0, error.start),
                        f"Convert the file: iconv -f WINDOWS-1252 -t UTF-8 {self.path.name} > utf8.txt "
                        "(or from what it is in).",
                    ) from None
                if "\0" in text:
                    raise self._error(
                        "a NUL character: this is not a text file in UTF-8",
                        number + text.count("\n", 0, text.index("\0")),
                        "Remove the character, or convert the file to UTF-8 (UTF-16 without a mark looks like this).",
                    )
                number += text.count("\n")
                text = held + text
                held = "\r" if data and text.endswith("\r") else ""
                text = text[: len(text) - len(held)]
                yield text.replace("\r\n", "\n").replace("\r", "\n")
                if not data:
                    break
        self.sha256 = digest.hexdigest()

    def _opened(self) -> BinaryIO:
        try:
            if self.path.is_dir():
                raise self._error("this is a folder; a corpus is a file", None, "Name the text files in it.")
            if self.path.exists() and not self.path.is_file():
                # A pipe can be read only once, and a run that resumes must see that its text is the same.
                raise self._error("this is no ordinary file", None, "Write the text to a file first.")
            return open(self.path, "rb")
        except FileNotFoundError:
            raise self._error("there is no such file", None, "Check the path of the corpus.") from None
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _check_mark(self, data: bytes) -> None:
        for mark, name in OTHER_MARKS.items():
            if data.startswith(mark):
                raise self._error(
                    f"the file is in {name}; UTF-8 was expected",
                    None,
                    f"Convert it: iconv -f {name} -t UTF-8 {self.path.name} > utf8.txt",
                )
        if data.startswith(_GZIP):
            raise self._error("the file is compressed", None, f"Unpack it first: gunzip -k {self.path.name}")

    def _unreadable(self, error: Exception) -> CorpusError:
        reason = getattr(error, "strerror", None) or str(error)
        shown = repr(str(self.path))[1:-1]
        return CorpusError(f"the file cannot be read: {reason}", path=shown, hint="Check the path and its permissions.")

    def _error(self, message: str, line: int | None, hint: str) -> CorpusError:
        return CorpusError(message, path=self.path, line=line, hint=hint)


def _cut(line: str) -> int:
    """Where to cut a line that is too long: before a space in the second half of what fits, else where it is full."""
    at = line.rfind(" ", LONGEST // 2, LONGEST)
    return at if at > 0 else LONGEST
