"""Eqs. 4 to 10 against the equations written out, the switches, and independence of the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from xdner.backbone.words import Encoded
from xdner.errors import SettingsError
from xdner.tagger.decoding import decode, read
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import LanerSettings, TaggerSettings

Make = Callable[..., TaggerNetwork]
Windows = Callable[..., list[Encoded]]
VARIANTS = [
    {},
    {"history": "forward"},
    {"label_context": False},
    {"label_background": False},
    {"label_background": False, "history": "forward"},
    {"pooling": "mean"},
    {"word_shape": True},
    {"head": "plain"},
    {"head": "crf"},
]


def written_out(network: TaggerNetwork, item: Encoded) -> Tensor:
    """Scores [N, K] word by word, as the paper's equations stand."""
    labels, attention = network.labels, network.attention
    assert labels is not None
    assert attention is not None
    h = network.words(network.batch([item]))
    rows = []
    for i in range(len(h)):
        s = labels.table(torch.tensor([labels.start, *item.tags[:i]]))
        e = labels.ahead(s[None])[0][0]
        if labels.back is not None:
            e = torch.cat([e, labels.back(s.flip(0)[None])[0][0].flip(0)], 1)  # Eq. 3
        z, mixed = [], h[i]
        if attention.query is not None:
            a = torch.softmax(attention.query(e[-1]) @ h.T, 0)  # Eqs. 4 and 5
            z.append(a @ h)  # Eq. 6
            mixed = torch.cat([h[i], z[0]])
        if attention.mix is not None:
            z.append(torch.softmax(attention.mix(mixed) @ e.T, 0) @ e)  # Eqs. 7 and 8
        rows.append(network.head(torch.cat([h[i], *z])))  # Eqs. 9 and 10
    return torch.stack(rows)


@pytest.mark.parametrize("how", ["first", "mean"])
def test_a_words_state_is_that_of_its_sub_words(network: Make, windows: Windows, how: str) -> None:
    """Eq. 2, one state a word; the encoder's own first and last token are no words."""
    made = network(pooling=how, word_shape=True)
    items = windows((5, 1, 8))
    assert made.shape is not None
    with torch.no_grad():
        found = made.words(made.batch(items)).split([5, 1, 8])
        for item, states in zip(items, found, strict=True):
            own = made.encoder(input_ids=torch.tensor([item.ids])).last_hidden_state[0]
            for word, place in enumerate(item.places):
                end = (*item.places, len(item.ids) - 1)[word + 1] if how == "mean" else place + 1
                wanted = own[place:end].mean(0) + made.shape.weight[item.shapes[word]]
                assert torch.allclose(states[word], wanted, atol=1e-5)


def test_the_loss_is_the_mean_likelihood_of_gold_tags(network: Make, windows: Windows) -> None:
    """Eq. 1; the paper's softmax over all labels, legal or not."""
    made, items = network(), windows((5, 1, 8))
    with torch.no_grad():
        likely = torch.cat([written_out(made, i).log_softmax(1)[range(len(i.tags)), i.tags] for i in items])
        assert torch.allclose(made.loss(items), -likely.mean(), atol=1e-5)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if "head" not in v], ids=str)
