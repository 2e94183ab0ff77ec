"""The tagger: an encoder, and a head that is plain, a CRF, or aware of the labels before (LANER).

Shapes: B windows, N words of the longest, M words in all, K tags, d₁ of the encoder's states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xdner.backbone.word_batch import Batch
from xdner.backbone.words import SHAPES, Encoded
from xdner.tagger.attention import BiAttention
from xdner.tagger.crf import CRF
from xdner.tagger.label_encoder import LabelEncoder
from xdner.tagger.settings import TaggerSettings
from xdner.tagger.tags import transitions

__all__ = ["TaggerNetwork"]

_SPREAD = 0.02  # of the first weights of new rows


class TaggerNetwork(nn.Module):
    """Gives each word of a window scores of BIO tags.

    Args:
        encoder: gives states [B, T, d₁] in ``last_hidden_state``; trained in place.
        tags: names, in the order of the head's rows (:func:`~xdner.tagger.tags.tags_for`).
        settings: which head, and its parts; by default LANER with both.
        seed: of the first weights of everything but the encoder.
    """

    legal: Tensor

    def __init__(
        self, encoder: nn.Module, tags: Sequence[str], settings: TaggerSettings | None = None, *, seed: int = 1
    ) -> None:
        super().__init__()
        self.encoder, self.tags = encoder, tuple(tags)
        self.settings = settings = settings or TaggerSettings()
        config: Any = encoder.config
        size, count = int(config.hidden_size), len(self.tags)
        self.pad = int(config.pad_token_id or 0)
        self.dropout = nn.Dropout(settings.dropout)
        self.labels: LabelEncoder | None = None
        self.attention: BiAttention | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if settings.autoregressive:
                both = settings.history == "bidirectional"
                self.labels = LabelEncoder(count, settings.label_size, bidirectional=both)
                self.attention = BiAttention(
                    size, self.labels.width, background=settings.background, context=settings.context
                )
            self.shape = nn.Embedding(len(SHAPES), size) if settings.word_shape else None
            self.crf = CRF(self.tags) if settings.head == "crf" else None
            self.head = nn.Linear(size + (self.attention.width if self.attention is not None else 0), count)
        self.register_buffer("legal", transitions(self.tags), persistent=False)
        with torch.no_grad():
            shape = self.head.weight.shape
            self.head.weight.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * _SPREAD)
            self.head.bias.zero_()
            if self.shape is not None:
                self.shape.weight.mul_(_SPREAD)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.head.weight.device

    def batch(self, items: Sequence[Encoded]) -> Batch:
        """Windows as tensors."""
        return Batch.of(items, pad=self.pad, device=self.device)

    def words(self, batch: Batch) -> Tensor:
        """h of Eq. 2, one state a word: [M, d₁]."""
        states = self.encoder(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
        pooled = self.dropout(batch.pooled(states, self.settings.pooling))
        if self.shape is not None and batch.shapes is not None:
            pooled = pooled + self.shape(batch.shapes)
        return pooled

    def forward(self, items: Sequence[Encoded] | Batch) -> Tensor:
        """Scores [M, K] of all words of windows, one after another.

        An autoregressive head reads the gold labels of the words before (teacher forcing); the windows must have tags. With
        ``own_history``, it reads its own in some places while it trains: what it says itself after the gold labels, so that all
        words are still scored at once (scheduled sampling in parallel, Mihaylova and Martins 2019).
        """
        batch = items if isinstance(items, Batch) else self.batch(items)
        flat = self.words(batch)
        if self.labels is None or self.attention is None:
            return self.head(flat)
        assert batch.tags is not None, "teacher forcing needs tags"
        own, tags = batch.spread(flat), batch.tags
        if self.training and (share := self.settings.own_history):
            with torch.no_grad():
                guess = self._aware(batch, flat, own, tags).argmax(1)
            tags = torch.where(torch.rand(len(tags), device=tags.device) < share, guess, tags)
        return self._aware(batch, flat, own, tags)

    def _aware(self, batch: Batch, flat: Tensor, own: Tensor, tags: Tensor) -> Tensor:
        """Scores [M, K], each word after the labels [M] of the words before it."""
        assert self.labels is not None
        assert self.attention is not None
        ahead, back, last = self.labels.prefixes(batch.spread(tags), batch.mask, every=self.settings.context)
        count = own.shape[1]
        # Word i has seen the symbols 0 … i: the start, and the labels of the words before it.
        seen = torch.ones(count, count, dtype=torch.bool, device=self.device).tril()
        aware = self.attention(own, last, own, batch.mask, ahead, back, seen)
        return self.head(torch.cat([flat, aware[batch.rows, batch.words]], 1))  # Eq. 10

    def loss(self, items: Sequence[Encoded]) -> Tensor:
        """Mean negative log-likelihood of the gold tags of the words that count, a scalar (Eq. 1)."""
        batch = self.batch(items)
        scores = self(batch)
        assert batch.tags is not None, "a loss needs tags"
        if self.crf is not None:
            # A sequence is scored as a whole, so words beside the core count too.
            spread, tags = batch.spread(scores), batch.spread(batch.tags)
            return self.crf.loss(spread, batch.mask, tags, batch.continues, batch.goes_on) / len(scores)
        if batch.counted is None:
            return nn.functional.cross_entropy(scores, batch.tags)
        return nn.functional.cross_entropy(scores[batch.counted], batch.tags[batch.counted])
