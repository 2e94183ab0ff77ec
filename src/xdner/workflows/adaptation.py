"""Continued pre-training on plain text: from a backbone to one that has read a domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from xdner.backbone.load import native_bfloat16
from xdner.backbone.sources import DEFAULT_BACKBONE, resolve
from xdner.errors import BackboneError
from xdner.training.adapt import Adapted, adapt
from xdner.training.adapt_settings import AdaptationSettings
from xdner.training.progress import Progress
from xdner.workflows.material import RESUME

__all__ = ["adapt_backbone"]

_LORA_RATE = 5e-4


def adapt_backbone(
    texts: Sequence[str | Path],
    out: str | Path,
    *,
    backbone: str | Path | None = None,
    seed: int = 1,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
    told: Callable[[int], None] = lambda read: None,
) -> Adapted:
    """Continue a backbone's pre-training on plain text files; see :func:`xdner.training.adapt.adapt`.

    Args:
        texts: UTF-8 files, one document (or sentence) a line.
        out: folder of the new backbone.
        backbone: alias, hub id or folder of an encoder, a T5 or a causal model; ``None`` is the embedded default.
        dtype: of products: ``float32``, ``bfloat16`` or ``auto``. Weights are trained in 32 bits.

    Raises:
        SettingsError, BackboneError, CorpusError, TrainingError, StorageError: see there.
    """
    if dtype not in ("float32", "bfloat16", "auto"):
        raise BackboneError(f"unknown dtype {dtype!r}", hint="Use one of: auto, float32, bfloat16.")
    found = resolve(DEFAULT_BACKBONE if backbone is None else backbone)
    chosen = [*overrides, f"training.seed={seed}"]
    lora = AdaptationSettings.build(config, chosen).adapt.weights == "lora"
    base = {"training": {"learning_rate": _LORA_RATE}} if lora else None
    return adapt(
        found, texts, out, settings=AdaptationSettings.build(config, chosen, base=base), device=device,
        autocast=dtype == "bfloat16" or (dtype == "auto" and native_bfloat16(device)), resume=resume,
        resume_hint=RESUME, progress=progress, told=told,
    )  # fmt: skip
