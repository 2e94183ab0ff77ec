"""``xdner index`` of a name that is an IF-WRANER domain: the index follows the domain, and takes nothing from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xdner.library.examples_entry import ExamplesEntry
from xdner.retrieval.pool import Change, Pool, open_pool
from xdner.testing.commands import refused, run
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.examples import SHORT
from xdner.testing.models import save_tiny_backbone
from xdner.testing.places import PLACES


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "towns.txt").write_text(PLACES["towns"])
    (folder / "dev.txt").write_text("Eve\tB-person\nin\tO\nOslo\tB-city\n")
    (folder / "short.toml").write_text(SHORT)
    save_tiny_backbone(folder / "llm")
    save_tiny_encoder(folder / "encoder")
    return folder


def train(library: Path, files: Path, examples: Path, *more: str) -> list[str]:
    own = ["--llm", str(files / "llm"), "--set", f"prompt.template={files / 'short.toml'}", "--examples", str(examples)]
    return ["train", "towns", "--recognizer", "if-wraner", "--library", str(library), *own, *more]


def index(library: Path, *more: str | Path) -> list[str]:
    return ["index", "towns", "--library", str(library), *map(str, more)]


def embedding(files: Path) -> list[str]:
    return ["--set", "layer=1", "--encoder", str(files / "encoder")]


def test_an_older_index_never_takes_a_domains_examples(files: Path, tmp_path: Path) -> None:
    library, new = tmp_path / "library", ["--examples", files / "dev.txt"]
    assert run(*index(library, *new, *embedding(files))).exit_code == 0
    assert run(*train(library, files, files / "towns.txt")).exit_code == 0
    mine = ExamplesEntry.load(library / "towns").examples
    for more in ([], ["--remove"]):
        told = refused(*index(library, *new, *more))
        assert "the index of towns has other examples than the domain" in told
        assert "xdner index towns --replace" in told
        assert ExamplesEntry.load(library / "towns").examples == mine
        assert [e.sentence.text for e in open_pool(library / "towns" / "index").examples.values()] == ["Eve in Oslo"]
    assert run(*index(library, *new, "--replace")).exit_code == 0
    assert [s.text for s in ExamplesEntry.load(library / "towns").examples] == ["Eve in Oslo"]


def test_a_sample_stays_a_sample_in_its_index(files: Path, tmp_path: Path) -> None:
    library, domain = tmp_path / "library", tmp_path / "library" / "towns"
    names = [(n, c) for n in ("Ann", "Bob", "Dan", "Eve") for c in ("Rome", "Oslo")]
    (tmp_path / "all.txt").write_text("\n".join(f"{n}\tB-person\nin\tO\n{c}\tB-city\n" for n, c in names))
    sampled = train(library, files, tmp_path / "all.txt", "--set", "retrieval.method=random", "--k-shot", "2", "--seed")
    assert run(*sampled, "1").exit_code == 0
    listed = (domain / "sample.json").read_text()
    # The domain's own examples, and as they were drawn.
    made = run(*index(library, *embedding(files)))
    assert "2 added" in made.stderr, made.stderr
    assert (domain / "sample.json").read_text() == listed
    # What the hint says gives the index the domain's sample, not the whole file that it was drawn from.
    again = " ".join(run(*sampled, "7").stderr.split())
    mine = ExamplesEntry.load(domain).examples
    assert len(mine) == 2
    assert "until it is made again: xdner index towns --replace" in again
    assert "--replace (" not in again
    listed = (domain / "sample.json").read_text()
    assert run(*index(library, "--replace")).exit_code == 0
    assert open_pool(domain / "index").holds(mine)
    assert ExamplesEntry.load(domain).examples == mine
    assert (domain / "sample.json").read_text() == listed
    # Of other examples it would be no list.
    (tmp_path / "new.txt").write_text("Ida\tB-person\nleft\tO\n")
    assert run(*index(library, "--examples", tmp_path / "new.txt")).exit_code == 0
    assert len(ExamplesEntry.load(domain).examples) == 3
    assert not (domain / "sample.json").exists()


def test_what_was_stored_while_an_index_was_made_stays(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, adds = tmp_path / "library", Pool.add
    assert run(*train(library, files, files / "towns.txt", "--set", "retrieval.method=random")).exit_code == 0

    def trained_then(pool: Pool, *more: Any) -> Change:
        made = adds(pool, *more)
        assert run(*train(library, files, files / "dev.txt")).exit_code == 0
        return made

    monkeypatch.setattr(Pool, "add", trained_then)
    made = run(*index(library, *embedding(files)))
    assert "towns was made again meanwhile" in " ".join(made.stderr.split())
    assert [s.text for s in ExamplesEntry.load(library / "towns").examples] == ["Eve in Oslo"]
