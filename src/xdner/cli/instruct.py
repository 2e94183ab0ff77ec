"""``xdner instruct``: make a frozen backbone that knows the task."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    ResumeOption,
    SeedOption,
    SetOption,
    SourceOption,
    guarded,
    say,
    say_done,
)


def instruct(
    source: SourceOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the new backbone.", show_default=False)],
    backbone: BackboneOption = None,
    format: FormatOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Instruction-tune a backbone on source domains with LoRA, and merge the factors into a new backbone.

    Example: xdner instruct --source news.txt --source politics.txt --out my-backbone
    """
    with guarded():
        from xdner.training.progress import RichProgress
        from xdner.workflows import JobOptions, instruct_backbone

        options = JobOptions(None, seed, config, set_ or (), dtype, device, resume, RichProgress("instruct"))
        done = instruct_backbone(source, out, options, backbone=backbone, format=format)
        say_done(f"{out} ({done.result.steps} steps, {done.result.seconds:.0f} s)")
        say(f"  next: xdner train NAME --train FILE --backbone {shlex.quote(str(out))}")
