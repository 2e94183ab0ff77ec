"""Corpora: reading and writing them in three formats, sampling from them, and checking them.

- ``columns``: a word and its tag a line, BIO or BIOES (:mod:`xdner.corpora.columns`)
- ``spans``: JSONL with character offsets (:mod:`xdner.corpora.spans`)
- ``tokens``: JSONL with words and tags (:mod:`xdner.corpora.tokens`)
"""

from xdner.corpora.checks import Conflict, Leak, find_conflicts, find_leaks
from xdner.corpora.corpus import FORMATS, Corpus, Format
from xdner.corpora.inspection import FileReport, Inspection, LeakReport, Lengths, inspect_corpora
from xdner.corpora.io import read_corpus, write_corpus
from xdner.corpora.splits import Manifest, carve_dev, sample, sample_mentions, sample_sentences

__all__ = [
    "FORMATS",
    "Conflict",
    "Corpus",
    "FileReport",
    "Format",
    "Inspection",
    "Leak",
    "LeakReport",
    "Lengths",
    "Manifest",
    "carve_dev",
    "find_conflicts",
    "find_leaks",
    "inspect_corpora",
    "read_corpus",
    "sample",
    "sample_mentions",
    "sample_sentences",
    "write_corpus",
]
