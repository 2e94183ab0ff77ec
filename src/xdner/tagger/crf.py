"""A linear-chain CRF over BIO tags: the head of the paper's BERT-CRF baseline.

Shapes: B windows, N words of the longest, K tags. Words stand at the left; what is behind a window's last is masked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xdner.tagger.tags import transitions

__all__ = ["CRF"]

_NEVER = -1e4  # not -inf: differences of two such scores must stay numbers


class CRF(nn.Module):
    """Scores of tag sequences; illegal ones have next to no probability, in training as in decoding.

    Args:
        tags: names, in the order of the emissions' columns.
    """

    legal: Tensor

    def __init__(self, tags: Sequence[str]) -> None:
        super().__init__()
        count = len(tags)
        self.steps = nn.Parameter(torch.zeros(count, count))
        self.begin = nn.Parameter(torch.zeros(count))
        self.end = nn.Parameter(torch.zeros(count))
        self.register_buffer("legal", transitions(tags), persistent=False)

    def _scores(self, continues: Tensor, goes_on: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of steps [K, K], of first tags [B, K] and of last tags [B, K].

        Where a window's border is none of its sentence's, any legal tag is as good as another: ``begin`` and ``end`` say what
        sentences begin and end with.
        """
        count = len(self.begin)
        steps = self.steps.masked_fill(~self.legal[:count], _NEVER)
        first = self.begin.masked_fill(continues[:, None], 0.0).masked_fill(
            ~self.legal[count + continues.long()], _NEVER
        )
        return steps, first, self.end.masked_fill(goes_on[:, None], 0.0)

    def loss(self, emissions: Tensor, mask: Tensor, tags: Tensor, continues: Tensor, goes_on: Tensor) -> Tensor:
        """Negative log-likelihood of gold tags, summed over all windows.

        Args:
            emissions: [B, N, K].
            mask: [B, N], true for words; every window has one.
            tags: [B, N], anything behind a window's last word.
            continues: [B], windows that begin within their sentence.
            goes_on: [B], windows that end within their sentence.
        """
        gold = self._gold(emissions, mask, tags, continues, goes_on)
        return (self.partition(emissions, mask, continues, goes_on) - gold).sum()

    def partition(self, emissions: Tensor, mask: Tensor, continues: Tensor, goes_on: Tensor) -> Tensor:
        """Log of the sum over all sequences, [B]; arguments as :meth:`loss`."""
        steps, first, end = self._scores(continues, goes_on)
        alpha = first + emissions[:, 0]
        for word in range(1, emissions.shape[1]):
            after = torch.logsumexp(alpha[:, :, None] + steps, 1) + emissions[:, word]
            alpha = torch.where(mask[:, word, None], after, alpha)
        return torch.logsumexp(alpha + end, 1)

    def _gold(self, emissions: Tensor, mask: Tensor, tags: Tensor, continues: Tensor, goes_on: Tensor) -> Tensor:
        steps, first, end = self._scores(continues, goes_on)
        rows = torch.arange(len(tags), device=tags.device)
        own = emissions.gather(2, tags[:, :, None])[:, :, 0].masked_fill(~mask, 0.0).sum(1)
        moved = steps[tags[:, :-1], tags[:, 1:]].masked_fill(~mask[:, 1:], 0.0).sum(1)
        last = tags[rows, mask.sum(1) - 1]
        return own + moved + first[rows, tags[:, 0]] + end[rows, last]

    def marginals(self, emissions: Tensor, mask: Tensor, continues: Tensor, goes_on: Tensor) -> Tensor:
        """The probability of each tag of each word, [B, N, K]: the gradient of the log partition."""
        with torch.inference_mode(False), torch.enable_grad():
            free = emissions.detach().clone().requires_grad_(True)
            total = self.partition(free, mask.clone(), continues.clone(), goes_on.clone()).sum()
            (found,) = torch.autograd.grad(total, free)
        return found

    def best(self, emissions: Tensor, mask: Tensor, continues: Tensor, goes_on: Tensor) -> Tensor:
        """The best sequence of every window (Viterbi), [B, N]."""
        steps, first, end = self._scores(continues, goes_on)
        score, pointers = first + emissions[:, 0], []
        for word in range(1, emissions.shape[1]):
            after, came = (score[:, :, None] + steps).max(1)
            here = mask[:, word, None]
            score = torch.where(here, after + emissions[:, word], score)
            pointers.append(torch.where(here, came, torch.arange(len(self.begin), device=came.device)))
        path = [(score + end).argmax(1)]
        for came in reversed(pointers):
            path.append(came.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], 1)