def test_the_equations(network: Make, windows: Windows, variant: dict[str, object]) -> None:
    made = network(**variant)
    items = windows((5, 1, 8))
    with torch.no_grad():
        assert torch.allclose(made(items), torch.cat([written_out(made, i) for i in items]), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_training_may_read_its_own_labels(network: Make, windows: Windows, share: float) -> None:
    """A word then comes after what the tagger says of the words before it, each of which comes after gold labels."""
    made = network(own_history=share, dropout=0.0)
    (item,) = windows((30,))
    with torch.no_grad():
        gold = written_out(made.eval(), item)
        assert torch.allclose(made([item]), gold, atol=1e-5)  # only training does so
        made.train()
        made.encoder.eval()
        torch.manual_seed(3)
        found = made([item])
        torch.manual_seed(3)
        own = torch.rand(30) < share
        assert abs(float(own.float().mean()) - share) < 0.2
        mixed = torch.where(own, gold.argmax(1), torch.tensor(item.tags))
        assert torch.equal(mixed, torch.tensor(item.tags)) == (share == 0)
        assert torch.allclose(found, written_out(made, replace(item, tags=tuple(mixed.tolist()))), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_results_do_not_depend_on_the_batch(network: Make, windows: Windows, variant: dict[str, object]) -> None:
    made = network(**variant)
    items = windows((4, 1, 9, 6, 2), seed=3)
    with torch.no_grad():
        assert torch.allclose(made(items), torch.cat([made([i]) for i in items]), atol=1e-5)
    for beam in (1, 3):
        together, alone = decode(made, items, beam=beam), [decode(made, [i], beam=beam)[0] for i in items]
        assert [tags for tags, _ in together] == [tags for tags, _ in alone]
        for (_, one), (_, other) in zip(together, alone, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_without_both_it_is_the_plain_tagger(network: Make, windows: Windows) -> None:
    bare, plain = network(label_background=False, label_context=False), network(head="plain")
    assert set(bare.state_dict()) == set(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(bare(windows((5, 2))), plain(windows((5, 2))))


def test_what_each_switch_takes_away(network: Make) -> None:
    names = {str(v): {n.split(".")[0] + "." + n.split(".")[1] for n in network(**v).state_dict()} for v in VARIANTS}
    assert {"attention.query", "attention.mix", "labels.back"} <= names["{}"]
    assert "attention.mix" not in names[str({"label_context": False})]
    assert "attention.query" not in names[str({"label_background": False})]
    assert "labels.back" not in names[str({"history": "forward"})]
    assert not any(n.startswith(("labels", "attention")) for n in names[str({"head": "crf"})])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_weight_has_a_gradient(network: Make, windows: Windows, variant: dict[str, object]) -> None:
    made = network(**variant).train()
    items = windows((6, 3, 5), seed=1)
    if made.crf is not None:  # gold tags that are legal
        items = [Encoded(i.ids, i.places, tags=(1, 2) + (0,) * (len(i.places) - 2), shapes=i.shapes) for i in items]
    made.loss(items).backward()
    # A row of the label table that no history holds has none, nor have unused shapes: whole tensors count.
    without = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    # Keys' biases shift all scores alike. Without LC only the last label state is asked for, and the backward LSTM has
    # then made one step, from no state.
    spare = {"labels.back.weight_hh_l0"} if variant == {"label_context": False} else set()
    assert {n for n in without if not n.endswith("key.bias")} == spare


def test_words_beside_the_core_are_history_but_not_loss(network: Make, windows: Windows) -> None:
    made = network(dropout=0.0)
    (item,) = windows((6,))
    core = Encoded(item.ids, item.places, tags=item.tags, core=(2, 5), continues=True, shapes=item.shapes)
    with torch.no_grad():
        scores = made([item])
        wanted = torch.nn.functional.cross_entropy(scores[2:5], torch.tensor(item.tags[2:5]))
        assert torch.allclose(made.loss([core]), wanted)


def test_the_first_weights_depend_on_the_seed_only(network: Make) -> None:
    encoder = network().encoder
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    one, two, other = (TaggerNetwork(encoder, ("O", "B-x", "I-x"), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_a_tag_comes_from_the_window_in_whose_core_its_word_is(network: Make, windows: Windows) -> None:
    made = network(head="plain")
    first, second = windows((5, 5), seed=4)
    left = Encoded(first.ids, first.places, core=(0, 4), shapes=first.shapes)
    right = Encoded(second.ids, second.places, core=(1, 5), continues=True, first=3, shapes=second.shapes)
    (found,) = read(made, [[left, right]])
    one, two = (decode(made, [w])[0][0] for w in (left, right))
    assert found.tags == tuple(made.tags[t] for t in [*one[:4], *two[1:]])
    assert read(made, [[]])[0].tags == ()


def test_settings_that_cannot_be(network: Make) -> None:
    with pytest.raises(SettingsError) as caught:
        LanerSettings.build(None, ["head=best", "tagger.beam=0", "dropout=1", "label_sise=3"])
    assert len(caught.value.problems) == 4
    defaults = LanerSettings.build()
    assert (defaults.training.learning_rate, defaults.training.batch_size, defaults.training.epochs) == (5e-5, 16, 100)
    assert defaults.tagger == TaggerSettings()
    assert (defaults.tagger.label_size, defaults.tagger.word_shape) == (100, False)
