"""Four tiny domains: three that are known, and a target that draws on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.t5 import T5Backbone
from xdner.domain import Domain
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.sources import Source
from xdner.recognizers.transfer import Transfer, Transferred
from xdner.settings import Settings
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence

__all__ = ["DATA", "EQ_10", "SOURCES", "causal", "entries", "run", "settings", "t5", "trained"]

BASE = ["epochs=4", "training.batch_size=2", "length=3", "patience=0", "evaluate_from=1", "learning_rate=0.05"]
DATA = {
    "people": (Domain.from_labels("people", ["person", "place"]), [
        Sentence.from_text("Ann in Rome", [(0, 3, "person"), (7, 11, "place")]),
        Sentence.from_text("Rome, the city", [(0, 4, "place")]),
    ]),
    "seas": (Domain.from_labels("seas", ["sea", "place"]), [
        Sentence.from_text("the Baltic sea at Kiel", [(4, 10, "sea"), (18, 22, "place")]),
        Sentence.from_text("North sea", [(0, 9, "sea")]),
    ]),
    "stars": (Domain.from_labels("stars", ["star"]), [Sentence.from_text("Vega is bright", [(0, 4, "star")])]),
    "rivers": (Domain.from_labels("rivers", ["river", "place"]), [
        Sentence.from_text("the Elbe at Dresden", [(4, 8, "river"), (12, 19, "place")]),
        Sentence.from_text("Elbe floods", [(0, 4, "river")]),
        Sentence.from_text("nothing here"),
    ]),
}  # fmt: skip
SOURCES = ("people", "seas", "stars")
#: Half of the epochs for the warm-up, and half of what it brought in the mixture.
EQ_10 = ("warmup_share=0.5", "source_share=0.5")


def causal() -> Backbone:
    """A tiny Llama-like model."""
    return CausalBackbone(tiny_causal("llama"), byte_level_tokenizer(), name="tiny")


def t5() -> Backbone:
    """A tiny T5."""
    return T5Backbone(tiny_t5(), t5_like_tokenizer(), name="tiny-t5")


def settings(*overrides: str) -> Settings:
    """Short runs."""
    return Settings.build(overrides=[*BASE, *overrides])


def trained(backbone: Backbone) -> CPNER:
    """A recognizer that knows the sources."""
    recognizer = CPNER(backbone, settings=settings("epochs=2"))
    for name in SOURCES:
        recognizer.train(*DATA[name])
    return recognizer


def entries(recognizer: CPNER, names: Sequence[str] = SOURCES) -> list[Source]:
    """What it knows, as sources."""
    return [Source(recognizer._entry(n), DATA[n][1]) for n in names]


def run(
    recognizer: CPNER, how: Settings, names: Sequence[str] = SOURCES, alphas: Mapping[str, float] | None = None,
    dev: Sequence[Sentence] = (),
) -> Transferred:  # fmt: skip
    """The target ``rivers`` by the strategy in the settings."""
    domain, sentences = DATA["rivers"]
    return Transfer(
        recognizer.reader, domain, sentences, dev, how, initial=recognizer.initial_prefix(how.prefix),
        sources=entries(recognizer, names), alphas=alphas,
    ).run()  # fmt: skip
