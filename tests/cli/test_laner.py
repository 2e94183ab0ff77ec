"""``--recognizer laner`` from the command line: the same commands as for a prefix, in one library with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from xdner.domain import Domain, Label
from xdner.tagger import decoding
from xdner.tagger.network import TaggerNetwork
from xdner.testing.commands import refused, run
from xdner.testing.models import save_tiny_backbone
from xdner.testing.places import PLACES
from xdner.testing.taggers import save_letter_encoder

QUICK = ["--set", "epochs=2", "--set", "training.batch_size=4", "--set", "label_size=4", "--set", "evaluate_from=1"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letter_encoder(tmp_path_factory.mktemp("laner") / "encoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.txt").write_text(PLACES["towns"] * 2)
    (folder / "dev.txt").write_text("Eve\tB-person\nin\tO\nOslo\tB-city\n")
    (folder / "news.txt").write_text("Bob\tB-person\nof\tO\nNATO\tB-club\n\nAnn\tB-person\n")
    return folder


def train(name: str, files: Path, library: Path, *more: str, train: str = "train.txt") -> list[str]:
    return ["train", name, "--recognizer", "laner", "--train", str(files / train), "--library", str(library), *more]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, encoder: Path, files: Path) -> Path:
    """A CP-NER domain, a LANER source, and two LANER domains that draw on it."""
    folder = tmp_path_factory.mktemp("library")
    backbone = save_tiny_backbone(tmp_path_factory.mktemp("backbone"))
    few = ["--set", "epochs=1", "--set", "length=3"]
    plain = ["train", "prefixed", "--train", str(files / "train.txt"), "--backbone", str(backbone), *few]
    source = ["--source", str(files / "news.txt"), "--set", "source_epochs=1", "--dev", str(files / "dev.txt")]
    for command in (
        train("towns", files, folder, "--backbone", str(encoder), *source, *QUICK, "--json"),
        [*plain, "--library", str(folder)],
        train("news", files, folder, "--backbone", str(encoder), *QUICK, train="news.txt"),
        train("later", files, folder, "--from", "news", *QUICK),
    ):
        result = run(*command)
        assert result.exit_code == 0, result.stderr
        if "--json" in command:
            made = json.loads(result.stdout)
            assert made["settings"]["tagger"]["label_size"] == 4
            assert made["dev_f1"] is not None
    return folder


def test_reading_and_scoring(library: Path, files: Path) -> None:
    where = ["--domain", "towns", "--library", str(library)]
    read = json.loads(run("predict", "Ann in Rome", "Bob", *where, "--json").stdout)
    assert [r["text"] for r in read] == ["Ann in Rome", "Bob"]
    report = json.loads(run("evaluate", "--data", str(files / "dev.txt"), *where, "--json").stdout)
    assert report["micro"]["gold"] == 2
    both = run("predict", "Ann", "Bob", "-d", "towns", "-d", "later", "--library", str(library), "--json")
    assert [r["domain"] for r in json.loads(both.stdout)] == ["towns", "later"]
    # The prefix beside it is read as ever.
    assert run("predict", "Ann", "--domain", "prefixed", "--library", str(library)).exit_code == 0


def test_one_library_holds_both_kinds(library: Path, tmp_path: Path) -> None:
    where = ["--library", str(library)]
    listed = {d["name"]: d for d in json.loads(run("domains", "list", *where, "--json").stdout) if not d.get("shipped")}
    assert {n: d["recognizer"] for n, d in listed.items()} == {
        "later": "laner", "news": "laner", "prefixed": "cp-ner", "towns": "laner",
    }  # fmt: skip
    assert "laner" in run("domains", "list", *where).stdout
    shown = run("domains", "show", "later", *where)
    assert "news" in shown.stdout, shown.stderr
    assert run("domains", "verify", *where).exit_code == 0
    file = tmp_path / "towns.xdner"
    assert run("domains", "export", "towns", "--out", str(file), *where).exit_code == 0
    other = ["--library", str(tmp_path / "other")]
    assert run("domains", "import", str(file), "--name", "cities", *other).exit_code == 0
    assert run("domains", "verify", *other).exit_code == 0
    texts = ["Ann in Rome", "Bob and Eve"]
    one = json.loads(run("predict", *texts, "--domain", "towns", *where, "--json").stdout)
    two = json.loads(run("predict", *texts, "--domain", "cities", *other, "--json").stdout)
    assert [r["entities"] for r in one] == [r["entities"] for r in two]


def test_damage_is_told_once(library: Path, tmp_path: Path) -> None:
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    path = copy / "towns" / "tagger.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    where = ["--library", str(copy)]
    assert "truncated or was altered" in refused("predict", "Ann", "--domain", "towns", *where)
    assert run("domains", "verify", *where).exit_code == 1
    assert "towns is damaged" in run("domains", "list", *where).stdout
    assert run("domains", "remove", "towns", "--yes", *where).exit_code == 0


def test_mistakes_give_one_error_with_the_next_step(library: Path, files: Path, encoder: Path, tmp_path: Path) -> None:
    where, new = ["--library", str(library)], train("x", files, tmp_path, "--backbone", str(encoder))
    assert "--strategy is an option of --recognizer cp-ner" in refused(*new, "--strategy", "single")
    assert "--dtype is an option of --recognizer cp-ner" in refused(*new, "--dtype", "bfloat16")
    assert "goes on from one domain" in refused(*new, "--from", "a,b")
    assert "nothing is called 'warm-up'" in refused(*new, "--without", "warm-up")
    plain = ["train", "x", "--train", str(files / "train.txt"), *where]
    assert "--source is an option of --recognizer laner" in refused(*plain, "--source", str(files / "news.txt"))
    assert "was trained with --recognizer laner: it has no prefix" in refused(*plain, "--from", "towns")
    other = save_letter_encoder(tmp_path / "other", seed=1)
    message = refused(*train("x", files, library, "--from", "news", "--backbone", str(other)))
    assert f"Leave --backbone out, or train news again with --backbone {other}." in message.replace("- ", "-")
    message = refused(*train("x", files, library, "--from", "news", "--set", "head=crf"))
    assert "--set tagger.head=laner --set tagger.history=bidirectional" in message
    causal = str(save_tiny_backbone(tmp_path / "causal"))
    assert "with --backbone" in refused(*train("x", files, library, "--backbone", causal))
    assert "is no LANER domain" in refused(*train("x", files, library, "--from", "prefixed"))
    mixed = refused("predict", "a", "b", "-d", "towns", "-d", "prefixed", *where)
    assert "one call reads domains of one recognizer" in mixed
    assert "brings its own encoder" in refused("predict", "a", "-d", "towns", "--backbone", str(encoder), *where)
    assert "it has no prefix" in refused("select", "towns", "--from", "prefixed", *where)


def test_settings_that_do_nothing_are_refused(files: Path, encoder: Path, tmp_path: Path) -> None:
    new = train("x", files, tmp_path, "--backbone", str(encoder), *QUICK)
    asked = ["likelihood=vocabulary", "replace_mentions=0.9", "drop_options=0.5", "max_pieces=64", "anchor=3"]
    asked += ["shuffle_options=false", "prefix_dropout=0.1", "backbone_dropout=true", "resident_mb=9"]
    message = refused(*new, *(part for setting in asked for part in ("--set", setting)))
    for setting in asked:
        group = "decoding" if setting.startswith("resident") else "training"
        assert f"LANER makes no use of {group}.{setting.partition('=')[0]}" in message
    assert "did you mean 'training.epochs'" in refused(*new, "--set", "epoch=3")
    listed = refused(*new, "--set", "zzz=3").partition("Groups and keys: ")[2]
    assert "training: epochs, batch_size, accumulation, learning_rate, weight_decay, clip, warmup, patience," in listed
    assert "decoding: batch_size, window, overlap." in " ".join(listed.split())
    assert not any(setting.partition("=")[0] in listed for setting in asked)
    told = run(*new, "--set", "source_epochs=3", "--json")
    assert "there is no --source: tagger.source_epochs has no effect" in json.loads(told.stdout)["warnings"]


def test_a_stored_domain_that_was_trained_with_such_a_setting_is_read(library: Path, tmp_path: Path) -> None:
    """Earlier versions took them."""
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    path = copy / "towns" / "settings.toml"
    text = path.read_text()
    assert "anchor = 0.0\n" in text
    path.write_text(text.replace("anchor = 0.0\n", "anchor = 3.0\n"))
    result = run("predict", "Ann", "--domain", "towns", "--library", str(copy))
    assert result.exit_code == 0, result.stderr


def test_a_beam_is_chosen_in_reading(
    library: Path, files: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    own = decoding.decode

    def noted(network: TaggerNetwork, items: Any, *, beam: int | None = None) -> Any:
        asked.append(beam or network.settings.beam)
        return own(network, items, beam=beam)

    monkeypatch.setattr(decoding, "decode", noted)
    where = ["--domain", "towns", "--library", str(library)]
    data = ["--data", str(files / "dev.txt")]
    for command, beams in ((["predict", "Ann in Rome"], [1, 3]), (["evaluate", *data], [1, 3])):
        for more, beam in zip(([], ["--beam", "3"]), beams, strict=True):
            assert run(*command, *where, *more).exit_code == 0
            assert set(asked) == {beam}
            asked.clear()
    assert "tagger.beam must be from 1 to 256, not 0" in refused("predict", "Ann", *where, "--beam", "0")
    prefixed = ["--domain", "prefixed", "--library", str(library), "--beam", "2"]
    assert "--beam is for LANER domains, and 'prefixed' is a CP-NER domain" in refused("predict", "Ann", *prefixed)
    assert "--beam is for LANER domains" in refused("evaluate", *data, *prefixed)
    assert run(*train("x", files, tmp_path, "--backbone", str(encoder), "--set", "head=crf", *QUICK)).exit_code == 0
    plain = ["--domain", "x", "--library", str(tmp_path), "--beam", "2"]
    assert "--beam has no use for 'x': its head (crf)" in refused("predict", "Ann", *plain)


def test_an_empty_text_is_told(library: Path) -> None:
    for name in ("towns", "prefixed"):
        result = run("predict", "", "Ann", " ", "--domain", name, "--library", str(library))
        assert result.exit_code == 0, result.stderr
        assert "note: 2 text(s) are empty: there is nothing to read" in result.stderr
    assert "empty" not in run("predict", "Ann", "--domain", "towns", "--library", str(library)).stderr


def test_a_domain_that_is_trained_cannot_be_resumed(library: Path, files: Path, tmp_path: Path) -> None:
    message = refused(*train("towns", files, library, *QUICK, "--resume"))
    assert "domain 'towns' of" in message
    assert "is trained already, and no run of it was interrupted" in message
    assert 'xdner predict --domain towns "your text"' in message
    prefixed = ["train", "prefixed", "--train", str(files / "train.txt"), "--library", str(library), "--resume"]
    assert "domain 'prefixed' of" in refused(*prefixed), "and no backbone is loaded for it"
    # Another one that never began has no checkpoint.
    encoder = save_letter_encoder(tmp_path / "encoder")
    assert "there is no checkpoint in" in refused(*train("x", files, library, "--backbone", str(encoder), "--resume"))


def test_ablations_by_name(files: Path, encoder: Path, tmp_path: Path) -> None:
    options = ["--without", "label-context", "--backbone", str(encoder), *QUICK, "--json"]
    made = json.loads(run(*train("x", files, tmp_path, *options)).stdout)
    tagger = made["settings"]["tagger"]
    assert (tagger["label_background"], tagger["label_context"]) == (True, False)
    told = run(*train("y", files, tmp_path, *options[:-1], "--set", "head=crf")).stderr
    assert "head=crf makes no use of tagger.label_context, tagger.label_size" in " ".join(told.split())


def test_a_library_of_taggers_can_still_get_its_initial_prefix(files: Path, encoder: Path, tmp_path: Path) -> None:
    where = tmp_path / "library"
    assert run(*train("x", files, where, "--backbone", str(encoder), *QUICK)).exit_code == 0
    assert not (where / "library.json").exists()  # a tagger says nothing about the library's backbone
    backbone = save_tiny_backbone(tmp_path / "backbone")
    result = run(
        "domains", "initial", "--source", str(files / "news.txt"), "--backbone", str(backbone), "--library", str(where),
        "--set", "epochs=1", "--set", "length=2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert run("domains", "verify", "--library", str(where)).exit_code == 0


# -- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [("person", "town"), ("city", "person", "river"), ("person",)], ids=str)
def test_a_label_set_that_changed_since_it_was_saved(
    library: Path, files: Path, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    """Renamed, added, removed: by hand, in the domain's file."""
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    where, path = ["--library", str(copy)], copy / "towns" / "domain.toml"
    assert Domain.read(path).label_names == ("city", "person")
    path.write_text(Domain("towns", [Label(name) for name in labels]).to_toml())
    for command in (
        ["predict", "Ann", "--domain", "towns", *where],
        ["evaluate", "--data", str(files / "dev.txt"), "--domain", "towns", *where],
        train("new", files, copy, "--from", "towns"),
        ["domains", "export", "towns", "--out", str(tmp_path / "towns.xdner"), *where],
    ):
        message = refused(*command)
        assert f"has the labels {', '.join(labels)}, but its tagger was trained for city, person" in message
        assert "Put the old labels back into domain.toml, or train again with the new ones." in message
    assert run("domains", "verify", *where).exit_code == 1
    assert run("predict", "Ann", "--domain", "later", *where).exit_code == 0, "the others are as they were"


