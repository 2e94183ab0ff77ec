"""``xdner serve`` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from xdner.cli.serve import LOOPBACK, _make_ready
from xdner.errors import LibraryError
from xdner.library import bundled
from xdner.serving.desk import Desk
from xdner.testing.commands import refused, run
from xdner.testing.places import training


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, backbone: str, places: Path) -> Path:
    """With one domain, ``towns``."""
    folder = tmp_path_factory.mktemp("served") / "library"
    assert run(*training("towns", folder, backbone, places)).exit_code == 0
    return folder


@contextlib.contextmanager
def started(library: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and its address."""
    command = [sys.executable, "-m", "xdner", "serve", "--library", str(library), "--port", "0", "-d", "towns", *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.search(r"http://\S+:\d+", line)
            assert found, line
            yield server, found[0]
        finally:
            if server.poll() is None:
                server.kill()


def test_a_server_starts_answers_and_stops_on_ctrl_c(library: Path) -> None:
    with started(library) as (server, url):
        answer = httpx2.post(f"{url}/predict", json={"texts": ["Ann in Rome"], "domain": "towns"}, timeout=60)
        assert answer.status_code == 200
        assert answer.json()["results"][0]["text"] == "Ann in Rome"
        assert "<title>xdner</title>" in httpx2.get(url).text
        assert httpx2.get(url, headers={"Host": "elsewhere.example"}).status_code == 400
        server.send_signal(signal.SIGINT)
        assert server.stderr is not None
        assert server.stderr.read() == ""
        assert server.wait(30) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_stopped_in_the_middle_tells_its_callers_and_ends(library: Path, how: int) -> None:
    body = {"texts": ["Ann went to Rome and then to Oslo " * 60] * 300, "domain": "towns"}
    with started(library, "--batch", "300") as (server, url), ThreadPoolExecutor() as threads:
        caller = threads.submit(httpx2.post, f"{url}/predict", json=body, timeout=60)
        waiting = threads.submit(httpx2.post, f"{url}/predict", json=body, timeout=60)
        deadline = time.monotonic() + 30
        while (now := httpx2.get(f"{url}/health").json())["reading"] == 0 or now["waiting"] != 300:
            assert time.monotonic() < deadline
            assert not caller.done()
        server.send_signal(how)
        for answer in (caller.result(60), waiting.result(60)):
            assert answer.status_code == 503
            assert answer.json()["error"] == "the text was not read: the server is stopping"
        assert server.stderr is not None
        assert server.stderr.read() == ""
        assert server.wait(30) == 0


def test_a_server_may_have_an_address_of_the_newer_kind(library: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with started(library, "--host", "::1") as (_, url):
        assert url.startswith("http://[::1]:")
        assert httpx2.get(f"{url}/health").json()["status"] == "ok"


def test_what_keeps_a_server_from_starting(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        told = refused("serve", "--library", str(library), "--port", str(taken.getsockname()[1]))
        assert "cannot listen at 127.0.0.1, port" in told
        assert "--port (0 takes a free one)" in told
    assert "cannot listen at a..b, port 8000" in refused("serve", "--library", str(library), "--host", "a..b")
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


def test_a_damaged_domain_keeps_no_server_from_starting(
    library: Path, tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundled, "DATA", tmp_path / "nothing-ships")
    other = Path(shutil.copytree(library, tmp_path / "library"))
    shutil.copytree(other / "towns", other / "aaa")
    toml = other / "aaa" / "domain.toml"
    toml.write_text(toml.read_text().replace('"towns"', '"aaa"'))
    (other / "aaa" / "prefix.safetensors").write_bytes(b"damaged")
    desk = Desk(other)
    _make_ready(desk, None)
    assert "domain 'aaa' cannot be read" in capsys.readouterr().err
    assert list(desk._shared)
    with pytest.raises(LibraryError):
        _make_ready(desk, ["aaa"])
    desk.close()
