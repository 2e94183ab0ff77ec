"""From known domains to a new one: the transfer strategies of CP-NER, by name.

==================  ==================================================================================================
``none``            warm-up only (Eq. 4)
``single``          as ``collaborative``, with exactly one source
``collaborative``   warm-up, selector (Eqs. 5 to 8), intrinsic decomposition (Eqs. 9 and 10), training on the target
``chain``           the first source's prefix, trained further on each next source's sentences, then on the target's
``ensemble``        one single-source prefix for each source; they vote (``vote.py``)
==================  ==================================================================================================

Every strategy gives the target the same number of epochs in all (``training.epochs``): a collaborative run spends
``transfer.warmup_share`` of them on its warm-up, an ensemble divides them among its members (one each at least). Sources'
own training is not counted; they are there already, but for the links of a chain, which are trained as a domain by
itself would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xdner.domain import Domain
from xdner.errors import SettingsError
from xdner.library.entry import DomainEntry, sentence_hashes
from xdner.prefix.combine import LearnedMixture, learned, merge, mix, weights_of
from xdner.prefix.parametrization import Parametrization
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import Selection, alpha_of, check_origins, softmax_weights
from xdner.recognizers.reader import Reader
from xdner.recognizers.sources import Source, check_selector, check_sources, choose
from xdner.recognizers.warmup import WarmUp, check_labels, initial_prefix
from xdner.settings import Settings, domain_use
from xdner.text import Sentence
from xdner.training.loop import TrainingResult
from xdner.training.run import Run

__all__ = ["Phase", "Transfer", "Transferred"]


@dataclass(frozen=True, eq=False)
class Phase:
    """One training run of a strategy: what it was, and its record."""

    name: str
    result: TrainingResult


@dataclass(frozen=True, eq=False)
class Transferred:
    """What a strategy gave.

    Attributes:
        entry: the target's domain; its prefix is an ordinary one.
        phases: all training runs, in order; the last one's dev score is the domain's, except for an ensemble.
        selection: what the selector said; ``None`` where it was not asked.
    """

    entry: DomainEntry
    phases: tuple[Phase, ...]
    selection: Selection | None = None

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(p.result.seconds for p in self.phases)

    @property
    def steps(self) -> int:
        """Optimizer steps on the target's sentences; those on a source's are not counted."""
        return sum(p.result.steps for p in self.phases if not p.name.startswith("chain:"))


class Transfer:
    """Trains a target's domain by one of the strategies.

    Groups of settings may hold what this strategy, or this number of sources, makes no use of
    (:func:`~xdner.settings.domain_use`): one value serves many trainings, as in a comparison of strategies, and nobody can
    tell here what was asked for. :func:`~xdner.workflows.train_domain` can, and refuses it by the same rule; an α of a
    single source is asked for here, and refused here.

    Args:
        reader: of the frozen backbone.
        domain: the target.
        sentences, dev: its labelled sentences.
        settings: ``transfer`` and ``selector`` say how, ``training`` how long.
        initial: δ₀.
        sources: in their order.
        alphas: α of single sources, by name, over ``selector.alpha``.

    Raises:
        TrainingError: a number of sources that the strategy cannot use, a source twice, the target among its sources, or
            a chain without a source's sentences.
        PrefixMismatchError: a source for another backbone or with another initial prefix, or an ensemble.
        SettingsError: an impossible α, one for a domain that is no source or where nothing chooses among sources, or
            settings that exclude each other.
    """

    def __init__(
        self,
        reader: Reader,
        domain: Domain,
        sentences: Sequence[Sentence],
        dev: Sequence[Sentence],
        settings: Settings,
        *,
        initial: Prefix | None = None,
        sources: Sequence[Source] = (),
        alphas: Mapping[str, float] | None = None,
    ) -> None:
        self.reader, self.domain, self.sentences, self.dev = reader, domain, sentences, dev
        self.settings = settings = replace(settings, transfer=settings.transfer.decided(bool(sources)))
        self.sources, self.alphas = tuple(sources), dict(alphas or {})
        self.initial = initial.rounded() if initial is not None else initial_prefix(reader, settings.prefix)
        self.strategy = settings.transfer.strategy
        self._training = settings.training.scheduled(len(sentences))
        self.phases: list[Phase] = []
        check_sources(self.strategy, domain, self.sources)
        for source in self.sources:
            backbone, what = reader.backbone, f"the prefix of the source {source.name!r}"
            source.entry.prefix.check(backbone.fingerprint, backbone.geometry, backbone.name, what)
        # Before anything is trained, not after the warm-up.
        check_origins([(s.name, s.entry.prefix) for s in self.sources], self.initial)
        if self.sources or self.alphas:
            alpha_of([s.name for s in self.sources], settings.selector.alpha, self.alphas)
        use = domain_use(self.strategy, len(self.sources))
        if self.alphas and not use.has("selector", "alpha"):
            raise SettingsError([f"{use.job} makes no use of an α for {', '.join(self.alphas)}"], hint=use.hint)
        check_selector(settings, self.alphas)
        check_labels(domain, sentences, dev)
        for source in self.sources[1:] if self.strategy == "chain" else ():
            check_labels(source.entry.domain, source.sentences)

    def run(self, run: Run | None = None) -> Transferred:
        """Train; ``run`` says where checkpoints go, and what is shown. Each phase has its own sub-folder; on resuming,
        phases that ended are not made again.

        Raises:
            TrainingError, TrainingInterrupted: see the loop.
        """
        self._run = run or Run()
        self._run.forget()
        self.phases = []
        total = self._training.epochs
        selection: Selection | None = None
        if self.strategy == "none":
            entry = self._train("", epochs=total)
        elif self.strategy == "chain":
            entry = self._chain(total)
        elif self.strategy == "ensemble":
            entry = self._ensemble(total)
        else:
            entry, selection = self._collaborate(self.sources, total)
        # What its sources know, it knows too.
        links = self.sources[1:] if self.strategy == "chain" else ()
        known = [s.entry.seen for s in self.sources] + [sentence_hashes(s.sentences) for s in links]
        entry = replace(entry, settings=self.settings, seen=entry.seen.union(*known))
        facts = self._facts(selection)
        prefix = entry.prefix.with_notes(transfer=facts) if facts else entry.prefix
        return Transferred(replace(entry, prefix=prefix), tuple(self.phases), selection)

    # -- strategies ------------------------------------------------------------------------------------------------

    def _collaborate(self, sources: Sequence[Source], epochs: int, name: str = "") -> tuple[DomainEntry, Selection]:
        """Warm-up, selector, decomposition, training on the target; one source is the same path with weight 1."""
        warm = min(epochs - 1, max(1, round(epochs * self.settings.transfer.warmup_share)))
        # δ₀ as a prefix that started from itself: what the target has before its warm-up.
        own = untrained = replace(self.initial, initial=self.initial.hash())
        if self.settings.transfer.warmup_share and epochs > 1:
            own = self._train(_join(name, "warm-up"), epochs=warm, dev=()).prefix
            epochs -= warm
        selection = self._select(sources, own, warm=own is not untrained)
        prefixes, share = [s.entry.prefix for s in sources], self.settings.transfer.source_share
        start: Prefix | Parametrization
        if self.settings.transfer.learn_alpha:
            # Of the best k only, as they were before α moved.
            kept = [i for i, weight in enumerate(selection.weights) if weight > 0]
            counted = replace(selection, sources=tuple(selection.sources[i] for i in kept))
            start = LearnedMixture(
                own, [prefixes[i] for i in kept], weights_of(counted), self.settings.selector.alpha, share
            )  # fmt: skip
        else:
            start = merge(own, mix(prefixes, selection.weights), share)
        entry = self._train(_join(name, "target"), epochs=epochs, start=start)
        return entry, learned(selection, start) if isinstance(start, LearnedMixture) else selection

    def _select(self, sources: Sequence[Source], own: Prefix, *, warm: bool) -> Selection:
        # Without a warm-up the target's prefix says nothing about the target: only the types' names can (DESIGN 1.6).
        alphas = self.alphas if warm else {s.name: 1.0 for s in sources}
        named = {s.name for s in sources}
        chosen = choose(
            self.reader, self.domain, own, [s.entry for s in sources], initial=self.initial, settings=self.settings,
            alphas={name: a for name, a in alphas.items() if name in named},
        )  # fmt: skip
        if self.settings.selector.weighting != "loss":
            return chosen
        own_sentences = self.dev or self.sentences
        target = WarmUp(self.reader, self.domain, own_sentences, (), self.settings, initial=self.initial)
        losses = [-target.mean_loss(s.entry.prefix) for s in sources]
        how = self.settings.selector
        weights = softmax_weights(losses, how.effective_temperature, how.top_k)
        weighed = tuple(replace(s, weight=w) for s, w in zip(chosen.sources, weights, strict=True))
        return replace(chosen, sources=weighed, weighting="loss")

    def _chain(self, epochs: int) -> DomainEntry:
        first, *rest = self.sources
        prefix = first.entry.prefix
        for source in rest:
            named = f"chain: {source.name}"
            own = self.settings.training.scheduled(len(source.sentences)).epochs
            prefix = self._train(
                named, epochs=own, start=prefix, dev=(), domain=source.entry.domain, sentences=source.sentences
            ).prefix  # fmt: skip
        return self._train("target", epochs=epochs, start=prefix)

    def _ensemble(self, epochs: int) -> DomainEntry:
        # Together as many epochs as the others have; a member with a single one goes without its warm-up.
        share, over = divmod(epochs, len(self.sources))
        members = [
            self._collaborate([source], max(1, share + (number < over)), source.name)[0]
            for number, source in enumerate(self.sources)
        ]
        first, *others = members
        return replace(first, members=tuple(m.prefix for m in others))

    # -- parts -----------------------------------------------------------------------------------------------------

    def _train(
        self,
        phase: str,
        *,
        epochs: int,
        start: Prefix | Parametrization | None = None,
        dev: Sequence[Sentence] | None = None,
        domain: Domain | None = None,
        sentences: Sequence[Sentence] | None = None,
    ) -> DomainEntry:
        # A member of an ensemble has its share of the run, and dev evaluations in the same places of it.
        training, parts = self._training, len(self.sources) if self.strategy == "ensemble" else 1
        first = max(1, min(training.evaluate_from // parts, epochs))
        how = replace(
            training, epochs=epochs, evaluate_from=first, evaluate_every=max(1, training.evaluate_every // parts)
        )
        settings = replace(self.settings, training=how)
        warm_up = WarmUp(
            self.reader,
            domain or self.domain,
            self.sentences if sentences is None else sentences,
            self.dev if dev is None else dev,
            settings,
            initial=self.initial,
            start=start,
        )
        if phase:
            self._run.progress.phase(phase)
        entry, result = warm_up.run(self._run.part(_folder(phase), first=not self.phases))
        self.phases.append(Phase(phase, result))
        return entry

    def _facts(self, selection: Selection | None) -> dict[str, Any]:
        """What the manifest says about where the prefix comes from."""
        if self.strategy == "none":
            return {}
        hashes = {s.name: s.entry.prefix.hash() for s in self.sources}
        sources: list[dict[str, Any]] = [{"name": name, "hash": value} for name, value in hashes.items()]
        facts: dict[str, Any] = {"strategy": self.strategy, "initial": self.initial.hash(), "sources": sources}
        facts["ancestors"] = sorted({*hashes}.union(*(s.entry.ancestors for s in self.sources)))
        if selection is not None:
            described = selection.to_dict()
            for source, said in zip(sources, described.pop("sources"), strict=True):
                source |= {k: said[k] for k in ("weight", "alpha", "entity", "prefix")}
            facts |= {k: v for k, v in described.items() if k != "target"}
            facts["source_share"] = self.settings.transfer.source_share
        return facts


def _join(name: str, phase: str) -> str:
    return f"{name} {phase}" if name else phase


def _folder(phase: str) -> str:
    return phase.replace(": ", "-").replace(" ", "-")
