"""Instruction tuning on prompts with demonstrations (IF-WRANER): sentence, domain and what was retrieved in, loss out.

The paper's regularization is here: some sentences are learned twice, the second time with types removed from the options
and from all answers, and types stand in a drawn order, so that the model learns to read the types instead of remembering
the sources'. Only the answer is learned; the prompt is given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xdner.backbone.base import Backbone
from xdner.backbone.recompute import recomputed
from xdner.codec.dictionary_grammar import DictionaryGrammar
from xdner.codec.target import Target
from xdner.codec.windows import split_between
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import TrainingError
from xdner.prompting.prompt import PromptWriter, sub_sentence
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template
from xdner.text import Sentence
from xdner.training.objectives import target_loss

__all__ = ["PromptItem", "PromptTask", "duplicated", "with_types_removed"]


@dataclass(frozen=True)
class PromptItem:
    """A sentence to learn.

    Attributes:
        domain: its own.
        sentence: with gold entities.
        demonstrations: what was retrieved for it, best first.
        reduced: whether types are removed: it is a duplicate.
    """

    domain: Domain
    sentence: Sentence
    demonstrations: tuple[Sentence, ...]
    reduced: bool = False


def duplicated(items: Sequence[PromptItem], share: float, seed: int) -> list[PromptItem]:
    """The items, and a drawn share of them a second time, to be learned with types removed."""
    drawn = random.Random(repr((seed, "duplicates"))).sample(range(len(items)), round(share * len(items)))
    return [*items, *(replace(items[i], reduced=True) for i in sorted(drawn))]


def with_types_removed(domain: Domain, share: float, rng: random.Random) -> Domain:
    """The domain without each type with this probability; at least one goes, and at least one stays."""
    names = list(domain.label_names)
    if len(names) == 1:
        return domain
    kept = [name for name in names if rng.random() >= share]
    if len(kept) == len(names):
        kept.remove(rng.choice(kept))
    return domain.with_labels(kept or [rng.choice(names)])


class PromptTask:
    """Fulfils :class:`xdner.training.loop.TrainingTask` for items of any mix of domains.

    Args:
        backbone: the model, with the factors in it.
        items: with their duplicates (:func:`duplicated`); sentences that are too long are split into windows.
        template: of the prompts.
        settings: groups ``prompt``, ``tune`` and ``training``.
        parameters: what is trained, by name.
        score: gives the dev score, or ``None``.
        dropouts: modules whose dropout is on in training, whether the backbone's own is or not.

    Attributes:
        cut: gold mentions that no window holds, of all items that are no duplicates.
    """

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[PromptItem],
        template: Template,
        settings: WranerSettings,
        *,
        parameters: Mapping[str, torch.nn.Parameter],
        score: Callable[[], float | None] = lambda: None,
        dropouts: Sequence[torch.nn.Module] = (),
    ) -> None:
        if not items:
            raise TrainingError("there is no sentence to tune on", hint="Give --source FILE with sentences in it.")
        self.backbone, self.template, self.settings = backbone, template, settings
        self.encoder = WordEncoder(backbone.tokenizer)
        self._parameters, self._score, self._dropouts = dict(parameters), score, tuple(dropouts)
        self.limit = min(settings.training.max_pieces, backbone.max_tokens)
        if settings.prompt.max_tokens:
            self.limit = min(self.limit, settings.prompt.max_tokens)
        self.cut = 0
        self.items = [part for item in items for part in self._parts(item)]
        self._lengths = [self._length(item) for item in self.items]

    def _length(self, item: PromptItem) -> int:
        return sum(map(len, self.prompt(item, item.domain)[:2]))

    def _parts(self, item: PromptItem) -> list[PromptItem]:
        """An item, or windows of it where its prompt and answer are too long even without demonstrations."""
        parts, pieces = [item], 1 << 20
        words = [len(ids) for ids in self.encoder.words(item.sentence)]
        mentions = [span for e in item.sentence.entities if (span := item.sentence.word_span(e))]
        while any(self._length(replace(part, demonstrations=())) > self.limit for part in parts):
            pieces = min(pieces, sum(words)) // 2
            if not pieces:
                raise TrainingError(
                    f"a prompt with the types of {item.domain.name!r} and one word is longer than {self.limit} tokens",
                    hint="Raise training.max_pieces, or describe the types in fewer words.",
                )
            windows = split_between(words, mentions, max_pieces=pieces)
            parts = [replace(item, sentence=sub_sentence(item.sentence, window)) for window in windows]
        if not item.reduced:
            self.cut += len(item.sentence.entities) - sum(len(part.sentence.entities) for part in parts)
        return parts

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Exactly what is trained."""
        return self._parameters

    def lengths(self) -> list[int]:
        """Tokens of each prompt with its answer, all types in it."""
        return self._lengths

    def groups(self) -> None:
        """Any prompts may share a batch: each has its own types."""

    def evaluate(self) -> float | None:
        """The dev score, higher is better."""
        return self._score()

    def view(self, item: PromptItem, rng: random.Random) -> Domain:
        """The types that an item's prompt lists in this step."""
        how, domain = self.settings.tune, item.domain
        if item.reduced:
            domain = with_types_removed(domain, how.remove, rng)
        if rng.random() < how.shuffle:
            domain = domain.with_labels(rng.sample(domain.label_names, len(domain.labels)))
        return domain

    def prompt(
        self, item: PromptItem, view: Domain, *, with_legal: bool = False
    ) -> tuple[tuple[int, ...], tuple[int, ...], Target, int]:
        """A prompt and its answer under these types.

        Returns:
            The prompt's ids, the answer's, the answer with its legal sets, and how many demonstrations are in the prompt;
            the worst are left out where ``training.max_pieces`` would be exceeded.
        """
        grammar = DictionaryGrammar(self.encoder, view)
        writer = PromptWriter(self.encoder, self.template, grammar)
        target = grammar.encode(item.sentence, with_legal=with_legal)
        room = self.limit - len(writer.context) - len(target.ids)
        source, shown = writer.source(item.demonstrations, item.sentence, room=room, order=self.settings.prompt.order)
        return (*writer.context, *source), target.ids, target, shown

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        """Mean negative log-likelihood of the answers' decisions, under types drawn for this step."""
        items = [self.items[i] for i in indices]
        how = self.settings.training
        made = [self.prompt(item, self.view(item, rng), with_legal=how.likelihood == "grammar") for item in items]
        targets = [target for _, _, target, _ in made]
        dropout = self.backbone.dropout(how.backbone_dropout, self._dropouts)
        with dropout, recomputed(self.backbone.model, how.gradient_checkpointing):
            states = self.backbone.target_states(
                [ids for ids, _, _, _ in made], [t.ids for t in targets], self.backbone.empty_prefix()
            )
        return target_loss(self.backbone, states, targets, how.likelihood)
