"""Training items of one or several domains: sentence and domain in, loss out.

The same task trains a prefix (only its parameters are given) and, for ``xdner instruct`` and the baselines, weights of
the model itself: it does not know which, it only knows how sentences become prompts and targets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xdner.backbone.base import Backbone
from xdner.backbone.recompute import recomputed
from xdner.backbone.store import PrefixRows
from xdner.codec.instructor import Instructor
from xdner.codec.target import Target, TargetCodec
from xdner.codec.windows import CUT, split_between
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import TrainingError
from xdner.settings import CodecSettings, TrainingSettings
from xdner.text import Entity, Sentence
from xdner.training.augmentation import Augmentation, augmented, with_other_mentions
from xdner.training.objectives import target_loss

__all__ = ["DomainTask", "Item", "lost_entities", "make_items", "word_budget"]

UNBOUNDED = 1_000_000
#: Pieces that a window's words get whatever the context is: most sentences. In smaller ones mentions would be cut.
ENOUGH = 64


@dataclass(frozen=True, slots=True)
class Item:
    """A training sentence (or a window of a long one) of a domain, with its words' ids."""

    domain: Domain
    sentence: Sentence
    words: tuple[tuple[int, ...], ...]


def make_items(
    domain: Domain,
    sentences: Sequence[Sentence],
    encoder: WordEncoder,
    instructor: Instructor,
    max_pieces: int,
    *,
    max_tokens: int = UNBOUNDED,
) -> list[Item]:
    """Sentences as items; one whose prompt and target would be too long becomes windows side by side.

    Args:
        max_pieces: sub-word pieces of prompt and target. Where many types leave a window fewer than :data:`ENOUGH` for its
            words, they come on top.
        max_tokens: what the backbone can hold besides the prefix.

    Raises:
        TrainingError: the types alone fill the backbone.
    """
    budget = word_budget(domain, instructor, max_pieces, max_tokens)
    return [item for sentence in sentences for item in _windows(domain, sentence, encoder, budget)]


def _windows(domain: Domain, sentence: Sentence, encoder: WordEncoder, budget: int) -> Iterator[Item]:
    words = encoder.words(sentence)
    mentions = [span for e in sentence.entities if (span := sentence.word_span(e))]
    for window in split_between([len(w) for w in words], mentions, max_pieces=budget):
        yield Item(domain, _cut(sentence, window.first, window.last), words[window.first : window.last])


