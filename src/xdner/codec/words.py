"""Words to token ids, word by word.

Source and target are encoded with the same ids, each word with its leading space, so that a mention in the target is a
slice of the source's ids. Nothing here depends on a word's neighbours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from xdner.errors import CodecError
from xdner.text import Sentence

__all__ = ["Separators", "Tokenizer", "WordEncoder", "first_index"]

_CACHE = 100_000


class Tokenizer(Protocol):
    """What is used of a Hugging Face fast tokenizer."""

    all_special_ids: list[int]
    eos_token_id: int | None
    unk_token_id: int | None

    def __call__(self, text: str, **options: Any) -> Any: ...

    def decode(self, ids: list[int], **options: Any) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Separators:
    """Token ids that structure a target and that no word contains.

    Attributes:
        inner: between a mention and its type.
        outer: after each entity.
        end: end of sequence.
    """

    inner: tuple[int, ...]
    outer: tuple[int, ...]
    end: int


class WordEncoder:
    """Encodes words with a tokenizer, each with its leading space, and remembers them.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        max_pieces: sub-word pieces per word; a longer word keeps its first ones.

    Raises:
        CodecError: a tokenizer without end-of-sequence token, or without tokens that can separate words.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_pieces: int = 48) -> None:
        self.tokenizer, self.max_pieces = tokenizer, max_pieces
        self._special = frozenset(tokenizer.all_special_ids)
        self._cache: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        # Some sentencepiece tokenizers put their own space before every text; another would become a token.
        self._lead = "" if self._raw(" a")[1:] == self._raw("a") and len(self._raw("a")) else " "
        self.separators = self._find_separators()
        structure = {*self.separators.inner, *self.separators.outer, self.separators.end}
        unknown = tokenizer.unk_token_id
        # Some have one token for the unknown and for the end (GPT-2): then nothing stands for the unknown.
        self._unknown = () if unknown is None or unknown in structure else (unknown,)
        self._forbidden = (self._special | structure).difference(self._unknown)

    @property
    def lead(self) -> str:
        """What is put before our own text so that it begins like a word: a space, or nothing where the tokenizer does so."""
        return self._lead

    def word(self, text: str) -> tuple[int, ...]:
        """Ids of one word with its leading space; ``()`` where the tokenizer has nothing for it.

        What a user typed never becomes a special token or a separator: such a word is encoded character by character,
        and characters that are still special become unknown (or nothing, if the tokenizer has no unknown token).
        """
        ids = self._cache.get(text)
        if ids is None:
            ids = self._encode(text)
            self._cache[text] = ids
            if len(self._cache) > _CACHE:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(text)
        return ids

    def words(self, sentence: Sentence) -> tuple[tuple[int, ...], ...]:
        """Ids of each word of a sentence."""
        return tuple(self.word(word.text) for word in sentence.words)

    def text(self, text: str) -> tuple[int, ...]:
        """Ids of our own template text: nothing added, special tokens not parsed."""
        return tuple(self._raw(_encodable(text)))

    def label(self, verbalization: str) -> tuple[int, ...]:
        """Ids of a type in words, each with its leading space."""
        return tuple(i for word in verbalization.split() for i in self.word(word))

    def capped(self, text: str) -> bool:
        """Whether a word is longer than ``max_pieces`` and was cut."""
        return len(text) > self.max_pieces and len(self.word(text)) == self.max_pieces

    def _encode(self, text: str) -> tuple[int, ...]:
        clean = "".join("\ufffd" if c.isspace() or c == "\x00" else c for c in _encodable(text))
        # Only so many characters can matter: a piece is at least one byte of one character.
        clean = clean[: self.max_pieces * 64]
        ids = self._raw(self._lead + clean)
        if not self._forbidden.isdisjoint(ids):
            ids = [i for n, c in enumerate(clean) for i in self._raw((self._lead if n == 0 else "") + c)]
            ids = [j for i in ids for j in (self._unknown if i in self._forbidden else (i,))]
        return tuple(ids[: self.max_pieces])

    def _raw(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _find_separators(self) -> Separators:
        end = self.tokenizer.eos_token_id
        if end is None:
            raise CodecError(
                "the tokenizer has no end-of-sequence token", hint="Set eos_token in its tokenizer_config.json."
            )
        vocabulary = self.tokenizer.get_vocab()
        tab = self._whitespace("\t", "<0x09>", vocabulary)
        newline = self._whitespace("\n", "<0x0A>", vocabulary)
        if tab is not None and newline is not None and tab != newline:
            return Separators((tab,), (newline,), end)
        sentinels = [vocabulary.get(f"<extra_id_{n}>") for n in (0, 1)]
        if all(s is not None and s in self._special for s in sentinels):
            return Separators((sentinels[0],), (sentinels[1],), end)  # type: ignore[arg-type]
        raise CodecError(
            "the tokenizer has no tokens that no word can contain (a tab and a newline, or T5's sentinels)",
            hint="Use a backbone with a byte-level, byte-fallback or T5 tokenizer.",
        )

    def _whitespace(self, character: str, byte: str, vocabulary: dict[str, int]) -> int | None:
        """The one token for a white-space character. Words hold no white space, so they never contain it.

        Gemma has a token of its own for it besides that of the byte, which it never saw in training.
        """
        ids = self._raw(character)
        exact = len(ids) == 1 and self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == character
        return ids[0] if exact and ids[0] not in self._special else vocabulary.get(byte)


def _encodable(text: str) -> str:
    """Lone surrogates cannot be encoded; each becomes U+FFFD, so that offsets stay."""
    if text.isascii():
        return text
    return "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)


def first_index(words: Sequence[tuple[int, ...]]) -> dict[int, list[int]]:
    """For each token that begins a word, the words that it begins, in order."""
    index: dict[int, list[int]] = {}
    for position, ids in enumerate(words):
        if ids:
            index.setdefault(ids[0], []).append(position)
    return index
