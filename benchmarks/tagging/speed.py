"""Sentences a second in prediction, from text to entities, by head; a random head is as fast as a trained one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.layout import flat, table
from benchmarks.record import circumstances
from benchmarks.tagging.bench import Bench
from benchmarks.tagging.variants import METHODS, Variant
from xdner.domain import Domain
from xdner.library.tagger_entry import TaggerEntry
from xdner.recognizers.base import Recognizer
from xdner.recognizers.laner import LANER
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.tags import tags_for
from xdner.text import Sentence

__all__ = ["WORDS", "even_sentences", "reading_speeds", "sentences_per_second"]

WORDS, COUNT, TIMES = 30, 192, 3


def even_sentences(corpus: Sequence[Sentence], count: int = COUNT, words: int = WORDS) -> list[Sentence]:
    """Real words cut into sentences of equal length, from the beginning again where they run out."""
    line = [w.text for s in corpus for w in s.words]
    line *= 1 + count * words // max(1, len(line))
    return [Sentence.from_words(line[i * words : (i + 1) * words]) for i in range(count)]


def sentences_per_second(
    recognizer: Recognizer, domain: str, sentences: Sequence[Sentence], times: int = TIMES
) -> tuple[float, float]:
    """The best of several readings, by the clock and by processor seconds (over all threads)."""
    recognizer.predict(sentences[:8], domain=domain)
    clock, processor = [], []
    for _ in range(times):
        began, used = time.perf_counter(), time.process_time()
        recognizer.predict(list(sentences), domain=domain)
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return len(sentences) / min(clock), len(sentences) / max(1e-9, min(processor))


def reading_speeds(bench: Bench, target: str = "ai") -> str:
    """A table of all heads, with the target's types."""
    data = bench.corpora.target(target)
    sentences = even_sentences(data.dev)
    rows = []
    for method in METHODS:
        variant = Variant(method)
        encoder, settings = bench.encoder_of(variant), bench.settings(variant, 1, 1e-4)
        network = TaggerNetwork(encoder.fresh(), tags_for(data.domain.label_names), settings.tagger)
        recognizer = LANER(settings=settings, device=bench.device)
        recognizer.add(TaggerEntry.of(Domain(target, data.domain.labels), settings, network, encoder))
        clock, processor = sentences_per_second(recognizer, target, sentences)
        rows.append([method, f"{clock:.1f}", f"{processor:.1f}"])
    facts = circumstances()
    lines = table(["head", "sentences/s", "sentences/processor s"], rows, left=1)
    told = [f"{COUNT} sentences of {WORDS} words, from text to entities, the best of {TIMES}; types of {target}.",
            *(f"{what}: {flat(facts[what])}" for what in ("commit", "machine", "versions"))]  # fmt: skip
    return "\n".join([*lines, "", *(f"- {line}" for line in told)]) + "\n"
