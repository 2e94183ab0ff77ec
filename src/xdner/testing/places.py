"""Four tiny domains of places and stars as files, and the command that trains one: for tests of commands."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FEW_STEPS", "PLACES", "training", "write_places"]

#: What makes a training short enough for a test.
FEW_STEPS = ("--set", "epochs=2", "--set", "length=3", "--set", "training.batch_size=4")
PLACES = {
    "towns": "Ann\tB-person\nin\tO\nRome\tB-city\n\nno\tO\none\tO\n\nBob\tB-person\n",
    "seas": "the\tO\nBaltic\tB-sea\n\nKiel\tB-city\nand\tO\nOslo\tB-city\n",
    "stars": "Vega\tB-star\nshines\tO\n",
    "rivers": "the\tO\nElbe\tB-river\nat\tO\nDresden\tB-city\n\nSpree\tB-river\n",
}


def write_places(folder: Path) -> Path:
    """``towns.txt``, ``seas.txt``, ``stars.txt`` and ``rivers.txt`` in a folder, which is returned."""
    for name, text in PLACES.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def training(name: str, library: Path, backbone: str, places: Path, *more: str) -> list[str]:
    """The command that trains one of them: ``train NAME --train places/NAME.txt … more…``"""
    place = ["--backbone", backbone, "--library", str(library)]
    return ["train", name, "--train", str(places / f"{name}.txt"), *place, *more]
