"""The program that makes the domains that ship, on tiny random models: a library with cards, made once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import prewarm
from xdner.library.store import Library


def test_domains_are_made_from_one_start_with_cards_that_compare(
    data: Path, backbone: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "library"
    asked = [
        "--data", str(data), "--backbone", str(backbone), "--encoder", "", "--out", str(out), "--only", "music", "ai",
        "--cap", "2", "--per-source", "2", "--start-epochs", "1", "--dtype", "float32", "--set", "epochs=1", "length=2",
    ]  # fmt: skip
    assert prewarm.main(asked) == 0
    store = Library(out)
    assert set(store.names()) == {"ai", "music"}
    initial = store.initial_prefix()
    assert initial is not None
    entries = {name: store.get(name) for name in ("ai", "music")}
    assert {prefix.initial for entry in entries.values() for prefix in entry.prefixes} == {initial.hash()}
    for name, entry in entries.items():
        # Where a random model finds nothing, the first line says so.
        weak = entry.prefixes[0].notes["dev_f1"] < 0.4
        assert entry.card.startswith("**Weak: F1 0.00 on dev.**" if weak else f"# {name}\n")
        assert f"# {name}\n" in entry.card
        told = re.search(r"(\d+) sentences, seed 1; the epoch was chosen on (\d+) of them\.", entry.card)
        assert told is not None
        assert int(told[2]) == min(int(told[1]), entry.settings.training.dev_limit or int(told[1]))
        assert f"python benchmarks/prewarm.py --only {name} --cap 2 --set epochs=1 length=2" in entry.card
        assert prewarm.RIVAL not in entry.card
    assert "music: dev F1" in capsys.readouterr().out
    # With an encoder, cards are completed, and prefixes stay what they were.
    asked[asked.index("--encoder") + 1] = str(encoder)
    assert prewarm.main(asked) == 0
    told = capsys.readouterr().out
    assert "plain tagger" in told
    assert "dev F1" not in told
    for name, entry in entries.items():
        again = store.get(name)
        assert again.card.count(prewarm.RIVAL) == 1
        assert [p.hash() for p in again.prefixes] == [p.hash() for p in entry.prefixes]
    assert prewarm.main(asked) == 0
    assert capsys.readouterr().out == ""
