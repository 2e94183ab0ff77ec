"""Training a LANER domain in two stages: the sources first, then the target (§2.3 of the paper)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from xdner.backbone.encoder import Encoder
from xdner.backbone.tensors import fingerprint
from xdner.backbone.words import WordPieces
from xdner.domain import Domain, verbalize
from xdner.errors import BackboneMismatchError
from xdner.library.entry import sentence_hashes
from xdner.library.tagger_entry import TaggerEntry
from xdner.recognizers.warmup import check_labels
from xdner.tagger.carry import carry_over, name_vectors, start_from_names
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import LanerSettings
from xdner.tagger.tags import tags_for
from xdner.text import Sentence
from xdner.training.loop import TrainingResult, train
from xdner.training.run import Run
from xdner.training.sources import LabelledSource, limited
from xdner.training.tagger_task import TaggerTask

__all__ = ["LanerTraining", "TaggerRun", "check_start"]


@dataclass(frozen=True, eq=False)
class TaggerRun:
    """What training gave: the domain as it is stored, its network ready to read, and the record of each stage."""

    entry: TaggerEntry
    network: TaggerNetwork
    pieces: WordPieces
    phases: tuple[tuple[str, TrainingResult], ...]

    @property
    def result(self) -> TrainingResult:
        """Of the target's stage."""
        return self.phases[-1][1]

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(result.seconds for _, result in self.phases)


class LanerTraining:
    """Both stages of one domain.

    Args:
        encoder: stays as it is; a copy is trained.
        domain: the target's types.
        sentences, dev: labelled sentences.
        settings: all groups.
        sources: source domains with sentences; they are learned together, before the target.
        start: a trained domain to go on from and its network, which is trained on; its encoder is ``encoder``.

    Raises:
        DomainError: labels in the sentences that the domain does not have.
    """

    def __init__(
        self,
        encoder: Encoder,
        domain: Domain,
        sentences: Sequence[Sentence],
        dev: Sequence[Sentence],
        settings: LanerSettings,
        *,
        sources: Sequence[LabelledSource] = (),
        start: tuple[TaggerEntry, TaggerNetwork] | None = None,
    ) -> None:
        for one, corpora in ((domain, (sentences, dev)), *((s.domain, (s.sentences,)) for s in sources)):
            check_labels(one, *corpora)
        self.encoder, self.domain, self.sentences, self.dev = encoder, domain, sentences, dev
        self.settings, self.sources, self.start = settings, tuple(sources), start
        self.pieces = WordPieces(encoder.tokenizer, encoder.positions)
        # Type names in words, for rows that start from them; the target's own words go first.
        own = {label.name: label.verbalization for label in domain.labels}
        self.words = {label.name: label.verbalization for s in sources for label in s.domain.labels} | own

    def run(self, run: Run | None = None) -> TaggerRun:
        """Train; ``run`` says where checkpoints go, and what is shown. Each stage has its own sub-folder; on resuming, a
        stage that ended is not made again.

        Raises:
            TrainingError: nothing to train on, or the loss is not a number any more.
            TrainingInterrupted: Ctrl-C.
        """
        run = run or Run()
        training, phases = self.settings.training, []
        run.forget()
        before = None if self.start is None else self.start[1]
        module: nn.Module = self.encoder.fresh() if before is None else before.encoder
        stages: list[tuple[str, Sequence[str], Sequence[Sentence], Sequence[Sentence]]] = []
        if self.sources:
            every = [name for s in self.sources for name in s.domain.label_names]
            stages.append(("source", every, [x for s in self.sources for x in s.sentences], ()))
        scored = limited(self.dev, training.dev_limit)
        stages.append(("target", self.domain.label_names, self.sentences, scored))
        for number, (name, labels, sentences, dev) in enumerate(stages):
            network = self._network(module, labels, before)
            stage = training
            if name == "source":  # there is no dev split of it: all epochs are run, and the last one counts
                stage = replace(training, epochs=self.settings.tagger.source_epochs, patience=0)
            if len(stages) > 1:
                run.progress.phase(name)
            task = TaggerTask(
                network, self.pieces, sentences, dev, self.settings.decoding, recompute=training.gradient_checkpointing
            )
            part = run.part(name, first=number == 0)
            result = train(task, stage, part, fingerprint=self._fingerprint(name))
            phases.append((name, result))
            before = network
        entry = TaggerEntry.of(
            self.domain, self.settings, network, self.encoder,
            notes=self._notes(phases[-1][1]), seen=self._seen(),
        )  # fmt: skip
        return TaggerRun(entry, network.eval(), self.pieces, tuple(phases))

    def _network(self, module: nn.Module, labels: Sequence[str], before: TaggerNetwork | None) -> TaggerNetwork:
        """A network for these labels that knows what the one before it knows."""
        seed = self.settings.training.seed
        network = TaggerNetwork(module, tags_for(labels), self.settings.tagger, seed=seed).to(self.encoder.model.device)
        if before is not None:
            carry_over(network, before)
        if self.settings.tagger.new_rows == "name":
            # Names are read last: with word shapes that were learned, too.
            known = () if before is None else before.tags
            words = {label: self.words.get(label) or verbalize(label) for label in labels}
            start_from_names(network, name_vectors(network, self.pieces, words), known, seed)
        return network

    def _seen(self) -> frozenset[str]:
        """Of all sentences that the weights have learned from, in whatever stage."""
        before = frozenset[str]() if self.start is None else self.start[0].seen
        return before.union(sentence_hashes(self.sentences), *(sentence_hashes(s.sentences) for s in self.sources))

    def _notes(self, result: TrainingResult) -> dict[str, Any]:
        notes: dict[str, Any] = {
            "domain": self.domain.name,
            "seed": self.settings.training.seed,
            "train_sentences": len(self.sentences),
            "dev_sentences": len(self.dev),
            "best_epoch": result.best_epoch,
            "dev_f1": result.best_dev,
            "steps": result.steps,
        }
        drawn = [{"name": s.domain.name, "sentences": len(s.sentences)} for s in self.sources]
        if self.start is not None:
            drawn.insert(0, {"name": self.start[0].domain.name, "sentences": None})
        return notes | ({"sources": drawn} if drawn else {})

    def _fingerprint(self, stage: str) -> str:
        """What a stage depends on; a checkpoint of another run is refused."""
        described: dict[str, Any] = {
            "stage": stage,
            "encoder": self.encoder.fingerprint,
            "start": None if self.start is None else fingerprint(dict(self.start[0].tensors)),
            "domain": self.domain.to_dict(),
            "settings": self.settings.to_dict(),
        }
        if self.sources:  # their types' words are what new rows may start from
            described["sources"] = [s.domain.to_dict() for s in self.sources]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for sentence in (*(x for s in self.sources for x in s.sentences), *self.sentences, *self.dev):
            entities = [dataclasses.astuple(e) for e in sentence.entities]
            digest.update(json.dumps([sentence.text, entities]).encode())
        return digest.hexdigest()


def check_start(encoder: Encoder | None, start: TaggerEntry) -> None:
    """A start must have been made of the encoder that was asked for, if one was.

    Raises:
        BackboneMismatchError: otherwise.
    """
    if encoder is not None and encoder.fingerprint != start.encoder["fingerprint"]:
        raise BackboneMismatchError(
            f"{start.domain.name!r} was trained on the encoder {start.encoder['name']}, not on {encoder.name}",
            hint=f"Leave --backbone out, or train {start.domain.name} again with --backbone {encoder.source}.",
        )
