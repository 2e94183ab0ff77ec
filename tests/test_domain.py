"""Domains: names, labels, verbalizations, and the files they are kept in."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.domain import DEFAULT_INSTRUCTION, Domain, Label, verbalize
from xdner.errors import DomainError
from xdner.text import Sentence

BOUNDED = settings(max_examples=100, deadline=None)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("person", "person"),
        ("PER", "person"),
        ("programlang", "programming language"),
        ("ProgrammingLanguage", "programming language"),
        ("Restaurant_Name", "restaurant name"),
        ("work-of.art", "work of art"),
        ("HTTPServer", "http server"),
        ("Film2Title", "film2 title"),
        ("organisation", "organization"),
        ("___", "___"),
    ],
)
def test_verbalize(name, words):
    assert verbalize(name) == words


@BOUNDED
@given(NAMES)
def test_every_visible_name_can_be_a_label(name):
    label = Label(name)
    assert label.verbalization.strip()
    assert label.verbalization.isprintable()


@BOUNDED
@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())), st.text())
def test_a_label_is_made_or_refused_with_a_domain_error(name, words, description):
    with contextlib.suppress(DomainError):
        label = Label(name, words, description)
        assert not any(c.isspace() for c in label.name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("",), "a label's name is empty"),
        (("work of art",), "holds white space"),
        (("a\0",), "control character"),
        (("a\ud800",), "control character"),
        (("a", " "), "the verbalization ' ' of label 'a' is empty"),
        (("a", "two\nlines"), "control characters"),
        (("a", "b", "\ud800"), "half a surrogate pair"),
    ],
)
def test_unusable_labels_are_refused(arguments, says):
    with pytest.raises(DomainError, match=says):
        Label(*arguments)


def test_letters_may_be_joined_or_not_and_spaces_of_all_widths_are_spaces():
    assert Label("org", "سازمان\u200cها").verbalization == "سازمان\u200cها"
    assert Label("chef", "chef\u00a0d'État").verbalization == "chef d'État"


def test_all_problems_of_a_domain_are_told_at_once():
    with pytest.raises(DomainError) as caught:
        Domain("two words", (Label("a"), Label("a"), Label("b", "A")), instruction=" ")
    assert caught.value.message == (
        "domain 'two words': the domain's name 'two words' is not one word of letters, digits, '.', '_' and '-'; "
        "the instruction is empty; label 'a' is given twice; labels 'a' and 'b' both read 'A'"
    )
    assert "verbalizations=" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\n", "-x", "ä b"])
def test_unusable_names_are_refused(name):
    with pytest.raises(DomainError, match="is not one word"):
        Domain.from_labels(name, ["a"])


@pytest.mark.parametrize(("name", "count"), [("x", 100), ("漢", 66)])
def test_names_are_as_long_as_file_systems_have_room_for(name, count):
    assert Domain.from_labels(name * count, ["a"]).name == name * count
    with pytest.raises(DomainError, match="is too long: over 100 characters, or 200 bytes"):
        Domain.from_labels(name * (count + 1), ["a"])


def test_no_labels_and_odd_instructions_are_refused():
    with pytest.raises(DomainError, match="the label set is empty"):
        Domain.from_labels("a", [])
    with pytest.raises(DomainError, match="half a surrogate pair"):
        Domain.from_labels("a", ["b"], instruction="\udfff")
    with pytest.raises(DomainError, match=r"not the text 'person'") as caught:
        Domain.from_labels("a", "person")
    assert caught.value.hint == "Pass ['person'] for a single label."
    with pytest.raises(DomainError, match="verbalizations for unknown labels: c"):
        Domain.from_labels("a", ["b"], verbalizations={"c": "d"})


def test_a_domain_knows_its_labels():
    domain = Domain.from_labels("music", ["band", "musicgenre"], verbalizations={"band": "group"})
    assert domain.options == ("group", "music genre")
    assert domain.label_names == ("band", "musicgenre")
    assert domain["band"] == Label("band", "group")
    assert "band" in domain
    assert "song" not in domain
    assert domain.with_labels(["musicgenre"]).options == ("music genre",)
    with pytest.raises(DomainError, match="has no label 'song'") as caught:
        domain["song"]
    assert caught.value.hint == "Its labels are: band, musicgenre."
    assert hash(domain) == hash(Domain.from_dict(domain.to_dict()))


def test_from_corpus_takes_the_labels_in_alphabetical_order():
    sentences = [Sentence.from_words(["a", "b"], [(1, 2, "song")]), Sentence.from_words(["c"], [(0, 1, "band")])]
    assert Domain.from_corpus("music", sentences).label_names == ("band", "song")


@BOUNDED
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    st.text(min_size=1).filter(str.strip),
    st.text(),
)
def test_domains_survive_their_files(tmp_path_factory, name, names, instruction, description):
    labels = tuple(Label(n, f"type {i}", description) for i, n in enumerate(names))
    domain = Domain(name, labels, instruction)
    folder = tmp_path_factory.mktemp("domains")
    Path(folder / "d.toml").write_bytes(domain.to_toml().encode())
    Path(folder / "d.json").write_bytes(domain.to_json().encode())
    assert Domain.read(folder / "d.json") == domain
    assert Domain.read(folder / "d.toml") == domain


def test_a_file_that_a_person_wrote(tmp_path):
    path = tmp_path / "d.toml"
    path.write_bytes(
        b'\xef\xbb\xbfname = "kitchen"\r\nlabels = ["tool", {name = "bakedgood", verbalization = "cake"}]\r\n'
    )
    assert Domain.read(path) == Domain("kitchen", (Label("tool"), Label("bakedgood", "cake")), DEFAULT_INSTRUCTION)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "a domain is a table, not list"),
        ({"name": "a", "labels": [], "lables": 1, 2: 3}, "unknown keys in the domain: 2, lables"),
        ({"labels": ["a"]}, "needs a 'name'"),
        ({"name": 1, "labels": ["a"]}, "needs a 'name'"),
        ({"name": "a", "labels": "a"}, "'labels' \\(a list\\)"),
        ({"name": "a", "labels": [1]}, "this is not a label: 1"),
        ({"name": "a", "labels": [{"verbalization": "x"}]}, "this is not a label"),
        ({"name": "a", "labels": [{"name": "x", "color": "y"}]}, "this is not a label"),
        ({"name": "a", "labels": [{"name": 1}]}, "a label's entries are text"),
        ({"name": "a", "labels": ["x"], "instruction": 1}, "the instruction must be text"),
    ],
)
def test_what_is_no_domain_is_refused(data, says):
    with pytest.raises(DomainError, match=says) as caught:
        Domain.from_dict(data)
    assert caught.value.hint.startswith("A domain has 'name'")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", b"name = "),
        ("a.toml", b"\xff"),
        ("a.toml", b"a = 1" + b"0" * 5000),
        ("a.toml", b"a = " + b"[" * 5000),
        ("a.json", b"{"),
        ("a.json", b"[" * 100_000),
        ("a.json", b"1" * 5000),
        ("a.json", json.dumps({"name": "a"}).encode()),
    ],
)
def test_unreadable_files_are_domain_errors_that_name_the_path(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DomainError) as caught:
        Domain.read(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.hint


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DomainError, match="there is no file"):
        Domain.read(tmp_path / "none.toml")
    with pytest.raises(DomainError, match="Is a directory"):
        Domain.read(tmp_path)
