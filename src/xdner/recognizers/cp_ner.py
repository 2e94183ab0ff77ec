"""CP-NER: a frozen language model, and for each domain a trained prefix (arXiv 2301.10410).

This file is the public face of the method; the way a sentence takes is in ``reader.py`` and ``generation/engine.py``,
how a prefix is trained in ``warmup.py`` and ``training/``, how it draws on known domains in ``transfer.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from xdner.backbone.base import Backbone
from xdner.backbone.load import load_backbone
from xdner.backbone.store import PrefixRows
from xdner.domain import Domain
from xdner.errors import SettingsError
from xdner.library.entry import DomainEntry
from xdner.library.kinds import Shelf, with_prefix
from xdner.library.leftovers import is_domain
from xdner.library.reading import identity
from xdner.library.store import Library
from xdner.prefix.prefix import Prefix
from xdner.prefix.selector import Selection
from xdner.recognizers.base import Joining, Recognizer, Request, Result, as_sentence, requests_of, unknown_domain
from xdner.recognizers.group import Group
from xdner.recognizers.reader import Item, Reader, Steered
from xdner.recognizers.residents import Residents
from xdner.recognizers.shared_start import shipped_start
from xdner.recognizers.sources import Source, choose
from xdner.recognizers.transfer import Transfer, Transferred
from xdner.recognizers.warmup import initial_prefix
from xdner.settings import PrefixSettings, Settings
from xdner.text import Sentence
from xdner.training.domain_task import lost_entities
from xdner.training.loop import TrainingResult
from xdner.training.run import Run
from xdner.training.sources import limited

__all__ = ["CPNER", "Trained"]


@dataclass(frozen=True, eq=False)
class Trained:
    """What training a domain gave.

    Attributes:
        entry: the domain with its prefix and settings, as it is saved.
        result: epochs, losses and dev scores of the last training run (of an ensemble, of its last member).
        transfer: all runs of the strategy, and what the selector said.
        inexpressible: gold entities that the target language cannot express, by reason (the ceiling of recall).
    """

    entry: DomainEntry
    result: TrainingResult
    transfer: Transferred
    inexpressible: Mapping[str, int]

    @property
    def dev_f1(self) -> float | None:
        """Of the domain as it is saved, on the dev sentences that chose its epoch; of an ensemble, of its members' vote."""
        found: float | None = self.entry.prefix.notes["dev_f1"]
        return found


