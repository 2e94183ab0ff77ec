"""Which words of a sentence say what it is about: no punctuation, no stop words.

The lists are those of the package ``bm25s``: English is NLTK's 179 function words, the others are from the stop-words
lists of Lucene and NLTK. Words are compared without case. ``none`` drops punctuation only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from xdner.errors import RetrievalError, install_hint
from xdner.text import Sentence

__all__ = ["content_words", "queried_words", "stop_words"]


@cache
def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language, lower-cased; empty for ``none``.

    Raises:
        RetrievalError: the package with the lists is not installed.
    """
    if language == "none":
        return frozenset()
    try:
        from bm25s import stopwords
    except ImportError:
        raise RetrievalError(
            "lists of stop words need the package bm25s",
            hint=f"{install_hint('retrieval')}. Or do without: --set stop_words=none.",
        ) from None
    name = "STOPWORDS_EN_PLUS" if language == "english" else f"STOPWORDS_{language.upper()}"
    return frozenset(word.lower() for word in getattr(stopwords, name))


def content_words(sentence: Sentence, language: str) -> list[int]:
    """Indices of the words that have a letter or digit and are no stop words."""
    dropped = stop_words(language)
    return [i for i, w in enumerate(sentence.words) if any(map(str.isalnum, w.text)) and w.text.lower() not in dropped]


def queried_words(sentence: Sentence, language: str) -> Sequence[int]:
    """The words that a query asks for: its content words, or all where it has none."""
    return content_words(sentence, language) or range(len(sentence.words))
