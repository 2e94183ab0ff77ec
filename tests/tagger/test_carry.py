"""Between stages: rows of shared tags go over by name, new ones start anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from xdner.backbone.words import WordPieces
from xdner.errors import SettingsError
from xdner.tagger.carry import carry_over, name_vectors, start_from_names
from xdner.tagger.network import TaggerNetwork

Make = Callable[..., TaggerNetwork]


@pytest.mark.parametrize("head", ["laner", "plain", "crf"])
def test_rows_of_shared_tags_are_carried_over(network: Make, head: str) -> None:
    old = network(("O", "B-x", "I-x"), seed=1, head=head)
    new = network(("O", "B-y", "B-x"), seed=2, head=head)
    with torch.no_grad():
        for value in old.parameters():
            value.add_(torch.randn(value.shape))
    before = {n: p.detach().clone() for n, p in new.named_parameters()}
    assert carry_over(new, old) == 2
    assert torch.equal(new.head.weight[[0, 2]], old.head.weight[[0, 1]])
    assert torch.equal(new.head.bias[[0, 2]], old.head.bias[[0, 1]])
    assert torch.equal(new.head.weight[1], before["head.weight"][1])
    if head == "laner":
        assert new.labels is not None
        assert old.labels is not None
        # The start symbol is the last row of both tables.
        assert torch.equal(new.labels.table.weight[[0, 2, 3]], old.labels.table.weight[[0, 1, 3]])
        assert torch.equal(new.labels.table.weight[1], before["labels.table.weight"][1])
    if head == "crf":
        assert new.crf is not None
        assert old.crf is not None
        ours, theirs = torch.tensor([0, 2]), torch.tensor([0, 1])
        assert torch.equal(new.crf.steps[ours[:, None], ours], old.crf.steps[theirs[:, None], theirs])
        for mine, other in ((new.crf.begin, old.crf.begin), (new.crf.end, old.crf.end)):
            assert torch.equal(mine[ours], other[theirs])
            assert mine[1] == 0
        assert not new.crf.steps[1].any()
        assert not new.crf.steps[:, 1].any()
    by_tag = ("head.", "labels.table.", "crf.")
    theirs = dict(old.named_parameters())
    assert all(torch.equal(p, theirs[n]) for n, p in new.named_parameters() if not n.startswith(by_tag))


def test_another_structure_is_refused(network: Make) -> None:
    with pytest.raises(SettingsError, match=r"tagger.label_size is 6 there, 7 here"):
        carry_over(network(label_size=7), network())
    with pytest.raises(SettingsError, match="head"):
        carry_over(network(), network(head="plain"))


def test_new_rows_start_from_their_names(network: Make, pieces: WordPieces) -> None:
    tags = ("O", "B-city", "I-city", "B-town", "I-town")
    made = network(tags, louder=1.0)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    vectors = name_vectors(made, pieces, {"city": "city", "town": "small city", "odd": " "})
    assert set(vectors) == {"city", "town"}
    assert all(float(v.norm()) == pytest.approx(1.0, abs=1e-4) for v in vectors.values())
    start_from_names(made, vectors, ("B-town", "I-town"), seed=3)
    assert made.labels is not None
    changed = [i for i in range(5) if not torch.equal(made.head.weight[i], before["head.weight"][i])]
    assert changed == [1, 2]
    table = made.labels.table.weight
    assert not torch.equal(table[1], table[2])
    # The same seed gives the same rows, whatever the order of the tags.
    again = network(tags[::-1], louder=1.0)
    start_from_names(again, vectors, (), seed=3)
    assert again.labels is not None
    assert torch.equal(again.labels.table.weight[3], table[1])
    assert torch.equal(again.head.weight[3, :16], made.head.weight[1, :16])


def test_types_that_sound_alike_start_alike(network: Make, pieces: WordPieces) -> None:
    """With the same noise, rows differ as the vectors of the names do; the vectors weigh as much as the noise."""
    made = [network(("O", "B-a", "I-a"), louder=1.0) for _ in range(2)]
    vectors = name_vectors(made[0], pieces, {"city": "city", "sea": "deep sea"})
    for tagger, name in zip(made, ("city", "sea"), strict=True):
        start_from_names(tagger, {"a": vectors[name]}, (), seed=3)
    heads, tables = zip(*((m.head.weight.detach(), m.labels.table.weight.detach()) for m in made), strict=True)  # type: ignore[union-attr]
    apart = vectors["city"] - vectors["sea"]
    for row in (1, 2):
        assert torch.allclose((heads[0] - heads[1])[row, :16], 0.02 * 16**0.5 * apart / 2**0.5, atol=1e-6)
        assert 0.5 < float(heads[0][row, :16].norm()) / (0.02 * 16**0.5) < 1.7, "as large as a random one"
    moved = tables[0] - tables[1]
    assert torch.allclose(moved[1], moved[2], atol=1e-6), "one projection of names"
    assert float(moved[1].norm()) > 0.1 * float(apart.norm())
    assert not moved[0].any()
