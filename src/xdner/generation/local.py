"""IF-WRANER's language model in this process: a causal model that can write nothing but valid answers.

It is CP-NER's engine without a prefix: under the empty one a backbone is the stock model. Task, types and format are the
domain's context, read once; demonstrations and query are the prompt; the dictionary's grammar says what is legal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from xdner.backbone.base import Backbone
from xdner.backbone.sources import resolve
from xdner.codec.dictionary import Listed, align
from xdner.codec.dictionary_grammar import DictionaryGrammar
from xdner.codec.windows import Window, split_windows
from xdner.codec.words import WordEncoder
from xdner.errors import BackboneError, BackboneNotFoundError, CodecError
from xdner.generation.answers import DROPPED, Answer, Asked, Question
from xdner.generation.draft import looks_like_name
from xdner.generation.engine import Engine
from xdner.generation.jobs import Generated, Job, Steering
from xdner.prompting.prompt import PromptWriter
from xdner.prompting.settings import WranerSettings
from xdner.text import Sentence

__all__ = ["LocalModel", "causal_model"]

_EMBEDDED = "smollm2-135m"  # as it came; for messages
_DOMAINS = 64  # whose contexts are kept


@dataclass(frozen=True, eq=False)
class _Ready:
    """A domain that can be asked about."""

    grammar: DictionaryGrammar
    writer: PromptWriter
    steering: Steering


class LocalModel:
    """A causal language model with answers under a grammar.

    Args:
        backbone: adapters are merged into it already (:func:`xdner.backbone.lora.merge_adapter`).
        settings: ``decoding.batch_size``; what a domain may have of its own (:class:`~xdner.generation.answers.Asked`), where
            it has none.

    Raises:
        BackboneError: not a causal model.
    """

    def __init__(self, backbone: Backbone, settings: WranerSettings) -> None:
        if backbone.kind != "causal":
            raise BackboneError(
                f"{backbone.name} is an encoder-decoder model; IF-WRANER asks a causal language model",
                hint="Use a Llama-, Qwen-, Mistral-, Gemma- or Phi-3-like model, such as smollm2-135m.",
            )
        self.backbone, self.settings = backbone, settings
        self.encoder = WordEncoder(backbone.tokenizer)
        self.engine = Engine(backbone, batch_size=settings.decoding.batch_size)
        self._ready: OrderedDict[tuple[object, str], _Ready] = OrderedDict()

    @property
    def identity(self) -> Mapping[str, str]:
        """Where the weights came from, and their fingerprint before any adapter."""
        own = self.backbone
        return {"kind": "local", "name": own.name, "source": own.source, "fingerprint": own.fingerprint}

    def limit(self, asked: Asked) -> int:
        """Tokens of prompt and answer together, at most."""
        most = asked.how(self.settings).prompt.max_tokens
        return min(self.backbone.max_tokens, most) if most else self.backbone.max_tokens

    def forget(self) -> None:
        """The weights have changed: contexts that were read are not valid any more."""
        self._ready.clear()

    def split(self, sentence: Sentence, asked: Asked) -> list[Window]:
        """Windows of ``decoding.window`` words, or fewer where prompt and answer would not fit the model.

        Raises:
            CodecError: the types alone leave no room for a single word.
        """
        ready, how, limit = self._domain(asked), asked.how(self.settings).decoding, self.limit(asked)
        words = self.encoder.words(sentence)
        if not any(words):
            return []
        pieces = 1 << 20
        while pieces:
            windows = split_windows(
                [len(ids) for ids in words], window=how.window, overlap=how.overlap, max_pieces=pieces
            )
            needed = max(self._needed(ready, sentence, window) for window in windows)
            if needed <= limit:
                return windows
            longest = max(sum(map(len, words[w.first : w.last])) for w in windows)
            pieces = min(pieces, longest) // 2
        raise CodecError(
            f"a prompt with the types of domain {asked.domain.name!r} and one word takes {needed} tokens, but "
            f"{self.backbone.name} reads {limit}",
            hint="Raise prompt.max_tokens, describe the types in fewer words, or use a model with a longer window.",
        )

    def capped(self, sentence: Sentence) -> int:
        """Words that are cut to ``max_pieces`` tokens."""
        return sum(self.encoder.capped(word.text) for word in sentence.words)

    def answer(self, questions: Sequence[Question], *, done: Callable[[int], None] | None = None) -> list[Answer]:
        """One answer a question; see :class:`~xdner.generation.answers.Generator`. None depends on the others."""
        jobs, kept = [], []
        for question in questions:
            ready = self._domain(question.asked)
            words = ready.grammar.words(question.sentence)
            room = ready.grammar.room(words)
            source, shown = ready.writer.source(
                question.demonstrations,
                question.sentence,
                room=self.limit(question.asked) - len(ready.writer.context) - room,
                order=question.asked.how(self.settings).prompt.order,
            )
            kept.append(shown)
            names = [looks_like_name(w.text) for w in question.sentence.words]
            jobs.append(Job(source, ready.grammar.begin(question.sentence), ready.steering, room, names))
        generated = self.engine.run(jobs, done=done)
        return [self._read(q, g, n) for q, g, n in zip(questions, generated, kept, strict=True)]

    # -- parts -------------------------------------------------------------------------------------------------------

    def _read(self, question: Question, generated: Generated, shown: int) -> Answer:
        listed = []
        sentence = question.sentence
        for mention in generated.mentions:
            text = " ".join(w.text for w in sentence.words[mention.first : mention.last])
            listed.append(Listed(text, mention.label, generated.score(mention)))
        placed = align(sentence, listed)
        notes = dict(placed.notes)
        if not generated.complete:
            notes["incomplete"] = 1
        if missing := len(question.demonstrations) - shown:
            notes[DROPPED] = missing
        ids = [i for i in generated.ids if i != self.encoder.separators.end]
        text = self.backbone.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return Answer(str(text).strip(), placed.entities, notes)

    def _needed(self, ready: _Ready, sentence: Sentence, window: Window) -> int:
        """Tokens of context, query and answer; no more are needed without demonstrations."""
        part = Sentence(sentence.text, sentence.words[window.first : window.last])
        room = ready.grammar.room(ready.grammar.words(part))
        return len(ready.writer.context) + len(ready.writer.query(part)) + room

    def _domain(self, asked: Asked) -> _Ready:
        key = (asked.domain, asked.template.hash)
        ready = self._ready.get(key)
        if ready is None:
            grammar = DictionaryGrammar(self.encoder, asked.domain)
            writer = PromptWriter(self.encoder, asked.template, grammar)
            empty = self.backbone.empty_prefix()
            with torch.inference_mode():
                context = self.backbone.read_context(writer.context, empty)
            steering = Steering([k[0] for k in empty.keys], [v[0] for v in empty.values], context)
            ready = self._ready[key] = _Ready(grammar, writer, steering)
            if len(self._ready) > _DOMAINS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return ready


def causal_model(name: str | Path) -> str | Path:
    """A name of a language model, if it leads to one that can be asked.

    Raises:
        BackboneNotFoundError: it leads to no weights.
        BackboneError: to another kind of model.
    """
    hint = (
        f"Give a causal language model, such as {_EMBEDDED}, a hub id or a folder, or the address of an endpoint: "
        "--llm http://…/v1 --model NAME."
    )
    try:
        found = resolve(name)
    except BackboneNotFoundError as error:
        pull = error.hint if (error.hint or "").startswith("xdner backbones pull") else None
        raise BackboneNotFoundError(error.message, hint=pull or hint) from None
    if found.kind == "encoder":
        raise BackboneError(f"{found.name} is an encoder; IF-WRANER asks a causal language model", hint=hint)
    return name