def test_encoders_whose_tokenizer_does_not_fit(files: Path, encoder: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    shutil.copytree(encoder, slow)
    for path in slow.glob("token*"):
        path.unlink()
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    message = refused(*train("x", files, tmp_path / "library", "--backbone", str(slow)))
    assert "the tokenizer of slow (CanineTokenizer) is not a fast one" in message
    assert "The tagger needs a tokenizer.json" in message
    bare = tmp_path / "bare"
    shutil.copytree(encoder, bare)
    told = json.loads((bare / "tokenizer_config.json").read_text())
    for key in ("cls_token", "sep_token"):
        told.pop(key)
    (bare / "tokenizer_config.json").write_text(json.dumps(told | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    message = refused(*train("x", files, tmp_path / "library", "--backbone", str(bare)))
    assert "the tokenizer of bare has no cls_token_id, sep_token_id" in message
    assert not (tmp_path / "library" / "x").exists()


@pytest.mark.parametrize("head", ["laner", "plain", "crf"])
def test_sentences_longer_than_the_encoders_positions(files: Path, tmp_path: Path, head: str) -> None:
    """In training, in dev, in reading: nothing is dropped, whatever the window asks for."""
    small = save_letter_encoder(tmp_path / "small", positions=16)
    words = ["Ann\tB-person", "in\tO", "Rome\tB-city"] * 20
    (tmp_path / "long.txt").write_text("\n".join(words) + "\n\nno\tO\n")
    where, long = tmp_path / "library", str(tmp_path / "long.txt")
    options = ["--dev", long, "--backbone", str(small), "--set", f"head={head}", "--set", "window=500", *QUICK]
    assert run("train", "x", "--recognizer", "laner", "--train", long, "--library", str(where), *options).exit_code == 0
    report = json.loads(run("evaluate", "--data", long, "--domain", "x", "--library", str(where), "--json").stdout)
    assert report["micro"]["gold"] == 40
    text = "Ann in Rome " * 60 + "Pneumonoultramicroscopicsilicovolcanoconiosis"
    (read,) = json.loads(run("predict", text, "--domain", "x", "--library", str(where), "--json").stdout)
    assert read["windows"] > 40
    assert read["diagnostics"] == {"capped_words": 1}, "a word that fills more than a window is cut, and that is told"
    assert all(read["text"][e["start"] : e["end"]] == e["text"] for e in read["entities"])
