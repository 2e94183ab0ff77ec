"""Instruction tuning on source files: from a backbone to one that knows the task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xdner.backbone.aliases import MANIFEST
from xdner.backbone.load import load_backbone
from xdner.backbone.lora import merge_lora
from xdner.backbone.sources import resolve
from xdner.files import write_atomically
from xdner.settings import Settings
from xdner.training.instruct import Instructed, instruct
from xdner.training.progress import Progress
from xdner.workflows.initial import sources_of
from xdner.workflows.material import RESUME

__all__ = ["instruct_backbone"]

#: What is instructed when no backbone is named: the embedded model as it came.
RAW_BACKBONE = "smollm2-135m"
# LoRA wants a lower rate than a prefix, and its own schedule (docs/LOG.md).
INSTRUCT_DEFAULTS: dict[str, Any] = {
    "training": {"learning_rate": 5e-4, "epochs": 3, "drop_options": 0.3, "patience": 0},
}


def instruct_backbone(
    source_files: Sequence[str | Path],
    out: str | Path,
    *,
    backbone: str | Path | None = None,
    format: str | None = None,
    seed: int = 1,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    dtype: str = "float32",
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
) -> Instructed:
    """Instruction tuning on source files, merged into a new backbone folder ``out`` (its factors: ``out-adapter``).

    Args:
        source_files: labelled sentences, one file a domain (:func:`~xdner.workflows.initial.sources_of`).
    """
    sources = sources_of(source_files, format=format)
    base = resolve(backbone if backbone is not None else RAW_BACKBONE)
    settings = Settings.build(config, [*overrides, f"training.seed={seed}"], base=INSTRUCT_DEFAULTS)
    model = load_backbone(base.path, device=device, dtype=dtype)
    out = Path(out)
    run_folder = out.with_name(out.name + "-run")
    made = instruct(
        model, sources, out.with_name(out.name + "-adapter"), settings=settings, run_folder=run_folder, resume=resume,
        resume_hint=RESUME, progress=progress,
    )  # fmt: skip
    merge_lora(base.path, made.folder, out)
    manifest = {
        "name": out.name,
        "kind": model.kind,
        "base": {"name": base.name, "fingerprint": model.fingerprint},
        "recommended": {"codec": settings.to_dict()["codec"]},
        "made": json.loads((made.folder / "instruct.json").read_text(encoding="utf-8")),
    }
    write_atomically(out / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(run_folder, ignore_errors=True)
    return made
