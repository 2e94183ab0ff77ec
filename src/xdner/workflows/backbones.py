"""Instruction tuning on source files: from a backbone to one that knows the task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xdner.backbone.aliases import MANIFEST
from xdner.backbone.load import load_backbone
from xdner.backbone.lora import check_mergeable, merge_lora
from xdner.backbone.sources import resolve
from xdner.errors import StorageError
from xdner.files import check_replaceable
from xdner.settings import INSTRUCTION, Settings
from xdner.training.instruct import BY, RECORD, Instructed, instruct
from xdner.workflows.initial import sources_of
from xdner.workflows.options import JobOptions

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
    options: JobOptions | None = None,
    *,
    backbone: str | Path | None = None,
    format: str | None = None,
) -> Instructed:
    """Instruction tuning on source files, merged into a new backbone folder ``out`` (its factors: ``out-adapter``).

    Args:
        source_files: labelled sentences, one file a domain (:func:`~xdner.workflows.initial.sources_of`).
        options: settings, seed, and what is shown; the library is of no use here.
        backbone: alias, hub id or folder; ``None`` is the embedded model as it came.
        format: of the files; by content if ``None``.

    Raises:
        StorageError: ``out`` is a file, a folder that holds something else than a backbone made in this way, or the
            backbone that is instructed.
        BackboneNotFoundError: there is no such backbone, or its weights are in several files.
    """
    options, out = options or JobOptions(), Path(out)
    run = options.run(out.with_name(out.name + "-run"))
    check_replaceable(out, _instructed)
    run.check()
    sources, told = sources_of(source_files, format=format)
    base = resolve(backbone if backbone is not None else RAW_BACKBONE)
    if out.resolve() == base.path.resolve():
        raise StorageError(f"{out} is the backbone that is instructed", hint="Choose another --out.")
    check_mergeable(base.path, base.name)
    Settings.build(options.config, options.chosen, INSTRUCT_DEFAULTS, use=INSTRUCTION)  # before the backbone is loaded
    model = load_backbone(base.path, device=options.device, dtype=options.dtype)
    # How this kind of model is asked (its codec) is its own; how it is trained here is not how its prefixes are.
    own = {group: values for group, values in model.recommended.items() if group not in INSTRUCT_DEFAULTS}
    settings = Settings.build(options.config, options.chosen, {**own, **INSTRUCT_DEFAULTS}, use=INSTRUCTION)
    for remark in told:
        run.progress.note(remark)
    with run.claimed():
        made = instruct(model, sources, out.with_name(out.name + "-adapter"), settings=settings, run=run)
        manifest = {
            "name": out.name,
            "kind": model.kind,
            "base": {"name": base.name, "fingerprint": model.fingerprint},
            "recommended": {"codec": settings.to_dict()["codec"]},
            "made": json.loads((made.folder / RECORD).read_text(encoding="utf-8")),
        }
        merge_lora(base.path, made.folder, out, manifest)
        run.remove()
    return made


def _instructed(folder: Path) -> bool:
    """Whether a folder is a backbone that instruction tuning made."""
    try:
        made = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["made"]
        return bool(made["by"] == BY)
    except (OSError, ValueError, KeyError, TypeError):
        return False
