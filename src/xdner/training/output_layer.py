"""The output layer that an encoder without one needs for learning from text; no part of what is saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["OutputLayer"]


class OutputLayer(nn.Module):
    """BERT's: a linear layer, GELU, layer norm, then the encoder's own word embeddings as output weights, and a bias.

    Sentence encoders such as MiniLM-L6 come without one, so it has to learn what the states say before the encoder may
    learn from it: first it is trained ``alone``.

    Args:
        encoder: gives states [.., d] and word embeddings [V, e], which stay its own; e is mostly d (not in ELECTRA's small one
            and ALBERT).

    Attributes:
        alone: whether only this layer is trained at the moment.
    """

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        embeddings = encoder.get_input_embeddings().weight
        size, given = embeddings.shape[1], int(encoder.config.hidden_size)
        self.alone = False
        # A plain attribute would make the embeddings a parameter of this layer too.
        self._embeddings = [embeddings]
        self.transform = nn.Linear(given, size, device=embeddings.device)
        self.norm = nn.LayerNorm(size, device=embeddings.device)
        self.bias = nn.Parameter(torch.zeros(embeddings.shape[0], device=embeddings.device))
        with torch.no_grad():
            draws = torch.randn(size, given, generator=torch.Generator().manual_seed(0))
            self.transform.weight.copy_(draws * 0.02)
            self.transform.bias.zero_()

    def begin_with(self, counts: Tensor) -> None:
        """Start from how often each token occurs in the text: counts [V]. Nothing else has to learn that then."""
        with torch.no_grad():
            smoothed = (counts.double() + 0.1) / (counts.double() + 0.1).sum()
            self.bias.copy_(smoothed.log())

    def forward(self, states: Tensor) -> Tensor:
        """Scores [N, V] of states [N, d]."""
        changed = self.norm(nn.functional.gelu(self.transform(states)))
        return nn.functional.linear(changed, self._embeddings[0], self.bias)
