"""Small labelled sentences that can be retrieved, in the words of the tiny encoder, and what a pool made of them holds."""

from __future__ import annotations

from xdner.retrieval.pool import Pool
from xdner.text import Sentence

__all__ = ["SENTENCES", "stored", "texts"]

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


def stored(pool: Pool) -> set[int]:
    """The keys of all rows that Milvus really holds."""
    with pool.rows() as rows:
        found = rows._client.query(pool.manifest.collection, filter="id >= 0", output_fields=["id"], limit=16000)
    return {row["id"] for row in found}


def texts(pool: Pool) -> list[str]:
    """Of its examples, by their numbers."""
    return [e.sentence.text for _, e in sorted(pool.examples.items())]
