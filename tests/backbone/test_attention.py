"""Oracles on logits: argmax would hide every one of these errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BloomConfig, BloomForCausalLM, DynamicCache

from xdner.backbone import attention
from xdner.backbone.attention import additive, prefix_attention
from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.layout import Layout
from xdner.backbone.plans import Fresh
from xdner.backbone.store import Context, PrefixRows
from xdner.errors import BackboneError
from xdner.testing.backbones import ALL, EXACT, SOURCES, TARGETS, make, random_prefix, rows
from xdner.testing.models import CAUSAL, SEQ2SEQ
from xdner.testing.tokenizers import byte_level_tokenizer


def stock_logits(backbone: Backbone, stock: torch.nn.Module, source: list[int], target: list[int]) -> Tensor:
    """What the untouched model says, one row at a time, without padding."""
    with torch.no_grad():
        if backbone.kind == "causal":
            out = stock(input_ids=torch.tensor([[*source, *target[:-1]]])).logits[0]
            return out[len(source) - 1 :]
        inputs = torch.tensor([[*source, backbone.tokenizer.eos_token_id]])
        start = stock.config.decoder_start_token_id
        return stock(input_ids=inputs, decoder_input_ids=torch.tensor([[start, *target[:-1]]])).logits[0]


@pytest.mark.parametrize("architecture", ALL)
def test_an_empty_prefix_is_the_stock_model_padded_and_unpadded(architecture: str) -> None:
    backbone, stock = make(architecture)
    alone = [
        backbone.logits(backbone.target_states([s], [t], backbone.empty_prefix()))
        for s, t in zip(SOURCES, TARGETS, strict=True)
    ]
    batch = backbone.logits(backbone.target_states(SOURCES, TARGETS, backbone.empty_prefix()))
    expected = torch.cat([stock_logits(backbone, stock, s, t) for s, t in zip(SOURCES, TARGETS, strict=True)])
    assert (torch.cat(alone) - expected).abs().max() < EXACT
    assert (batch - expected).abs().max() < EXACT
    assert expected.abs().max() > 0.05, "the oracle must have something to tell apart"


@pytest.mark.parametrize("architecture", ALL)
def test_some_ids_score_as_the_whole_vocabulary_does(architecture: str) -> None:
    backbone, _ = make(architecture)
    states = backbone.target_states(SOURCES, TARGETS, backbone.empty_prefix())
    ids = [3, 77, 41, 1]
    assert torch.allclose(backbone.logits(states, ids), backbone.logits(states)[:, ids], atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_prefix_of_an_instruction_is_reading_the_instruction(architecture: str) -> None:
    backbone, stock = make(architecture)
    instruction = [5, 6, 7, 8, 9]
    pairs = backbone.read_keys_values(instruction)
    prefix = rows(([k for k, _ in pairs], [v for _, v in pairs]))
    ours = backbone.logits(backbone.target_states(SOURCES, TARGETS, prefix))
    expected = torch.cat(
        [stock_logits(backbone, stock, instruction + s, t) for s, t in zip(SOURCES, TARGETS, strict=True)]
    )
    assert (ours - expected).abs().max() < EXACT


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_prefix_equals_past_key_values(architecture: str) -> None:
    """Against transformers' own cache, filled with δ."""
    backbone, stock = make(architecture)
    keys, values = random_prefix(backbone, 4, seed=1)
    source, target = SOURCES[0], TARGETS[0]
    ours = backbone.logits(backbone.target_states([source], [target], rows((keys, values))))
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
        cache.update(key[None], value[None], layer)
    ids = torch.tensor([[*source, *target[:-1]]])
    positions = torch.arange(4, 4 + ids.shape[1])[None]
    with torch.no_grad():
        out = stock(input_ids=ids, past_key_values=cache, position_ids=positions).logits[0]
    assert (ours - out[len(source) - 1 :]).abs().max() < EXACT


def explicit_attention(query, key, value, keys, values, mask):
    """Eq. 2, first line, written out for one row and one head group at a time."""
    share = query.shape[1] // key.shape[1]
    key = torch.cat([keys, key], 2).repeat_interleave(share, 1)
    value = torch.cat([values, value], 2).repeat_interleave(share, 1)
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ value


