"""A domain of examples as a folder: it comes back whole, keeps its index, and is refused when it was altered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from xdner.backbone.lora import Adapter
from xdner.domain import Domain, Label
from xdner.errors import LibraryError, XdnerError
from xdner.library import parts
from xdner.library.examples_entry import EXAMPLES_MANIFEST, ExamplesEntry
from xdner.library.kinds import load_entry, with_prefix
from xdner.library.leftovers import is_domain
from xdner.library.store import Library
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import find_template
from xdner.text import Sentence

LOCAL = {"kind": "local", "name": "tiny", "source": "tiny", "fingerprint": "sha256:" + "b" * 64}
REMOTE = {"kind": "endpoint", "name": "big", "url": "http://somewhere.example/v1"}
DOMAIN = Domain("seas", (Label("sea", "sea", "wide water"), Label("ship")))
EXAMPLES = (
    Sentence.from_text("The  Baltic,\u00a0they say", [(5, 11, "sea")], id="a"),
    Sentence.from_text("nothing", id="b"),
)


def entry(**more: object) -> ExamplesEntry:
    made = ExamplesEntry(
        DOMAIN, WranerSettings.build(None, ["retrieval.k=3"]), find_template("dictionary"), EXAMPLES, LOCAL,
        Adapter(b"{}", b"factors"), {"seed": 1}, frozenset({"ab12"}), "# Seas\n",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def test_it_comes_back_whole(tmp_path: Path) -> None:
    entry().save(tmp_path / "seas")
    assert ExamplesEntry.load(tmp_path / "seas").__dict__ == entry().__dict__
    assert is_domain(tmp_path / "seas")
    assert isinstance(load_entry(tmp_path / "seas"), ExamplesEntry)
    bare = entry(examples=(), adapter=None, seen=frozenset(), card="", llm=REMOTE)
    bare.save(tmp_path / "seas")
    assert ExamplesEntry.load(tmp_path / "seas").__dict__ == bare.__dict__
    assert not (tmp_path / "seas" / "examples.jsonl").exists()
    assert not (tmp_path / "seas" / "adapter").exists()


@pytest.mark.parametrize("words", [["don't", "A", "(", "b)", "x-"], ["3", "%", "of", "it"]])
def test_words_that_were_given_come_back_as_they_were(tmp_path: Path, words: list[str]) -> None:
    given = Sentence.from_words(words, [(1, 3, "sea")], id="w")
    entry(examples=(given,)).save(tmp_path / "seas")
    assert ExamplesEntry.load(tmp_path / "seas").examples == (given,)


def test_the_retrievers_index_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "seas"
    entry().save(folder)
    (folder / "index" / "parts").mkdir(parents=True)
    (folder / "index" / "parts" / "words.db").write_bytes(b"\0\1")
    entry(examples=EXAMPLES[:1]).save(folder)
    assert (folder / "index" / "parts" / "words.db").read_bytes() == b"\0\1"
    assert len(ExamplesEntry.load(folder).examples) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["seas"]


def test_an_index_that_is_written_to_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process adds after the copy was made would be lost."""
    folder = tmp_path / "seas"
    entry().save(folder)
    (folder / "index").mkdir()
    with FileLock(folder / "index" / ".lock"):
        monkeypatch.setattr(parts, "_PATIENCE", 0.05)
        with pytest.raises(LibraryError, match="another process is writing to the index"):
            entry(examples=EXAMPLES[:1]).save(folder)
        assert ExamplesEntry.load(folder).examples == EXAMPLES
    entry(examples=EXAMPLES[:1]).save(folder)
    assert ExamplesEntry.load(folder).examples == EXAMPLES[:1]


def test_a_library_holds_it_beside_prefixes(tmp_path: Path) -> None:
    store = Library(tmp_path / "library")
    store.add(entry())
    assert store.names() == ["seas"]
    assert all(v.problem is None for v in store.verify())
    store.export("seas", tmp_path / "seas.xdner")
    other = Library(tmp_path / "other")
    assert other.import_(tmp_path / "seas.xdner", name="oceans", replace=False) == "oceans"
    came = other.get("oceans")
    assert isinstance(came, ExamplesEntry)
    assert (came.domain.name, came.examples, came.adapter) == ("oceans", EXAMPLES, entry().adapter)
    with pytest.raises(LibraryError, match="if-wraner: it has no prefix"):
        with_prefix(came)


def test_an_address_that_came_with_a_domain_is_not_trusted(tmp_path: Path) -> None:
    store = Library(tmp_path / "library")
    theirs = WranerSettings.build(None, ["llm.key_variable=AWS_SECRET_ACCESS_KEY"])
    store.add(entry(llm=REMOTE, adapter=None, settings=theirs))
    store.export("seas", tmp_path / "seas.xdner")
    other = Library(tmp_path / "other")
    other.import_(tmp_path / "seas.xdner", name=None, replace=False)
    came = other.get("seas")
    assert isinstance(came, ExamplesEntry)
    assert came.notes["imported"] is True
    assert came.settings.llm.key_variable == "XDNER_LLM_KEY"
    assert "imported" not in store.get("seas").notes  # type: ignore[union-attr]


def broken(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def edit(folder: Path) -> None:
        path = folder / EXAMPLES_MANIFEST
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda f: (f / "examples.jsonl").write_text("{}\n"), "altered"),
        (lambda f: (f / "template.toml").unlink(), "cannot read"),
        (lambda f: (f / "adapter" / "adapter_model.safetensors").write_bytes(b"facto"), "truncated"),
        (lambda f: (f / EXAMPLES_MANIFEST).write_text("[" * 9), "not a domain's manifest"),
        (lambda f: (f / EXAMPLES_MANIFEST).write_text("[]"), "lacks format, llm, files, notes"),
        (broken(lambda d: d.update(format=2)), "newer"),
        (broken(lambda d: d["files"].update({"../x": {"sha256": ""}})), "broken entries"),
        (broken(lambda d: d["files"].pop("template.toml")), "broken entries"),
        (broken(lambda d: d["files"].pop("adapter/adapter_config.json")), "broken entries"),
        (broken(lambda d: d["llm"].pop("fingerprint")), "does not name its language model"),
        (broken(lambda d: d.update(llm={"kind": "other"})), "does not name its language model"),
        (
            lambda f: (f / "domain.toml").write_text('name = "seas"\nlabels = ["ship"]'),
            "labels that the domain has not: sea",
        ),
        (lambda f: (f / "settings.toml").write_text("[retrieval]\nk = -1"), "retrieval.k"),
        (lambda f: (f / "tagger.json").write_text("{}"), "a tagger and a domain of examples"),
    ],
)
def test_damage_is_told(tmp_path: Path, damage: Callable[[Path], object], text: str) -> None:
    store = Library(tmp_path)
    folder = store.add(entry())
    damage(folder)
    with pytest.raises(XdnerError, match=text) as caught:
        store.get("seas")
    assert caught.value.hint
    assert store.names() == ["seas"]


def test_an_entry_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "seas"
    entry().save(folder)
    bad = Sentence.from_text("a\nb", [(0, 1, "two words")])
    with pytest.raises(XdnerError):
        entry(examples=(bad,)).save(folder)
    assert ExamplesEntry.load(folder).examples == EXAMPLES
    shutil.rmtree(folder)
