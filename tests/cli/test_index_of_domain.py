"""``xdner index`` and ``explain`` of a name that is an IF-WRANER domain: one follows the other, and neither takes anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xdner.errors import StorageError
from xdner.library.examples_entry import ExamplesEntry
from xdner.library.store import Library
from xdner.retrieval.pool import Change, Pool, open_pool
from xdner.testing.commands import refused, run
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.endpoints import answering, serving
from xdner.testing.examples import train_command as train


def towns(library: Path, files: Path, examples: Path, *more: str) -> list[str]:
    own = ["--llm", files / "llm", "--set", f"prompt.template={files / 'short.toml'}", "--examples", examples]
    return train("towns", library, *own, *more)


def index(library: Path, *more: str | Path) -> list[str]:
    return ["index", "towns", "--library", str(library), *map(str, more)]


def embedding(files: Path) -> list[str]:
    return ["--set", "layer=1", "--encoder", str(files / "encoder")]


def test_an_older_index_never_takes_a_domains_examples(files: Path, tmp_path: Path) -> None:
    library, new = tmp_path / "library", ["--examples", files / "dev.txt"]
    assert run(*index(library, *new, *embedding(files))).exit_code == 0
    assert run(*towns(library, files, files / "towns.txt")).exit_code == 0
    mine = ExamplesEntry.load(library / "towns").examples
    for more in ([], ["--remove"]):
        told = refused(*index(library, *new, *more))
        assert "the index of towns has other examples than the domain" in told
        assert "xdner index towns --replace" in told
        assert ExamplesEntry.load(library / "towns").examples == mine
        assert [e.sentence.text for e in open_pool(library / "towns" / "index").examples.values()] == ["Eve in Oslo"]
    assert run(*index(library, *new, "--replace")).exit_code == 0
    assert [s.text for s in ExamplesEntry.load(library / "towns").examples] == ["Eve in Oslo"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, StorageError("cannot write: no space left on device")])
def test_the_same_command_finishes_what_was_stopped_before_the_domain_followed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    library = tmp_path / "library"
    (tmp_path / "new.txt").write_text("Bob\tB-city\n\nIda\tB-person\nleft\tO\n")  # one is a correction
    assert run(*towns(library, files, files / "towns.txt")).exit_code == 0
    begun = ["Ann in Rome:person,city", "Bob:person"]
    changed = ["Ann in Rome:person,city", "Bob:city", "Ida left:person"]
    new = ["--examples", tmp_path / "new.txt"]
    for command, before, after in (
        (embedding(files), None, begun),
        (new, begun, changed),
        ([*new, "--remove"], changed, begun[:1]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Library, "add", raising(stop))
            assert run(*index(library, *command)).exit_code != 0
        assert both(library)[1] == after, "the index was changed"
        assert before in (None, both(library)[0]), "the domain was not"
        if command == new:
            # Of other sentences it is an index of other examples.
            for more in ([], ["--remove"]):
                told = refused(*index(library, "--examples", files / "dev.txt", *more))
                assert "the same command finishes its work" in told
            assert both(library) == (before, after)
        for _ in range(2):
            assert run(*index(library, *command)).exit_code == 0
            assert both(library) == (after, after)


def both(library: Path) -> tuple[list[str], list[str]]:
    """The examples of the domain and those of its index, with their types."""
    pool = open_pool(library / "towns" / "index")
    of = ExamplesEntry.load(library / "towns").examples, [e.sentence for e in pool.examples.values()]
    one, two = (sorted(f"{s.text}:{','.join(e.label for e in s.entities)}" for s in some) for some in of)
    return one, two


def raising(stop: Any) -> Any:
    def fails(*_: object, **__: object) -> None:
        raise stop

    return fails


def test_a_sample_stays_a_sample_in_its_index(files: Path, tmp_path: Path) -> None:
    library, domain = tmp_path / "library", tmp_path / "library" / "towns"
    names = [(n, c) for n in ("Ann", "Bob", "Dan", "Eve") for c in ("Rome", "Oslo")]
    (tmp_path / "all.txt").write_text("\n".join(f"{n}\tB-person\nin\tO\n{c}\tB-city\n" for n, c in names))
    sampled = towns(library, files, tmp_path / "all.txt", "--set", "retrieval.method=random", "--k-shot", "2", "--seed")
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
    assert run(*towns(library, files, files / "towns.txt", "--set", "retrieval.method=random")).exit_code == 0

    def trained_then(pool: Pool, *more: Any) -> Change:
        made = adds(pool, *more)
        assert run(*towns(library, files, files / "dev.txt")).exit_code == 0
        return made

    monkeypatch.setattr(Pool, "add", trained_then)
    made = run(*index(library, *embedding(files)))
    assert "towns was made again meanwhile" in " ".join(made.stderr.split())
    assert [s.text for s in ExamplesEntry.load(library / "towns").examples] == ["Eve in Oslo"]


def test_an_index_becomes_a_domain_and_both_stay_together(files: Path, tmp_path: Path) -> None:
    library, where = tmp_path / "library", ["--library", str(tmp_path / "library")]
    encoder = files / "encoder"
    own = ["--llm", files / "llm", "--set", f"prompt.template={files / 'short.toml'}", "--set", "retrieval.k=2"]
    make = ["index", "towns", *where, "--skip-empty", "--set", "layer=1", "--encoder", str(encoder)]
    assert run(*make, "--examples", str(files / "towns.txt")).exit_code == 0
    # Types and examples are those of the index; nothing else is needed.
    made = run(*train("towns", library, *own))
    assert made.exit_code == 0, made.stderr
    assert "no examples" not in made.stderr
    told = json.loads(run("explain", "Ann", "-d", "towns", *where, "--json").stdout)
    assert {e["text"] for e in told["examples"]} == {"Ann in Rome", "Bob"}
    assert run("predict", "Eve in Oslo", "-d", "towns", *where).exit_code == 0
    # What comes into the index is the domain's, wherever it goes.
    assert run("index", "towns", "--examples", str(files / "dev.txt"), *where).exit_code == 0
    assert len(ExamplesEntry.load(library / "towns").examples) == 3
    assert (library / "towns" / "index" / "index.json").is_file()
    other = ["--library", str(tmp_path / "other")]
    assert run("domains", "export", "towns", "--out", str(tmp_path / "t.xdner"), *where).exit_code == 0
    assert run("domains", "import", str(tmp_path / "t.xdner"), *other).exit_code == 0
    moved = [
        "explain",
        "Ann",
        "-d",
        "towns",
        "-k",
        "3",
        *other,
        "--json",
        "--set",
        "layer=1",
        "--encoder",
        str(encoder),
    ]
    assert len(json.loads(run(*moved).stdout)["examples"]) == 3
    # Made again from other examples, the domain goes before its index, which says so.
    again = run(*train("towns", library, *own, "--examples", files / "towns.txt"))
    told = " ".join(again.stderr.split())
    assert "the index has other examples and is not used until it is made again" in told
    assert "xdner index towns --replace (without the examples that have no entities)" in told


def test_a_domain_of_examples_gets_an_index_with_them(files: Path, tmp_path: Path) -> None:
    library, where = tmp_path / "library", ["--library", str(tmp_path / "library")]
    own = [
        "--llm",
        files / "llm",
        "--set",
        f"prompt.template={files / 'short.toml'}",
        "--set",
        "retrieval.method=random",
    ]
    assert run(*train("towns", library, *own, "--examples", files / "towns.txt")).exit_code == 0
    encoder = files / "encoder"
    made = run(
        "index", "towns", "--examples", str(files / "dev.txt"), "--set", "layer=1", "--encoder", str(encoder), *where
    )
    assert made.exit_code == 0, made.stderr
    assert "1 example without entities is no longer the domain's" in " ".join(made.stderr.split())
    assert sorted(s.text for s in ExamplesEntry.load(library / "towns").examples) == [
        "Ann in Rome",
        "Bob",
        "Eve in Oslo",
    ]


def test_explain_shows_what_the_prompt_has(files: Path, tmp_path: Path) -> None:
    """The domain's own settings count, also where it has an index."""
    library, where = tmp_path / "library", ["--library", str(tmp_path / "library")]
    encoder = files / "encoder"
    (tmp_path / "all.txt").write_text((files / "dev.txt").read_text() + "\n" + (files / "news.txt").read_text())
    make = ["index", "towns", *where, "--examples", str(tmp_path / "all.txt"), "--set", "layer=1"]
    assert run(*make, "--encoder", str(encoder)).exit_code == 0
    chosen = ["--set", "retrieval.k=2", "--set", "aggregation=max", "--set", "rows=entities", "--set", "candidates=3"]
    with serving(lambda n, body: answering("{}")) as endpoint:
        made = run(*train("towns", library, "--llm", endpoint.url, "--model", "big", *chosen))
        assert made.exit_code == 0, made.stderr
        assert run("predict", "Ann left Oslo", "-d", "towns", *where).exit_code == 0
        prompt = endpoint.requests[0]["messages"][0]["content"]
    explained = ["explain", "Ann left Oslo", "-d", "towns", *where, "--json"]
    found = json.loads(run(*explained).stdout)
    assert (found["aggregation"], len(found["examples"])) == ("max", 2)
    assert all(f"Sentence: {e['text']}\n" in prompt for e in found["examples"])
    assert prompt.count("Sentence: ") - prompt.count("Sentence: Ann left Oslo") == 2
    more = json.loads(run(*explained, "--set", "aggregation=count", "--set", "retrieval.k=3").stdout)
    assert (more["aggregation"], len(more["examples"])) == ("count", 3)


