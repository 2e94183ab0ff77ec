"""LoRA factors into the weights: W + s·B·A, the same bits on every machine.

Prefixes are bound to the fingerprint of the merged weights, so the sum must not depend on the order in which a
machine's matrix product adds up. Products of 16-bit factors are exact in 64 bits, and so are their sums at the sizes
that factors have: whatever the order, the same roundings follow, one number at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdner.backbone.aliases import MANIFEST
from xdner.backbone.tensors import save_tensors
from xdner.errors import BackboneMismatchError, BackboneNotFoundError
from xdner.files import holds, replace_folder, write_atomically, write_manifest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["ADAPTER_FILES", "BASE", "Adapter", "check_mergeable", "merge_adapter", "merge_factors", "merge_lora"]

#: An adapter's folder in peft's format: configuration and factors.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
#: Where the metadata of our factors have the fingerprint of the weights under them: models of one shape are not one model.
BASE = "xdner_base"

# Variants of LoRA that are more than W + s·B·A: key in peft's configuration → the only value that is supported.
_PLAIN: dict[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "lora_bias": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "use_qalora": False,
    "use_bdlora": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
}
#: Ways to begin that leave W as it is. Others (``pissa``, ``olora``, ``corda``, ``loftq``, ``lora_ga``) take a part out of W, and
#: their factors belong to the rest.
_BEGUN = (True, False, None, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class Adapter:
    """LoRA factors as peft stores them: the bytes of the files of :data:`ADAPTER_FILES`."""

    config: bytes
    factors: bytes

    @property
    def hash(self) -> str:
        """``sha256:…`` over both files."""
        return "sha256:" + hashlib.sha256(self.config + b"\0" + self.factors).hexdigest()

    @property
    def nbytes(self) -> int:
        """Of the factors."""
        return len(self.factors)

    @property
    def base(self) -> str:
        """Fingerprint of the weights that the factors belong to; empty if nobody wrote it down, as peft does not."""
        try:
            size = int.from_bytes(self.factors[:8], "little")
            told = json.loads(self.factors[8 : 8 + size])["__metadata__"][BASE]
        except (ValueError, RecursionError, LookupError, TypeError):
            return ""
        return told if isinstance(told, str) else ""

    @property
    def base_name(self) -> str:
        """What peft's configuration calls the model that the factors belong to; empty if it does not say."""
        try:
            told = json.loads(self.config)["base_model_name_or_path"]
        except (ValueError, RecursionError, LookupError, TypeError):
            return ""
        return told if isinstance(told, str) else ""

    @classmethod
    def load(cls, folder: str | Path) -> Adapter:
        """Read a peft folder.

        Raises:
            BackboneNotFoundError: a file is missing or cannot be read.
        """
        parts = []
        for name in ADAPTER_FILES:
            try:
                parts.append((Path(folder) / name).read_bytes())
            except OSError as error:
                raise BackboneNotFoundError(
                    f"cannot read {Path(folder) / name}: {error.strerror}",
                    hint="An adapter is a folder in peft's format: " + " and ".join(ADAPTER_FILES) + ".",
                ) from None
        return cls(*parts)

    def write(self, folder: str | Path) -> None:
        """Write a peft folder.

        Raises:
            StorageError: it cannot be written.
        """
        for name, data in zip(ADAPTER_FILES, (self.config, self.factors), strict=True):
            write_atomically(Path(folder) / name, data)


def merge_adapter(model: PreTrainedModel, adapter: Adapter, name: str = "the adapter") -> None:
    """Merge LoRA factors into a model in memory, without peft; its weights are changed in place.

    Raises:
        BackboneMismatchError: the factors do not fit the model, are not plain LoRA, or are no factors.
    """
    import torch

    weights = dict(model.named_parameters())
    config, pairs = _pairs(adapter, weights, name)
    scales = {weight: _scale(config, down, name) for weight, (down, _) in pairs.items()}
    with torch.no_grad():
        for weight, (down, up) in pairs.items():
            old = weights[weight]
            # On the CPU, where the sum does not depend on the machine.
            old.copy_(merge_factors(old.cpu(), down, up, scales[weight]))


