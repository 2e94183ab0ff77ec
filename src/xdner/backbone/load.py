"""Load a backbone by alias, hub id or folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from xdner.backbone.aliases import MANIFEST
from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.folders import read_json
from xdner.backbone.sources import DEFAULT_BACKBONE, LOADING, ResolvedBackbone, resolve
from xdner.backbone.t5 import T5Backbone
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError, is_out_of_memory

__all__ = ["check_device", "load_backbone", "native_bfloat16"]

_KINDS: dict[str, tuple[Any, type[Backbone]]] = {
    "causal": (AutoModelForCausalLM, CausalBackbone),
    "seq2seq": (AutoModelForSeq2SeqLM, T5Backbone),
}
_LAYER = re.compile(r"\.\d+(?=\.)")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_backbone(name: str | Path | None = None, *, device: str = "cpu", dtype: str = "float32") -> Backbone:
    """Load a backbone and freeze it.

    Args:
        name: an alias, a hub id or a folder; ``None`` is the embedded default.
        device: where the weights go.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 where the device multiplies it natively
            (on a CPU without that it is slower than float32), else float32.

    Raises:
        BackboneNotFoundError: the name leads to no weights.
        BackboneError: weights of a kind that takes no prefix, files that are broken or incomplete, an unknown dtype, or
            a device that is not there.
    """
    check_device(device)
    if dtype == "auto":
        dtype = "bfloat16" if native_bfloat16(device) else "float32"
    if dtype not in _DTYPES:
        raise BackboneError(f"unknown dtype {dtype!r}", hint=f"Use one of: auto, {', '.join(_DTYPES)}.")
    found = resolve(DEFAULT_BACKBONE if name is None else name)
    if found.kind not in _KINDS:
        raise BackboneError(
            f"{found.name} is an {found.kind} model; a prefix recognizer generates text",
            hint="Use a causal model (Llama-, Qwen-, Gemma-like) or T5.",
        )
    loader, kind = _KINDS[found.kind]
    recommended = _recommended(found.path)
    # Python that a folder brings is never run, nor is anybody asked about it.
    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with LOADING:
            model, told = loader.from_pretrained(
                found.path, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True, **own
            )
            tokenizer = AutoTokenizer.from_pretrained(found.path, **own)
    except Exception as error:  # what a broken file leads to has no common type, in tokenizers not even one of its own
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackboneError(
            f"cannot load {found.name} from {found.path}: {reason[:300]}",
            hint=_again(found, "The folder needs config.json, model.safetensors and tokenizer.json of one model."),
        ) from error
    _check_complete(told, model.state_dict(), found)
    # The identity of a backbone is that of its stored weights, whatever type it computes in: a prefix that was trained
    # in 32 bits may be served in 16.
    identity = fingerprint(model.state_dict())
    model = model.to(device)
    for weight in model.parameters():
        # Weights only: the frequencies of rotary positions are buffers, and in 16 bits would be off by more with every position.
        weight.data = weight.data.to(_DTYPES[dtype])
    return kind(
        model,
        tokenizer,
        name=found.name,
        source=str(found.path.resolve()) if found.origin == "folder" else found.name,
        identity=identity,
        recommended=recommended,
    )


def _again(found: ResolvedBackbone, other: str) -> str:
    """How to mend a model that cannot be loaded."""
    return f"Make it anew: xdner backbones pull {found.name} --force" if found.origin == "alias" else other


def check_device(device: str) -> None:
    """Raise a :class:`BackboneError` if a device is not there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no one type for "not here"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(
            f"the device {device!r} cannot be used: {reason}",
            hint="Use --device cpu; a GPU needs a build of torch for it (xdner doctor shows which one is here).",
        ) from None


def native_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 natively."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch tells only through a private name; where that is gone, the safe answer is no.
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and check is not None and bool(check())


def _check_complete(told: Mapping[str, Any], names: Iterable[str], found: ResolvedBackbone) -> None:
    """A weight that is missing, or of another shape, would be drawn at random, and differ whenever it is loaded; layers that
    config.json does not know would be left out.

    Args:
        told: what transformers says about the loading; weights that are tied to others are not missing.
        names: of the weights that the model has. Others may stand beside them in the file: parts that are of no use here.
    """
    again = _again(found, "Copy or download the model again: config.json and the weights must be of one model.")
    if strange := sorted((name, list(stored), list(wanted)) for name, stored, wanted in told["mismatched_keys"]):
        name, stored, wanted = strange[0]
        raise BackboneError(
            f"{len(strange)} weights of {found.name} in {found.path} have another shape than config.json says: "
            f"{name} is {stored}, not {wanted}",
            hint=again,
        )
    if missing := sorted(told["missing_keys"]):
        raise BackboneError(
            f"{found.name} in {found.path} lacks {len(missing)} weights: {', '.join(missing[:3])}", hint=again
        )
    known = {_LAYER.sub("", name) for name in names}
    if beyond := sorted(name for name in told["unexpected_keys"] if _LAYER.sub("", name) in known):
        raise BackboneError(
            f"{found.name} in {found.path} has weights of layers that config.json does not know: {', '.join(beyond[:3])}",
            hint=again,
        )


def _recommended(folder: Path) -> Mapping[str, Any]:
    """Settings that the backbone's maker put beside it (``xdner instruct`` does)."""
    if not (folder / MANIFEST).exists():
        return {}
    groups = read_json(folder / MANIFEST).get("recommended", {})
    if not isinstance(groups, dict) or not all(isinstance(values, dict) for values in groups.values()):
        raise BackboneError(
            f"{folder / MANIFEST}: 'recommended' must map groups of settings to settings, not be {groups!r}",
            hint='It is of the form {"codec": {"repeats": 1}}; leave it out, or make the backbone again.',
        )
    return groups