def test_a_domain_asks_its_index_for_what_the_index_has(files: Path, tmp_path: Path) -> None:
    library, where = tmp_path / "library", ["--library", str(tmp_path / "library")]
    encoder = files / "encoder"
    own = ["--llm", files / "llm", "--set", f"prompt.template={files / 'short.toml'}"]
    make = ["index", "towns", "--examples", str(files / "dev.txt"), *where, "--encoder", str(encoder)]
    assert run(*make, "--set", "layer=1").exit_code == 0
    for asked in ("layer=2", "pooling=max", f"encoder={save_tiny_encoder(tmp_path / 'other', positions=32)}"):
        told = refused(*train("towns", library, *own, "--set", asked))
        assert "was made with encoder (" in told
        assert "layer 1, mean" in told
        assert {"layer=2": "layer 2, mean", "pooling=max": "layer 1, max"}.get(asked, "asked with other") in told
    assert not (library / "towns" / "wraner.json").exists()
    assert run(*train("towns", library, *own)).exit_code == 0
    assert ExamplesEntry.load(library / "towns").settings.retrieval.layer == 1
    # An index that is made anew takes its domain along, and an index of a domain begins with what the domain asks for.
    again = ["index", "towns", "--examples", str(files / "dev.txt"), "--replace", *where]
    assert run(*again, "--set", "layer=2").exit_code == 0
    kept = ExamplesEntry.load(library / "towns").settings.retrieval
    assert (kept.layer, kept.encoder) == (2, str(encoder))
    assert run("predict", "Ann in Oslo", "-d", "towns", *where).exit_code == 0
    assert json.loads(run(*again, "--json").stdout)["embedding"].endswith("layer 2, mean of sub-words)")


def test_a_server_in_an_imported_domain_is_not_asked(files: Path, tmp_path: Path) -> None:
    """Nobody here has chosen it: it would be sent a token, and a collection of somebody's dropped with the domain."""
    library, where = tmp_path / "library", ["--library", str(tmp_path / "library")]
    encoder = files / "encoder"
    make = ["index", "towns", "--examples", str(files / "dev.txt"), *where, "--encoder", str(encoder)]
    assert run(*make, "--set", "layer=1").exit_code == 0
    assert run(*train("towns", library, "--llm", files / "llm")).exit_code == 0
    for uri, kept in (("", True), ("http://127.0.0.1:1", False), (1, False)):
        path = library / "towns" / "index" / "index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"uri": uri}))
        assert run("domains", "export", "towns", "--out", str(tmp_path / "t"), "--force", *where).exit_code == 0
        other = tmp_path / f"other-{uri == 1}-{kept}"
        assert run("domains", "import", str(tmp_path / "t"), "--library", str(other)).exit_code == 0
        assert (other / "towns" / "index").exists() == kept
        assert len(ExamplesEntry.load(other / "towns").examples) == 1
