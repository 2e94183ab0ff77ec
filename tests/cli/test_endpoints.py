"""Commands that talk to endpoints: which one is asked, with whose key, and what comes out when it fails in the middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xdner.testing.commands import run
from xdner.testing.endpoints import Endpoint, answering, serving

EXAMPLES = "Ann\tB-person\nin\tO\nRome\tB-city\n\nBob\tB-person\nsaw\tO\nOslo\tB-city\n"


def make(folder: Path, name: str, endpoint: Endpoint, *overrides: str) -> None:
    """A domain behind an endpoint."""
    (folder / "examples.txt").write_text(EXAMPLES)
    own = ["--llm", endpoint.url, "--model", "big", "--examples", str(folder / "examples.txt")]
    options = [part for o in ("retrieval.method=none", *overrides) for part in ("--set", o)]
    made = run("train", name, "--recognizer", "if-wraner", "--library", str(folder / "library"), *own, *options)
    assert made.exit_code == 0, made.stderr


def predicted(folder: Path, *more: str) -> Any:
    """Two texts, one in each of two domains."""
    return run(
        "predict", "-d", "a", "-d", "b", "Eve at sea", "Eve at home", "--library", str(folder / "library"), *more
    )


def test_no_text_goes_to_another_domains_endpoint(tmp_path: Path) -> None:
    with (
        serving(lambda n, b: answering("{}")) as one,
        serving(lambda n, b: answering("{}")) as two,
    ):
        make(tmp_path, "a", one)
        make(tmp_path, "b", two)
        read = predicted(tmp_path)
        assert read.exit_code == 1
        told = " ".join(read.stderr.split())
        assert f"domain 'a' asks {one.url}, and 'b' {two.url}: one call reads domains of one endpoint" in told
        assert "Call once for each" in told
        assert one.requests == two.requests == []
        # Who names the address has said where both may go.
        assert predicted(tmp_path, "--backbone", two.url).exit_code == 0
        assert (len(one.requests), len(two.requests)) == (0, 2)


def test_no_text_goes_with_another_domains_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_A", "sk-of-a")
    monkeypatch.setenv("KEY_B", "sk-of-b")
    with serving(lambda n, b: answering("{}")) as endpoint:
        make(tmp_path, "a", endpoint, "llm.key_variable=KEY_A")
        make(tmp_path, "b", endpoint, "llm.key_variable=KEY_B")
        for more in ((), ("--backbone", endpoint.url)):
            read = predicted(tmp_path, *more)
            assert read.exit_code == 1
            told = " ".join(read.stderr.split())
            assert "talk to their endpoint in different ways: llm.key_variable (KEY_A and KEY_B)" in told
        assert endpoint.requests == []
        make(tmp_path, "b", endpoint, "llm.key_variable=KEY_A", "llm.answer_tokens=77")
        assert predicted(tmp_path).exit_code == 0
    assert sorted(r["max_tokens"] for r in endpoint.requests) == [77, 512]
    assert {r["headers"]["Authorization"] for r in endpoint.requests} == {"Bearer sk-of-a"}


def test_an_imported_domain_is_confirmed_whatever_stands_before_it(tmp_path: Path) -> None:
    library, file = ["--library", str(tmp_path / "library")], str(tmp_path / "b.xdner")
    with serving(lambda n, b: answering("{}")) as endpoint:
        make(tmp_path, "a", endpoint)
        make(tmp_path, "b", endpoint)
        assert run("domains", "export", "b", "--out", file, *library).exit_code == 0
        assert run("domains", "import", file, "--replace", *library).exit_code == 0
        told = " ".join(predicted(tmp_path).stderr.split())
        assert f"domain 'b' was imported, and sends texts to {endpoint.url}" in told
        assert endpoint.requests == []
        assert json.loads(predicted(tmp_path, "--backbone", endpoint.url, "--json").stdout)
