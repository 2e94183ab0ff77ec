"""Words in context as vectors: the states of an encoder's layer, sub-words pooled, of length one.

Long sentences are read in overlapping windows (``backbone/words.py``); a word's vector is that of the window whose core
it is in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xdner.backbone.encoder import Encoder
from xdner.backbone.linear import packed_copy
from xdner.backbone.word_batch import Batch
from xdner.backbone.words import Encoded, WordPieces
from xdner.errors import SettingsError
from xdner.retrieval.settings import RetrievalSettings
from xdner.text import Sentence

__all__ = ["Embedding", "Vectors", "WordEmbedder", "layer_of"]

#: [n, d], 32 bits.
Vectors = NDArray[np.float32]

#: Tokens of a batch, padding included: on a processor as many as its caches hold, which takes a quarter off.
_TOKENS, _TOKENS_GPU = 1024, 8192
_OVERLAP = 16  # words that two windows of a long sentence share


@dataclass(frozen=True, slots=True)
class Embedding:
    """What made the vectors: two embeddings compare only if all of this but ``name`` and ``source`` is the same, as far as
    it is known.

    Attributes:
        name, source: of the encoder; ``source`` loads it again.
        fingerprint: of its weights.
        dimension: d.
        layer: whose states; 0 is the layer of embeddings.
        pooling: of a word's sub-words.
        tokenizer: a hash of what makes ids of words; empty where an older index does not know it.
    """

    name: str
    source: str
    fingerprint: str
    dimension: int
    layer: int
    pooling: str
    tokenizer: str = ""

    def same(self, other: Embedding) -> bool:
        """Do its vectors compare with the other's?"""
        kept = [f.name for f in fields(self) if f.name not in ("name", "source", "tokenizer")]
        tokenized = self.tokenizer == other.tokenizer or not (self.tokenizer and other.tokenizer)
        return tokenized and all(getattr(self, k) == getattr(other, k) for k in kept)

    def __str__(self) -> str:
        weights, tokenizer = (value.rpartition(":")[2][:12] for value in (self.fingerprint, self.tokenizer))
        made = f"{weights}, tokenizer {tokenizer}" if tokenizer else weights
        return f"{self.name} ({made}, dimension {self.dimension}, layer {self.layer}, {self.pooling} of sub-words)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class WordEmbedder:
    """Gives every word of a sentence its vector.

    Args:
        encoder: reads the sentences; nothing in it is changed.
        settings: ``layer``, ``pooling`` and ``sentence_pooling``.

    Raises:
        SettingsError: the encoder has no such layer.
    """

    def __init__(self, encoder: Encoder, settings: RetrievalSettings | None = None) -> None:
        settings = settings or RetrievalSettings()
        layer = layer_of(encoder, settings.layer)
        self.encoder, self.pieces = encoder, WordPieces(encoder.tokenizer, encoder.positions)
        self.embedding = Embedding(
            encoder.name, encoder.source, encoder.fingerprint, encoder.size, layer, settings.pooling,
            encoder.tokenizer_fingerprint,
        )  # fmt: skip
        self.sentence_pooling = settings.sentence_pooling
        self._reader = _up_to(encoder, layer)

    def embed(self, sentences: Sequence[Sentence], done: Callable[[int], None] = lambda words: None) -> list[Vectors]:
        """The vectors of each sentence's words, [words, d], rows of length one; [0, d] for no words.

        Args:
            sentences: in any order; they are read longest first.
            done: told how many words have been read so far.
        """
        found = [np.zeros((len(s.words), self.embedding.dimension), dtype=np.float32) for s in sentences]
        read = 0
        for batch, numbers in self._batches(sentences):
            with torch.inference_mode():
                states = self._reader(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
                vectors = torch.nn.functional.normalize(batch.pooled(states, self.embedding.pooling), dim=1)
            rows = vectors.cpu().numpy()
            at = 0
            for number, window in numbers:
                first, last = window.counted
                found[number][window.first + first : window.first + last] = rows[at + first : at + last]
                at += len(window.places)
                read += last - first
            done(read)
        return found

    def embed_sentences(self, sentences: Sequence[Sentence]) -> Vectors:
        """One vector a sentence, [n, d], of length one; zero for no words. It is made of the last layer's states: the mean of
        all tokens', the first and the last token's too, as MiniLM and its like were trained (Reimers and Gurevych 2019),
        or the first token's (``sentence_pooling = "cls"``)."""
        total = torch.zeros(len(sentences), self.embedding.dimension)
        for batch, numbers in self._batches(sentences):
            with torch.inference_mode():
                read = self.encoder.model(input_ids=batch.ids, attention_mask=batch.attention)
                sums = self._summed(read.last_hidden_state, batch).cpu()
            for row, (number, _) in zip(sums, numbers, strict=True):
                total[number] += row  # the windows of a long sentence count by their tokens
        return torch.nn.functional.normalize(total, dim=1).numpy()

    def _summed(self, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Of each window what a sentence's vector is the sum of, up to its length: [windows, tokens, d] → [windows, d]."""
        if self.sentence_pooling == "cls":
            return states[:, 0]
        return (states * batch.attention[..., None]).sum(1)

    def _batches(self, sentences: Sequence[Sentence]) -> Iterator[tuple[Batch, list[tuple[int, Encoded]]]]:
        """Windows of near-equal lengths side by side, each with the number of its sentence."""
        model: Any = self.encoder.model
        pad = int(model.config.pad_token_id or 0)
        encoded = self.pieces.encode(sentences, overlap=_OVERLAP)
        waiting = [(number, window) for number, windows in enumerate(encoded) for window in windows]
        waiting.sort(key=lambda item: -len(item[1].ids))
        most, at = _TOKENS if model.device.type == "cpu" else _TOKENS_GPU, 0
        while at < len(waiting):
            chosen = waiting[at : at + max(1, most // len(waiting[at][1].ids))]
            at += len(chosen)
            yield Batch.of([window for _, window in chosen], pad=pad, device=model.device), chosen


def layer_of(encoder: Encoder, asked: int | str) -> int:
    """The number of the layer that ``retrieval.layer`` asks for.

    Raises:
        SettingsError: the encoder has no such layer.
    """
    layers = int(encoder.model.config.num_hidden_layers)
    layer = round(layers * 2 / 3) if isinstance(asked, str) else layers if asked < 0 else asked
    if layer > layers:
        raise SettingsError(
            [f"retrieval.layer is {asked}, but {encoder.name} has {layers} layers"],
            hint=f"Choose from 0 (embeddings) to {layers}, or -1 for the last: --set layer={layers}.",
        )
    return layer


def _up_to(encoder: Encoder, layer: int) -> Callable[..., Any]:
    """Gives ``layer``'s states as ``last_hidden_state``, without running the layers above where they can be left out."""
    model: Any = encoder.model

    def whole(**inputs: torch.Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=model(**inputs, output_hidden_states=True).hidden_states[layer])

    inner: Any = getattr(model, "encoder", None)
    if not isinstance(getattr(inner, "layer", None), torch.nn.ModuleList):
        return whole
    # Shallow copies: the weights stay the encoder's own.
    short, lower = copy.copy(model), copy.copy(inner)
    short._modules, lower._modules = dict(model._modules), dict(inner._modules)
    lower.layer = torch.nn.ModuleList(inner.layer[:layer])
    short.encoder = lower
    short = packed_copy(short)
    known = [encoder.tokenizer.cls_token_id, encoder.tokenizer.unk_token_id, encoder.tokenizer.sep_token_id]
    ids = torch.tensor([known], device=model.device)
    with torch.inference_mode():
        probe = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        same = torch.allclose(short(**probe).last_hidden_state, whole(**probe).last_hidden_state, atol=1e-5)
    return short if same else whole
