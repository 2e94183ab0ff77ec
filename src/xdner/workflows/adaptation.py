"""Continued pre-training on plain text: from a backbone to one that has read a domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from xdner.backbone.load import native_bfloat16
from xdner.backbone.sources import DEFAULT_BACKBONE, resolve
from xdner.errors import BackboneError
from xdner.training.adapt import Adapted, adapt
from xdner.training.adapt_settings import AdaptationSettings, adaptation
from xdner.workflows.options import JobOptions

__all__ = ["adapt_backbone"]

_LORA_RATE = 5e-4


def adapt_backbone(
    texts: Sequence[str | Path],
    out: str | Path,
    options: JobOptions | None = None,
    *,
    backbone: str | Path | None = None,
    told: Callable[[int], None] = lambda read: None,
) -> Adapted:
    """Continue a backbone's pre-training on plain text files; see :func:`xdner.training.adapt.adapt`.

    Args:
        texts: UTF-8 files, one document (or sentence) a line.
        out: folder of the new backbone.
        options: settings, seed, and what is shown. ``dtype`` is that of products, ``float32``, ``bfloat16`` or ``auto``: weights
            are trained in 32 bits. The library is of no use here.
        backbone: alias, hub id or folder of an encoder, a T5 or a causal model; ``None`` is the embedded default.

    Raises:
        SettingsError: also a setting that says nothing to this kind of model, or to factors or all weights; before
            anything is loaded.
        BackboneError, CorpusError, TrainingError, StorageError: see there.
    """
    options = options or JobOptions()
    dtype, device = options.dtype, options.device
    if dtype not in ("float32", "bfloat16", "auto"):
        raise BackboneError(f"unknown dtype {dtype!r}", hint="Use one of: auto, float32, bfloat16.")
    found = resolve(DEFAULT_BACKBONE if backbone is None else backbone)
    weights = AdaptationSettings.build(options.config, options.chosen).adapt.weights
    rate = {"training": {"learning_rate": _LORA_RATE}} if weights == "lora" else {}
    settings = AdaptationSettings.build(options.config, options.chosen, rate, use=adaptation(found.kind, weights))
    return adapt(
        found, texts, out, settings=settings, device=device,
        autocast=dtype == "bfloat16" or (dtype == "auto" and native_bfloat16(device)),
        run=options.run(Path(out)), told=told,
    )  # fmt: skip
