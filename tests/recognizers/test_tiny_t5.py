"""CP-NER as a whole, on a T5 small enough to train inside a test.

First a tiny T5 learns a toy task in several domains with all its weights. Then it is frozen, and a prefix teaches it a
domain whose words and type it has never been asked for.
"""

from __future__ import annotations

import random

import pytest
import torch

from xdner.backbone.t5 import T5Backbone
from xdner.codec.instructor import Instructor
from xdner.domain import Domain
from xdner.evaluation.report import evaluate
from xdner.recognizers.cp_ner import CPNER
from xdner.settings import Settings
from xdner.testing.models import tiny_t5
from xdner.testing.tokenizers import t5_like_tokenizer
from xdner.text import Sentence
from xdner.training.augmentation import Augmentation
from xdner.training.domain_task import DomainTask, make_items
from xdner.training.loop import train

KINDS = {"person": "n", "city": "c", "river": "r", "dish": "d"}
WORDS = {kind: [f"{letter}{i}" for i in range(8)] for kind, letter in KINDS.items()}
FILLERS = [f"w{i}" for i in range(8)]
TOKENS = tuple(sorted({*FILLERS, *KINDS, "lake", *(w for ws in WORDS.values() for w in ws)}))
DOMAINS = {
    "people": Domain.from_labels("people", ["person"]),
    "maps": Domain.from_labels("maps", ["city", "river"]),
    "letters": Domain.from_labels("letters", ["person", "city"]),
}
# The frozen model knows these words as rivers; it has never read the type "lake".
WATERS = Domain.from_labels("waters", ["lake"])
MEANS = {"lake": "river"}
SETTINGS = Settings.build(
    overrides=[
        "repeats=1", "order=mention-first", "length=8", "init=noise", "noise=0.05", "epochs=40", "patience=0",
        "evaluate_every=10", "training.batch_size=16", "learning_rate=0.1", "shuffle_options=false", "max_pieces=256",
    ]
)  # fmt: skip


def sentences(domain: Domain, count: int, seed: int) -> list[Sentence]:
    """Words of all kinds; only the domain's kinds are entities. Two words of a kind in a row are one mention."""
    rng = random.Random(seed)
    made = []
    for index in range(count):
        words, spans = [], []
        for _ in range(rng.randint(3, 5)):
            kind = rng.choice([*KINDS, "filler", "filler"])
            if kind == "filler":
                words.append(rng.choice(FILLERS))
                continue
            length = rng.choice([1, 1, 2])
            label = {MEANS.get(name, name): name for name in domain.label_names}.get(kind)
            if label is not None and not (spans and spans[-1][1] == len(words)):
                spans.append((len(words), len(words) + length, label))
            elif label is not None:
                continue
            words += [rng.choice(WORDS[kind]) for _ in range(length)]
        made.append(Sentence.from_words(words or ["w0"], spans, id=f"{domain.name}-{seed}-{index}"))
    return made


@pytest.fixture(scope="module")
def backbone() -> T5Backbone:
    """A tiny T5 that has learned three domains, then frozen."""
    torch.set_num_threads(1)
    model = tiny_t5("t5", vocabulary=200, seed=1)
    made = T5Backbone(model, t5_like_tokenizer(TOKENS), name="tiny-t5")
    recognizer = CPNER(made, settings=SETTINGS)
    encoder = recognizer.reader.encoder
    instructor = Instructor(encoder, SETTINGS.codec)
    items = [x for d in DOMAINS.values() for x in make_items(d, sentences(d, 260, 1), encoder, instructor, 256)]
    weights = {n: p.requires_grad_(True) for n, p in model.named_parameters()}
    settings = Settings.build(overrides=["epochs=20", "learning_rate=6e-3", "training.batch_size=32", "patience=0"])
    empty = made.empty_prefix()
    task = DomainTask(
        made, items, SETTINGS.codec, settings.training, encoder=encoder, augmentation=Augmentation(),
        parameters=weights, prefix=lambda: empty, score=lambda: None,
    )  # fmt: skip
    assert train(task, settings.training).history[-1].loss < 0.2
    made.freeze()
    made.__dict__.pop("fingerprint", None)
    return made


def score_without_prefix(recognizer: CPNER, domain: Domain, test: list[Sentence]) -> float:
    backbone = recognizer.backbone
    nothing = [torch.zeros(s.heads, 0, s.head_dim) for s in backbone.sites]
    steered = recognizer.reader.steer(domain, SETTINGS.codec, nothing, nothing)
    results = recognizer.reader.read([(s, steered) for s in test])
    return evaluate([s.entities for s in test], [r.entities for r in results], samples=0).micro.f1


def test_the_backbone_learned_its_domains(backbone: T5Backbone) -> None:
    recognizer = CPNER(backbone, settings=SETTINGS)
    scores = {d.name: score_without_prefix(recognizer, d, sentences(d, 60, 2)) for d in DOMAINS.values()}
    assert min(scores.values()) > 0.65, scores


def test_a_prefix_teaches_the_frozen_backbone_a_new_domain(backbone: T5Backbone) -> None:
    recognizer = CPNER(backbone, settings=SETTINGS)
    weights = backbone.compute_fingerprint()
    test = sentences(WATERS, 60, 4)
    before = score_without_prefix(recognizer, WATERS, test)
    trained = recognizer.train(WATERS, sentences(WATERS, 60, 3), sentences(WATERS, 30, 5))
    after = recognizer.evaluate(test, domain="waters").micro.f1
    assert before < 0.1
    assert after > 0.6
    assert backbone.compute_fingerprint() == weights
    assert trained.entry.prefix.length == 8
    assert {s.name.partition(".")[0] for s in trained.entry.prefix.geometry.sites} == {"encoder", "decoder", "cross"}
