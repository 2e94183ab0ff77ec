"""The known domains that a new one draws on: what may be a source, and how the selector weighs them (Eqs. 5 to 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from xdner.domain import Domain
from xdner.errors import PrefixMismatchError, SettingsError, TrainingError
from xdner.library.entry import DomainEntry, sentence_hashes
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import Candidate, Selection, select
from xdner.recognizers.reader import Reader
from xdner.settings import SelectorSettings, Settings
from xdner.text import Sentence

__all__ = ["Source", "candidate", "check_selector", "check_sources", "choose", "shared_sentences"]


@dataclass(frozen=True, eq=False)
class Source:
    """A known domain to draw on.

    Attributes:
        entry: with its trained prefix.
        sentences: its training sentences; only ``chain`` needs them, for all sources but the first.
    """

    entry: DomainEntry
    sentences: Sequence[Sentence] = ()

    @property
    def name(self) -> str:
        """The domain's."""
        return self.entry.domain.name


def candidate(reader: Reader, domain: Domain, prefix: Prefix) -> Candidate:
    """A domain for the selector: each type's embedding is the mean over its word pieces (LM_w of Eq. 5)."""
    rows = []
    for label in domain.labels:
        ids = reader.encoder.label(label.verbalization)
        rows.append(reader.backbone.word_embeddings(ids).detach().float().mean(0))
    words = tuple(label.verbalization for label in domain.labels)
    return Candidate(domain.name, words, torch.stack(rows).cpu(), prefix)


def choose(
    reader: Reader,
    target: Domain,
    prefix: Prefix,
    sources: Sequence[DomainEntry],
    *,
    initial: Prefix | None,
    settings: Settings,
    alphas: Mapping[str, float] | None = None,
) -> Selection:
    """The selector on domains (Eqs. 5 to 8), with the settings' mode, α, temperature and pool.

    Raises:
        SettingsError: an impossible α, or no source.
        PrefixMismatchError: a source for another backbone, of another shape or initial prefix.
    """
    how = settings.selector
    return select(
        candidate(reader, target, prefix),
        [candidate(reader, s.domain, s.prefix) for s in sources],
        origin=initial,
        mode=how.mode,
        alpha=how.alpha,
        alphas=alphas,
        temperature=how.effective_temperature,
        top_k=how.top_k,
        pool=how.pool,
        weighting="sum" if how.weighting == "sum" else "softmax",
    )


def shared_sentences(entry: DomainEntry, *corpora: Sequence[Sentence]) -> int:
    """How many sentences of a target's corpora the source was trained on: such a source knows the answers."""
    return sum(len(entry.seen & sentence_hashes(corpus)) for corpus in corpora)


def check_selector(settings: Settings, alphas: Mapping[str, float]) -> None:
    """Refuse settings of the selector that would be passed over in silence.

    Raises:
        SettingsError: there are some.
    """
    how, problems = settings.selector, []
    bare = not settings.transfer.warmup_share or settings.training.epochs == 1
    asked = how.alpha not in (1, SelectorSettings().alpha) or {*alphas.values()} - {1}
    if bare and settings.transfer.strategy == "collaborative" and asked:
        problems.append(
            "without a warm-up (transfer.warmup_share=0, or a single epoch) only the types' names choose sources: α is 1"
        )
    if alphas and how.weighting == "loss":
        problems.append("selector.weighting=loss weighs sources by their losses: an α has no part in it")
    if settings.transfer.learn_alpha:
        if settings.transfer.source_share == 1:
            problems.append(
                "transfer.source_share=1 starts from the sources alone: transfer.learn_alpha needs a part to train (try 0.5)"
            )
        if alphas:
            problems.append("transfer.learn_alpha trains one α for all sources: single sources have none of their own")
        if how.weighting != "softmax":
            problems.append(f"transfer.learn_alpha trains the softmax's α: selector.weighting={how.weighting} has none")
        if bare:
            problems.append("transfer.learn_alpha needs a warm-up: without it, prefixes have no similarity")
        if settings.prefix.reparametrization != "none":
            problems.append(
                "transfer.learn_alpha trains the prefix's own numbers: "
                f"prefix.reparametrization={settings.prefix.reparametrization} would have no part in it"
            )
    if problems:
        raise SettingsError(problems, hint="Leave one of the two out.")


def check_sources(strategy: str, domain: Domain, sources: Sequence[Source]) -> None:
    """Refuse sources that a strategy cannot draw on.

    Raises:
        TrainingError: too many or too few, one twice, the domain itself, a chain in a circle or without sentences.
        PrefixMismatchError: an ensemble, which is no single prefix.
    """
    names = [s.name for s in sources]
    listed = ", ".join(names) or "none"
    if strategy == "none" and sources:
        raise TrainingError(
            f"strategy 'none' uses no sources, but some were given: {listed}",
            hint="Choose --strategy collaborative, or leave --from out.",
        )
    if strategy == "single" and len(sources) != 1:
        raise TrainingError(
            f"strategy 'single' takes exactly one source, not {len(sources)} ({listed})",
            hint="Name one source, or choose --strategy collaborative.",
        )
    if strategy != "none" and not sources:
        raise TrainingError(f"strategy {strategy!r} needs sources", hint="Name known domains with --from a,b or all.")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise TrainingError(f"{', '.join(twice)} is given twice as a source", hint="Name every source once.")
    if domain.name in names:
        raise TrainingError(
            f"{domain.name!r} is its own source", hint="Leave it out of --from, or give the new domain another name."
        )
    for source in sources:
        if source.entry.members:
            raise PrefixMismatchError(
                f"{source.name!r} is an ensemble of {len(source.entry.prefixes)} prefixes and cannot be a source",
                hint="Train it with another strategy first.",
            )
    if strategy == "chain" and (round_ := [s.name for s in sources if domain.name in s.entry.ancestors]):
        raise TrainingError(
            f"a chain in a circle: {', '.join(round_)} learned from {domain.name!r}",
            hint="Leave it out of --from, or train it again without this domain.",
        )
    silent = [s.name for s in sources[1:] if not s.sentences] if strategy == "chain" else []
    if silent:
        raise TrainingError(
            f"a chain trains on its sources' sentences again, and there are none for {', '.join(silent)}",
            hint="Give them with --source-data NAME=FILE for every source after the first.",
        )
