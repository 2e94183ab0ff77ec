"""Load a backbone by alias, hub id or folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.sources import DEFAULT_BACKBONE, resolve
from xdner.backbone.t5 import T5Backbone
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError

__all__ = ["check_device", "load_backbone", "native_bfloat16"]

_KINDS: dict[str, tuple[Any, type[Backbone]]] = {
    "causal": (AutoModelForCausalLM, CausalBackbone),
    "seq2seq": (AutoModelForSeq2SeqLM, T5Backbone),
}
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
        BackboneError: weights of a kind that takes no prefix, an unknown dtype, or a device that is not there.
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
    # Python that a folder brings is never run, nor is anybody asked about it.
    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = loader.from_pretrained(found.path, dtype="auto", **own)
        tokenizer = AutoTokenizer.from_pretrained(found.path, **own)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BackboneError(
            f"cannot load {found.name} from {found.path}: {str(error).splitlines()[0]}",
            hint="The folder needs config.json, model.safetensors and tokenizer.json of one model.",
        ) from error
    # The identity of a backbone is that of its stored weights, whatever type it computes in: a prefix that was trained
    # in 32 bits may be served in 16.
    identity = fingerprint(model.state_dict())
    model = model.to(device=device, dtype=_DTYPES[dtype])
    return kind(
        model,
        tokenizer,
        name=found.name,
        source=str(found.path.resolve()) if found.origin == "folder" else found.name,
        identity=identity,
        recommended=_recommended(found.path),
    )


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


def _recommended(folder: Path) -> Mapping[str, Any]:
    """Settings that the backbone's maker put beside it (``xdner instruct`` does)."""
    manifest = folder / "xdner-backbone.json"
    if not manifest.exists():
        return {}
    return json.loads(manifest.read_text(encoding="utf-8")).get("recommended", {})
