"""From sentences to entities: windows, prompts, the engine, and exact offsets back.

Generative recognizers share this; they differ in what steers the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from xdner.backbone.base import Backbone
from xdner.backbone.store import PrefixRows
from xdner.codec.grammar import Grammar
from xdner.codec.instructor import Instructor
from xdner.codec.windows import Window, merge_windows, split_windows
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import CodecError
from xdner.generation.draft import looks_like_name
from xdner.generation.engine import Engine, Generated, Job, Steering
from xdner.recognizers.base import Result
from xdner.settings import CodecSettings, DecodingSettings
from xdner.text import Entity, Sentence

__all__ = ["Reader", "Steered"]

_LEAST = 40  # tokens that a window of a few words and what is written about them take, as in training


@dataclass(frozen=True, eq=False)
class Steered:
    """A domain that is ready to be read in: its grammar, its instructor, its prefix and context, and its windows (of
    ``decoding``; the batch is the reader's)."""

    domain: Domain
    grammar: Grammar
    instructor: Instructor
    steering: Steering
    decoding: DecodingSettings


class Reader:
    """Reads sentences in domains with one backbone.

    Args:
        backbone: the frozen model.
        decoding: batch size, and the windows of domains that do not bring their own.
    """

    def __init__(self, backbone: Backbone, decoding: DecodingSettings) -> None:
        self.backbone, self.decoding = backbone, decoding
        self.encoder = WordEncoder(backbone.tokenizer)
        self.engine = Engine(backbone, batch_size=decoding.batch_size)

    def steer(
        self,
        domain: Domain,
        codec: CodecSettings,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        decoding: DecodingSettings | None = None,
    ) -> Steered:
        """Make a domain ready: read its instruction and options once, under its prefix (per site [G, n, d]).

        Raises:
            CodecError: they leave no room for a text.
        """
        instructor = Instructor(self.encoder, codec)
        context_ids, most = instructor.context(domain), self.backbone.max_tokens
        if keys[0].shape[1] + len(context_ids) + _LEAST > most:
            raise CodecError(
                f"instruction and {len(domain.labels)} types of domain {domain.name!r} take {len(context_ids)} tokens of the "
                f"{most} that {self.backbone.name} can hold",
                hint="Describe the types in fewer words, leave some out, or choose a backbone with more positions.",
            )
        dtype, device = self.backbone.dtype, self.backbone.device
        keys, values = ([t.to(device, dtype) for t in part] for part in (keys, values))
        rows = PrefixRows.stack([(keys, values)], [0])
        context = self.backbone.read_context(context_ids, rows)
        grammar, steering = Grammar(self.encoder, domain, codec), Steering(keys, values, context)
        return Steered(domain, grammar, instructor, steering, decoding or self.decoding)

    def read(
        self, items: Sequence[tuple[Sentence, Steered]], *, done: Callable[[int], None] | None = None
    ) -> list[Result]:
        """Read each sentence in its domain; domains may be mixed.

        Args:
            items: sentences with their domains.
            done: called with the number of windows read so far.
        """
        results = dict(self.stream(items, done=done))
        return [results[i] for i in range(len(items))]

    def stream(
        self, items: Sequence[tuple[Sentence, Steered]], *, done: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Result]]:
        """:meth:`read`, but each result comes with its place in ``items`` as soon as the sentence's last window is read."""
        pieces = [self.encoder.words(sentence) for sentence, _ in items]
        windows = [self._split(w, steered) if any(w) else [] for w, (_, steered) in zip(pieces, items, strict=True)]
        jobs: list[Job] = []
        owners: list[tuple[int, int]] = []  # of each job: its sentence, and which window
        for index, (sentence, steered) in enumerate(items):
            names = [looks_like_name(w.text) for w in sentence.words]
            for number, w in enumerate(windows[index]):
                jobs.append(self._job(pieces[index][w.first : w.last], names[w.first : w.last], steered))
                owners.append((index, number))
        written: list[dict[int, Generated]] = [{} for _ in items]

        def result(index: int) -> tuple[int, Result]:
            generated = [written[index][number] for number in range(len(windows[index]))]
            return index, self._result(*items[index], pieces[index], windows[index], generated)

        yield from (result(index) for index, split in enumerate(windows) if not split)
        for count, (job, generated) in enumerate(self.engine.stream(jobs), start=1):
            if done is not None:
                done(count)
            index, number = owners[job]
            written[index][number] = generated
            if len(written[index]) == len(windows[index]):
                yield result(index)

    def _split(self, words: Sequence[tuple[int, ...]], steered: Steered) -> list[Window]:
        used = steered.steering.keys[0].shape[1] + len(steered.steering.context.ids) + 16
        budget = max(16, (self.backbone.max_tokens - used) // 4) if self.backbone.kind == "causal" else 100_000
        return split_windows(
            [len(w) for w in words],
            window=steered.decoding.window,
            overlap=steered.decoding.overlap,
            max_pieces=min(budget, 24 * steered.decoding.window),
        )

    def _job(self, words: Sequence[tuple[int, ...]], names: Sequence[bool], steered: Steered) -> Job:
        # Enough for every word to be a mention of its own with the longest type and both separators.
        room = sum(map(len, words)) + len(words) * steered.grammar.longest_label_cost + 2
        return Job(steered.instructor.source(words), steered.grammar.start(words), steered.steering, room, names)

    def _result(
        self,
        sentence: Sentence,
        steered: Steered,
        words: Sequence[tuple[int, ...]],
        windows: Sequence[Window],
        generated: Sequence[Generated],
    ) -> Result:
        found = []
        for window, output in zip(windows, generated, strict=True):
            begin = window.first
            found.append([(m.first + begin, m.last + begin, m.label, output.score(m)) for m in output.mentions])
        merged = merge_windows(windows, found) if len(windows) > 1 else (found[0] if found else [])
        entities: tuple[Entity, ...] = tuple(sentence.entity(f, last, label, score) for f, last, label, score in merged)
        capped = sum(self.encoder.capped(word.text) for word in sentence.words)
        incomplete = sum(not output.complete for output in generated)
        diagnostics = {k: n for k, n in (("capped_words", capped), ("incomplete", incomplete)) if n}
        return Result(sentence.text, entities, steered.domain.name, max(1, len(windows)), diagnostics)
