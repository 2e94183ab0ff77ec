"""``xdner serve`` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from xdner.cli.serve import LOOPBACK
from xdner.testing.commands import refused, run
from xdner.testing.places import training


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, backbone: str, places: Path) -> Path:
    """With one domain, ``towns``."""
    folder = tmp_path_factory.mktemp("served") / "library"
    assert run(*training("towns", folder, backbone, places)).exit_code == 0
    return folder


def test_a_server_starts_answers_and_stops_on_ctrl_c(library: Path) -> None:
    command = [sys.executable, "-m", "xdner", "serve", "--library", str(library), "--port", "0", "--domain", "towns"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, line
            answer = httpx2.post(f"{found[0]}/predict", json={"texts": ["Ann in Rome"], "domain": "towns"}, timeout=60)
            assert answer.status_code == 200
            assert answer.json()["results"][0]["text"] == "Ann in Rome"
            assert "<title>xdner</title>" in httpx2.get(found[0]).text
        finally:
            server.send_signal(signal.SIGINT)
        rest = server.stderr.read()
        assert server.wait(30) == 0
    assert rest == ""


def test_what_keeps_a_server_from_starting(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        told = refused("serve", "--library", str(library), "--port", str(taken.getsockname()[1]))
        assert "cannot listen at 127.0.0.1, port" in told
        assert "--port (0 takes a free one)" in told
    nowhere = ("serve", "--library", str(library), "--port", "0", "--domain", "towns", "--backbone")
    assert "nowhere" in refused(*nowhere, str(tmp_path / "nowhere"))
    assert "there is no domain 'rivers' here" in refused(
        "serve", "--library", str(library), "--port", "0", "-d", "rivers"
    )
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told = refused("serve", "--library", str(library))
    assert "serving needs uvicorn" in told
    assert "[serve]" in told


def test_the_servers_own_names() -> None:
    assert {socket.getaddrinfo(name, 80)[0][4][0] for name in LOOPBACK} <= {"127.0.0.1", "::1"}
