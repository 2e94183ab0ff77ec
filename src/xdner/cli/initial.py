"""``xdner domains initial``: train the prefix that all domains of a new library start from."""

from __future__ import annotations

from xdner.cli.common import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    LibraryOption,
    ResumeOption,
    SeedOption,
    SetOption,
    SourceOption,
    guarded,
    in_library,
    say,
    say_done,
)


def initial(
    source: SourceOption,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    format: FormatOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    resume: ResumeOption = False,
) -> None:  # fmt: skip
    """Train one prefix on several source domains together; all domains of a new library then start from it.

    Without it, they start from the prefix that ships for the backbone, or from the instruction's keys and values.

    Example: xdner domains initial --source news/train.txt --source music/train.txt --library mine
    """
    with guarded():
        from xdner.training.progress import RichProgress
        from xdner.workflows import JobOptions, train_initial

        options = JobOptions(library, seed, config, set_ or (), dtype, device, resume, RichProgress("shared start"))
        made, result = train_initial(source, options, backbone=backbone, format=format)
        names = ", ".join(s["domain"] for s in made.notes["sources"])
        say_done(f"shared start of {names} trained in {result.seconds:.0f} s ({result.steps} steps)")
        say(f"  next: xdner train NAME --train FILE{in_library(library)}")
