"""Predictions of the reader, sentence by sentence, against plain greedy decoding restricted to legal tokens.

The plain way shares nothing with the engine but the model: no session, no kept context, no batch; instruction, options and
sentence are read again for every single token.
"""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.store import PrefixRows
from xdner.backbone.t5 import T5Backbone
from xdner.codec.instructor import Instructor
from xdner.codec.target import TargetCodec
from xdner.domain import Domain
from xdner.recognizers.reader import Reader
from xdner.settings import CodecSettings, DecodingSettings
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence

#: Where the two best tokens are nearer to each other, rounding decides between them.
MARGIN = 1e-4
DOMAINS = [
    Domain.from_labels("people", ["person", "place"]),
    Domain.from_labels("music", ["genre", "band", "bandleader"]),
    Domain.from_labels("one", ["thing"]),
]
# Few words, so that mentions have several places to stand at; some share their first letters.
WORDS = ("the", "in", "inner", "tern", "tones", "a", "ten", "x")


def backbone_of(kind: str) -> Backbone:
    if kind == "t5":
        return T5Backbone(tiny_t5("t5"), t5_like_tokenizer())
    return CausalBackbone(tiny_causal(kind), byte_level_tokenizer())


def prefix_of(backbone: Backbone, number: int) -> tuple[list[Tensor], list[Tensor]]:
    """Each domain's has another length."""
    generator = torch.Generator().manual_seed(number)
    shapes = [(s.heads, 1 + 2 * number, s.head_dim) for s in backbone.sites]
    keys, values = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))
    return keys, values


def plain(
    backbone: Backbone, sentence: Sentence, domain: int, codec: CodecSettings, reader: Reader
) -> tuple[list[tuple[int, int, str]], float]:
    """Entities, and the smallest margin between the two best tokens."""
    target = TargetCodec(reader.encoder, DOMAINS[domain], codec)
    words = reader.encoder.words(sentence)
    instructor = Instructor(reader.encoder, codec)
    prompt = [*instructor.context(DOMAINS[domain]), *instructor.source(words)]
    rows = PrefixRows.stack([prefix_of(backbone, domain)], [0])
    state, ids, margin = target.grammar.start(words), [], float("inf")
    while not state.done:
        legal = list(state.legal())
        with torch.inference_mode():
            states = backbone.target_states([prompt], [[*ids, 0]], rows)
            scores = backbone.logits(states[-1:], legal)[0]
        if len(legal) > 1:
            first, second = scores.topk(2).values.tolist()
            margin = min(margin, first - second)
        ids.append(legal[int(scores.argmax())])
        state.advance(ids[-1])
    return [(e.start, e.end, e.label) for e in target.decode(ids, sentence, words=words)], margin


@pytest.mark.parametrize("kind", ["llama", "gemma3", "t5"])
@pytest.mark.parametrize("order", ["mention-first", "type-first"])
def test_predictions_equal_plain_greedy_decoding(kind: str, order: str) -> None:
    backbone = backbone_of(kind)
    codec = CodecSettings(order=order, repeats=1 if kind == "t5" else 2)  # type: ignore[arg-type]
    rng = random.Random(7)
    sentences = [Sentence.from_text(" ".join(rng.choices(WORDS, k=rng.randint(1, 9)))) for _ in range(18)]
    domains = [rng.randrange(len(DOMAINS)) for _ in sentences]
    reader = Reader(backbone, DecodingSettings())
    expected = [plain(backbone, s, d, codec, reader) for s, d in zip(sentences, domains, strict=True)]
    clear = [i for i, (_, margin) in enumerate(expected) if margin > MARGIN]
    assert len(clear) >= len(sentences) - 3
    assert any(expected[i][0] for i in clear), "something must have been found"
    for batch in (1, 4, 16):
        reader = Reader(backbone, DecodingSettings(batch_size=batch))
        steered = [reader.steer(d, codec, *prefix_of(backbone, number)) for number, d in enumerate(DOMAINS)]
        results = reader.read([(s, steered[d]) for s, d in zip(sentences, domains, strict=True)])
        for i in clear:
            found = [(e.start, e.end, e.label) for e in results[i].entities]
            assert found == expected[i][0], (sentences[i].text, batch)
