"""Words to sub-word ids, word by word, in windows that lose nothing.

A sentence longer than a window is split by the rule of ``codec/windows.py``. Every word belongs to the core of exactly
one window, and its tag is the one that this window gives it. Training uses the same windows and counts each word once,
so histories begin where they will begin in prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from xdner.codec.windows import cores, split_windows
from xdner.text import Sentence

__all__ = ["SHAPES", "Encoded", "WordPieces", "shape_of"]

_CACHE = 100_000
#: The shapes that :func:`shape_of` tells apart.
SHAPES = ("lower", "capital", "Title", "UPPER", "miXed", "letters and d1g1ts", "digits", "other")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sentence or a window of one.

    Attributes:
        ids: sub-words with the encoder's own first and last token.
        places: of each word's first sub-word in ``ids``.
        tags: indices of the words' tags; empty where they are not known.
        core: the words that count here, half-open; ``None``: all.
        continues: there are words of the sentence before this window.
        shapes: of each word, indices into :data:`SHAPES`.
        first: index of its first word in the sentence.
        goes_on: there are words of the sentence behind this window.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    tags: tuple[int, ...] = ()
    core: tuple[int, int] | None = None
    continues: bool = False
    shapes: tuple[int, ...] = ()
    first: int = 0
    goes_on: bool = False

    @property
    def counted(self) -> tuple[int, int]:
        """The words that count, half-open."""
        return (0, len(self.places)) if self.core is None else self.core


class WordPieces:
    """Encodes words with a fast tokenizer and remembers them.

    Args:
        tokenizer: knows the first and last token of a sequence, and an unknown token.
        positions: ids that the encoder takes at most.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, positions: int) -> None:
        self.tokenizer, self.positions = tokenizer, positions
        #: Sub-words that a window has room for.
        self.room = positions - 2
        self._cache: dict[str, tuple[int, ...]] = {}
        # Byte-level tokenizers tell a word's start by its space; some others put one before every text by themselves.
        alone, spaced = self._raw(["a", " a"])
        self._lead = "" if spaced[1:] == alone else " "

    def _raw(self, texts: list[str]) -> list[list[int]]:
        # What a user typed is never a special token.
        made = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        return list(made["input_ids"])

    def pieces(self, sentences: Sequence[Sentence]) -> list[list[tuple[int, ...]]]:
        """Ids of every word; unknown, where the tokenizer has nothing for a word. All new words go in one call."""
        new = list({w.text: None for s in sentences for w in s.words if w.text not in self._cache})
        if new:
            if len(self._cache) + len(new) > _CACHE:
                self._cache.clear()
                new = list({w.text: None for s in sentences for w in s.words})
            texts = [self._lead + "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in word) for word in new]
            unknown = (self.tokenizer.unk_token_id,)
            for word, ids in zip(new, self._raw(texts), strict=True):
                self._cache[word] = tuple(ids[: self.room]) or unknown
        return [[self._cache[w.text] for w in s.words] for s in sentences]

    def capped(self, encoded: Sequence[Encoded]) -> int:
        """How many words fill a whole window and were perhaps cut."""
        return sum(len(e.places) == 1 and len(e.ids) == self.positions for e in encoded)

    def encode(
        self, sentences: Sequence[Sentence], *, window: int | None = None, overlap: int = 0
    ) -> list[list[Encoded]]:
        """The windows of every sentence: at most ``positions`` ids and ``window`` words each; none for no words."""
        made = []
        first_id, last_id = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        for sentence, pieces in zip(sentences, self.pieces(sentences), strict=True):
            lengths = [len(p) for p in pieces]
            windows = split_windows(
                lengths, window=window or max(1, len(pieces)), overlap=overlap, max_pieces=self.room
            )
            encoded = []
            for part, core in zip(windows, cores(windows), strict=True):
                ids, places = [first_id], []
                for piece in pieces[part.first : part.last]:
                    places.append(len(ids))
                    ids.extend(piece)
                ids.append(last_id)
                whole = core == (part.first, part.last)
                encoded.append(
                    Encoded(
                        tuple(ids),
                        tuple(places),
                        core=None if whole else (core[0] - part.first, core[1] - part.first),
                        continues=part.first > 0,
                        shapes=tuple(shape_of(w.text) for w in sentence.words[part.first : part.last]),
                        first=part.first,
                        goes_on=part.last < len(pieces),
                    )
                )
            made.append(encoded)
        return made


def shape_of(word: str) -> int:
    """A word's shape, as an index into :data:`SHAPES`.

    >>> [SHAPES[shape_of(w)] for w in ("cat", "A", "Rome", "NATO", "iPhone", "B2", "1999", "-")]
    ['lower', 'capital', 'Title', 'UPPER', 'miXed', 'letters and d1g1ts', 'digits', 'other']
    """
    letters, digits = any(c.isalpha() for c in word), any(c.isdigit() for c in word)
    if not letters:
        return 6 if digits else 7
    if digits:
        return 5
    if word == word.lower():
        return 0
    if word == word.upper():
        return 1 if len(word) == 1 else 3
    return 2 if word[0].isupper() and word[1:] == word[1:].lower() else 4
