"""From one stage's tagger to the next: what both have is carried over by name, the rest starts anew."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xdner.backbone.words import Encoded, WordPieces
from xdner.errors import SettingsError
from xdner.tagger.network import TaggerNetwork
from xdner.text import Sentence

__all__ = ["carry_over", "name_vectors", "start_from_names"]


def carry_over(new: TaggerNetwork, old: TaggerNetwork) -> int:
    """Take everything that does not belong to a tag, and the rows of the tags that both have, from an older tagger.

    Encoder, label LSTM and attention are copied whole; of the label table, the head and a CRF's scores the rows (and
    columns) of tags of the same name, and the start symbol's.

    Returns:
        How many tags both have.

    Raises:
        SettingsError: the two are built differently.
    """
    ours, theirs = new.settings.structure(), old.settings.structure()
    if ours != theirs:
        odd = [f"tagger.{k} is {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in sorted({*ours, *theirs})
               if ours.get(k) != theirs.get(k)]  # fmt: skip
        own = [f"--set tagger.{k}={str(v).lower()}" for k, v in sorted(theirs.items()) if ours.get(k) != v]
        raise SettingsError(
            [f"the source's tagger is built differently: {', '.join(odd)}"],
            hint=f"Train with the source's own ({' '.join(own)}), or train the source again.",
        )
    shared = [(i, old.tags.index(tag)) for i, tag in enumerate(new.tags) if tag in old.tags]
    mine, other = (torch.tensor(column, dtype=torch.long) for column in zip(*shared, strict=True))
    by_tag = {"head.weight", "head.bias", "labels.table.weight", "crf.steps", "crf.begin", "crf.end"}
    values, known = dict(new.named_parameters()), dict(old.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            source = known[name]
            if name not in by_tag:
                if value is not source:  # both may hold the same encoder
                    value.copy_(source)
            elif name == "crf.steps":
                value[mine[:, None], mine] = source[other[:, None], other].to(value.device)
            else:
                value[mine] = source[other].to(value.device)
            if name == "labels.table.weight":
                value[-1] = source[-1]  # the start symbol
    return len(shared)


def name_vectors(network: TaggerNetwork, pieces: WordPieces, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A vector of length one for each type: the mean of the encoder's states over the words of its name.

    Args:
        names: a type's words, by label.

    Returns:
        [d₁] by label.
    """
    labels = [label for label in names if names[label].split()]
    encoded = pieces.encode([Sentence.from_words(names[label].split()) for label in labels])
    was = network.training
    network.eval()
    made: dict[str, Tensor] = {}
    with torch.no_grad():
        for label, windows in zip(labels, encoded, strict=True):
            items: list[Encoded] = list(windows)
            vector = network.words(network.batch(items)).mean(0)
            made[label] = vector / vector.norm().clamp(min=1e-6)
    network.train(was)
    return made


def start_from_names(network: TaggerNetwork, vectors: Mapping[str, Tensor], without: Sequence[str], seed: int) -> None:
    """Give the rows of new tags a start in their types' names, as large as a random one.

    A head's row is the name's vector where it meets the word's state, and half noise, so that ``B-`` and ``I-`` differ;
    a label's embedding is the name's vector under one random projection, and as much noise. The projection depends on the
    seed only, the noise of a head's row on the seed and ``B`` or ``I``, that of an embedding on the seed and the tag: types
    that sound alike start close, in every stage.

    Args:
        vectors: by label (:func:`name_vectors`).
        without: tags whose rows are known.
    """

    def noise(*shape: int, of: str) -> Tensor:
        generator = torch.Generator().manual_seed(random.Random(f"{seed} {of}").getrandbits(63))
        return torch.randn(shape, generator=generator).to(network.device)

    with torch.no_grad():
        for row, tag in enumerate(network.tags):
            prefix, _, label = tag.partition("-")
            if tag in without or label not in vectors:
                continue
            vector = vectors[label]
            size = len(vector)
            weight: Tensor = network.head.weight
            random_part = noise(size, of=f"head {prefix}") / size**0.5
            weight[row, :size] = 0.02 * size**0.5 * (vector + random_part) / 2**0.5
            if network.labels is not None:
                table: Tensor = network.labels.table.weight
                projection = noise(table.shape[1], size, of="projection")
                table[row] = (projection @ vector + noise(table.shape[1], of=f"label {tag}")) / 2**0.5
