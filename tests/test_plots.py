from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from xdner.errors import XdnerError
from xdner.plots import selection_figure

SITES = [f"self.{i}" for i in range(20)]


def selection(target: str, *sources: str) -> dict[str, object]:
    found = [
        {"name": s, "entity": 0.7 + 0.1 * i, "prefix": 0.1 * i, "weight": 1 / len(sources),
         "layers": dict.fromkeys(SITES, 0.1 * i)}
        for i, s in enumerate(sources)
    ]  # fmt: skip
    return {"target": target, "sources": found}


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_written_in_the_format_of_its_name(tmp_path: Path, suffix: str) -> None:
    path = selection_figure([selection("ai", "music", "news")], tmp_path / "new" / f"figure.{suffix}")
    head = path.read_bytes()[:200]
    assert {"png": head.startswith(b"\x89PNG"), "svg": b"<?xml" in head, "pdf": head.startswith(b"%PDF")}[suffix]


def test_targets_may_be_sources_of_each_other(tmp_path: Path) -> None:
    # Each lacks itself among the sources: that place of the map is empty.
    chosen = [selection("ai", "music", "news"), selection("music", "ai", "news")]
    path = selection_figure(chosen, tmp_path / "figure.svg")
    text = path.read_text()
    for name in ("ai ← music", "music ← ai", "music ← news"):
        assert name in text


def test_an_unknown_format_or_a_missing_package_gives_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(XdnerError, match=r"cannot draw .*figure\.docx"):
        selection_figure([selection("ai", "music")], tmp_path / "figure.docx")
    assert list(tmp_path.iterdir()) == []
    real = builtins.__import__

    def without(name: str, *args: object, **more: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(XdnerError, match="need the package matplotlib") as caught:
        selection_figure([selection("ai", "music")], tmp_path / "figure.png")
    assert caught.value.hint == "in a checkout: pip install -e '.[plots]', else: pip install 'xdner[plots]'"
