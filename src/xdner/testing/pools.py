"""Small labelled sentences that can be retrieved, in the words of the tiny encoder."""

from __future__ import annotations

from xdner.text import Sentence

__all__ = ["SENTENCES"]

SENTENCES = [
    Sentence.from_words(words.split(), spans, id=f"s{number}")
    for number, (words, spans) in enumerate(
        [
            ("Ann Lee in Rome", [(0, 2, "person"), (3, 4, "city")]),
            ("the ship sails north", [(1, 2, "ship")]),
            ("Bob saw Oslo and Rome", [(0, 1, "person"), (2, 3, "city"), (4, 5, "city")]),
            ("wind of the sea", [(3, 4, "sea")]),
        ]
    )
]
