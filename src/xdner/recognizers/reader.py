"""From sentences to entities: windows, prompts, the engine, and exact offsets back.

Generative recognizers share this; they differ in what steers the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

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
from xdner.generation.engine import Engine
from xdner.generation.jobs import Generated, Job, Steering
from xdner.recognizers.base import Result
from xdner.settings import CodecSettings, DecodingSettings
from xdner.text import Entity, Sentence

__all__ = ["Item", "Reader", "Steered"]

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


#: A sentence and its domain.
Item = tuple[Sentence, Steered]
#: Gives at most so many.
MoreItems = Callable[[int], Sequence[Item]]


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

    def read(self, items: Sequence[Item], *, done: Callable[[int], None] | None = None) -> list[Result]:
        """Read each sentence in its domain; domains may be mixed.

        Args:
            items: sentences with their domains.
            done: called with the number of windows read so far.
        """
        results = dict(self.stream(items, done=done))
        return [results[i] for i in range(len(items))]

    def stream(
        self, items: Sequence[Item], *, done: Callable[[int], None] | None = None, more: MoreItems | None = None
    ) -> Iterator[tuple[int, Result]]:
        """:meth:`read`, but each result comes with its place in ``items`` as soon as the sentence's last window is read.

        Args:
            items, done: see :meth:`read`.
            more: asked for further items, at most so many, whenever there is room beside those that are being read; their places
                follow on ``items``.
        """
        texts = _Windows(self)
        jobs = texts.take(items)
        generated = self.engine.stream(jobs, more=None if more is None else lambda places: texts.take(more(places)))
        yield from texts.unread()
        for count, (job, written) in enumerate(generated, start=1):
            if done is not None:
                done(count)
            yield from texts.put(job, written)
            yield from texts.unread()

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


@dataclass(eq=False)
class _Text:
    """A sentence on its way.

    Attributes:
        place: among the items.
        pieces: ids of its words.
        windows: which of its words are read together.
        written: of each window that has been read, what was written.
    """

    place: int
    item: Item
    pieces: Sequence[tuple[int, ...]]
    windows: Sequence[Window]
    written: dict[int, Generated] = field(default_factory=dict)


class _Windows:
    """Cuts sentences into windows, and puts together what was written about them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._texts = self._jobs = 0
        # Of each job that is not read yet: its sentence, and which window. A server's may follow each other for days.
        self._owners: dict[int, tuple[_Text, int]] = {}
        self._empty: list[_Text] = []

    def take(self, items: Sequence[Item]) -> list[Job]:
        """The windows of further sentences."""
        jobs: list[Job] = []
        for sentence, steered in items:
            pieces = self._reader.encoder.words(sentence)
            windows = self._reader._split(pieces, steered) if any(pieces) else []
            text = _Text(self._texts, (sentence, steered), pieces, windows)
            self._texts += 1
            names = [looks_like_name(w.text) for w in sentence.words]
            for number, w in enumerate(windows):
                jobs.append(self._reader._job(pieces[w.first : w.last], names[w.first : w.last], steered))
                self._owners[self._jobs] = text, number
                self._jobs += 1
            if not windows:
                self._empty.append(text)
        return jobs

    def put(self, job: int, generated: Generated) -> Iterator[tuple[int, Result]]:
        """What was written about a window; its sentence's result, if it was the last one."""
        text, number = self._owners.pop(job)
        text.written[number] = generated
        if len(text.written) == len(text.windows):
            yield self._result(text)

    def unread(self) -> Iterator[tuple[int, Result]]:
        """Results of sentences in which there is nothing to read."""
        while self._empty:
            yield self._result(self._empty.pop(0))

    def _result(self, text: _Text) -> tuple[int, Result]:
        generated = [text.written[number] for number in range(len(text.windows))]
        return text.place, self._reader._result(*text.item, text.pieces, text.windows, generated)
