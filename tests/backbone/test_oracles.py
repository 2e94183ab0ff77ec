"""A prefix at work, against computations that share nothing with ours but the weights; and the guards at load."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    DynamicCache,
    Llama4ForCausalLM,
    Llama4TextConfig,
    PhimoeConfig,
    PhimoeForCausalLM,
)

from xdner.backbone.attention import IMPLEMENTATION
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.store import PrefixRows
from xdner.backbone.t5 import T5Backbone
from xdner.errors import BackboneError
from xdner.testing.models import CAUSAL, SEQ2SEQ, tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer

EXACT = 2e-5
SOURCES = [[11, 12, 13, 14, 15, 16, 17, 18, 19], [21, 22, 23], [31]]
TARGETS = [[41, 42, 43, 1], [51, 1], [61, 62, 63, 64, 65, 66, 1]]

Prefix = tuple[list[Tensor], list[Tensor]]


def t5(architecture: str) -> tuple[T5Backbone, nn.Module]:
    """A backbone and the stock model with the same weights."""
    stock = tiny_t5(architecture)
    return T5Backbone(copy.deepcopy(stock), t5_like_tokenizer()), stock


def causal(architecture: str) -> tuple[CausalBackbone, nn.Module]:
    stock = tiny_causal(architecture)
    return CausalBackbone(copy.deepcopy(stock), byte_level_tokenizer()), stock


def random_prefix(shapes: list[tuple[int, int]], length: int, seed: int) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    keys, values = ([torch.randn(heads, length, dim, generator=generator) for heads, dim in shapes] for _ in range(2))
    return keys, values


# -- T5: encoder, decoder and cross-attention written out ---------------------------------------------------------------


def attend(
    module: nn.Module, x: Tensor, memory: Tensor, prefix: tuple[Tensor, Tensor], bias: Tensor | None, causal: bool
):
    """Eq. 2 for one sentence: x [T, d], memory [S, d], prefix [H, n, d_kv] each, bias [H, T, S]."""
    heads, size = module.n_heads, module.key_value_proj_dim
    query, key, value = (
        layer(y).view(len(y), heads, size).transpose(0, 1)
        for layer, y in ((module.q, x), (module.k, memory), (module.v, memory))
    )
    scores = query @ key.transpose(1, 2)  # T5 does not scale
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = scores.masked_fill(torch.ones(len(x), len(memory), dtype=torch.bool).triu(1), float("-inf"))
    # A prefix key has no position: no bias, and nothing hides it.
    scores = torch.cat([query @ prefix[0].transpose(1, 2), scores], dim=2)
    mixed = scores.softmax(-1) @ torch.cat([prefix[1], value], dim=1)
    return module.o(mixed.transpose(0, 1).reshape(len(x), heads * size))


def stack_states(
    stack: nn.Module, ids: list[int], prefix: dict[str, tuple[Tensor, Tensor]], encoded: Tensor | None
) -> Tensor:
    """[T, d] of the encoder, or of the decoder where it is given the encoder's states; prefixes by site."""
    decoder = encoded is not None
    kind = "decoder" if decoder else "encoder"
    x = stack.embed_tokens(torch.tensor(ids))
    bias = None
    for number, block in enumerate(stack.block):
        layer = block.layer[0]
        own = layer.SelfAttention
        if own.has_relative_attention_bias:  # T5 has a table in its first block, umT5 in every one
            bias = own.compute_bias(len(ids), len(ids))[0]
        normed = layer.layer_norm(x)
        x = x + attend(own, normed, normed, prefix[f"{kind}.{number}"], bias, decoder)
        if encoded is not None:
            layer = block.layer[1]
            x = x + attend(layer.EncDecAttention, layer.layer_norm(x), encoded, prefix[f"cross.{number}"], None, False)
        x = block.layer[-1](x[None])[0]
    return stack.final_layer_norm(x)


