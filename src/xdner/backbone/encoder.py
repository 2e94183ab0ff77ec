"""BERT-like encoders: a model that reads a whole sentence, and its fast tokenizer."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from xdner.backbone.load import check_device
from xdner.backbone.sources import LOADING, resolve
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError

__all__ = ["DEFAULT_ENCODER", "Encoder", "load_encoder", "positions_of"]

#: What is used when no encoder is named; it lower-cases its input.
DEFAULT_ENCODER = "minilm-l6"
_NEEDED = ("cls_token_id", "sep_token_id", "unk_token_id")
_ANOTHER = (
    "Name a BERT-like model such as minilm-l6: LANER's and adapt's with --backbone, that of an index with --encoder."
)


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder with its tokenizer.

    Attributes:
        model: gives states [B, T, d] in ``last_hidden_state``; without a pooler, whose weights nothing would train.
        tokenizer: fast, with a first, a last and an unknown token.
        name: alias, hub id or the folder's name.
        source: what loads it again: an alias, a hub id or a path.
        fingerprint: of the weights as they were loaded.
        positions: ids of a sequence, at most.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    fingerprint: str
    positions: int

    @property
    def size(self) -> int:
        """d, of the states."""
        return int(self.model.config.hidden_size)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Of what makes ids of a text: the same weights read other ids with another tokenizer. Padding, truncation and what
        comes around a text are each caller's own."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        kept = {key: backend.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
        return f"sha256:{hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()}"

    def fresh(self) -> nn.Module:
        """A copy of the model to train; this one stays as it is."""
        return copy.deepcopy(self.model)

    def files(self) -> dict[str, bytes]:
        """Configuration and tokenizer as files, by name; no weights."""
        with tempfile.TemporaryDirectory(prefix="xdner-encoder-") as folder:
            self.model.config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            made = {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir()) if p.is_file()}
        return {name: _portable(data) if name == "tokenizer_config.json" else data for name, data in made.items()}

    @classmethod
    def from_files(
        cls, files: Mapping[str, bytes], weights: Mapping[str, Tensor], *, name: str, source: str, fingerprint: str
    ) -> Encoder:
        """The inverse of :meth:`files`. Nothing is allocated before the configuration is known to fit the weights.

        Raises:
            BackboneError: the files are no encoder, or the weights are not its weights.
        """
        wrong = f"the stored encoder ({name}) cannot be made again"
        with tempfile.TemporaryDirectory(prefix="xdner-encoder-") as folder:
            for file, data in files.items():
                (Path(folder) / Path(file).name).write_bytes(data)
            try:
                # A stranger's file may bring code of its own, and transformers would ask whether to run it.
                config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                # A stranger's file may ask for a billion layers; each layer that is real has tensors.
                layers = int(getattr(config, "num_hidden_layers", 0) or 0)
                if layers > len(weights):
                    raise ValueError(f"{layers} layers, but {len(weights)} tensors")
                with LOADING, torch.device("meta"):
                    planned = _without_pooler(AutoModel.from_config(config))
                shapes = {n: tuple(t.shape) for n, t in planned.state_dict().items()}
                given = {n: tuple(t.shape) for n, t in weights.items()}
                if shapes != given:
                    odd = sorted(n for n in {*shapes, *given} if shapes.get(n) != given.get(n))
                    raise ValueError(f"weights of another model: {', '.join(odd[:3])}")
                with LOADING, torch.random.fork_rng(devices=[]):
                    model = _without_pooler(AutoModel.from_config(config, dtype=torch.float32))
                model.load_state_dict(dict(weights))
            except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise BackboneError(f"{wrong}: {reason}", hint="Restore the folder, or train again.") from None
        _check_tokenizer(tokenizer, name)
        return cls(model.eval(), tokenizer, name, source, fingerprint, positions_of(model, tokenizer))


def load_encoder(name: str | Path | None = None, *, device: str = "cpu") -> Encoder:
    """Load an encoder by alias, hub id or folder, in 32 bits.

    Args:
        name: ``None`` is :data:`DEFAULT_ENCODER`.
        device: where the weights go.

    Raises:
        BackboneNotFoundError: the name leads to no weights.
        BackboneError: not an encoder, no fast tokenizer, weights that are missing, or a device that is not there.
    """
    check_device(device)
    found = resolve(DEFAULT_ENCODER if name is None else name)
    if found.kind != "encoder":
        raise BackboneError(f"{found.name} is a {found.kind} model; the tagger needs an encoder", hint=_ANOTHER)
    try:
        with LOADING:
            model, told = AutoModel.from_pretrained(
                found.path,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(found.path, local_files_only=True, trust_remote_code=False)
        identity = fingerprint(model.state_dict())
        model = _without_pooler(model)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise BackboneError(
            f"cannot load {found.name} from {found.path}: {(str(error).splitlines() or ['?'])[0]}",
            hint="The folder needs config.json, model.safetensors and tokenizer.json of one model.",
        ) from error
    # A weight that is missing would be drawn at random, without an error.
    missing = sorted(key for key in told["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise BackboneError(
            f"{found.name} lacks weights of its encoder: {', '.join(missing[:3])}",
            hint="Copy or download the model again.",
        )
    _check_tokenizer(tokenizer, found.name)
    source = str(found.path.resolve()) if found.origin == "folder" else found.name
    model = model.to(device).eval()
    return Encoder(model, tokenizer, found.name, source, identity, positions_of(model, tokenizer))


def _without_pooler(model: Any) -> Any:
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its weights would have no gradient
    return model


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise BackboneError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) is not a fast one",
            hint="The tagger needs a tokenizer.json. Use a model that has one, or convert the tokenizer with transformers.",
        )
    missing = [key for key in _NEEDED if getattr(tokenizer, key, None) is None]
    if missing:
        raise BackboneError(f"the tokenizer of {name} has no {', '.join(missing)}", hint=_ANOTHER)


def positions_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Ids that a sequence may have. RoBERTa-like models count positions from behind the padding's.

    Args:
        model: an encoder without an output layer.
        tokenizer: may know of a smaller bound.

    Raises:
        BackboneError: too few for a sentence.
    """
    most = getattr(model.config, "max_position_embeddings", None)
    most = int(most) if isinstance(most, int) and most > 0 else 512
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    taken = getattr(table, "padding_idx", None)
    positions = min(most - (0 if taken is None else taken + 1), int(min(tokenizer.model_max_length, 1_000_000)))
    if positions < 4:
        raise BackboneError(f"an encoder of {positions} positions cannot read a sentence", hint=_ANOTHER)
    return positions


def _portable(data: bytes) -> bytes:
    """The tokenizer's configuration without what only says where it was loaded from."""
    kept = json.loads(data)
    for key in ("name_or_path", "is_local", "local_files_only"):
        kept.pop(key, None)
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()
