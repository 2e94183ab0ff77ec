from __future__ import annotations

import logging

import pytest

from xdner.testing.chats import KEY


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A key in the environment, no proxies, and everything logged."""
    monkeypatch.setenv("XDNER_LLM_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    caplog.set_level(logging.DEBUG)
