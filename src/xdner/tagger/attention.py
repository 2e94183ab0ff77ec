"""Bi-attention: label background and label context (Eqs. 4 to 9).

Shapes: B windows, N words, d₁ of words' states, w of label states (2 d₂, or d₂ of the forward variant).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BiAttention"]


class BiAttention(nn.Module):
    """What the labels before tell about a word.

    Args:
        size: d₁.
        width: w.
        background, context: whether there is LB, LC; at least one. Without LB, Eq. 7 maps the word's state alone.
    """

    def __init__(self, size: int, width: int, *, background: bool = True, context: bool = True) -> None:
        super().__init__()
        self.query = nn.Linear(width, size) if background else None  # W₂, b₂
        self.mix = nn.Linear(2 * size if background else size, width) if context else None  # W₃, b₃
        #: Dimension of z.
        self.width = (size if background else 0) + (width if context else 0)

    def background(self, last: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Eqs. 4 to 6: the sentence's words as the last label state sees them.

        Args:
            last: e_{i-1} of Eq. 3, [B, M, w]: one query a word, or M = 1 in decoding.
            words: h, [B, N, d₁].
            mask: [B, N], true for words.

        Returns:
            h^b, [B, M, d₁].
        """
        assert self.query is not None
        scores = self.query(last) @ words.transpose(1, 2)
        return scores.masked_fill(~mask[:, None], float("-inf")).softmax(2) @ words

    def forward(
        self, own: Tensor, last: Tensor, words: Tensor, mask: Tensor, ahead: Tensor, back: Tensor | None, seen: Tensor
    ) -> Tensor:
        """z of M words a window (Eq. 9): all of them in training, one in decoding.

        Args:
            own: h_i of these words, [B, M, d₁].
            last: their e_{i-1}, [B, M, w].
            words, mask: the sentence's words, [B, N, d₁] and [B, N].
            ahead: forward label states, [B, L, d₂].
            back: backward label states of each word's history, [B, M, L, d₂], or ``None``.
            seen: which label states are of a word's history, [M, L] or [B, M, L]; never none.

        Returns:
            [B, M, width].
        """
        parts, mixed = [], own
        if self.query is not None:
            around = self.background(last, words, mask)
            parts, mixed = [around], torch.cat([own, around], 2)
        if self.mix is not None:
            asked = self.mix(mixed)  # Eq. 7
            size = ahead.shape[2]
            scores = asked[:, :, :size] @ ahead.transpose(1, 2)  # Eq. 8
            if back is not None:
                scores = scores + torch.einsum("bmd,bmld->bml", asked[:, :, size:], back)
            weights = scores.masked_fill(~seen, float("-inf")).softmax(2)
            parts.append(weights @ ahead)
            if back is not None:
                parts.append(torch.einsum("bml,bmld->bmd", weights, back))
        return torch.cat(parts, 2)