def t5_states(
    stock: nn.Module, source: list[int], target: list[int], prefix: dict[str, tuple[Tensor, Tensor]]
) -> Tensor:
    with torch.no_grad():
        encoded = stack_states(stock.encoder, [*source, 1], prefix, None)
        return stack_states(stock.decoder, [stock.config.decoder_start_token_id, *target[:-1]], prefix, encoded)


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_t5_under_a_prefix_is_the_explicit_concatenation(architecture: str) -> None:
    """At all three kinds of sites; rows of different lengths under prefixes of different lengths, in one batch."""
    backbone, stock = t5(architecture)
    names = [site.name for site in backbone.sites]
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder", "cross"}
    shapes = [(site.heads, site.head_dim) for site in backbone.sites]
    prefixes = [random_prefix(shapes, length, seed=length) for length in (2, 5, 3)]
    ours = backbone.target_states(SOURCES, TARGETS, PrefixRows.stack(prefixes, [0, 1, 2]))
    expected = [
        t5_states(stock, source, target, dict(zip(names, zip(*prefix, strict=True), strict=True)))
        for source, target, prefix in zip(SOURCES, TARGETS, prefixes, strict=True)
    ]
    assert (ours - torch.cat(expected)).abs().max() < EXACT
    for site in range(len(names)):  # the oracle sees a change of any one site's prefix
        keys = list(prefixes[0][0])
        keys[site] = keys[site] + 0.5
        moved = t5_states(
            stock, SOURCES[0], TARGETS[0], dict(zip(names, zip(keys, prefixes[0][1], strict=True), strict=True))
        )
        assert (moved - expected[0]).abs().max() > 100 * EXACT, names[site]


def test_the_t5_oracle_without_a_prefix_is_the_stock_model() -> None:
    for architecture in SEQ2SEQ:
        backbone, stock = t5(architecture)
        nothing = {s.name: (torch.zeros(s.heads, 0, s.head_dim),) * 2 for s in backbone.sites}
        states = t5_states(stock, SOURCES[0], TARGETS[0], nothing)
        start = stock.config.decoder_start_token_id
        with torch.no_grad():
            expected = stock(
                input_ids=torch.tensor([[*SOURCES[0], 1]]), decoder_input_ids=torch.tensor([[start, *TARGETS[0][:-1]]])
            ).logits[0]
        assert (backbone.logits(states) - expected).abs().max() < EXACT


# -- Gemma 3: layers with a sliding window -----------------------------------------------------------------------------


def test_gemma_under_a_prefix_equals_past_key_values() -> None:
    """Against transformers' own cache and masks: all queries see the prefix, of the text those in the window see it."""
    backbone, stock = causal("gemma3")
    length, window = 4, stock.config.sliding_window
    keys, values = random_prefix([(s.heads, s.head_dim) for s in backbone.sites], length, seed=1)
    source, target = list(range(100, 120)), [41, 42, 43, 1]
    ours = backbone.logits(backbone.target_states([source], [target], PrefixRows.stack([(keys, values)], [0])))
    ids = torch.tensor([[*source, *target[:-1]]])
    queries, texts = torch.arange(ids.shape[1])[:, None], torch.arange(ids.shape[1])[None, :]
    masks = {}
    for kind, seen in (
        ("full_attention", texts <= queries),
        ("sliding_attention", (texts <= queries) & (queries - texts < window)),
    ):
        visible = torch.cat([torch.ones(ids.shape[1], length, dtype=torch.bool), seen], dim=1)
        masks[kind] = torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))[None, None]
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
        cache.update(key[None], value[None], layer)
    positions = torch.arange(length, length + ids.shape[1])[None]
    with torch.no_grad():
        out = stock(input_ids=ids, past_key_values=cache, position_ids=positions, attention_mask=masks).logits[0]
    assert (ours - out[len(source) - 1 :]).abs().max() < EXACT
    assert len(source) > 2 * window, "the window must matter for this test to mean something"


# -- what is refused at load -------------------------------------------------------------------------------------------