def test_eq2_is_explicit_concatenation_and_a_mixture_by_lambda() -> None:
    backbone, _ = make("llama")
    site = backbone.sites[1]
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(2, 4, 5, 16, generator=generator)
    key, value = torch.randn(2, 2, 5, 16, generator=generator), torch.randn(2, 2, 5, 16, generator=generator)
    keys, values = random_prefix(backbone, 3, seed=4)
    prefix = rows((keys, values), 2)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    full = torch.cat([torch.ones(5, 3, dtype=torch.bool), causal], 1)
    own_k, own_v = prefix.keys[1], prefix.values[1]
    expected = explicit_attention(query, key, value, own_k, own_v, full)

    def line(tensor: Tensor) -> Tensor:
        """Two rows one after the other, as the modules make them: [2, H, 5, d] → [1, H, 10, d]."""
        return tensor.transpose(0, 1).flatten(1, 2)[None]

    layout = Layout([5, 5], query.device)
    flat = line(query), line(key), line(value)
    fused, _ = prefix_attention(site.module, *flat, None, plan=Fresh(prefix, layout))
    assert (fused.unflatten(1, (2, 5))[0].transpose(1, 2) - expected).abs().max() < 1e-6

    plan = Fresh(prefix, layout)
    plan.record = {}
    explicit, _ = prefix_attention(site.module, *flat, None, plan=plan)
    assert (explicit.unflatten(1, (2, 5))[0].transpose(1, 2) - expected).abs().max() < 1e-6
    # Second line of Eq. 2: (1 - λ)·attention over the text + λ·attention over the prefix, λ per head.
    share = 2
    k, pk = key.repeat_interleave(share, 1), own_k.repeat_interleave(share, 1)
    text = (query @ k.transpose(2, 3) / 4).masked_fill(~causal, float("-inf"))
    head = query @ pk.transpose(2, 3) / 4
    lam = torch.sigmoid(head.logsumexp(-1) - text.logsumexp(-1))[..., None]
    only_text = text.softmax(-1) @ value.repeat_interleave(share, 1)
    only_prefix = head.softmax(-1) @ own_v.repeat_interleave(share, 1)
    assert ((1 - lam) * only_text + lam * only_prefix - expected).abs().max() < 1e-6
    assert (plan.record["self.1"] - lam[..., 0].mean(1)).abs().max() < 1e-6


@pytest.mark.parametrize("architecture", ALL)
def test_lambda_is_read_at_every_site_and_zero_without_prefix(architecture: str) -> None:
    backbone, _ = make(architecture)
    source, target = SOURCES[0], TARGETS[0]
    mass = backbone.prefix_mass(source, target, rows(random_prefix(backbone, 3, 5)))
    assert set(mass) == {s.name for s in backbone.sites}
    for name, value in mass.items():
        assert bool(((value > 0) & (value < 1)).all()), name
    none = backbone.prefix_mass(source, target, backbone.empty_prefix())
    assert all(float(v.abs().max()) == 0 for v in none.values())


@pytest.mark.parametrize("architecture", ALL)
def test_a_mixed_batch_is_its_rows_one_by_one(architecture: str) -> None:
    """Different prefixes, of different lengths, in one batch; also under generation."""
    backbone, _ = make(architecture)
    prefixes = [random_prefix(backbone, n, seed=n) for n in (2, 5, 3)]
    mixed = PrefixRows.stack(prefixes, [0, 1, 2])
    batch = backbone.logits(backbone.target_states(SOURCES, TARGETS, mixed))
    single = [
        backbone.logits(backbone.target_states([s], [t], rows(p)))
        for s, t, p in zip(SOURCES, TARGETS, prefixes, strict=True)
    ]
    assert (batch - torch.cat(single)).abs().max() < EXACT


def test_a_plan_that_was_read_in_blocks_may_be_read_whole() -> None:
    """As where a layer is computed again for its gradients."""
    backbone, _ = make("llama")
    tokens = [[11, 12], [*range(20, 70)], [13], [14]]
    layout = Layout([len(t) for t in tokens], backbone.device)
    assert len(layout.blocks) == 2
    module, plan = backbone.sites[0].module, Fresh(rows(random_prefix(backbone, 3, seed=1)), layout)
    heads, site = backbone.model.config.num_attention_heads, backbone.sites[0]
    query = torch.randn(1, heads, len(layout.rows), site.head_dim)
    key, value = (torch.randn(1, site.heads, len(layout.rows), site.head_dim) for _ in range(2))
    found = []
    for grad in (False, True, False):
        with torch.set_grad_enabled(grad):
            found.append(prefix_attention(module, query, key, value, None, plan=plan)[0])
    assert (found[0] - found[1]).abs().max() < EXACT
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_shared_context_equals_a_longer_prompt_and_passes_gradients(architecture: str) -> None:
    backbone, _ = make(architecture)
    keys, values = random_prefix(backbone, 3, seed=9)
    values = [v.requires_grad_(True) for v in values]
    prefix = rows((keys, values))
    context = backbone.read_context([71, 72, 73], prefix)
    shared = backbone.target_states(SOURCES, TARGETS, prefix, context)
    whole = backbone.target_states([[71, 72, 73, *s] for s in SOURCES], TARGETS, prefix)
    assert (backbone.logits(shared) - backbone.logits(whole)).abs().max() < EXACT
    a = torch.autograd.grad(shared.pow(2).sum(), values, retain_graph=True)
    b = torch.autograd.grad(whole.pow(2).sum(), values)
    for x, y in zip(a, b, strict=True):
        assert (x - y).abs().max() < 1e-3 * (1 + float(y.abs().max()))


def test_gemma_keeps_its_sliding_window() -> None:
    backbone, stock = make("gemma3")
    source = list(range(100, 130))
    ours = backbone.logits(backbone.target_states([source], [[41, 42, 1]], backbone.empty_prefix()))
    assert (ours - stock_logits(backbone, stock, source, [41, 42, 1])).abs().max() < EXACT
    for module in backbone.model.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = 1000
    lost = backbone.logits(backbone.target_states([source], [[41, 42, 1]], backbone.empty_prefix()))
    assert (ours - lost).abs().max() > 1e-3, "the window must matter for this test to mean something"


