"""The plain rival: an encoder with one linear layer that gives each word a BIO tag, all weights tuned.

A word's tag is read at its first sub-word. A sentence longer than the encoder's positions is split into windows between
words, and no word is dropped. MiniLM-L6, the embedded encoder, lower-cases its input.

With sources, the same network first learns the source domains' tags; the rows of the layer whose tags the target has
too (``O``, and types of the same name) are carried over, the others start anew.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.arms import Corpora, Entities, Measured, Target, measured, resolved
from xdner.backbone.sources import resolve
from xdner.backbone.tensors import fingerprint
from xdner.codec.windows import split_windows
from xdner.errors import BackboneError
from xdner.evaluation.report import evaluate
from xdner.settings import TrainingSettings
from xdner.text import Entity, Sentence
from xdner.training.loop import TrainingResult, train
from xdner.training.progress import Progress, SilentProgress

__all__ = ["SOURCES", "Encoded", "Tagger", "TaggerArm", "TaggerTask", "bio_entities", "bio_tags", "encode"]

#: The source domains that the instructed backbone has seen.
SOURCES = ("conll2003", "politics", "music", "literature")

# An epoch costs next to nothing and F1 is 0 in the first ones, so patience would end the run: all epochs are run, and
# the best one on dev counts.
DEFAULTS = (
    "training.epochs=40", "training.batch_size=16", "training.patience=0", "training.evaluate_from=1",
)  # fmt: skip
_BATCH = 64  # windows at a time when tags are only read


# -- tags ----------------------------------------------------------------------------------------------------------------


def bio_tags(sentence: Sentence) -> list[str]:
    """One tag a word. An entity that begins or ends inside a word has no tags, nor has one that overlaps another.

    >>> bio_tags(Sentence.from_words(["Ann", "Lee", "left"], [(0, 2, "person")]))
    ['B-person', 'I-person', 'O']
    """
    tags = ["O"] * len(sentence.words)
    for entity in sentence.entities:
        span = sentence.word_span(entity)
        if span is not None and all(tag == "O" for tag in tags[slice(*span)]):
            tags[slice(*span)] = [f"B-{entity.label}"] + [f"I-{entity.label}"] * (span[1] - span[0] - 1)
    return tags


def bio_entities(sentence: Sentence, tags: Sequence[str]) -> tuple[Entity, ...]:
    """The entities that tags say; ``I-x`` that goes on with nothing begins an entity (as in CoNLL's script).

    >>> sentence = Sentence.from_words(["Ann", "Lee", "left"])
    >>> [(e.text, e.label) for e in bio_entities(sentence, ["I-person", "I-person", "O"])]
    [('Ann Lee', 'person')]
    """
    found = []
    first, label = 0, ""  # of the entity that is open
    for index, tag in enumerate([*tags, "O"]):
        kind, _, name = tag.partition("-")
        if label and not (kind == "I" and name == label):
            found.append(sentence.entity(first, index, label))
            label = ""
        if kind != "O" and not label:
            first, label = index, name
    return tuple(found)


# -- words to ids --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sentence or a window of one.

    Attributes:
        ids: sub-words with the encoder's own first and last token.
        places: of each word's first sub-word in ``ids``.
        tags: indices of the words' tags; empty where they are not known.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    tags: tuple[int, ...] = ()


def encode(sentence: Sentence, tokenizer: PreTrainedTokenizerBase, positions: int) -> list[Encoded]:
    """Windows of at most ``positions`` ids that hold every word exactly once, in order."""
    room = positions - 2
    pieces = []
    for word in sentence.words:
        ids = tokenizer(word.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        # A word that the tokenizer has nothing for still gets a tag.
        pieces.append((ids or [tokenizer.unk_token_id])[:room])
    made = []
    lengths = [len(p) for p in pieces]
    for window in split_windows(lengths, window=max(1, len(pieces)), overlap=0, max_pieces=room):
        ids, places = [tokenizer.cls_token_id], []
        for piece in pieces[window.first : window.last]:
            places.append(len(ids))
            ids.extend(piece)
        made.append(Encoded((*ids, tokenizer.sep_token_id), tuple(places)))
    return made


# -- the network ---------------------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """Encoder, dropout, one linear layer.

    Args:
        encoder: gives states [B, T, d].
        tags: names, in the order of the layer's rows.
        seed: of the layer's first weights.
    """

    def __init__(self, encoder: nn.Module, tags: Sequence[str], seed: int) -> None:
        super().__init__()
        self.encoder, self.tags = encoder, tuple(tags)
        self.dropout = nn.Dropout(0.1)
        config: Any = encoder.config
        self.head = nn.Linear(config.hidden_size, len(self.tags))
        self.pad = int(config.pad_token_id or 0)
        with torch.no_grad():
            shape = self.head.weight.shape
            self.head.weight.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02)
            self.head.bias.zero_()

    def forward(self, items: Sequence[Encoded]) -> Tensor:
        """Scores [N, tags] of all words of the items, one after another."""
        device = self.head.weight.device
        width = max(len(item.ids) for item in items)
        ids = torch.tensor([[*i.ids, *([self.pad] * (width - len(i.ids)))] for i in items], device=device)
        lengths = torch.tensor([len(i.ids) for i in items], device=device)
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        rows = torch.tensor([row for row, item in enumerate(items) for _ in item.places], device=device)
        places = torch.tensor([place for item in items for place in item.places], device=device)
        return self.head(self.dropout(states[rows, places]))

    def carry_over(self, other: Tagger) -> int:
        """Take the rows of the tags that both have; gives their number."""
        shared = [(i, other.tags.index(tag)) for i, tag in enumerate(self.tags) if tag in other.tags]
        with torch.no_grad():
            for mine, theirs in shared:
                self.head.weight[mine] = other.head.weight[theirs]
                self.head.bias[mine] = other.head.bias[theirs]
        return len(shared)

    @torch.inference_mode()
    def read(self, sentences: Sequence[Sequence[Encoded]]) -> list[list[str]]:
        """The best tag of every word of sentences that :func:`encode` made."""
        self.eval()
        windows = [(s, w) for s, items in enumerate(sentences) for w in range(len(items))]
        order = sorted(windows, key=lambda at: len(sentences[at[0]][at[1]].ids))
        tags: dict[tuple[int, int], list[str]] = {}
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            items = [sentences[s][w] for s, w in batch]
            best = iter(self(items).argmax(1).tolist())
            for at, item in zip(batch, items, strict=True):
                tags[at] = [self.tags[next(best)] for _ in item.places]
        return [[t for w in range(len(items)) for t in tags[s, w]] for s, items in enumerate(sentences)]


class TaggerTask:
    """Fulfils :class:`xdner.training.loop.TrainingTask`: cross-entropy over the words' tags.

    Args:
        tagger: all of it is trained.
        tokenizer: of its encoder.
        train: labelled sentences.
        dev: what chooses the best epoch; without any, the last one counts.
        positions: ids that the encoder takes at most.
    """

    def __init__(
        self,
        tagger: Tagger,
        tokenizer: PreTrainedTokenizerBase,
        train: Sequence[Sentence],
        dev: Sequence[Sentence],
        positions: int,
    ) -> None:
        self.tagger, self.tokenizer, self.dev, self.positions = tagger, tokenizer, dev, positions
        self.encoded_dev = [encode(s, tokenizer, positions) for s in dev]
        index = {tag: i for i, tag in enumerate(tagger.tags)}
        self.items: list[Encoded] = []
        for sentence in train:
            tags = iter([index[tag] for tag in bio_tags(sentence)])
            for window in encode(sentence, tokenizer, positions):
                self.items.append(replace(window, tags=tuple(next(tags) for _ in window.places)))

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.tagger.named_parameters())

    def lengths(self) -> list[int]:
        return [len(item.ids) for item in self.items]

    def groups(self) -> None:
        return None

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        self.tagger.train()
        items = [self.items[i] for i in indices]
        scores = self.tagger(items)
        wanted = torch.tensor([tag for item in items for tag in item.tags], device=scores.device)
        return nn.functional.cross_entropy(scores, wanted)

    def evaluate(self) -> float | None:
        if not self.dev:
            return None
        return evaluate([s.entities for s in self.dev], self.found(), samples=0).micro.f1

    def found(self) -> Entities:
        """The entities of dev."""
        tags = self.tagger.read(self.encoded_dev)
        return [bio_entities(s, t) for s, t in zip(self.dev, tags, strict=True)]


# -- the arm -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaggerArm:
    """An encoder tuned on the target, after the sources if there are any.

    Attributes:
        name, rates: see :class:`benchmarks.arms.Arm`; both stages have one rate.
        encoder: alias, hub id or folder.
        corpora: where sources come from.
        sources: names of source domains.
        per_source: at most so many sentences of each, the sample of instruction tuning.
        source_epochs: passes over the sources.
        overrides: of the group ``training``, for the target.
        device: ``cpu``, ``cuda``, ...
    """

    name: str
    encoder: str
    rates: tuple[float, ...]
    corpora: Corpora
    sources: tuple[str, ...] = ()
    per_source: int = 600
    source_epochs: int = 10
    overrides: tuple[str, ...] = ()
    device: str = "cpu"

    def asked(self) -> dict[str, Any]:
        own = {"backbone": self.encoder, "overrides": list(self.overrides), "dtype": "float32"}
        stage = {"names": list(self.sources), "per_source": self.per_source, "epochs": self.source_epochs}
        return own | ({"sources": stage} if self.sources else {})

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        began = time.monotonic()
        settings = resolved(DEFAULTS, self.overrides, seed, rate).training
        sources = [self.corpora.source(name, self.per_source) for name in self.sources]
        identity, encoder, tokenizer, positions = self._load()
        tagger = Tagger(encoder, tags_of([target]), seed).to(self.device)
        if sources:
            tagger.carry_over(self._learn_sources(encoder, tokenizer, positions, sources, settings))
        task = TaggerTask(tagger, tokenizer, target.train, target.dev, positions)
        result = train(task, settings, progress=progress)
        return measured(
            target.dev, task.found(), result, began,
            settings={"training": _plain(settings)}, backbone=identity, dtype="float32",
            trained_weights=sum(p.numel() for p in tagger.parameters()), labels=list(target.domain.label_names),
            sources=[{"domain": s.domain.name, "sentences": len(s.train), "data": dict(s.data)} for s in sources],
        )  # fmt: skip

    def _learn_sources(
        self,
        encoder: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        positions: int,
        sources: Sequence[Target],
        settings: TrainingSettings,
    ) -> Tagger:
        """The sources' tagger; ``encoder`` is trained in place. There is no dev split here: the last epoch counts."""
        tagger = Tagger(encoder, tags_of(sources), settings.seed).to(self.device)
        task = TaggerTask(tagger, tokenizer, [s for source in sources for s in source.train], (), positions)
        stage = replace(settings, epochs=self.source_epochs, patience=0)
        _: TrainingResult = train(task, stage, progress=SilentProgress())
        return tagger

    def _load(self) -> tuple[dict[str, str], nn.Module, PreTrainedTokenizerBase, int]:
        found = resolve(self.encoder)
        if found.kind != "encoder":
            raise BackboneError(
                f"{found.name} is a {found.kind} model; the tagger needs an encoder", hint="Use a BERT-like model."
            )
        encoder = AutoModel.from_pretrained(found.path, local_files_only=True, dtype=torch.float32)
        identity = {"name": found.name, "fingerprint": fingerprint(encoder.state_dict())}
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its weights would have no gradient
        tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True)
        needed = ("cls_token_id", "sep_token_id", "unk_token_id")
        missing = [name for name in needed if getattr(tokenizer, name, None) is None]
        if missing:
            raise BackboneError(
                f"the tokenizer of {found.name} has no {', '.join(missing)}", hint="Use a BERT-like model."
            )
        positions = min(int(encoder.config.max_position_embeddings), int(tokenizer.model_max_length))
        return identity, encoder, tokenizer, positions


def tags_of(targets: Sequence[Target]) -> list[str]:
    """``O``, then ``B-`` and ``I-`` of every type of these domains."""
    labels = sorted({label for target in targets for label in target.domain.label_names})
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def _plain(settings: TrainingSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in TrainingSettings.__slots__}
