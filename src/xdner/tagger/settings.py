"""Settings of taggers: ``tagger`` is their own group, ``training`` and ``decoding`` are those of the house."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from xdner.groups import GroupedSettings, Positive, Use, Within
from xdner.settings import CHOICE, LOOP, WINDOWS, DecodingSettings, TrainingSettings

__all__ = ["LanerSettings", "TaggerSettings"]


@dataclass(frozen=True, slots=True)
class TaggerSettings:
    """The network, the source stage and the search.

    Attributes:
        head: ``laner`` (Eqs. 3 to 10), ``plain`` (one linear layer: the paper's BERT-tagger) or ``crf`` (BERT-CRF).
        label_background: whether ``laner`` has LB (Eqs. 4 to 6). Without LB and LC it *is* the plain tagger.
        label_context: whether ``laner`` has LC (Eqs. 7 and 8).
        label_size: dimension of label embeddings and of each direction of the label LSTM, d₂.
        history: ``bidirectional`` (Eq. 3) or, as a fast variant, ``forward``: one LSTM that goes on from word to word.
        own_history: share of the labels before that in training are the tagger's own instead of gold, as all are in reading; 0 is
            the paper's.
        pooling: a word's state is that of its ``first`` sub-word, or their ``mean``.
        word_shape: add an embedding of each word's shape (capitals, digits) to its state; for encoders that lower-case.
        dropout: on the words' states.
        new_rows: rows of tags that the stage before did not know start at ``random``, or from the embedding of the
            type's ``name`` under the encoder.
        source_epochs: passes over source sentences.
        beam: hypotheses that decoding keeps; 1 is greedy. Only for ``laner``.
    """

    head: Literal["laner", "plain", "crf"] = "laner"
    label_background: bool = True
    label_context: bool = True
    label_size: Annotated[int, Within(1, 4096)] = 100
    history: Literal["bidirectional", "forward"] = "bidirectional"
    own_history: Annotated[float, Within(0, 1)] = 0.0
    pooling: Literal["first", "mean"] = "first"
    word_shape: bool = False
    dropout: Annotated[float, Within(0, 1, below=True)] = 0.1
    new_rows: Literal["random", "name"] = "random"
    source_epochs: Positive = 5
    beam: Annotated[int, Within(1, 256)] = 1

    @property
    def background(self) -> bool:
        """Is there LB?"""
        return self.head == "laner" and self.label_background

    @property
    def context(self) -> bool:
        """Is there LC?"""
        return self.head == "laner" and self.label_context

    @property
    def autoregressive(self) -> bool:
        """Do labels depend on the labels before (Eq. 1)?"""
        return self.background or self.context

    def idle(self) -> list[str]:
        """What was set, but means nothing to this head. Told, not refused: one ``--set`` serves all heads of a comparison."""
        switches = () if self.head == "laner" else ("label_background", "label_context")
        inner = () if self.autoregressive else ("label_size", "history", "own_history", "beam")
        default = TaggerSettings()
        return [f"tagger.{name}" for name in (*switches, *inner) if getattr(self, name) != getattr(default, name)]

    def structure(self) -> dict[str, Any]:
        """What decides which weights there are, and what they mean."""
        inner = {"label_size", "history"} if self.autoregressive else set()
        kept = {"head", "label_background", "label_context", "pooling", "word_shape"} | inner
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in kept}


@dataclass(frozen=True, slots=True)
class LanerSettings(GroupedSettings):
    """All groups of a tagger. Of ``training``, what speaks of prefixes, prompts or options is refused."""

    USE: ClassVar[Use] = Use("LANER", {"training": LOOP | CHOICE, "decoding": WINDOWS})

    # Table 5 of the paper: rate, batch, epochs. The first epochs of a small set have F1 0, which must not end the run.
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {
            "learning_rate": 5e-5, "batch_size": 16, "epochs": 100, "patience": 10, "evaluate_from": 10,
            "evaluate_every": 2, "checkpoint_every": 100,
        },
        "decoding": {"batch_size": 64},
    }  # fmt: skip

    tagger: TaggerSettings = field(default_factory=TaggerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
