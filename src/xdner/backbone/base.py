"""The protocol that every backbone fulfils: a frozen language model that reads prompts under a prefix.

Two things are asked of it: the hidden states that predict a known target (training), and a :class:`Session` that reads
prompts and then takes tokens step by step (generation). Everything else, the methods build themselves.

Shapes: B rows, N target tokens of all rows together, U scored ids, d hidden size.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xdner.backbone.attention import IMPLEMENTATION, KNOWN, NoPlanError, Site, instrument
from xdner.backbone.linear import pack_linears
from xdner.backbone.store import Context, PrefixRows
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError, is_out_of_memory
from xdner.geometry import PrefixGeometry, SiteShape

__all__ = ["Backbone", "Extent", "Ids", "Prompts", "Session", "in_line", "runs"]

Ids = Sequence[int]
#: A prompt and a target for the self-check: any ids that every vocabulary has.
_PROBES = (([5, 6], [7, 8, 5]), ([6, 8, 5], [5, 7, 6]))  # prompts of two lengths, targets of one
#: How far our scores may be from the model's own, as a share of the largest: kernels add up in another order.
_CLOSE = {torch.float64: 1e-3, torch.float32: 1e-3}
_CLOSE_IN_16_BITS = 0.1


@dataclass(frozen=True, slots=True)
class Extent:
    """How much room a session needs.

    Attributes:
        rows: at a time.
        prefix: keys of the longest prefix.
        context, source: tokens of the longest context and the longest prompt behind it.
        text: tokens of the longest context, prompt and target together.
        room: tokens of the longest target.
    """

    rows: int
    prefix: int
    context: int
    source: int
    text: int
    room: int


@dataclass(frozen=True, eq=False, slots=True)
class Prompts:
    """What rows that come in are asked.

    Attributes:
        sources: R prompts.
        prefix: one a row, or one for all.
        contexts: one a row; each prompt is read after its own.
    """

    sources: Sequence[Ids]
    prefix: PrefixRows
    contexts: Sequence[Context]


class Session(ABC):
    """Rows that are read, take tokens and leave again. The rows that are there are numbered from 0 without holes."""

    @abstractmethod
    def admit(self, prompts: Prompts) -> Tensor:
        """Read new prompts; their rows are numbered behind those that are there.

        Returns:
            [R, d], the state that predicts each new row's first token.
        """

    @abstractmethod
    def step(self, tokens: Sequence[Ids]) -> Tensor:
        """Feed each row its next tokens, one or several, in one pass.

        Args:
            tokens: B non-empty lists, one for every row that is there.

        Returns:
            [N, d], the state after every token, row after row.
        """

    @abstractmethod
    def turn(self, tokens: Sequence[Ids], prompts: Prompts) -> Tensor:
        """:meth:`step` for the rows that are there and :meth:`admit` for new ones, in one pass.

        Returns:
            [N + R, d]: the states of the one, then those of the other.
        """

    @abstractmethod
    def take_back(self, counts: Sequence[int]) -> None:
        """Forget so many of the last tokens of every row, as if they had not been fed."""

    @abstractmethod
    def leave(self, row: int) -> None:
        """A row leaves; the last one takes its number."""


class Backbone(ABC):
    """A frozen language model with numbered attention sites.

    Args:
        model: a causal language model or an encoder-decoder from transformers.
        tokenizer: its fast tokenizer.
        name: what the user called it.
        source: what loads it again (alias, hub id or absolute folder); the name if it is not given.
        identity: fingerprint of the stored weights; computed from the model if it is not given.
        recommended: settings that its maker recommends, by group (an instructed backbone knows its prompt).

    Raises:
        BackboneError: a model that cannot take a prefix at every site, or whose scores cannot be reproduced.
    """

    kind: Literal["causal", "seq2seq"]
    #: Settings that suit this kind of model, by group, where its maker recommends none.
    suited: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "",
        source: str = "",
        identity: str = "",
        recommended: Mapping[str, Any] | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise BackboneError(
                f"{name or type(tokenizer).__name__} has no fast tokenizer",
                hint="xdner needs a tokenizer.json beside the weights; convert the slow tokenizer with transformers.",
            )
        self.model, self.tokenizer, self.name = model, tokenizer, name or type(model).__name__
        self.source = source or self.name
        self._identity = identity
        self.recommended: Mapping[str, Any] = dict(recommended or self.suited)
        self.freeze()
        # What the model says by itself can only be asked before its attention is ours (a second backbone of it: too late).
        stock = getattr(model.config, "_attn_implementation", None) != IMPLEMENTATION
        with self._built_as_known():
            own = [self._own_logits(*probe) for probe in _PROBES] if stock else []
            self.sites: tuple[Site, ...] = instrument(model)
            pack_linears(model, leave=model.get_output_embeddings())
            for layer in model.modules():
                if type(layer) is nn.ReLU:
                    layer.inplace = (
                        True  # T5's widest tensor need not be there twice, and no gradient asks for what it was
                    )
            self.geometry = PrefixGeometry(tuple(SiteShape(s.name, s.heads, s.head_dim) for s in self.sites))
            self._check_reach()
            if own:
                self._check_scores(torch.cat(own))

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of the states."""
        return self.model.get_input_embeddings().weight.dtype

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:…`` over all stored weights; another one is another backbone."""
        return self._identity or self.compute_fingerprint()

    @property
    def exact_fingerprint(self) -> str:
        """With the type that the weights compute in: what two runs must share to give the same numbers."""
        return f"{self.fingerprint} {str(self.dtype).removeprefix('torch.')}"

    def compute_fingerprint(self) -> str:
        """The fingerprint of the weights as they are in memory now: the same before and after training."""
        return fingerprint(self.model.state_dict())

    @property
    def max_tokens(self) -> int:
        """Positions the model was made for, prefix included; a large number where it has no bound."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 1_000_000)

    # -- frozen --------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """No gradient for any weight, embeddings and output layer included; no dropout."""
        self.model.requires_grad_(False)
        self.model.eval()

    @contextlib.contextmanager
    def dropout(self, on: bool, also: Iterable[nn.Module] = ()) -> Iterator[None]:
        """Switch the model's own dropout on for a while, or only that of modules that were put into it (LoRA's).

        Args:
            on: whether the model's own is.
            also: modules whose dropout is on in any case.
        """
        self.model.train(on)
        for module in also:
            module.train()
        try:
            yield
        finally:
            self.model.eval()

    # -- parts ---------------------------------------------------------------------------------------------------

    def word_embeddings(self, ids: Ids) -> Tensor:
        """[len(ids), d]: the input embeddings (LM_w of Eq. 5)."""
        return self.model.get_input_embeddings().weight[torch.as_tensor(list(ids), device=self.device)]

    def logits(self, states: Tensor, ids: Ids | None = None) -> Tensor:
        """Scores of these ids, or of the whole vocabulary.

        Args:
            states: [N, d].
            ids: U token ids.

        Returns:
            [N, U] in 32 bits, as the model's own output layer gives them.
        """
        head: nn.Linear = self.model.get_output_embeddings()
        weight: Tensor = head.weight
        bias: Tensor | None = head.bias
        if ids is not None:
            index = torch.as_tensor(list(ids), device=weight.device)
            weight, bias = weight[index], None if bias is None else bias[index]
        return self._scale_logits(nn.functional.linear(self._scale_states(states), weight, bias).float())

    def _scale_states(self, states: Tensor) -> Tensor:
        return states

    def _scale_logits(self, logits: Tensor) -> Tensor:
        return logits

    def empty_prefix(self) -> PrefixRows:
        """No prefix: with it the backbone is the stock model."""
        return PrefixRows.empty([(s.heads, s.head_dim) for s in self.sites], self.model.get_input_embeddings().weight)

    # -- what a kind of model does in its own way ------------------------------------------------------------------

    @abstractmethod
    def read_context(self, ids: Ids, prefix: PrefixRows) -> Context:
        """Read the part of the prompt that all sentences of a domain share, under one prefix (gradients flow)."""

    @abstractmethod
    def target_states(
        self, sources: Sequence[Ids], targets: Sequence[Ids], prefix: PrefixRows, context: Context | None = None
    ) -> Tensor:
        """Teacher forcing: the states that predict each target token.

        Args:
            sources: B prompts (without the context).
            targets: B targets, each ending with the end token.
            prefix: one for all rows or one a row.
            context: shared by all rows.

        Returns:
            [N, d], row by row; gradients flow into the prefix.
        """

    @abstractmethod
    def begin(self, extent: Extent) -> Session:
        """An empty session with room for so much."""

    @abstractmethod
    def read_keys_values(self, ids: Ids) -> list[tuple[Tensor, Tensor]]:
        """Per site, the keys and values [G, len(ids), d] of a text under no prefix: a prefix to start from."""

    @abstractmethod
    def prefix_mass(
        self, source: Ids, target: Ids, prefix: PrefixRows, context: Context | None = None
    ) -> dict[str, Tensor]:
        """λ of Eq. 2: per site the attention mass on the prefix, mean over heads, one number a query [T]."""

    # -- self-check ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _own_logits(self, source: Ids, target: Ids) -> Tensor:
        """[N, V]: the scores of each target token as transformers' own forward pass gives them, attention untouched."""

    @contextlib.contextmanager
    def _built_as_known(self) -> Iterator[None]:
        """Whatever an unknown architecture leads to is told as what it is."""
        try:
            yield
        except NoPlanError:
            raise BackboneError(f"{self.name} does not hand on to its attention what it is told", hint=KNOWN) from None
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise BackboneError(
                f"{self.name} is built in a way that xdner does not know ({reason})", hint=KNOWN
            ) from error

    def _check_scores(self, own: Tensor) -> None:
        """Do our scores under no prefix equal the model's own: of rows side by side, and step by step? Layers that are no
        attention, as of hybrids, would mix the rows of a pass, or forget the steps before."""
        sources, targets = ([list(probe[part]) for probe in _PROBES] for part in (0, 1))
        nothing, longest = self.empty_prefix(), max(map(len, sources))
        with torch.no_grad():
            together = self.target_states(sources, targets, nothing)
            room = len(targets[0])
            session = self.begin(Extent(len(sources), 0, 0, longest, longest + room, room))
            first = session.admit(Prompts(sources, nothing, [Context(())] * len(sources)))
            later = session.step([target[:-1] for target in targets]).unflatten(0, (len(targets), -1))
            stepwise = torch.cat([first[:, None], later], 1).flatten(0, 1)
            found = [self.logits(states) for states in (together, stepwise)]
        bound = _CLOSE.get(self.dtype, _CLOSE_IN_16_BITS) * float(own.abs().max())
        for ours in found:
            if not torch.allclose(ours, own.float(), rtol=0, atol=bound, equal_nan=True):
                raise BackboneError(
                    f"the scores of {self.name} cannot be reproduced: they differ by up to "
                    f"{float((ours - own).abs().max()):.3g}",
                    hint="This architecture or transformers version treats states or scores in its own way; choose another.",
                )

    def _check_reach(self) -> None:
        """Does a prefix reach every site?"""
        generator = torch.Generator().manual_seed(0)
        values = [
            (torch.randn(1, s.heads, 1, s.head_dim, generator=generator) * 0.1)
            .to(self.device, self.dtype)
            .requires_grad_(True)
            for s in self.sites
        ]
        keys = [torch.zeros_like(v) for v in values]
        rows = PrefixRows(keys, values, torch.ones(1, dtype=torch.long, device=self.device))
        with torch.enable_grad():
            states = self.target_states([_PROBES[0][0]], [_PROBES[0][1]], rows)
            # A random direction: with a plain sum, a final layer norm can cancel every gradient.
            direction = torch.randn(states.shape, generator=generator).to(states)
            gradients = torch.autograd.grad((states * direction).sum(), values, allow_unused=True)
        deaf = [s.name for s, g in zip(self.sites, gradients, strict=True) if g is None or not g.abs().sum() > 0]
        if deaf and not bool(states.isfinite().all()):
            raise BackboneError(
                f"{self.name} computes values that are not numbers in {str(self.dtype).removeprefix('torch.')}",
                hint="Try --dtype float32; if they stay, the weights are damaged: copy or download the model again.",
            )
        if deaf:
            raise BackboneError(
                f"a prefix does not reach {len(deaf)} of {len(self.sites)} attention sites of {self.name}: "
                + ", ".join(deaf[:5]),
                hint="This architecture or transformers version bypasses the attention interface; choose another.",
            )


def in_line(lists: Sequence[Ids], device: torch.device) -> Tensor:
    """[1, N]: the ids of all rows, one row after the other."""
    return torch.tensor([[i for ids in lists for i in ids]], dtype=torch.long, device=device)


def runs(first: Sequence[int], counts: Sequence[int], device: torch.device) -> Tensor:
    """[N]: from each ``first`` on, so many numbers in a row."""
    return torch.tensor([f + i for f, n in zip(first, counts, strict=True) for i in range(n)], device=device)
