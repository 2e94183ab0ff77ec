"""LANER: a label-aware autoregressive tagger on a BERT-like encoder (Findings of NAACL 2022).

This file is the public face of the method. The network is in ``tagger/``; training in ``laner_training.py`` and the
house's one loop. The embedded encoder, MiniLM-L6, lower-cases its input; ``tagger.word_shape`` gives capitals back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdner.backbone.encoder import Encoder, load_encoder
from xdner.backbone.words import WordPieces
from xdner.domain import Domain
from xdner.errors import TrainingError
from xdner.evaluation.report import Report
from xdner.library.tagger_entry import TaggerEntry
from xdner.recognizers.base import Recognizer, Request, Result, as_sentence, report_on, requests_of
from xdner.recognizers.laner_training import LanerTraining, TaggerRun, check_start
from xdner.tagger.decoding import read
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import LanerSettings, TaggerSettings
from xdner.tagger.tags import bio_entities, lost_entities
from xdner.text import Sentence
from xdner.training.loop import TrainingResult
from xdner.training.run import Run
from xdner.training.sources import LabelledSource

__all__ = ["LANER", "TrainedTagger"]


@dataclass(frozen=True, eq=False)
class TrainedTagger:
    """What training a domain gave.

    Attributes:
        entry: the domain with its weights and settings, as it is saved.
        result: epochs, losses and dev scores of the target's stage.
        run: all stages.
        inexpressible: gold entities that BIO tags cannot express, by reason (the ceiling of recall).
    """

    entry: TaggerEntry
    result: TrainingResult
    run: TaggerRun
    inexpressible: Mapping[str, int]


class LANER(Recognizer[TaggerEntry]):
    """Recognizes entities with a tagger for each domain; an encoder is tuned as a whole for each.

    Use :meth:`from_pretrained`; then :meth:`train` or :meth:`load` domains, and :meth:`predict`. Without an encoder it can
    load and read domains, which bring their own, but train only from one of them.

    >>> recognizer = LANER.from_pretrained("minilm-l6")                    # doctest: +SKIP
    >>> recognizer.train(domain, sentences, dev=dev_sentences)            # doctest: +SKIP
    >>> recognizer.predict(["Fold in the egg whites."], domain="cooking") # doctest: +SKIP
    """

    def __init__(
        self, encoder: Encoder | None = None, *, settings: LanerSettings | None = None, device: str = "cpu"
    ) -> None:
        super().__init__()
        self.encoder, self.device = encoder, device
        self.settings = settings or LanerSettings.build()
        self._ready: dict[str, tuple[TaggerNetwork, WordPieces]] = {}

    @classmethod
    def from_pretrained(
        cls, encoder: str | Path | None = None, *, device: str = "cpu", settings: LanerSettings | None = None
    ) -> LANER:
        """Load an encoder by alias, hub id or folder.

        Args:
            encoder: ``None`` is the embedded one, ``minilm-l6``.
            device: ``cpu``, ``cuda``, …
            settings: defaults for training; see :class:`~xdner.tagger.settings.LanerSettings`.

        Raises:
            BackboneNotFoundError: the name leads to no weights.
            BackboneError: not an encoder, or one without a fast tokenizer.
        """
        return cls(load_encoder(encoder, device=device), settings=settings, device=device)

    # -- domains -----------------------------------------------------------------------------------------------------

    def add(self, entry: TaggerEntry) -> None:
        """Make a trained domain ready; its network is made when it is first used."""
        self._entries[entry.domain.name] = entry
        self._ready.pop(entry.domain.name, None)

    def load(self, folder: str | Path) -> str:
        """Read a domain's folder and make it ready.

        Returns:
            The domain's name.

        Raises:
            TaggerFormatError: the folder is not a tagger, was altered, or the domain's labels are others than those that
                it was trained for.
            DomainError, SettingsError: these files are broken.
        """
        entry = TaggerEntry.load(folder)
        ready = self._built(entry)  # what does not fit together is told now, and takes nobody's place
        self.add(entry)
        self._ready[entry.domain.name] = ready
        return entry.domain.name

    def _tagger(self, name: str) -> tuple[TaggerNetwork, WordPieces]:
        if name not in self._ready:
            self._ready[name] = self._built(self._entry(name))
        return self._ready[name]

    def _built(self, entry: TaggerEntry) -> tuple[TaggerNetwork, WordPieces]:
        network, encoder = entry.build(self.device)
        return network, entry.pieces(encoder)

    # -- reading -----------------------------------------------------------------------------------------------------

    def recognize(
        self, requests: Sequence[Request], *, beam: int | None = None, done: Callable[[int], None] | None = None
    ) -> list[Result]:
        """Read texts, each in its own domain; results come in the order of the requests; arguments as :meth:`predict`."""
        if beam is not None:
            LanerSettings(TaggerSettings(beam=beam))  # refuses one that cannot be
        sentences = [as_sentence(r.text) for r in requests]
        for name in dict.fromkeys(r.domain for r in requests):
            self._entry(name)
        results: list[Result | None] = [None] * len(requests)
        so_far = 0
        for name in dict.fromkeys(r.domain for r in requests):
            own = [i for i, r in enumerate(requests) if r.domain == name]
            network, pieces = self._tagger(name)
            how = self._entry(name).settings.decoding
            encoded = pieces.encode([sentences[i] for i in own], window=how.window, overlap=how.overlap)
            told = None if done is None else _from(done, so_far)
            tagged = read(network, encoded, beam=beam, batch_size=how.batch_size, done=told)
            so_far += sum(map(len, encoded))
            for i, windows, found in zip(own, encoded, tagged, strict=True):
                entities = bio_entities(sentences[i], found.tags, found.probabilities)
                capped = pieces.capped(windows)
                notes = {"capped_words": capped} if capped else {}
                results[i] = Result(sentences[i].text, entities, name, max(1, len(windows)), notes)
        return [r for r in results if r is not None]

    def predict(
        self,
        texts: str | Sentence | Sequence[str | Sentence],
        *,
        domain: str | Sequence[str] | None = None,
        beam: int | None = None,
        done: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """Recognize the entities of texts.

        An entity's score is the product of its words' tag probabilities (given the tags before; of a CRF, marginals).

        Args:
            texts: one or several texts.
            domain: one name for all texts or one a text; may be left out if only one domain is ready.
            beam: hypotheses that decoding keeps; 1 is greedy; by default what the domain's settings say.
            done: called with the number of windows read so far.

        Raises:
            UnknownDomainError: no such domain here.
            SettingsError: a beam that cannot be.
            DataError: as many domains as texts are needed, or a text is not one.
        """
        return self.recognize(requests_of(texts, domain, lambda: self.domains), beam=beam, done=done)

    def evaluate(
        self,
        corpus: Sequence[Sentence],
        *,
        domain: str | None = None,
        beam: int | None = None,
        done: Callable[[int], None] | None = None,
    ) -> Report:
        """Score the domain's predictions against a corpus's entities (exact spans; see ``evaluation/report.py``)."""
        sentences = list(corpus)
        return report_on(sentences, self.predict(sentences, domain=domain, beam=beam, done=done))

    # -- training ----------------------------------------------------------------------------------------------------

    def train(
        self,
        domain: Domain,
        train_sentences: Sequence[Sentence],
        dev: Sequence[Sentence] | None = None,
        *,
        sources: Sequence[LabelledSource] = (),
        start: str | None = None,
        settings: LanerSettings | None = None,
        run: Run | None = None,
    ) -> TrainedTagger:
        """Train a domain's tagger, all weights of it, and make the domain ready.

        Args:
            domain: its types.
            train_sentences: labelled sentences.
            dev: sentences that choose the best epoch and end training early; without them, the last epoch counts.
            sources: source domains with sentences, which are learned together first; what has the same name in the
                target is carried over.
            start: a domain that is ready here, to go on from: a source stage that is already done.
            settings: this recognizer's settings if none are given.
            run: where checkpoints go, and what is shown; without it nothing is written or shown.

        Returns:
            The domain with its weights, and the record of the run.

        Raises:
            DomainError: labels in the sentences that their domain does not have.
            UnknownDomainError: ``start`` is not ready here.
            BackboneMismatchError: ``start`` was trained on another encoder than this recognizer's.
            SettingsError: ``start`` is a tagger of another structure.
            TrainingError: no encoder and no start, nothing to train on, or the loss is not a number.
            TrainingInterrupted: Ctrl-C; a checkpoint was kept if the run has a folder.
        """
        settings = settings or self.settings
        encoder, known = self.encoder, None
        if start is not None:
            entry = self._entry(start)
            check_start(encoder, entry)
            # A network of its own: the start's stays as it is.
            network, encoder = entry.build(self.device)
            known = entry, network
        if encoder is None:
            raise TrainingError(
                "there is no encoder to train", hint="Use LANER.from_pretrained('minilm-l6'), or give a start."
            )
        training = LanerTraining(
            encoder, domain, list(train_sentences), list(dev or []), settings, sources=sources, start=known
        )
        made = training.run(run)
        self.add(made.entry)
        self._ready[domain.name] = made.network, made.pieces
        return TrainedTagger(made.entry, made.result, made, lost_entities(train_sentences))


def _from(done: Callable[[int], None], first: int) -> Callable[[int], None]:
    return lambda count: done(first + count)