class CPNER(Recognizer[DomainEntry]):
    """Recognizes entities with one frozen backbone and a prefix per domain.

    Use :meth:`from_pretrained`; then :meth:`train` or :meth:`load` domains, and :meth:`predict`.

    >>> recognizer = CPNER.from_pretrained("smollm2-135m-ner")          # doctest: +SKIP
    >>> recognizer.train(domain, sentences, dev=dev_sentences)            # doctest: +SKIP
    >>> recognizer.predict(["Fold in the egg whites."], domain="cooking") # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        settings: Settings | None = None,
        initial: Prefix | None = None,
        resident_folder: str | Path | None = None,
    ) -> None:
        super().__init__()
        if initial is not None:
            initial.check(backbone.fingerprint, backbone.geometry, backbone.name)
        # As a library keeps it, so that what starts from it here can be combined there.
        self.backbone, self._initial = backbone, None if initial is None else initial.rounded()
        self.settings = settings or Settings.build(base=backbone.recommended)
        self.reader = Reader(backbone, self.settings.decoding)
        self._libraries: list[Shelf] = []
        how = self.settings.decoding
        # The folder is no setting: settings travel with a domain, and another machine's must not say where this one writes.
        self.residents = Residents(
            how.resident_mb * 1_000_000, disk=how.resident_disk_mb * 1_000_000, folder=resident_folder
        )

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        settings: Settings | None = None,
        initial: Prefix | None = None,
        resident_folder: str | Path | None = None,
    ) -> CPNER:
        """Load a backbone by alias, hub id or folder.

        Args:
            backbone: ``None`` is the embedded default.
            device: ``cpu``, ``cuda``, …
            dtype: ``float32`` or ``bfloat16``, of the frozen weights; prefixes are trained in 32 bits all the same.
            settings: defaults for this recognizer; without them, what the backbone recommends.
            initial: δ₀, from which all prefixes start (a library has one); without it, the one that ships for this backbone, as
                on the command line, or else :func:`~xdner.recognizers.warmup.initial_prefix`.
            resident_folder: where the files of domains that left memory go (:meth:`attach`), in a folder of their own that
                is deleted with this recognizer; ``None`` is the system's place for temporary files.

        Raises:
            BackboneNotFoundError: the name leads to no weights.
        """
        model = load_backbone(backbone, device=device, dtype=dtype)
        if initial is None:
            initial = shipped_start(model, settings or Settings.build(base=model.recommended))
        return cls(model, settings=settings, initial=initial, resident_folder=resident_folder)

    # -- domains ---------------------------------------------------------------------------------------------------

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains that are here, and of those in attached libraries."""
        return tuple(dict.fromkeys([*self._entries, *(name for library in self._libraries for name in library)]))

    def attach(self, library: Shelf | str | Path) -> None:
        """Read in every domain of a library, however many; each is loaded when it is first asked for, and those not used
        for the longest time leave memory (``decoding.resident_mb``) for files (``decoding.resident_disk_mb``). Domains that
        were added go first. One that is trained again is read anew from the next call on; one that is removed stays readable
        here once it is ready.

        Raises:
            LibraryError: the library is for another backbone.
        """
        store = Library(library) if isinstance(library, str | Path) else library
        store.check_backbone(self.backbone.fingerprint, self.backbone.name)
        self._libraries.append(store)

    def add(self, entry: DomainEntry) -> None:
        """Make a trained domain ready.

        Raises:
            PrefixMismatchError: its prefix was made for another backbone.
        """
        self._entries[entry.domain.name] = self._checked(entry)
        self.residents.drop(entry.domain.name)

    def add_untrained(self, domain: Domain) -> None:
        """Make a domain ready with the initial prefix δ₀: what the frozen backbone does without training."""
        prefix = self.initial_prefix(self.settings.prefix)
        self.add(DomainEntry(domain, replace(prefix, initial=prefix.hash()), self.settings))

    def load(self, folder: str | Path) -> str:
        """Read a domain's folder and make it ready.

        Returns:
            The domain's name.

        Raises:
            PrefixFormatError, DomainError: the folder is not a domain, or was altered.
            PrefixMismatchError: it was trained on another backbone.
        """
        entry = DomainEntry.load(folder)
        self.add(entry)
        return entry.domain.name

    def _checked(self, entry: DomainEntry) -> DomainEntry:
        for prefix in entry.prefixes:
            prefix.check(self.backbone.fingerprint, self.backbone.geometry, self.backbone.name)
        return entry

    def _entry(self, name: str) -> DomainEntry:
        for library in self._libraries if name not in self._entries else ():
            if name in library:
                return self._checked(with_prefix(library.get(name)))
        return super()._entry(name)

    def _steer(self, name: str) -> tuple[Steered, ...]:
        """The domain made ready, once for each of its prefixes."""

        def make() -> tuple[Steered, ...]:
            entry = self._entry(name)
            with torch.inference_mode():
                return tuple(
                    self.reader.steer(
                        entry.domain, entry.settings.codec, prefix.keys, prefix.values, entry.settings.decoding
                    )
                    for prefix in entry.prefixes
                )

        return self.residents.get(name, make, of=self._folder(name))

    def _folder(self, name: str) -> object:
        """Which folder a domain of an attached library is read from; it changes with the domain."""
        for library in self._libraries if name not in self._entries else ():
            path = library.path(name)
            if is_domain(path) and (found := identity(path)) is not None:
                return path, found
        return None

    def _check(self, names: Iterable[str]) -> None:
        """Refuse a name that no text can be read in, before any text is read."""
        for name in dict.fromkeys(names):
            if (
                name not in self._entries
                and name not in self.residents
                and not any(name in lib for lib in self._libraries)
            ):
                raise unknown_domain(name, self.domains)

    # -- reading ---------------------------------------------------------------------------------------------------

    def recognize(self, requests: Sequence[Request], *, done: Callable[[int], None] | None = None) -> list[Result]:
        """Read texts, each in its own domain; results come in the order of the requests."""
        results = dict(self._read(requests, self._sentences(requests), done, None))
        return [results[i] for i in range(len(requests))]

    def stream(
        self,
        texts: str | Sentence | Sequence[str | Sentence],
        *,
        domain: str | Sequence[str] | None = None,
        done: Callable[[int], None] | None = None,
        joining: Joining | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """:meth:`predict`, but each result comes with its text's place as soon as it is there, not in the texts' order. What
        ``done`` raises ends the reading.

        Args:
            texts, domain, done: see :meth:`predict`.
            joining: further texts that may come in while these are read: each takes part as soon as there is room in the batch,
                and its place follows on those before it. A text whose domain cannot be made ready here stays in that line.

        Raises:
            UnknownDomainError, DataError: see :meth:`predict`; at once, not with the first result.
        """
        requests = requests_of(texts, domain, lambda: self.domains)
        return self._read(requests, self._sentences(requests), done, joining)

    def _sentences(self, requests: Sequence[Request]) -> list[Sentence]:
        """The texts, all of them checked, and their domains too: what is wrong with the last is told before the first is read."""
        self._check(r.domain for r in requests)
        return [as_sentence(r.text) for r in requests]

    def _read(
        self,
        requests: Sequence[Request],
        sentences: Sequence[Sentence],
        done: Callable[[int], None] | None,
        joining: Joining | None,
    ) -> Iterator[tuple[int, Result]]:
        windows = before = 0

        def told(count: int) -> None:
            if done is not None:
                done(before + count)

        for group, items in self._groups(requests, sentences):
            before = windows
            # As long as texts join a group it does not end, so nobody may wait for that.
            more = partial(self._more, group, joining) if joining and group.end == len(requests) else None
            for item, reading in self.reader.stream(items, done=told, more=more):
                windows += reading.windows
                yield from group.put(item, reading)

    def _groups(self, requests: Sequence[Request], sentences: Sequence[Sentence]) -> Iterator[tuple[Group, list[Item]]]:
        """Requests in a row whose domains fit into memory together."""
        group, items = Group(self.residents.budget), list[Item]()
        steered: dict[str, tuple[Steered, ...]] = {}  # of this group: a call reads a domain as it was at its start
        for request, sentence in zip(requests, sentences, strict=True):
            if request.domain not in steered:
                ready = self._steer(request.domain)
                if not group.welcomes(request.domain, ready):
                    yield group, items
                    group, items, steered = Group(self.residents.budget, group.end), [], {}
                    group.welcomes(request.domain, ready)
                steered[request.domain] = ready
            items += group.add(sentence, request.domain)
        if items:
            yield group, items

    def _more(self, group: Group, joining: Joining, places: int) -> list[Item]:
        """Texts that join a group, as long as each is next in its line and has its domain ready."""
        items: list[Item] = []
        while len(items) < places and (request := joining.peek()) is not None:
            try:
                sentence, ready = as_sentence(request.text), self._steer(request.domain)
            except Exception:  # in its own call, what is wrong with it is told to whoever sent it
                break
            if not group.welcomes(request.domain, ready):
                break
            joining.take()
            items += group.add(sentence, request.domain)
        return items

    def prefix_mass(self, text: str | Sentence, *, domain: str) -> dict[str, float]:
        """λ of Eq. 2 while a text is read: per attention site, the share of attention that goes to the prefix.

        Returns:
            ``{"self.0": 0.31, …}``, mean over heads and tokens of the prompt behind the context.
        """
        steered, sentence = self._steer(domain)[0], as_sentence(text)
        words = self.reader.encoder.words(sentence)
        source, end = steered.instructor.source(words), (steered.grammar.end,)
        rows = PrefixRows.stack([(steered.steering.keys, steered.steering.values)], [0])
        mass = self.backbone.prefix_mass(source, end, rows, steered.steering.context)
        return {site: float(value.mean()) for site, value in mass.items()}

    # -- training --------------------------------------------------------------------------------------------------

    def train(
        self,
        domain: Domain,
        train_sentences: Sequence[Sentence],
        dev: Sequence[Sentence] | None = None,
        *,
        sources: Sequence[str | Source] = (),
        alphas: Mapping[str, float] | None = None,
        settings: Settings | None = None,
        run: Run | None = None,
    ) -> Trained:
        """Train a domain's prefix, the backbone frozen, and make the domain ready.

        Without sources this is the warm-up (Eq. 4) alone; ``settings.transfer.strategy`` says how sources are used
        (``recognizers/transfer.py``).

        Args:
            domain: its types.
            train_sentences: labelled sentences.
            dev: sentences for early stopping; without them, the last epoch counts.
            sources: known domains to draw on: names of domains that are ready here, or
                :class:`~xdner.recognizers.sources.Source` with sentences, for a chain.
            alphas: α of single sources by name (Eq. 7), over ``settings.selector.alpha``.
            settings: this recognizer's settings if none are given; what this training makes no use of is passed over
                (:class:`~xdner.recognizers.transfer.Transfer`).
            run: where checkpoints go, and what is shown; without it nothing is written or shown.

        Returns:
            The domain with its prefix, and the record of the run.

        Raises:
            DomainError: labels in the sentences that the domain does not have.
            UnknownDomainError: a source that is not ready here.
            PrefixMismatchError: a source with another initial prefix.
            SettingsError: an α that is impossible or has no effect, or settings that exclude each other.
            TrainingError: nothing to train on, sources that the strategy cannot use, or the loss is not a number.
            TrainingInterrupted: Ctrl-C; a checkpoint was kept if the run has a folder.
        """
        settings = settings or self.settings
        drawn = [s if isinstance(s, Source) else Source(self._entry(s)) for s in sources]
        transfer = Transfer(
            self.reader, domain, list(train_sentences), list(dev or []), settings,
            initial=self.initial_prefix(settings.prefix), sources=drawn, alphas=alphas,
        )  # fmt: skip
        made = transfer.run(run)
        self.add(made.entry)
        if made.entry.members and transfer.dev:  # each member was scored by itself; what counts is their vote
            report = self.evaluate(limited(transfer.dev, settings.training.dev_limit), domain=domain.name)
            scored = made.entry.prefix.with_notes(dev_f1=report.micro.f1)
            made = replace(made, entry=replace(made.entry, prefix=scored))
            self.add(made.entry)
        _, reasons = lost_entities(
            domain, train_sentences, self.reader.encoder, settings.codec, max_pieces=settings.training.max_pieces,
            max_tokens=self.backbone.max_tokens - settings.prefix.length,
        )  # fmt: skip
        return Trained(made.entry, made.phases[-1].result, made, reasons)

    def select(
        self,
        target: str,
        sources: Sequence[str],
        *,
        settings: Settings | None = None,
        alphas: Mapping[str, float] | None = None,
    ) -> Selection:
        """What the dual-query selector says about domains that are ready here (Eqs. 5 to 8); nothing is trained.

        Raises:
            UnknownDomainError, PrefixMismatchError, SettingsError: see :func:`xdner.recognizers.sources.choose`.
        """
        entry, drawn = self._entry(target), [self._entry(s) for s in sources]
        settings = settings or self.settings
        if settings.selector.weighting == "loss":
            raise SettingsError(
                ["selector.weighting=loss weighs sources by the target's sentences, and nothing is read here"],
                hint="Use weighting=softmax or sum; `xdner train` can weigh by the loss.",
            )
        return choose(
            self.reader, entry.domain, entry.prefix, drawn,
            initial=self.initial_prefix(entry.settings.prefix), settings=settings, alphas=alphas,
        )  # fmt: skip

    def initial_prefix(self, settings: PrefixSettings | None = None) -> Prefix:
        """δ₀, from which every prefix starts: what this recognizer was given, or
        :func:`~xdner.recognizers.warmup.initial_prefix`."""
        if self._initial is not None:
            return self._initial
        return initial_prefix(self.reader, settings or self.settings.prefix)
