"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.errors import StorageError
from xdner.files import check_replaceable, holds, replace_folder, storage_errors, write_atomically


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", "ä\r\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ä\r\n".encode()
    write_atomically(tmp_path / "new" / "a.txt", b"\0\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\0\xff"
    assert os.listdir(tmp_path / "new") == ["a.txt"]


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("files") / "text"
    write_atomically(path, text)
    assert path.read_bytes().decode() == text


@pytest.mark.usefixtures("usual_umask")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    write_atomically(tmp_path / "file", "x")
    with replace_folder(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        write_atomically(path, "new")
    assert str(path) in str(caught.value)
    assert "nothing half-written" in caught.value.hint
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_text_without_a_utf8_form_is_refused(tmp_path):
    with pytest.raises(StorageError, match="character 1 of the text is half a surrogate pair"):
        write_atomically(tmp_path / "a", "x\ud800")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_impossible_names_are_refused(tmp_path, name):
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / name, "x")
    with pytest.raises(StorageError, match="cannot write"), replace_folder(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 250, "ж" * 125])
def test_the_longest_names_work(tmp_path, name):
    write_atomically(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_in_the_way_is_kept(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "a", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", "x")
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]


def test_links_are_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_what_is_no_ordinary_file_is_written_to(tmp_path):
    write_atomically(os.devnull, "x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "new" / "folder"
    for content in ("one", "two"):
        with replace_folder(path, holds("one")) as fresh:
            (fresh / content).write_text(content)
        assert os.listdir(path) == [content]
    assert os.listdir(path.parent) == ["folder"]


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    (tmp_path / "a").mkdir()
    with replace_folder(tmp_path / "a") as fresh:
        (fresh / "b").write_text("y")
    assert (tmp_path / "a" / "b").read_text() == "y"
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "manifest.json").mkdir(parents=True)  # a folder of that name is no manifest
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    for name, reason in (("file", "it is a file"), ("folder", "the folder holds something else, which would be lost")):
        for ours in (None, holds("manifest.json")):
            with pytest.raises(StorageError, match=reason) as caught:
                check_replaceable(tmp_path / name, ours)
            assert str(tmp_path / name) in str(caught.value)
            with pytest.raises(StorageError, match=reason), replace_folder(tmp_path / name, ours):
                pytest.fail("nothing may be made for a place that cannot be taken")
    assert (tmp_path / "file").read_text() == "x"
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_what_came_meanwhile_is_kept(tmp_path):
    with pytest.raises(StorageError, match="holds something else"), replace_folder(tmp_path / "a") as fresh:  # noqa: PT012
        (fresh / "b").write_text("ours")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").write_text("x")
    assert os.listdir(tmp_path / "a") == ["theirs"]
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_folder(tmp_path, error):
    with replace_folder(tmp_path / "a") as fresh:
        (fresh / "old").write_text("")
    with pytest.raises(type(error)), replace_folder(tmp_path / "a", holds("old")) as fresh:  # noqa: PT012 - the block fails
        (fresh / "new").write_text("")
        raise error
    assert os.listdir(tmp_path / "a") == ["old"]
    assert os.listdir(tmp_path) == ["a"]


def test_the_old_folder_comes_back_if_the_swap_fails(tmp_path, monkeypatch):
    with replace_folder(tmp_path / "a") as fresh:
        (fresh / "old").write_text("")
    replace, calls = os.replace, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(StorageError, match="Input/output error"), replace_folder(tmp_path / "a", holds("old")) as fresh:
        (fresh / "new").write_text("")
    assert os.listdir(tmp_path / "a") == ["old"]
    assert os.listdir(tmp_path) == ["a"]


def test_only_the_systems_errors_are_turned():
    with pytest.raises(StorageError, match="cannot write x: full"), storage_errors("x"):
        raise OSError(28, "full")
    with pytest.raises(ValueError, match="mine"), storage_errors("x"):
        raise ValueError("mine")


def test_the_only_copy_is_never_deleted(tmp_path, monkeypatch):
    """The second move fails, and so does the move back: the old folder stays under its other name."""
    target = tmp_path / "folder"
    with replace_folder(target) as fresh:
        (fresh / "a").write_text("old")
    real, moves = os.replace, []

    def replace(a, b):
        moves.append(b)
        if len(moves) > 1:
            raise OSError(5, "Input/output error")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((StorageError, OSError)), replace_folder(target, holds("a")) as fresh:
        (fresh / "a").write_text("new")
    kept = list(tmp_path.glob(".folder.*.old"))
    assert [p.joinpath("a").read_text() for p in kept] == ["old"]