def merge_factors(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + scale·B·A.

    Args:
        weight: W [out, in].
        down: A [r, in].
        up: B [out, r].
        scale: α/r.

    Returns:
        [out, in], a new tensor of W's type.
    """
    change = up.double() @ down.double()
    return (weight.double() + change * scale).to(weight.dtype)


def check_mergeable(folder: Path, name: str, otherwise: str = "") -> None:
    """Ask before long work whether :func:`merge_lora` will find a model's weights in one file.

    Args:
        folder, name: of the model.
        otherwise: what else can be done, for the message.

    Raises:
        BackboneNotFoundError: they are in several files.
    """
    if not (folder / "model.safetensors").is_file():
        again = "save the model as one model.safetensors (save_pretrained with max_shard_size='100GB')"
        hint = f"{otherwise}, or {again}" if otherwise else again
        raise BackboneNotFoundError(
            f"{name} has its weights in several files; LoRA factors are merged into one",
            hint=hint[0].upper() + hint[1:] + ".",
        )


def merge_lora(
    folder_in: str | Path, adapter: str | Path, folder_out: str | Path, manifest: Mapping[str, Any] | None = None
) -> None:
    """Merge LoRA factors into a model's folder, without peft. ``folder_out`` appears complete or not at all.

    Args:
        folder_in: a folder with one ``model.safetensors``; its other files are copied, but for xdner's manifest.
        adapter: a folder in peft's format: ``adapter_config.json`` and ``adapter_model.safetensors``.
        folder_out: where the new model goes; only an empty folder or another model with xdner's manifest gives way.
        manifest: of the new model, if it has one.

    Raises:
        BackboneNotFoundError: one of these files is missing.
        BackboneMismatchError: the factors do not fit the model, are not plain LoRA, or are no factors.
        StorageError: the disk is full, or something else is at ``folder_out``.
    """
    from safetensors.torch import load_file

    source, adapter = Path(folder_in), Path(adapter)
    for path in (source / "model.safetensors", adapter / "adapter_config.json", adapter / "adapter_model.safetensors"):
        if not path.is_file():
            raise BackboneNotFoundError(f"{path} is missing", hint="Give a model's folder and an adapter's folder.")
    weights = load_file(source / "model.safetensors")
    config, pairs = _pairs(Adapter.load(adapter), weights, str(adapter))
    for name, (down, up) in pairs.items():
        weights[name] = merge_factors(weights[name], down, up, _scale(config, down, str(adapter)))
    with replace_folder(folder_out, holds(MANIFEST)) as fresh:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in ("model.safetensors", MANIFEST):
                shutil.copyfile(path, fresh / path.name)
        save_tensors(weights, fresh / "model.safetensors")
        if manifest is not None:
            write_manifest(fresh / MANIFEST, manifest)


def _scale(config: Mapping[str, Any], down: Tensor, adapter: str) -> float:
    """α/r, or α/√r for rank-stabilized LoRA."""
    unusual = [key for key, plain in _PLAIN.items() if config.get(key, plain) not in (plain, None, [], {}, False)]
    if config.get("init_lora_weights", True) not in _BEGUN:
        unusual.append(f"init_lora_weights = {config['init_lora_weights']}")
    if unusual or config.get("peft_type") != "LORA":
        raise BackboneMismatchError(
            f"{adapter} is not plain LoRA: {', '.join(unusual) or config.get('peft_type')}",
            hint="Merge it with peft (merge_and_unload) and use the merged model's folder.",
        )
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    numbers = isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and math.isfinite(alpha)
    if not numbers or isinstance(rank, bool) or isinstance(alpha, bool):
        raise BackboneMismatchError(
            f"{adapter} says r = {rank!r} and lora_alpha = {alpha!r}: no rank and no number",
            hint="Copy the adapter again.",
        )
    if down.shape[0] != rank:
        raise BackboneMismatchError(
            f"{adapter} says rank {rank}, but has factors of rank {down.shape[0]}", hint="Copy the adapter again."
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pairs(
    adapter: Adapter, weights: Mapping[str, Tensor], called: str
) -> tuple[dict[str, Any], dict[str, tuple[Tensor, Tensor]]]:
    """The configuration, and weight's name → (A, B). Every factor must find its weight and its partner."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        config, factors = json.loads(adapter.config), load(adapter.factors)
        if not isinstance(config, dict):
            raise ValueError("the configuration is no JSON object")
    except (ValueError, RecursionError, SafetensorError) as error:
        raise BackboneMismatchError(f"{called} cannot be read: {error}", hint="Copy the adapter again.") from None
    halves: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in factors.items():
        path, _, half = key.removesuffix(".weight").rpartition(".")
        # peft names a factor after the module that it wraps, seen from its own model around ours.
        inner = path.removeprefix("base_model.")
        candidates = (f"{inner.removeprefix('model.')}.weight", f"{inner}.weight")
        name = next((c for c in candidates if c in weights), None)
        if name is None or half not in ("lora_A", "lora_B"):
            strange.append(key)
        else:
            halves.setdefault(name, {})[half] = tensor
    pairs = {}
    for name, both in halves.items():
        down, up = both.get("lora_A"), both.get("lora_B")
        if down is not None and up is not None and _fit(weights[name], down, up):
            pairs[name] = (down, up)
        else:
            strange.append(name)
    if strange or not pairs:
        raise BackboneMismatchError(
            f"{len(strange)} factors of {called} do not fit this model: {', '.join(strange[:3]) or 'there are none'}",
            hint="The adapter was trained on another model; use that one.",
        )
    return config, pairs


def _fit(weight: Tensor, down: Tensor, up: Tensor) -> bool:
    if not weight.dim() == down.dim() == up.dim() == 2:
        return False
    return down.shape == (up.shape[1], weight.shape[1]) and up.shape[0] == weight.shape[0]
