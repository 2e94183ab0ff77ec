"""From windows to tags: word after word, all windows of a batch at once.

A tag depends on its own window only: padding is masked everywhere, so in another batch the scores are the same but for the
last bits of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xdner.backbone.word_batch import Batch
from xdner.backbone.words import Encoded
from xdner.tagger.network import TaggerNetwork

__all__ = ["Tagged", "decode", "read"]


@dataclass(frozen=True, slots=True)
class Tagged:
    """The tags of a sentence, one a word, and the probability of each: given the tags before it, for LANER among the
    legal ones; for a CRF its marginal."""

    tags: tuple[str, ...]
    probabilities: tuple[float, ...]


def read(
    network: TaggerNetwork,
    sentences: Sequence[Sequence[Encoded]],
    *,
    beam: int | None = None,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> list[Tagged]:
    """Tag sentences given as windows (:meth:`~xdner.backbone.words.WordPieces.encode`); a word's tag is that of the window
    in whose core it is.

    Args:
        beam: hypotheses; by default the settings'.
        batch_size: windows at a time; those of near-equal length together.
        done: called with the number of windows read so far.
    """
    network.eval()
    places = [(s, w) for s, windows in enumerate(sentences) for w in range(len(windows))]
    places.sort(key=lambda at: len(sentences[at[0]][at[1]].ids))
    made: dict[tuple[int, int], tuple[list[int], list[float]]] = {}
    for start in range(0, len(places), batch_size):
        some = places[start : start + batch_size]
        found = decode(network, [sentences[s][w] for s, w in some], beam=beam)
        made.update(zip(some, found, strict=True))
        if done is not None:
            done(start + len(some))
    results = []
    for s, windows in enumerate(sentences):
        tags: list[str] = []
        probabilities: list[float] = []
        for w, window in enumerate(windows):
            core = slice(*window.counted)
            tags += [network.tags[t] for t in made[s, w][0][core]]
            probabilities += made[s, w][1][core]
        results.append(Tagged(tuple(tags), tuple(probabilities)))
    return results


@torch.inference_mode()
def decode(
    network: TaggerNetwork, items: Sequence[Encoded], *, beam: int | None = None
) -> list[tuple[list[int], list[float]]]:
    """Tag indices and probabilities of every window's words.

    The plain head takes each word's best tag by itself, whatever stands before it; the other heads take legal sequences.
    """
    # The longest first: the windows that still have words are then always the first rows.
    order = sorted(range(len(items)), key=lambda i: -len(items[i].places))
    batch = network.batch([items[i] for i in order])
    flat = network.words(batch)
    if network.labels is not None:
        chosen, sure = _word_by_word(network, batch, flat, beam or network.settings.beam)
    else:
        scores = network.head(flat)
        if network.crf is None:
            best = scores.softmax(1).max(1)
            chosen, sure = batch.spread(best.indices), batch.spread(best.values)
        else:
            spread = batch.spread(scores)
            chosen = network.crf.best(spread, batch.mask, batch.continues, batch.goes_on)
            share = network.crf.marginals(spread, batch.mask, batch.continues, batch.goes_on)
            sure = share.gather(2, chosen[:, :, None])[:, :, 0]
    tags, probabilities = chosen.tolist(), sure.tolist()
    made: list[tuple[list[int], list[float]]] = [([], [])] * len(items)
    for row, item in enumerate(order):
        count = len(items[item].places)
        made[item] = (tags[row][:count], probabilities[row][:count])
    return made


def _word_by_word(network: TaggerNetwork, batch: Batch, flat: Tensor, beam: int) -> tuple[Tensor, Tensor]:
    """Eq. 1, greedy or with a beam: tags and probabilities, [B, N] each. Rows are sorted, the longest first.

    The history is the one of training: the start symbol, then the labels chosen so far, one a word.
    """
    labels, attention = network.labels, network.attention
    assert labels is not None
    assert attention is not None
    own = batch.spread(flat).repeat_interleave(beam, 0)  # [R, N, d₁], R = B · beam hypotheses
    mask = batch.mask.repeat_interleave(beam, 0)
    hypotheses, count = mask.shape
    size, tags = labels.table.embedding_dim, len(network.tags)
    symbols = own.new_zeros(hypotheses, count, size)  # embeddings of the history
    ahead = own.new_zeros(hypotheses, count, size)
    state = (own.new_zeros(1, hypotheses, size), own.new_zeros(1, hypotheses, size))
    chosen = torch.zeros(hypotheses, count, dtype=torch.long, device=own.device)
    sure = own.new_zeros(hypotheses, count)
    total = own.new_full((len(batch.mask), beam), float("-inf"))
    total[:, 0] = 0.0  # all hypotheses of a window are still one
    last_tag = (tags + batch.continues.long()).repeat_interleave(beam)
    symbol = torch.full((hypotheses,), labels.start, device=own.device)
    for word, rows in enumerate(batch.mask.sum(0).tolist()):
        live = rows * beam
        # Once a window is over, nothing may touch its rows.
        symbols[:live, word] = labels.table(symbol[:live])
        now = symbols[:live, word : word + 1]
        step, moved = labels.ahead(now, (state[0][:, :live].contiguous(), state[1][:, :live].contiguous()))
        ahead[:live, word] = step[:, 0]
        back, last = None, step
        if labels.back is not None and network.settings.context:
            back = labels.backward_states(symbols[:live, : word + 1])[:, None]
            last = torch.cat([step, back[:, :, -1]], 2)
        elif labels.back is not None:
            last = torch.cat([step, labels.back(now)[0]], 2)
        seen = torch.ones(1, word + 1, dtype=torch.bool, device=own.device)
        here = own[:live, word : word + 1]
        aware = attention(here, last, own[:live], mask[:live], ahead[:live, : word + 1], back, seen)
        scores = network.head(torch.cat([here, aware], 2))[:, 0]
        scores = scores.masked_fill(~network.legal[last_tag[:live]], float("-inf")).log_softmax(1)
        paths = (total[:rows, :, None] + scores.view(rows, beam, tags)).view(rows, -1)
        best = paths.topk(beam, 1)
        total[:rows] = best.values
        tag = (best.indices % tags).view(-1)
        parent = (best.indices // tags + torch.arange(rows, device=own.device)[:, None] * beam).view(-1)
        if beam > 1:
            moved = (moved[0][:, parent], moved[1][:, parent])
            for kept in (symbols, ahead, chosen, sure):
                kept[:live, : word + 1] = kept[parent, : word + 1]
        state[0][:, :live], state[1][:, :live] = moved[0], moved[1]
        chosen[:live, word], sure[:live, word] = tag, scores[parent, tag].exp()
        symbol[:live] = last_tag[:live] = tag
    return chosen[::beam], sure[::beam]  # the first hypothesis of a window is its best
