"""The labels of the words before, as states of a label LSTM (Eq. 3 of the LANER paper).

**The reading.** Eq. 3 runs a BiLSTM over s_1 … s_{i-1}, the embeddings of the labels *before* word i, anew for every i.
Its forward half is the same for all i, so it is computed once. Its backward half is not: it begins at label i-1, without
a state, and goes back to the first; for word i+1 it begins one label later and every state is another one. A BiLSTM over
the gold labels of the whole sentence would show each word its own label.

A history is never empty: it begins with a start symbol, which has an embedding of its own. So word i (counted from 0 in
the code) has the history h_0 = start, h_1 = y_0, …, h_i = y_{i-1} of i + 1 symbols, and e_k^{(i)} = [f_k ; b_k^{(i)}] for
k ≤ i. "The last hidden state" of Eq. 4 is e_i^{(i)}, the state at the last label, as the paper says.

Shapes: B windows, N words of the longest, K tags, d = d₂.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LabelEncoder"]

_GROUPS = 8  # of histories by length: with so many, about an eighth of what is read is padding


class LabelEncoder(nn.Module):
    """Label embeddings and the label LSTM.

    Args:
        count: K.
        size: d₂, of embeddings and of each direction's states.
        bidirectional: Eq. 3; else the fast variant, whose states go on from word to word.
    """

    def __init__(self, count: int, size: int, *, bidirectional: bool = True) -> None:
        super().__init__()
        self.count, self.bidirectional = count, bidirectional
        #: U, with a row for every tag (``O`` too) and a last one for the start symbol.
        self.table = nn.Embedding(count + 1, size)
        self.ahead = nn.LSTM(size, size, batch_first=True)
        self.back = nn.LSTM(size, size, batch_first=True) if bidirectional else None

    @property
    def width(self) -> int:
        """Dimension of e: 2 d₂, or d₂ of the forward variant."""
        return self.table.embedding_dim * (2 if self.bidirectional else 1)

    @property
    def start(self) -> int:
        """Index of the start symbol."""
        return self.count

    def history(self, labels: Tensor) -> Tensor:
        """[B, N] labels → [B, N] symbols: the start, then all labels but the last."""
        return torch.cat([torch.full_like(labels[:, :1], self.start), labels[:, :-1]], 1)

    def prefixes(self, labels: Tensor, mask: Tensor, *, every: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
        """The states of all words' histories, teacher-forced, without a loop over words.

        Args:
            labels: gold, [B, N]; anything where there is no word.
            mask: [B, N], true for words.
            every: also the backward states of all symbols, which LC needs and LB does not.

        Returns:
            Forward states [B, N, d]; backward states [B, N, N, d], [b, i, k] = b_k^{(i)} and zero for k > i (``None``
            without them); the last states e_i^{(i)} [B, N, 2d] (forward variant: [B, N, d]).
        """
        symbols = self.table(self.history(labels))
        ahead = self.ahead(symbols)[0]
        if self.back is None:
            return ahead, None, ahead
        batch, count, size = symbols.shape
        if not every:
            # The backward LSTM's first step, from no state, on the last symbol of each history.
            last = self.back(symbols.reshape(-1, 1, size))[0].view(batch, count, size)
            return ahead, None, torch.cat([ahead, last], 2)
        back = self._backward_states_of_all(symbols, mask)
        last = torch.cat([ahead, back.diagonal(dim1=1, dim2=2).transpose(1, 2)], 2)
        return ahead, back, last

    def _backward_states_of_all(self, symbols: Tensor, mask: Tensor) -> Tensor:
        """Backward states of all words' histories: embeddings [B, N, d] → [B, N, N, d], as :meth:`prefixes` says.

        Histories of about the same length are read side by side, padded at their ends. One packed batch of all of them
        needs no padding, but in its gradient PyTorch writes the whole batch anew for each step: 8 times slower at 90 words.
        """
        assert self.back is not None
        batch, count, size = symbols.shape
        rows, words = mask.nonzero(as_tuple=True)
        order = words.argsort(stable=True)
        places, states = [], []
        for own in order.chunk(_GROUPS):
            row, word = rows[own], words[own]
            # Row r reads h_i, h_{i-1}, …, h_0 of its word i: its step t is at symbol i - t.
            symbol = word[:, None] - torch.arange(int(word[-1]) + 1, device=word.device)
            read = self.back(symbols[row[:, None], symbol.clamp(min=0)])[0]
            there = symbol >= 0
            states.append(read[there])
            places.append(((row * count + word)[:, None] * count + symbol)[there])
        back = symbols.new_zeros(batch * count * count, size)
        return back.index_copy(0, torch.cat(places), torch.cat(states)).view(batch, count, count, size)

    def backward_states(self, symbols: Tensor) -> Tensor:
        """b_0 … b_i of one history each: embeddings [R, i + 1, d] → [R, i + 1, d]."""
        assert self.back is not None
        return self.back(symbols.flip(1))[0].flip(1)