@pytest.mark.parametrize("architecture", ALL)
def test_a_prefix_matters_at_every_site(architecture: str) -> None:
    backbone, _ = make(architecture)
    keys, values = random_prefix(backbone, 2, seed=2)
    base = backbone.target_states(SOURCES[:1], TARGETS[:1], rows((keys, values)))
    for index, site in enumerate(backbone.sites):
        changed = [v.clone() for v in values]
        changed[index] += 1.0
        other = backbone.target_states(SOURCES[:1], TARGETS[:1], rows((keys, changed)))
        assert (base - other).abs().max() > 1e-6, site.name


def test_t5_sites_and_head_sizes_come_from_the_modules() -> None:
    backbone, _ = make("t5")
    assert [s.name for s in backbone.sites] == [
        "encoder.0", "encoder.1", "decoder.0", "decoder.1", "cross.0", "cross.1",
    ]  # fmt: skip
    assert {(s.heads, s.head_dim) for s in backbone.sites} == {(4, 12)}


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made in the meantime."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(made) if isinstance(t, Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return made


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_memory_grows_with_the_batch_and_not_with_its_square(architecture: str) -> None:
    """Rows stand in one line; T5's own bias would be for all pairs of its tokens."""
    backbone, _ = make(architecture)
    sizes = []
    for count in (8, 32):
        with torch.no_grad(), Largest() as largest:
            backbone.target_states([[*range(5, 35)]] * count, [[*range(40, 60), 1]] * count, backbone.empty_prefix())
        sizes.append(largest.numbers)
    assert sizes[1] <= 4 * sizes[0]


def test_calling_the_model_without_a_plan_is_refused() -> None:
    backbone, _ = make("llama")
    with pytest.raises(BackboneError, match="without a plan"):
        backbone.model(input_ids=torch.tensor([[3, 4]]))


def test_a_model_whose_attention_cannot_be_replaced_is_refused() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(BackboneError, match="no attention modules"):
        CausalBackbone(model, byte_level_tokenizer())


@pytest.mark.parametrize("architecture", ALL)
def test_gradients_reach_the_prefix_and_nothing_else(architecture: str) -> None:
    backbone, _ = make(architecture)
    keys, values = random_prefix(backbone, 2, seed=6)
    leaves = [t.requires_grad_(True) for t in (*keys, *values)]
    backbone.target_states(SOURCES, TARGETS, rows((keys, values))).pow(2).sum().backward()
    assert all(t.grad is not None and bool(t.grad.isfinite().all()) for t in leaves)
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())


def test_context_of_an_encoder_decoder_is_read_with_the_sentence() -> None:
    backbone, stock = make("t5")
    context = backbone.read_context([71, 72], backbone.empty_prefix())
    assert context == Context((71, 72)) or context.ids == (71, 72)
    ours = backbone.logits(backbone.target_states([SOURCES[0]], [TARGETS[0]], backbone.empty_prefix(), context))
    assert (ours - stock_logits(backbone, stock, [71, 72, *SOURCES[0]], TARGETS[0])).abs().max() < EXACT


@pytest.mark.parametrize("masks", [1, 2])
def test_training_in_16_bits_takes_another_way_to_the_same_result(monkeypatch: pytest.MonkeyPatch, masks: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, n, 16, generator=generator).to(torch.bfloat16) for n in (12, 20, 20)]
    mask = additive(torch.rand(masks, 1, 12, 20, generator=generator) > 0.3, torch.bfloat16)
    results = []
    for limit, piece in ((attention.COMPOSED, attention.PIECE), (attention.COMPOSED, 1), (0, 1)):
        monkeypatch.setattr(attention, "COMPOSED", limit)
        monkeypatch.setattr(attention, "PIECE", piece)
        query, key, value = (t.clone().requires_grad_(True) for t in tensors)
        out = attention._attend(query, key, value, mask, 0.25, 0.0)
        out.square().sum().backward()
        results.append([out.detach(), query.grad, key.grad, value.grad])
    for composed, row_by_row, fused in zip(*results, strict=True):
        assert composed is not None
        assert fused is not None
        assert torch.equal(composed, row_by_row)
        torch.testing.assert_close(composed.float(), fused.float(), atol=0.06, rtol=0.05)
    exact = torch.nn.functional.scaled_dot_product_attention(
        *(t.double() for t in tensors), attn_mask=mask.double(), scale=0.25
    )
    torch.testing.assert_close(results[0][0].double(), exact, atol=0.02, rtol=0.02)
    for long in (12, 13):  # from so many queries on, reading takes it too
        monkeypatch.setattr(attention, "LONG", long)
        with torch.inference_mode():
            read = attention._attend(*tensors, mask, 0.25, 0.0)
        assert torch.equal(read, results[1][0]) == (long == 12)
        torch.testing.assert_close(read.double(), exact, atol=0.02, rtol=0.02)