def word_budget(domain: Domain, instructor: Instructor, max_pieces: int, max_tokens: int = UNBOUNDED) -> int:
    """Sub-word pieces of the words in a window of :func:`make_items`, at most. Arguments and errors are the same."""
    context = len(instructor.context(domain))
    # Prompt (the sentence up to twice) and a target that copies every word: three times the words, plus cues.
    apart, whole, held = ((room - 16) // 3 for room in (max_pieces, max_pieces - context, max_tokens - context))
    if held < 8:
        raise TrainingError(
            f"instruction and {len(domain.labels)} types take {context} tokens of the {max_tokens} that the backbone can hold",
            hint="Describe the types in fewer words, leave some out, or choose a backbone with more positions.",
        )
    return max(8, min(held, max(whole, min(ENOUGH, apart))))


def _cut(sentence: Sentence, first: int, last: int) -> Sentence:
    if first == 0 and last == len(sentence.words):
        return sentence
    words = sentence.words[first:last]
    inside = [e for e in sentence.entities if words[0].start <= e.start and e.end <= words[-1].end]
    return Sentence(sentence.text, words, tuple(inside), f"{sentence.id}[{first}:{last}]")


class DomainTask:
    """Fulfils :class:`xdner.training.loop.TrainingTask` for items of any mix of domains.

    Args:
        backbone: the model that reads.
        items: what to learn from.
        codec: how prompts and targets are written.
        training: likelihood and dropout.
        augmentation: of options and mentions.
        parameters: what is trained, by name.
        prefix: gives the current prefix for one row, gradients flowing.
        score: gives the dev score, or ``None``.
        penalty: an extra loss (distance to δ₀), or ``None``.
        dropouts: modules whose dropout is on in training, whether the backbone's own is or not.
    """

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[Item],
        codec: CodecSettings,
        training: TrainingSettings,
        *,
        encoder: WordEncoder,
        augmentation: Augmentation,
        parameters: Mapping[str, torch.nn.Parameter],
        prefix: Callable[[], PrefixRows],
        score: Callable[[], float | None],
        penalty: Callable[[], Tensor] | None = None,
        dropouts: Sequence[torch.nn.Module] = (),
    ) -> None:
        if not items:
            raise TrainingError("there is no sentence to train on", hint="Give a training file with sentences in it.")
        self._backbone, self._items, self._codec, self._training = backbone, list(items), codec, training
        if not codec.options:  # a prompt that lists no types cannot say that some of them are left out
            augmentation = replace(augmentation, shuffle=False, drop=0.0, add=0.0)
        self._encoder, self._augmentation = encoder, augmentation
        self._parameters, self._prefix, self._score, self._penalty = dict(parameters), prefix, score, penalty
        self._instructor, self._dropouts = Instructor(encoder, codec), tuple(dropouts)
        self._budgets: dict[tuple[str, int], int] = {}

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Exactly what is trained."""
        return self._parameters

    def lengths(self) -> list[int]:
        """Tokens that an item costs, about: its words once per repetition and a third of them again as target."""
        return [sum(map(len, item.words)) * self._codec.repeats + len(item.words) // 3 for item in self._items]

    def groups(self) -> list[str]:
        """Items of one domain share a batch: its context is then read once."""
        return [item.domain.name for item in self._items]

    def evaluate(self) -> float | None:
        """The dev score, higher is better."""
        return self._score()

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        """Eq. 4 over these items, under options drawn for this step."""
        prefix = self._prefix()
        items = [self._varied(self._items[i], prefix.width, rng) for i in indices]
        views = {item.domain.name: augmented(item.domain, self._augmentation, rng) for item in items}
        codecs = {name: TargetCodec(self._encoder, view, self._codec) for name, view in views.items()}
        targets = [self._target(item, views[item.domain.name], codecs[item.domain.name]) for item in items]
        sources = [self._instructor.source(item.words) for item in items]
        contexts = {name: self._instructor.context(view) for name, view in views.items()}
        how, model = self._training, self._backbone.model
        dropout = self._backbone.dropout(how.backbone_dropout, self._dropouts)
        with dropout, recomputed(model, how.gradient_checkpointing):
            if len(contexts) == 1:
                # One domain, one context: it is read once for the whole batch, and gradients flow through it.
                context = self._backbone.read_context(next(iter(contexts.values())), prefix)
            else:
                context = None
                sources = [(*contexts[i.domain.name], *s) for i, s in zip(items, sources, strict=True)]
            states = self._backbone.target_states(sources, [t.ids for t in targets], prefix, context)
        loss = target_loss(self._backbone, states, targets, self._training.likelihood)
        return loss if self._penalty is None else loss + self._penalty()

    def decisions(self, index: int) -> int:
        """How many places the loss of an item is the mean over, with all its domain's options."""
        item = self._items[index]
        target = self._target(item, item.domain, TargetCodec(self._encoder, item.domain, self._codec))
        return sum(len(ids) > 1 for ids in target.legal) if self._training.likelihood == "grammar" else len(target.ids)

    def _varied(self, item: Item, prefix: int, rng: random.Random) -> Item:
        """The item with other mentions, where the backbone holds them besides a prefix of this length."""
        how = self._augmentation
        if not how.replace:
            return item
        pool = how.mentions.get(item.domain.name, {})
        sentence = with_other_mentions(item.sentence, pool, how.replace, rng)
        if sentence is item.sentence:
            return item
        varied = Item(item.domain, sentence, self._encoder.words(sentence))
        before, now = (sum(map(len, words)) for words in (item.words, varied.words))
        return varied if now <= before or now <= self._budget(item.domain, prefix) else item

    def _budget(self, domain: Domain, prefix: int) -> int:
        """Sub-word pieces of words that the backbone holds for a domain, besides a prefix of this length."""
        key = (domain.name, prefix)
        if key not in self._budgets:
            most = self._backbone.max_tokens - prefix
            self._budgets[key] = word_budget(domain, self._instructor, UNBOUNDED, most)
        return self._budgets[key]

    def _target(self, item: Item, view: Domain, codec: TargetCodec) -> Target:
        known = [e for e in item.sentence.entities if e.label in view]
        sentence = item.sentence.with_entities(known)
        return codec.encode(sentence, words=item.words, with_legal=self._training.likelihood == "grammar")


def lost_entities(
    domain: Domain,
    sentences: Sequence[Sentence],
    encoder: WordEncoder,
    codec: CodecSettings,
    *,
    max_pieces: int = UNBOUNDED,
    max_tokens: int = UNBOUNDED,
) -> tuple[list[Entity], dict[str, int]]:
    """Gold entities that the target language cannot express or that windows cut, with the reasons counted: the ceiling of
    recall. What bounds windows is as for :func:`make_items`."""
    target = TargetCodec(encoder, domain, codec)
    budget = word_budget(domain, Instructor(encoder, codec), max_pieces, max_tokens)
    lost: list[Entity] = []
    reasons: dict[str, int] = {}
    for sentence in sentences:
        said = set()
        for window in _windows(domain, sentence, encoder, budget):  # as they are taught
            encoded = target.encode(window.sentence, words=window.words)
            said |= {e.key for e in window.sentence.entities}
            lost.extend(encoded.lost)
            for reason, count in encoded.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        if cut := [e for e in sentence.entities if e.key not in said]:
            lost.extend(cut)
            reasons[CUT] = reasons.get(CUT, 0) + len(cut)
    return lost, reasons
