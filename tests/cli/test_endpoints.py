"""Commands that talk to endpoints: which one is asked, with whose key, and what comes out when it fails in the middle."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from xdner.testing.commands import run
from xdner.testing.endpoints import Endpoint, Said, answering, serving

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


def test_what_was_read_before_a_server_failed_is_scored(tmp_path: Path) -> None:
    """Nine of ten answers are paid for; the tenth ends the run."""
    gold = "".join(f"Ann{i}\tB-person\nin\tO\nRome\tB-{'city' if i < 8 else 'sea'}\n\n" for i in range(10))
    (tmp_path / "ten.txt").write_text(gold)
    where = ["-d", "a", "--library", str(tmp_path / "library"), "--data", str(tmp_path / "ten.txt")]

    def reply(number: int, body: dict[str, Any]) -> Said:
        return answering('{"city": ["Rome"]}') if number % 10 < 9 else Said({"error": "out of money"}, 402)

    with serving(reply) as endpoint:
        make(tmp_path, "a", endpoint, "llm.concurrency=1")
        scored = run("evaluate", *where, "--json")
        assert scored.exit_code == 1
        report = json.loads(scored.stdout)
        assert (report["sentences"], report["micro"]["gold"], report["micro"]["true_positives"]) == (9, 18, 8)
        assert report["notes"] == {
            "sentences_not_read": 1,
            "gold_entities_of_types_that_the_domain_does_not_have": 1,
        }
        assert "402: out of money" in report["error"]
        shown = run("evaluate", *where)
        told = " ".join(shown.stderr.split())
        assert shown.exit_code == 1
        assert "sentences not read: 1" in told
        assert "these scores are of the 9 sentences that were read before the endpoint failed" in told
        assert "402: out of money" in told
        assert "59.26" in shown.stdout  # F1: 8 of 9 and of 18
    with serving(lambda n, b: Said({"error": "out of money"}, 402)) as endpoint:
        make(tmp_path, "a", endpoint)
        nothing = run("evaluate", *where)
    assert (nothing.exit_code, nothing.stdout) == (1, "")


def test_what_was_read_before_an_interruption_is_given_out(tmp_path: Path) -> None:
    (tmp_path / "four.txt").write_text("Ann\tB-person\nleft\tO\n\n" * 4)
    where, over = ["-d", "a", "--library", str(tmp_path / "library")], threading.Event()

    def reply(number: int, body: dict[str, Any]) -> Said:
        if number % 3 < 2:
            return answering('{"person": ["Ann"]}')
        os.kill(os.getpid(), signal.SIGINT)
        return Said({}, until=over)  # there is no answer that the interruption could come after

    with serving(reply) as endpoint:
        make(tmp_path, "a", endpoint, "llm.concurrency=1")
        shown = run("predict", "Ann left", "Ann came", "Ann sat", "Ann", *where)
        assert shown.exit_code == 130
        assert [line.split()[-1] for line in shown.stdout.splitlines()] == ["left", "came"]
        told = " ".join(shown.stderr.split())
        assert "2 of 4 texts were not read, the first of them is number 3" in told
        assert told.endswith("interrupted")
        scored = run("evaluate", "--data", str(tmp_path / "four.txt"), *where)
        assert scored.exit_code == 130
        assert "of the 2 sentences that were read before the interruption" in " ".join(scored.stderr.split())
    with serving(lambda n, b: reply(2, b)) as endpoint:
        make(tmp_path, "a", endpoint)
        nothing = run("predict", "Ann left", *where)
    over.set()
    assert (nothing.exit_code, nothing.stdout) == (130, "")


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
