from __future__ import annotations

from pathlib import Path

import pytest

from xdner.codec.words import WordEncoder
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer

T5 = Path(__file__).resolve().parents[3] / "shared" / "t5-tokenizer"


@pytest.fixture(scope="session", params=["byte-level", "t5-like", "t5"])
def encoder(request: pytest.FixtureRequest) -> WordEncoder:
    if request.param == "t5":
        if not T5.exists():
            pytest.skip("the real T5 tokenizer is not here")
        from transformers import AutoTokenizer

        return WordEncoder(AutoTokenizer.from_pretrained(T5))
    return WordEncoder(byte_level_tokenizer() if request.param == "byte-level" else t5_like_tokenizer())
