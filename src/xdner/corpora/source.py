"""The bytes of a corpus file become lines of text here, and whatever is wrong with them is said here."""

from __future__ import annotations

import codecs
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from xdner.errors import CorpusError

__all__ = ["OTHER_MARKS", "Source", "clip", "read_source"]

OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LIMIT = 60  # characters of a text in a message


@dataclass(frozen=True)
class Source:
    """A corpus file's lines, without their ends; line numbers in errors count from one."""

    path: Path
    lines: list[str] = field(repr=False)
    sha256: str

    def error(self, message: str, *, line: int | None = None, hint: str) -> CorpusError:
        """An error that names this file; to be raised by the caller."""
        return CorpusError(message, path=self.path, line=line, hint=hint)


def clip(text: str) -> str:
    """``text`` as it may stand in a message: quoted, and cut where it is long."""
    return repr(text) if len(text) <= _LIMIT else repr(text[:_LIMIT]) + "…"


def read_source(path: str | Path) -> Source:
    """Read a file as UTF-8 (a byte order mark is accepted) and split it into lines (LF, CRLF or CR).

    Raises:
        CorpusError: the file is missing, a folder, unreadable, empty, not UTF-8 or not text.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError("there is no such file", path=path, hint="Check the path of the corpus.") from None
    except IsADirectoryError:
        raise CorpusError(
            "this is a folder; a corpus is a file", path=path, hint="Name one file in it, such as train.txt."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character or half a surrogate pair in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(
            f"the file cannot be read: {reason}", path=repr(str(path))[1:-1], hint="Check the path and its permissions."
        ) from None
    for mark, name in OTHER_MARKS.items():
        if data.startswith(mark):
            raise CorpusError(
                f"the file is in {name}; UTF-8 was expected",
                path=path,
                hint=f"Convert it: iconv -f {name} -t UTF-8 {path.name} > utf8.txt",
            )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            path=path,
            line=data.count(b"\n", 0, error.start) + 1,
            hint=f"Convert the file: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.txt (or from what it is in).",
        ) from None
    if "\0" in text:
        raise CorpusError(
            "a NUL character: this is not a text file in UTF-8",
            path=path,
            line=text.count("\n", 0, text.index("\0")) + 1,
            hint="Remove the character, or convert the file to UTF-8 (UTF-16 without a mark looks like this).",
        )
    if not text.strip():
        raise CorpusError("the file is empty", path=path, hint="Check that it was downloaded or written to the end.")
    # A run of CR before LF is one line end (a file converted twice); otherwise every word would end a sentence.
    text = re.sub(r"(?<!\r)\r+\n", "\n", text)
    lines = text.replace("\r", "\n").split("\n") if "\n" not in text else text.split("\n")
    return Source(path, lines, hashlib.sha256(data).hexdigest())
