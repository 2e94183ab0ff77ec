"""Three kinds of models and how each learns from plain text: a block of ids in, a loss out.

============  ==========================================================================================
encoder       hidden spans of words are to be told (:func:`xdner.training.masking.mask_spans`)
seq2seq       T5: hidden spans are to be written (:func:`xdner.training.masking.corrupt_spans`)
causal        each token is to be told from those before it
============  ==========================================================================================

Lines follow one another in a block. An encoder sees its last token (``[SEP]``) after each, a causal model its end of text;
T5 sees nothing, as in its own pre-training.
"""

from __future__ import annotations

import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from xdner.backbone.base import Backbone
from xdner.backbone.encoder import positions_of
from xdner.backbone.load import check_device, load_backbone
from xdner.backbone.saving import stored_dtype
from xdner.backbone.sources import ResolvedBackbone
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError
from xdner.training.adapt_settings import AdaptSettings
from xdner.training.masking import UNASKED, corrupt_spans, mask_spans, word_starts
from xdner.training.output_layer import OutputLayer

__all__ = ["Learner", "load_learner"]

Blocks = Sequence[Sequence[int]]


class Learner(ABC):
    """A model that learns from plain text.

    Attributes:
        model: the whole of it, its weights in 32 bits.
        tokenizer: fast.
        how: settings.
        room: tokens of text in a block.
        separator: id after each line, or ``None``.
        fingerprint: of the weights as they were stored.
        stored: type in which they were stored.
        output: an output layer that had to be made, or ``None``.
    """

    objective: ClassVar[str]
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    how: AdaptSettings
    room: int
    separator: int | None
    fingerprint: str
    stored: torch.dtype
    output: OutputLayer | None = None

    @abstractmethod
    def loss(self, blocks: Blocks, rng: random.Random) -> tuple[Tensor, int]:
        """Sum of the negative log-likelihoods of what is asked for in B blocks, in nats, and how many tokens that is."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.get_input_embeddings().weight.device

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def weights(self) -> dict[str, nn.Parameter]:
        """The model's own, each once; those of a pooler are not used and thus not trained."""
        self.model.requires_grad_(True)
        return {n: p for n, p in self.model.named_parameters() if "pooler" not in n.split(".")}

    @contextlib.contextmanager
    def dropout(self, on: bool) -> Iterator[None]:
        """Switch the model's own dropout on for a while."""
        self.model.train(on)
        try:
            yield
        finally:
            self.model.eval()


def load_learner(found: ResolvedBackbone, how: AdaptSettings, *, device: str = "cpu") -> Learner:
    """Load a model with its weights in 32 bits.

    Raises:
        BackboneError: it cannot be loaded, or its tokenizer lacks what the objective needs.
    """
    if found.kind == "encoder":
        return EncoderLearner(found, how, device)
    return {"causal": CausalLearner, "seq2seq": SpanLearner}[found.kind](found, how, device)


class EncoderLearner(Learner):
    """BERT-like models. One without an output layer for tokens gets one, which is not part of what is saved."""

    objective = "hidden spans of whole words (masked language modelling)"

    def __init__(self, found: ResolvedBackbone, how: AdaptSettings, device: str) -> None:
        check_device(device)
        self.how = how
        try:
            self.model, whole = _load_encoder(found)
            self.tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BackboneError(
                f"cannot load {found.name} from {found.path}: {str(error).splitlines()[0]}",
                hint="The folder needs config.json, model.safetensors and tokenizer.json of one model.",
            ) from error
        self.stored, self.fingerprint = stored_dtype(found.path), fingerprint(self.model.state_dict())
        self.model = self.model.to(device=device, dtype=torch.float32)
        self._check_tokenizer(found.name)
        self.output = None if whole else OutputLayer(self.model)
        self.separator = int(self.tokenizer.sep_token_id)
        self.room = min(how.block, positions_of(self.model.base_model, self.tokenizer)) - 2
        tokens = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        rest = self.vocabulary - len(tokens)
        self._starts = [*word_starts(tokens), *[True] * max(0, rest)]
        self._special = frozenset(self.tokenizer.all_special_ids)
        self._ordinary = [i for i in range(min(len(tokens), self.vocabulary)) if i not in self._special]

    def _check_tokenizer(self, name: str) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise BackboneError(
                f"{name} has no fast tokenizer",
                hint="xdner needs a tokenizer.json beside the weights; convert the slow tokenizer with transformers.",
            )
        needed = ("cls_token_id", "sep_token_id", "mask_token_id")
        missing = [n for n in needed if getattr(self.tokenizer, n, None) is None]
        if missing:
            raise BackboneError(
                f"the tokenizer of {name} has no {', '.join(missing)}", hint="Use a BERT-like model with a mask token."
            )

    def loss(self, blocks: Blocks, rng: random.Random) -> tuple[Tensor, int]:
        how, device = self.how, self.device
        first, last = int(self.tokenizer.cls_token_id), int(self.tokenizer.sep_token_id)
        masked = [
            mask_spans(
                [first, *block, last], starts=self._starts, special=self._special, mask=int(self.tokenizer.mask_token_id),
                ordinary=self._ordinary, share=how.share, span=how.span or 5.0, longest=how.longest_span, rng=rng,
            )
            for block in blocks
        ]  # fmt: skip
        width = max(len(m.ids) for m in masked)
        pad = int(self.model.config.pad_token_id or 0)
        ids = torch.tensor([[*m.ids, *([pad] * (width - len(m.ids)))] for m in masked], device=device)
        goals = torch.tensor([[*m.goals, *([UNASKED] * (width - len(m.ids)))] for m in masked], device=device)
        lengths = torch.tensor([len(m.ids) for m in masked], device=device)
        seen = (torch.arange(width, device=device) < lengths[:, None]).long()
        asked = goals != UNASKED
        if self.output is None:
            scores = self.model(input_ids=ids, attention_mask=seen).logits[asked]
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.output.alone):
                states = self.model(input_ids=ids, attention_mask=seen).last_hidden_state
            scores = self.output(states[asked])
        wanted = goals[asked]
        return nn.functional.cross_entropy(scores.float(), wanted, reduction="sum"), len(wanted)


