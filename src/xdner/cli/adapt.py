"""``xdner adapt``: a backbone reads a domain's plain text."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    ResumeOption,
    SeedOption,
    SetOption,
    counting,
    guarded,
    say,
    say_done,
)


def adapt(
    corpus: Annotated[list[Path], typer.Option("--corpus", help="Plain UTF-8 text of any size, one document a line (repeatable).", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new backbone.", show_default=False)],
    backbone: BackboneOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of products: float32, bfloat16 or auto; weights stay in 32 bits.")] = "float32",
    device: DeviceOption = "cpu",
    resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Continue a backbone's pre-training on unlabelled text of a domain (encoders, T5, causal models).

    Example: xdner adapt --corpus wiki.txt --backbone minilm-l6 --out my-encoder
    """
    with guarded():
        from xdner.training.progress import RichProgress
        from xdner.workflows import JobOptions, adapt_backbone

        with contextlib.ExitStack() as reading:
            count = reading.enter_context(counting("MB of text read"))

            class Shown(RichProgress):
                """The count ends where something else is shown: two live lines cannot share a terminal."""

                def phase(self, name: str) -> None:
                    reading.close()
                    super().phase(name)

                def note(self, text: str) -> None:
                    reading.close()
                    super().note(text)

            options = JobOptions(None, seed, config, set_ or (), dtype, device, resume, Shown("adapt"))
            done = adapt_backbone(corpus, out, options, backbone=backbone, told=lambda read: count(read // 1_000_000))
        losses = done.facts["held_out_loss"]
        say_done(f"{out} ({done.result.steps} steps, {done.result.seconds:.0f} s)")
        if losses["before"] is not None:
            say(f"  loss on text that was held out: {losses['before']:.3f} before, {losses['after']:.3f} after")
