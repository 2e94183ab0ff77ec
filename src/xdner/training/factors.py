"""LoRA factors through peft: put into a model, trained over frozen weights, written in peft's format.

Merging them into the weights makes a new backbone: :func:`xdner.backbone.lora.merge_lora`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn
from transformers import PreTrainedModel

from xdner.backbone.base import Backbone
from xdner.backbone.lora import BASE, Adapter
from xdner.errors import BackboneMismatchError, TrainingError, install_hint

__all__ = ["Factors", "factors_on", "lora_dropouts", "put_factors", "require_peft"]


@dataclass
class Factors:
    """What was put into a model.

    Attributes:
        lora: peft's model around it.
        config: peft's configuration.
        parameters: the factors by name, in 32 bits; nothing else of the model has a gradient.
        dropouts: the modules that leave out some of what the factors see, while they train.
    """

    lora: Any
    config: Any
    parameters: dict[str, nn.Parameter]
    dropouts: list[nn.Module]

    def adapter(self, base: str, fingerprint: str) -> Adapter:
        """The factors as peft stores them, in 16 bits.

        Args:
            base, fingerprint: of the model that they belong to.
        """
        from peft import get_peft_model_state_dict

        factors = get_peft_model_state_dict(self.lora, adapter_name="default")
        # As from a whole PeftModel, so that peft itself loads them again.
        halves = {f"base_model.{k}": v.detach().to("cpu", torch.float16).contiguous() for k, v in factors.items()}
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in self.config.to_dict().items()}
        plain["base_model_name_or_path"] = base
        config = json.dumps(plain, indent=2, default=str) + "\n"
        # One entry: of several, the order in the file would change from run to run, and with it the hash of the same factors.
        return Adapter(config.encode(), to_safetensors(halves, metadata={BASE: fingerprint}))

    def write(self, folder: Path, base: str, fingerprint: str) -> None:
        """``adapter_config.json`` and ``adapter_model.safetensors`` (16 bits) into a folder that is there.

        Raises:
            StorageError: the disk is full.
        """
        self.adapter(base, fingerprint).write(folder)

    def remove(self) -> None:
        """Give the model back as it was."""
        self.lora.unload()


def put_factors(
    model: PreTrainedModel, *, rank: int, alpha: int, seed: int, dropout: float = 0.0, what: str = "tuning"
) -> Factors:
    """Put factors on all linear layers but the output layer.

    Args:
        model: changed in place; all its own weights are frozen.
        rank, alpha, dropout: of the factors.
        seed: of their first values.
        what: for the message, if peft is not installed.

    Raises:
        TrainingError: peft is not installed.
    """
    require_peft(what)
    from peft import LoraConfig, LoraModel

    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=_linear_names(model), init_lora_weights=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lora = LoraModel(model, config, "default")
    factors = {n: p for n, p in model.named_parameters() if "lora_" in n}
    model.requires_grad_(False)
    for factor in factors.values():
        factor.data = factor.data.float()
        factor.requires_grad_(True)
    return Factors(lora, config, factors, lora_dropouts(model))


@contextlib.contextmanager
def factors_on(backbone: Backbone, *, rank: int, alpha: int, seed: int, dropout: float, what: str) -> Iterator[Factors]:
    """:func:`put_factors` on a backbone for a while; afterwards it is as it was.

    Raises:
        TrainingError: peft is not installed.
        BackboneMismatchError: the weights under the factors changed meanwhile.
    """
    before = backbone.compute_fingerprint()
    factors = put_factors(backbone.model, rank=rank, alpha=alpha, seed=seed, dropout=dropout, what=what)
    try:
        yield factors
    finally:
        factors.remove()
        backbone.freeze()
    if backbone.compute_fingerprint() != before:
        raise BackboneMismatchError(
            "the weights under the LoRA factors changed during training, although they are frozen",
            hint="This is a bug, or another thread trains the same model; nothing was written.",
        )


def lora_dropouts(model: nn.Module) -> list[nn.Module]:
    """The modules of a model with factors in it that leave out some of what the factors see, while they train."""
    return [m for n, m in model.named_modules() if n.rpartition(".")[2] == "lora_dropout"]


def require_peft(what: str) -> None:
    """Refuse to go on without peft, before models are loaded.

    Args:
        what: needs it, for the message.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        import peft  # noqa: F401
    except ImportError:
        raise TrainingError(f"{what} needs the package peft", hint=install_hint("instruct")) from None


def _linear_names(model: PreTrainedModel) -> list[str]:
    """The last names of all linear layers but the output layer."""
    head = model.get_output_embeddings()
    names = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    return sorted(names)