def test_a_model_that_keeps_its_own_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where transformers only warns."""
    model = tiny_causal()
    monkeypatch.setattr(model, "set_attn_implementation", lambda name: None)
    with pytest.raises(BackboneError, match=r"keeps its own attention \(sdpa\) at self\.0: a prefix would be ignored"):
        CausalBackbone(model, byte_level_tokenizer())


@pytest.mark.parametrize("window", [6, None])
def test_a_window_that_is_told_to_no_layer_is_refused(window: int | None) -> None:
    shape = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = PhimoeConfig(**shape, vocab_size=300, num_key_value_heads=2, num_local_experts=2, sliding_window=window)
    model = PhimoeForCausalLM(config).eval()
    refused = pytest.raises(
        BackboneError, match=r"PhimoeAttention sees 6 tokens back at self\.0, and says so only in its masks"
    )
    with refused if window else contextlib.nullcontext():
        CausalBackbone(model, byte_level_tokenizer())


def test_reading_in_chunks_is_refused() -> None:
    shape = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Llama4TextConfig(**shape, vocab_size=300, num_key_value_heads=2, head_dim=12, num_local_experts=2)
    with pytest.raises(BackboneError, match="Llama4TextAttention reads in chunks"):
        CausalBackbone(Llama4ForCausalLM(config).eval(), byte_level_tokenizer())


HYBRID = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "vocab_size": 300, "pad_token_id": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "more", "message"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "only 1 of 2 layers of Lfm2ForCausalLM are attention"),
        ("falcon_h1", {"mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 12, "mamba_d_state": 4, "mamba_n_groups": 1},
         "the scores of tiny cannot be reproduced"),
        ("diffllama", {}, "the scores of tiny cannot be reproduced"),
        ("nemotron", {}, "tiny does not hand on to its attention what it is told"),
        ("xglm", {"d_model": 48, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
         r"tiny is built in a way that xdner does not know \(AttributeError"),
    ],
)  # fmt: skip
def test_models_that_are_more_than_attention_or_other_attention_are_refused(
    family: str, more: dict[str, Any], message: str
) -> None:
    """Layers that see all rows of a pass as one, or forget what came in the steps before, would give wrong results unsaid."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **HYBRID, **more)).eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "proj" in name:
            weight.data.mul_(8)  # so that attention matters
    with pytest.raises(BackboneError, match=message) as caught:
        CausalBackbone(model, byte_level_tokenizer(), name="tiny")
    assert caught.value.hint


def test_an_encoder_decoder_of_another_family_is_refused() -> None:
    shape = {"d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    config = AutoConfig.for_model("bart", **shape, encoder_attention_heads=4, decoder_attention_heads=4, vocab_size=300)
    with pytest.raises(BackboneError, match="is built in a way that xdner does not know") as caught:
        T5Backbone(AutoModelForSeq2SeqLM.from_config(config).eval(), t5_like_tokenizer())
    assert "T5" in str(caught.value.hint)


def test_a_site_that_a_prefix_does_not_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_causal()
    bypassed = model.base_model.layers[1].self_attn
    monkeypatch.setattr(bypassed, "forward", lambda hidden_states, **other: (0.5 * hidden_states, None))
    with pytest.raises(BackboneError, match=r"does not reach 1 of 3 attention sites of tiny: self\.1\n"):
        CausalBackbone(model, byte_level_tokenizer(), name="tiny")


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_scores_that_are_not_the_models_own_are_refused(architecture: str) -> None:
    """As of a model that does something to its scores that nobody here knows."""
    model = tiny_causal() if architecture in CAUSAL else tiny_t5()
    model.register_forward_hook(lambda module, args, out: setattr(out, "logits", out.logits * 1.01))
    kind, tokenizer = (
        (CausalBackbone, byte_level_tokenizer()) if architecture in CAUSAL else (T5Backbone, t5_like_tokenizer())
    )
    with pytest.raises(BackboneError, match="the scores of tiny cannot be reproduced: they differ by up to"):
        kind(model, tokenizer, name="tiny")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", CAUSAL + SEQ2SEQ)
def test_16_bits_are_no_reason_to_refuse(architecture: str, dtype: torch.dtype) -> None:
    if architecture in CAUSAL:
        backbone = CausalBackbone(tiny_causal(architecture).to(dtype), byte_level_tokenizer())
    else:
        backbone = T5Backbone(tiny_t5(architecture).to(dtype), t5_like_tokenizer())
    assert backbone.dtype == dtype
    assert backbone.model.config._attn_implementation == IMPLEMENTATION
    assert type(backbone)(backbone.model, backbone.tokenizer).sites, "a second backbone of one model is no error"
