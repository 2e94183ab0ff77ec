"""What is minimized: Eq. 4, the negative log-likelihood of a target under the frozen model and its prefix.

Two likelihoods: ``vocabulary`` is the paper's softmax over all tokens; ``grammar`` is a softmax over the tokens that
are legal at each place, which is what decoding chooses from. Forced tokens have probability one under the grammar and
are left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from xdner.backbone.base import Backbone, Ids
from xdner.codec.target import Target

__all__ = ["target_loss"]


def target_loss(
    backbone: Backbone, states: Tensor, targets: Sequence[Target], likelihood: Literal["grammar", "vocabulary"]
) -> Tensor:
    """Mean negative log-likelihood per decision.

    Args:
        backbone: gives the scores.
        states: [N, d], the states that predict the targets' tokens, row by row.
        targets: their ids (N in all); for ``grammar`` with their legal sets.
        likelihood: see above.

    Returns:
        A scalar.
    """
    gold = [token for target in targets for token in target.ids]
    if likelihood == "vocabulary":
        goal = torch.tensor(gold, device=states.device)
        return torch.nn.functional.cross_entropy(backbone.logits(states), goal)
    legal = [ids for target in targets for ids in target.legal]
    return grammar_loss(backbone, states, gold, legal)


def grammar_loss(backbone: Backbone, states: Tensor, gold: Ids, legal: Sequence[Ids]) -> Tensor:
    """Mean over the places where more than one token is legal; [N, d] states, N gold ids, N legal sets.

    Scores are computed once for the union of all legal sets, and masked per place.
    """
    open_places = [i for i, ids in enumerate(legal) if len(ids) > 1]
    if not open_places:
        return states.sum() * 0.0
    union = sorted({token for i in open_places for token in legal[i]})
    column = {token: c for c, token in enumerate(union)}
    device = states.device
    allowed = torch.zeros(len(open_places), len(union), dtype=torch.bool)
    at = [(row, column[token]) for row, i in enumerate(open_places) for token in legal[i]]
    allowed[tuple(torch.tensor(at).T)] = True
    goal = torch.tensor([column[gold[i]] for i in open_places], device=device)
    scores = backbone.logits(states[torch.tensor(open_places, device=device)], union)
    return torch.nn.functional.cross_entropy(scores.masked_fill(~allowed.to(device), float("-inf")), goal)
