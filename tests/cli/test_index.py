"""``xdner index`` and ``xdner explain`` on a tiny encoder and real Milvus Lite files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from xdner.cli.app import app
from xdner.corpora import write_corpus
from xdner.domain import Domain, Label
from xdner.retrieval.milvus import _OPEN
from xdner.retrieval.pool import Change, Pool, open_pool
from xdner.testing.commands import refused, run
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.pools import SENTENCES
from xdner.text import Sentence
from xdner.workflows import remove_domain


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("index") / "tiny")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_corpus(SENTENCES, tmp_path / "all.txt", format="columns")
    write_corpus(SENTENCES[:2], tmp_path / "two.jsonl", format="spans")
    write_corpus([*SENTENCES[:1], Sentence.from_text("nothing here")], tmp_path / "empty.jsonl", format="spans")
    write_corpus([Sentence.from_text("a new sea", [(6, 9, "lake")])], tmp_path / "new.jsonl", format="spans")
    return tmp_path


def index(files: Path, encoder: Path, file: str, *more: str) -> list[str]:
    where = ["--library", str(files / "library")]
    return ["index", "sea", "--examples", str(files / file), "--set", "layer=1", *where, *more]


def test_index_and_explain(files: Path, encoder: Path) -> None:
    where = ["--library", str(files / "library")]
    made = run(*index(files, encoder, "all.txt", "--encoder", str(encoder), "--json"))
    assert made.exit_code == 0, made.stderr
    told = json.loads(made.stdout)
    assert (told["change"]["added"], told["examples"], told["words"], told["kind"]) == (4, 4, 17, "FLAT")
    assert Domain.read(files / "library" / "sea" / "domain.toml").label_names == ("city", "person", "sea", "ship")
    listed = run("domains", "list", *where)
    assert "sea is an index of examples so far" in " ".join(listed.stderr.split())
    # The encoder and its layer are known from now on.
    again = run("index", "sea", "--examples", str(files / "two.jsonl"), *where)
    assert "2 there already" in again.stderr
    assert again.stdout == ""
    assert "'../library/sea' has no index" in refused("explain", "x", "-d", "../library/sea", *where)
    none = ["--set", "method=random", "--encoder", str(encoder)]
    assert "retrieval.method=random makes no use of --encoder" in refused("explain", "x", "-d", "sea", *where, *none)
    found = json.loads(run("explain", "a ship at sea", "-d", "sea", "-k", "2", *where, "--json").stdout)
    assert found["text"] == "a ship at sea"
    assert len(found["examples"]) == 2
    for example in found["examples"]:
        assert {m["word"] for m in example["matches"]} <= {"ship", "sea"}
        assert example["entities"]
    shown = run("explain", "a ship at sea", "--domain", "sea", *where)
    assert "ship →" in shown.stdout
    assert "⟨ship⟩" in shown.stdout
    dense = json.loads(run("explain", "x", "-d", "sea", "--set", "method=densest", *where, "--json").stdout)
    assert dense["examples"][0]["text"] == "Bob saw Oslo and Rome"


def test_changes(files: Path, encoder: Path) -> None:
    where = ["--library", str(files / "library")]
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    assert "2 removed" in run("index", "sea", "--examples", str(files / "two.jsonl"), "--remove", *where).stderr
    assert "1 added" in run("index", "sea", "--examples", str(files / "new.jsonl"), *where).stderr
    # A domain that only has an index learns new types with its examples.
    assert "lake" in Domain.read(files / "library" / "sea" / "domain.toml").label_names
    made = run(*index(files, encoder, "empty.jsonl", "--replace", "--skip-empty", "--encoder", str(encoder), "--json"))
    assert "1 sentences without entities were left out" in made.stderr
    told = json.loads(made.stdout)
    assert (told["examples"], told["change"]["unchanged"], told["change"]["removed"]) == (1, 0, 3)
    # What a hint says can be done: a damaged index is made again.
    (files / "library" / "sea" / "index" / "index.json").write_text("{")
    assert "--replace" in refused("index", "sea", "--examples", str(files / "two.jsonl"), *where)
    assert run(*index(files, encoder, "two.jsonl", "--replace", "--encoder", str(encoder))).exit_code == 0


def test_types_come_and_go_with_their_examples(files: Path, encoder: Path) -> None:
    where, path = ["--library", str(files / "library")], files / "library" / "sea" / "domain.toml"
    right, wrong = ([Sentence.from_text("a new sea", [(6, 9, label)])] for label in ("sea", "see"))
    write_corpus(wrong, files / "wrong.jsonl", format="spans")
    write_corpus(right, files / "right.jsonl", format="spans")
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    path.write_text(path.read_text().replace('verbalization = "sea"', 'verbalization = "open water"'))
    path.write_text(Domain("sea", (*Domain.read(path).labels, Label("island"))).to_toml())
    assert run("index", "sea", "--examples", str(files / "wrong.jsonl"), *where).exit_code == 0
    assert Domain.read(path).label_names == ("city", "person", "sea", "ship", "island", "see")
    # A label that was mistyped goes with its last example; what was written by hand stays, and is spoken of.
    told = run("index", "sea", "--examples", str(files / "right.jsonl"), *where).stderr
    assert Domain.read(path).label_names == ("city", "person", "sea", "ship", "island")
    assert "which every prompt lists: island" in " ".join(told.split())
    assert run("index", "sea", "--examples", str(files / "two.jsonl"), "--remove", *where).exit_code == 0
    assert Domain.read(path).label_names == ("city", "person", "sea", "island")
    made = run(*index(files, encoder, "wrong.jsonl", "--replace", "--encoder", str(encoder)))
    assert made.exit_code == 0, made.stderr
    assert Domain.read(path).label_names == ("island", "see")
    assert run("index", "sea", "--examples", str(files / "wrong.jsonl"), "--remove", *where).exit_code == 0
    assert Domain.read(path).label_names == ("island",)


def test_an_index_that_was_damaged_leaves_no_types(files: Path, encoder: Path) -> None:
    path = files / "library" / "sea" / "domain.toml"
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    path.write_text(path.read_text().replace('verbalization = "sea"', 'verbalization = "open water"'))
    (files / "library" / "sea" / "index" / "index.json").write_text("{")
    made = run(*index(files, encoder, "new.jsonl", "--replace", "--encoder", str(encoder)))
    assert made.exit_code == 0, made.stderr
    assert Domain.read(path).label_names == ("sea", "lake")


def test_mistakes_give_one_error_with_the_next_step(files: Path, encoder: Path, tmp_path: Path) -> None:
    where = ["--library", str(files / "library")]
    assert "has no index of examples" in refused("explain", "x", "-d", "sea", *where)
    assert "has no index" in refused("index", "sea", "--examples", str(files / "all.txt"), "--remove", *where)
    assert "have no entities" in refused(*index(files, encoder, "empty.jsonl", "--encoder", str(encoder)))
    assert not (files / "library").exists()
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    exclude = refused("index", "sea", "--examples", str(files / "all.txt"), "--remove", "--replace", *where)
    assert "exclude each other" in exclude
    other = save_tiny_encoder(tmp_path / "other", positions=32)
    for command in (["explain", "x", "-d", "sea"], ["index", "sea", "--examples", str(files / "two.jsonl")]):
        told = refused(*command, "--encoder", str(other), *where)
        assert "was made with tiny" in told
        assert "asked with other" in told
        assert "layer 2" in refused(*command, "--set", "layer=2", *where)
        assert "asked with other" in refused(*command, "--set", f"encoder={other}", *where)
    elsewhere = refused("index", "sea", "--examples", str(files / "new.jsonl"), "--index", "http://127.0.0.1:1", *where)
    assert "not in http://127.0.0.1:1" in elsewhere
    down = [*index(files, encoder, "all.txt", "--encoder", str(encoder)), "--index", "http://127.0.0.1:1", "--replace"]
    assert "the Milvus server http://127.0.0.1:1" in refused(*down, "--set", "timeout=1.0")
    assert json.loads(run("explain", "ship", "-d", "sea", *where, "--json").stdout)["examples"]
    assert "is not one word" in refused("index", "../x", "--examples", str(files / "all.txt"), *where)
    assert "there is no text" in refused("explain", " ", "-d", "sea", *where)
    assert "retrieval.aggregation must be one of" in refused(
        "explain", "x", "-d", "sea", "--set", "aggregation=y", *where
    )


def test_what_a_job_makes_no_use_of_is_refused(files: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, two = ["--library", str(files / "library")], ["--examples", str(files / "two.jsonl")]
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    for setting in ("retrieval.k=3", "aggregation=max", "rows=all"):
        assert "indexing makes no use of retrieval." in refused("index", "sea", *two, *where, "--set", setting)
    marked = refused("index", "sea", *two, *where, "--set", "stop_words=none")
    assert "was made with stop_words = english, not none" in marked
    idle = ["--index", "http://127.0.0.1:1", "--encoder", "no-such-encoder", "--skip-empty"]
    told = refused("index", "sea", "--remove", *two, *where, *idle)
    assert "--remove makes no use of --index, --encoder, --skip-empty" in told
    told = refused("index", "sea", "--remove", *two, *where, "--set", "layer=5", "--set", "pooling=max")
    assert "removing examples makes no use of retrieval.layer" in told
    assert "retrieval.pooling" in told
    assert "--examples FILE" in refused("index", "sea", "--remove", *where)
    told = refused("index", "sea", "--replace", "--skip-empty", "--format", "spans", *where)
    assert "without --examples makes no use of --skip-empty" in told
    assert "--format is that of a file" in told
    assert json.loads(run("index", "sea", *two, *where, "--json").stdout)["examples"] == 4
    waited: list[float] = []
    removes = Pool.remove

    def waiting(pool: Pool, gone: Iterable[str]) -> Change:
        waited.append(pool.timeout)
        return removes(pool, gone)

    monkeypatch.setattr(Pool, "remove", waiting)
    assert "2 removed" in run("index", "sea", "--remove", *two, *where, "--set", "timeout=61").stderr
    assert waited == [61.0]


def test_an_index_that_is_made_anew_is_made_as_it_was(files: Path, encoder: Path) -> None:
    where, own = ["--library", str(files / "library")], ["--set", "pooling=max", "--set", "stop_words=none"]
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder), *own)).exit_code == 0
    folder = files / "library" / "sea" / "index"
    first = open_pool(folder).manifest
    assert first.embedding.pooling == "max"
    for file in (["--examples", str(files / "two.jsonl")], []):
        made = run("index", "sea", *file, "--replace", *where)
        assert made.exit_code == 0, made.stderr
        again = open_pool(folder)
        assert (again.manifest.embedding, again.manifest.stop_words) == (first.embedding, "none")
        assert len(again) == 2
    # Without a file it is what is there; a name without anything has nothing.
    assert run("index", "sea", "--replace", "--set", "layer=2", *where).exit_code == 0
    assert open_pool(folder).manifest.embedding.layer == 2
    assert len(open_pool(folder)) == 2
    assert "has no examples" in refused("index", "lake", *where)
    assert not (files / "library" / "lake").exists()


def test_an_index_that_is_removed_under_its_writer_is_not_reported_as_done(
    files: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, folder, adds = ["--library", str(files / "library")], files / "library" / "sea", Pool.add
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0

    def removed_then(pool: Pool, *more: Any) -> Change:
        made = adds(pool, *more)
        remove_domain("sea", files / "library")
        return made

    monkeypatch.setattr(Pool, "add", removed_then)
    assert "removed meanwhile" in refused("index", "sea", "--examples", str(files / "new.jsonl"), *where)
    assert not folder.exists()


def test_an_explanation_lets_go_of_the_index(files: Path, encoder: Path) -> None:
    where = ["--library", str(files / "library")]
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    found = run("explain", "a ship", "-d", "sea", "--set", "search=milvus", *where, "--json")
    assert json.loads(found.stdout)["examples"]
    assert not [path for path in _OPEN if path.startswith(str(files))]


def test_a_trained_domain_keeps_its_types(files: Path, encoder: Path) -> None:
    folder = files / "library" / "sea"
    folder.mkdir(parents=True)
    (folder / "domain.toml").write_text(Domain.from_labels("sea", ["ship"]).to_toml())
    (folder / "tagger.json").write_text("{}")
    told = refused(*index(files, encoder, "all.txt", "--encoder", str(encoder)))
    assert "does not know the types city, person, sea" in told
    assert not (folder / "index").exists()


def test_an_index_is_removed_with_its_rows_on_a_server(files: Path, encoder: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from pymilvus import MilvusClient

    where, folder = ["--library", str(files / "library")], files / "library" / "sea"
    server, database, port = start_server_in_thread(str(files / "served.db"))
    try:
        uri = f"http://127.0.0.1:{port}"
        client = MilvusClient(uri)
        make = [*index(files, encoder, "all.txt", "--encoder", str(encoder)), "--index", uri]
        assert run(*make).exit_code == 0
        (rows,) = client.list_collections()
        told = CliRunner().invoke(app, ["domains", "remove", "sea", *where], input="n\n")
        assert f"and collection {rows} in {uri}" in " ".join(told.stderr.split())
        assert client.list_collections() == [rows]
        assert run("domains", "remove", "sea", "--yes", *where).exit_code == 0
        assert client.list_collections() == []
        assert not folder.exists()
        # So does one whose place an import takes, which brings no server along.
        assert run(*make).exit_code == 0
        assert run("domains", "export", "music", "--out", str(files), *where).exit_code == 0
        take = ["domains", "import", str(files / "music.xdner"), "--name", "sea", *where]
        assert "has an index of examples 'sea' already" in refused(*take)
        assert len(client.list_collections()) == 1
        assert "sea is in" in run(*take, "--replace").stderr
        assert client.list_collections() == []
        assert not (folder / "index").exists()
        assert run("domains", "remove", "sea", "--yes", *where).exit_code == 0
        assert run(*make).exit_code == 0
    finally:
        server.stop(grace=0)
        database.close()
    # A server that is gone keeps nobody from removing a domain; what stays there is named.
    (folder / "index" / "index.json").write_text(
        (folder / "index" / "index.json").read_text().replace(uri, "http://127.0.0.1:1")
    )
    gone = run("domains", "remove", "sea", "--yes", *where)
    assert gone.exit_code == 0
    assert "in http://127.0.0.1:1 is still there" in " ".join(gone.stderr.split())
    assert "no domain 'sea'" in refused("domains", "remove", "sea", "--yes", *where)


def test_what_is_left_of_an_index_can_be_removed(files: Path, encoder: Path) -> None:
    where, library = ["--library", str(files / "library")], files / "library"
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    assert run("domains", "remove", "sea", "--yes", *where).exit_code == 0
    (library / "sea" / "index").mkdir(parents=True)  # as of a writer that was killed
    (library / "sea" / "index" / ".lock").touch()
    assert run("domains", "remove", "sea", "--yes", *where).exit_code == 0
    (library / "corpus").mkdir()
    (library / "corpus" / "domain.toml").write_text("")
    for name in ("corpus", ".lock", "../all.txt", "."):
        assert "no domain" in refused("domains", "remove", name, "--yes", *where)
    assert sorted(p.name for p in library.iterdir()) == [".lock", "corpus"]


def test_a_file_that_another_process_has_open(files: Path, encoder: Path) -> None:
    where = ["--library", str(files / "library")]
    assert run(*index(files, encoder, "all.txt", "--encoder", str(encoder))).exit_code == 0
    (database,) = (files / "library" / "sea" / "index").glob("*.db")
    code = f"from pymilvus import MilvusClient; c = MilvusClient({str(database)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        told = refused("index", "sea", "--examples", str(files / "new.jsonl"), *where)
        assert "cannot be opened" in told
        assert "One process at a time" in told
        # Readers do not need it.
        assert run("explain", "ship", "-d", "sea", *where).exit_code == 0
        other.communicate("\n")
    assert run("index", "sea", "--examples", str(files / "new.jsonl"), *where).exit_code == 0