def _load_encoder(found: ResolvedBackbone) -> tuple[PreTrainedModel, bool]:
    """The model, and whether it has an output layer of its own."""
    config = AutoConfig.from_pretrained(found.path, local_files_only=True, trust_remote_code=False)
    names = config.architectures or []
    if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in names):
        model, missing = _loaded(AutoModelForMaskedLM, found)
        if not missing:
            return model, True
    model, missing = _loaded(AutoModel, found)
    if missing and all("pooler" in key.split(".") for key in missing):
        model.pooler, missing = None, set()  # not used, and drawn at random: it must not be saved
    if missing:
        raise BackboneError(
            f"the weights of {found.name} lack {len(missing)} tensors: {', '.join(sorted(missing)[:3])}",
            hint="Copy or download the model again.",
        )
    return model, False


def _loaded(loader: Any, found: ResolvedBackbone) -> tuple[PreTrainedModel, set[str]]:
    """A model, and the names of the weights that its folder lacks."""
    with torch.random.fork_rng(devices=[]):  # they would be drawn at random
        model, told = loader.from_pretrained(
            found.path, local_files_only=True, dtype="auto", output_loading_info=True, trust_remote_code=False
        )
    return model, set(told["missing_keys"])


class _LanguageLearner(Learner):
    """Models that write: they read through the backbone's own passes, without padding and without a prefix."""

    def __init__(self, found: ResolvedBackbone, how: AdaptSettings, device: str) -> None:
        self.how = how
        self.backbone: Backbone = load_backbone(found.path, device=device)
        self.model, self.tokenizer = self.backbone.model, self.backbone.tokenizer
        self.fingerprint = self.backbone.fingerprint
        self.stored = stored_dtype(found.path)
        self._set_up(found.name)

    @abstractmethod
    def _set_up(self, name: str) -> None:
        """Room, separator and what else the kind needs."""

    def _told(self, sources: Blocks, targets: Blocks) -> tuple[Tensor, int]:
        states = self.backbone.target_states(sources, targets, self.backbone.empty_prefix())
        goals = torch.tensor([token for target in targets for token in target], device=states.device)
        return nn.functional.cross_entropy(self.backbone.logits(states), goals, reduction="sum"), len(goals)


class CausalLearner(_LanguageLearner):
    """Llama-, Qwen-, Gemma-like models."""

    objective = "next token"

    def _set_up(self, name: str) -> None:
        self.separator = self.tokenizer.eos_token_id
        # Some models are lost without the token that every text begins with (Gemma).
        begun = self.tokenizer("a")["input_ids"]
        start = self.tokenizer.bos_token_id
        self._start = [start] if start is not None and begun[:1] == [start] else []
        self.room = min(self.how.block, self.backbone.max_tokens) - len(self._start)

    def loss(self, blocks: Blocks, rng: random.Random) -> tuple[Tensor, int]:
        rows = [[*self._start, *block] for block in blocks]
        return self._told([row[:1] for row in rows], [row[1:] for row in rows])


class SpanLearner(_LanguageLearner):
    """T5 and its like."""

    objective = "hidden spans (span corruption)"

    def _set_up(self, name: str) -> None:
        self.separator, self.room = None, self.how.block
        self._sentinels = _sentinels(self.tokenizer)
        if not self._sentinels:
            raise BackboneError(
                f"the tokenizer of {name} has no sentinels (<extra_id_0>, <extra_id_1>, …)",
                hint="Use T5, flan-T5, mT5 or umT5 with the tokenizer that came with it.",
            )

    def loss(self, blocks: Blocks, rng: random.Random) -> tuple[Tensor, int]:
        how, end = self.how, int(self.tokenizer.eos_token_id)
        pairs = [
            corrupt_spans(b, sentinels=self._sentinels, share=how.share, span=how.span or 3.0, rng=rng) for b in blocks
        ]
        return self._told([source for source, _ in pairs], [[*target, end] for _, target in pairs])


def _sentinels(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of ``<extra_id_0>``, ``<extra_id_1>``, … (mT5 spells them ``▁<extra_id_0>``)."""
    vocabulary = tokenizer.get_vocab()
    found: list[int] = []
    while True:
        name = f"<extra_id_{len(found)}>"
        token = vocabulary.get(name, vocabulary.get(f"▁{name}"))
        if token is None:
            return found
        found.append(token)
