"""LANER's domains in folders: they are stored whole, and what is damaged or sent by a stranger is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xdner.backbone.encoder import load_encoder
from xdner.errors import (
    BackboneError,
    TaggerFormatError,
)
from xdner.recognizers.laner import LANER
from xdner.testing.taggers import TOWNS


def test_what_is_loaded_is_what_was_saved(trained: LANER, tmp_path: Path) -> None:
    folder = trained.save("towns", tmp_path / "towns")
    assert not list(folder.rglob("*.bin"))
    assert not list(folder.rglob("*.pkl"))
    reader = LANER()
    assert reader.load(folder) == "towns"
    assert reader.labels("towns") == ("city", "person")
    ours, theirs = trained.predict(list(TOWNS)), reader.predict(list(TOWNS))
    assert [r.entities for r in ours] == [r.entities for r in theirs]


def _edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(change(path.read_text()))

    return edit


def _cut(folder: Path) -> None:
    path = folder / "tagger.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _manifest(**changes: Any) -> Callable[[Path], None]:
    return _edit("tagger.json", lambda text: json.dumps(json.loads(text) | changes))


def _rehashed(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """A stranger who alters a file puts its hash right, too."""

    def edit(folder: Path) -> None:
        import hashlib

        _edit(name, change)(folder)
        manifest = json.loads((folder / "tagger.json").read_text())
        manifest["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "tagger.json").write_text(json.dumps(manifest))

    return edit


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_cut, "truncated or was altered"),
        (_edit("encoder/config.json", lambda t: t + " "), "truncated or was altered"),
        (lambda f: (f / "encoder" / "tokenizer.json").unlink(), "cannot read"),
        (lambda f: (f / "tagger.json").unlink(), "there is no"),
        (_edit("tagger.json", lambda t: t[:20]), "not a tagger's manifest"),
        (_manifest(format=99), "format 99"),
        (_manifest(tags=["O", "O"]), "broken entries in 'tags'"),
        (_manifest(files={"../x": {"sha256": ""}}), "broken entries in 'files'"),
        (_manifest(encoder={}), "does not name its encoder"),
        (_edit("domain.toml", lambda t: t.replace('name = "city"', 'name = "town"')), "was trained for city, person"),
        (_edit("settings.toml", lambda t: t.replace("label_size = 8", "label_size = 9")), "describes another tagger"),
        (_rehashed("encoder/config.json", lambda t: t.replace('"hidden_size": 16', '"hidden_size": 32')), "another model"),
        (
            _rehashed("encoder/config.json", lambda t: t.replace('num_hidden_layers": 1', 'num_hidden_layers": 99999999')),
            "99999999 layers",
        ),
        (_rehashed("encoder/tokenizer.json", lambda t: "{}"), "cannot be made again"),
    ],
)  # fmt: skip
def test_a_damaged_folder_gives_one_error(
    trained: LANER, tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    folder = trained.save("towns", tmp_path / "towns")
    harm(folder)
    with pytest.raises(TaggerFormatError, match=says) as caught:
        LANER().load(folder)
    assert caught.value.hint


def test_code_that_a_stranger_sends_is_never_run(
    trained: LANER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers would ask, and somebody may say yes."""
    folder = trained.save("towns", tmp_path / "towns")
    code = folder / "encoder" / "strange.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import BertConfig as Strange\n")
    _edit("tagger.json", lambda t: t.replace('"files": {', '"files": {"encoder/strange.py": {"sha256": ""},', 1))(
        folder
    )
    _rehashed("encoder/strange.py", lambda t: t)(folder)
    added = {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Strange"}}
    _rehashed("encoder/config.json", lambda t: json.dumps(json.loads(t) | added))(folder)
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(TaggerFormatError, match="cannot be made again"):
        LANER().load(folder)
    with pytest.raises(BackboneError):
        load_encoder(folder / "encoder")
    assert not (tmp_path / "ran").exists()


def test_other_words_for_a_type_are_no_damage(trained: LANER, tmp_path: Path) -> None:
    folder = trained.save("towns", tmp_path / "towns")
    _edit("domain.toml", lambda t: t.replace('verbalization = "city"', 'verbalization = "big town"'))(folder)
    LANER().load(folder)


def test_a_folder_that_is_refused_takes_nobodys_place(trained: LANER, tmp_path: Path) -> None:
    """What does not fit together is seen late: every file in it is as the manifest says."""
    folder = trained.save("towns", tmp_path / "towns")
    reader = LANER()
    reader.load(folder)
    before = reader.predict("Ann Lee in Rome")
    _rehashed("encoder/config.json", lambda t: t.replace('"hidden_size": 16', '"hidden_size": 32'))(folder)
    for recognizer in (reader, fresh := LANER()):
        with pytest.raises(TaggerFormatError, match="another model"):
            recognizer.load(folder)
    assert reader.predict("Ann Lee in Rome") == before
    assert fresh.domains == ()
