"""IF-WRANER: a language model that is shown the examples most like a sentence before it reads it (arXiv 2411.00451).

A new domain is added by giving its labelled examples, in seconds, without training. What may be trained, once and on source
domains only, is the language model: it learns the task and the form of the answers (:meth:`IFWRANER.tune`).

This file is the public face of the method. Retrieval is in ``retrieval/``, prompts in ``prompting/``, the dictionary of an
answer in ``codec/dictionary.py``, language models in ``generation/local.py`` and ``generation/endpoint.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from xdner.backbone.load import load_backbone
from xdner.backbone.lora import Adapter, merge_adapter
from xdner.domain import Domain
from xdner.errors import (
    BackboneError,
    BackboneMismatchError,
    EndpointError,
    RetrievalError,
    SettingsError,
    TrainingError,
)
from xdner.generation.answers import Asked, Generator
from xdner.generation.endpoint import EndpointModel, is_endpoint
from xdner.generation.local import LocalModel, causal_model
from xdner.library.entry import sentence_hashes
from xdner.library.examples_entry import ExamplesEntry
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template, find_template
from xdner.recognizers.asking import Batch, Ready
from xdner.recognizers.base import Recognizer, Request, Result
from xdner.recognizers.retrievers import Retrievers
from xdner.recognizers.warmup import check_labels
from xdner.retrieval.base import Example, Retriever, let_go
from xdner.retrieval.examples import unique
from xdner.retrieval.pool import Pool, has_pool, open_pool
from xdner.text import Sentence
from xdner.training.run import Run
from xdner.training.sources import LabelledSource, limited
from xdner.training.tuning import RetrieverFactory, Tuned, tune

__all__ = ["DEFAULT_LLM", "IFWRANER", "check_same_model"]

#: What is asked when no language model is named: the embedded one as it came.
DEFAULT_LLM = "smollm2-135m"


class IFWRANER(Recognizer[ExamplesEntry]):
    """Recognizes entities by asking a language model, with retrieved examples in the prompt.

    Use :meth:`from_pretrained`; :meth:`tune` on source domains or take an adapter; then :meth:`add_domain` with labelled
    examples, or :meth:`load` domains, and :meth:`predict`.

    >>> recognizer = IFWRANER.from_pretrained("smollm2-135m", adapter="my-adapter")   # doctest: +SKIP
    >>> recognizer.add_domain(domain, examples)                                      # doctest: +SKIP
    >>> recognizer.predict(["Fold in the egg whites."], domain="cooking")            # doctest: +SKIP

    Args:
        llm: answers questions.
        settings: all groups; what a domain is added with is kept with it, and it is asked so: prompt, retrieval, windows and
            length of answers are the domain's, the rest of ``llm`` and the batch size are this recognizer's.
        retriever: makes a retriever from a domain's examples; by default the one that the settings name.
        template: of the prompts; by default the one that the settings name.
    """

    def __init__(
        self,
        llm: Generator,
        *,
        settings: WranerSettings | None = None,
        retriever: RetrieverFactory | None = None,
        template: Template | None = None,
    ) -> None:
        super().__init__()
        self.llm = llm
        #: What was merged into the language model, if it was tuned.
        self.adapter: Adapter | None = None
        self.settings = settings or WranerSettings.build()
        self.template = template or find_template(self.settings.prompt.template)
        self.make_retriever: RetrieverFactory = retriever or Retrievers()
        self._pools: dict[str, Pool] = {}
        self._ready: dict[str, Ready] = {}
        #: Hashes of the source sentences that the language model was tuned on.
        self.seen: frozenset[str] = frozenset()

    @classmethod
    def from_pretrained(
        cls,
        llm: str | Path | None = None,
        *,
        retriever: str | RetrieverFactory | None = None,
        adapter: str | Path | Adapter | None = None,
        model: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        settings: WranerSettings | None = None,
        template: Template | None = None,
    ) -> IFWRANER:
        """Load a language model, or name one behind an endpoint.

        Args:
            llm: alias, hub id or folder of a causal model (``None``: the embedded ``smollm2-135m``), or the address of an
                OpenAI-compatible API, ``http://…/v1``.
            retriever: its name, for ``retrieval.method``, or what makes one from examples and settings.
            adapter: LoRA factors in peft's format for a local model: a folder.
            model: name of the model behind the endpoint.
            device, dtype: of a local model's weights; the retriever's encoder has the same device.
            settings: see :class:`~xdner.prompting.settings.WranerSettings`.
            template: of the prompts; by default the one that the settings name.

        Raises:
            BackboneNotFoundError: the name leads to no weights.
            BackboneError: not a causal model.
            BackboneMismatchError: the adapter is for another model.
            EndpointError: not the address of an endpoint, or no model's name.
            TemplateError: the settings' template is not there, or is not one.
        """
        settings = settings or WranerSettings.build()
        if isinstance(retriever, str):
            settings = WranerSettings.build(None, [f"retrieval.method={retriever}"], settings.to_dict())
            retriever = None
        given = Adapter.load(adapter) if isinstance(adapter, str | Path) else adapter
        if is_endpoint(llm):
            if given is not None:
                raise SettingsError(
                    ["an adapter has no use with an endpoint"], hint="Serve the model with the adapter merged into it."
                )
            remote = EndpointModel(str(llm), model, settings)
            return cls(remote, settings=settings, retriever=retriever or Retrievers(device), template=template)
        if model is not None:
            raise SettingsError([f"--model {model} names a model behind an endpoint"], hint="Give --llm http://…/v1.")
        backbone = load_backbone(causal_model(DEFAULT_LLM if llm is None else llm), device=device, dtype=dtype)
        made = cls(
            LocalModel(backbone, settings),
            settings=settings,
            retriever=retriever or Retrievers(device),
            template=template,
        )
        if given is not None:
            made.adopt(given)
        return made

    def adopt(self, adapter: Adapter, seen: frozenset[str] = frozenset()) -> None:
        """Merge an adapter into the language model: from here on this is the tuned model.

        Raises:
            BackboneError: the model is behind an endpoint.
            TrainingError: there is an adapter in it already, or domains were added for the model without one.
            BackboneMismatchError: it is for another model.
        """
        local = self._local("take an adapter")
        if self.adapter is not None or self._entries:
            what = "was tuned already" if self.adapter is not None else "has domains for the model as it is"
            raise TrainingError(f"this recognizer {what}", hint="Start from a fresh IFWRANER.from_pretrained(…).")
        own = local.backbone
        if adapter.base not in ("", own.fingerprint):  # factors of one model fit all of its shape
            raise BackboneMismatchError(
                f"the adapter was trained on other weights ({adapter.base_name or 'of a model without a name'}) than those of "
                f"{own.name}",
                hint="Give the language model that it was trained on.",
            )
        merge_adapter(own.model, adapter, f"the adapter for {own.name}")
        local.forget()
        self.adapter, self.seen = adapter, seen

    # -- domains -----------------------------------------------------------------------------------------------------

    def add_domain(self, domain: Domain, examples: Sequence[Sentence] = ()) -> ExamplesEntry:
        """Make a domain ready from labelled examples; nothing is trained. A domain of that name is replaced.

        Args:
            domain: its types.
            examples: labelled sentences; of several labellings of a text the last counts. Without any, the model is asked
                without demonstrations.

        Raises:
            DomainError: labels in the examples that the domain does not have.
        """
        check_labels(domain, examples, ())
        distinct = tuple(e.sentence for e in unique(map(Example.of, examples)))
        entry = ExamplesEntry(
            domain, self.settings, self.template, distinct, dict(self.llm.identity), self.adapter,
            {"domain": domain.name, "train_sentences": len(distinct)}, self.seen,
        )  # fmt: skip
        self.add(entry)
        return entry

    def add(self, entry: ExamplesEntry, pool: Pool | None = None) -> None:
        """Make a stored domain ready.

        Args:
            entry: the domain.
            pool: an index of its examples. One that has other examples is not used: they are embedded when they are needed.

        Raises:
            BackboneMismatchError: it is for another language model or adapter.
        """
        check_same_model(entry, self.llm.identity, self.adapter)
        name = entry.domain.name
        self._entries[name] = entry
        if name in self._ready:
            let_go(self._ready.pop(name).retriever)
        self._pools.pop(name, None)
        if pool is not None and pool.holds(entry.examples):
            self._pools[name] = pool

    def load(self, folder: str | Path) -> str:
        """Read a domain's folder and make it ready; the first one with an adapter brings it along.

        Returns:
            The domain's name.

        Raises:
            BackboneMismatchError: it is for another language model or adapter.
            XdnerError: the folder is damaged, or holds no such domain.
        """
        entry = ExamplesEntry.load(folder)
        if entry.adapter is not None and self.adapter is None and not self._entries:
            check_same_model(entry, self.llm.identity, entry.adapter)
            self.adopt(entry.adapter, entry.seen)
        self.add(entry)
        return entry.domain.name

    def _domain(self, name: str) -> Ready:
        if name not in self._ready:
            entry = self._entry(name)
            asked = Asked(entry.domain, entry.template, entry.settings)
            self._ready[name] = Ready(asked, self._retriever(entry), entry.settings.retrieval.k)
        return self._ready[name]

    def _retriever(self, entry: ExamplesEntry) -> Retriever:
        """Of a domain's index, or of its examples. An index whose rows somebody has replaced or removed since it was opened is
        opened again; one that cannot give the domain's examples any more is not used."""
        index, make = self._pools.get(entry.domain.name), self.make_retriever
        while index is not None and isinstance(make, Retrievers):
            try:
                return make.of_pool(index, entry.settings)
            except RetrievalError:
                own = index.manifest
                index = open_pool(index.folder) if has_pool(index.folder) else None
                if index is not None and index.manifest == own:
                    raise
                if index is not None and not (
                    index.holds(entry.examples) and index.manifest.embedding.same(own.embedding)
                ):
                    index = None
        return make([Example.of(sentence) for sentence in entry.examples], entry.settings)

    # -- reading -----------------------------------------------------------------------------------------------------

    def recognize(self, requests: Sequence[Request], *, done: Callable[[int], None] | None = None) -> list[Result]:
        """Read texts, each in its own domain; results come in the order of the requests.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, keeps failing, or answers nothing but nonsense; ``finished``
                has the results until then, and ``None`` for the other requests.
            EndpointInterrupted: the same after Ctrl-C, if there are answers.
        """
        batch = Batch(requests, self._domain, self.llm)
        try:
            answers = self.llm.answer(batch.questions(), done=done)
        except EndpointError as error:
            if not error.finished:
                raise
            raise type(error)(error.message, hint=error.hint, finished=batch.results(error.finished)) from None
        return [r for r in batch.results(answers) if r is not None]

    # -- tuning ------------------------------------------------------------------------------------------------------

    def tune(
        self,
        sources: Sequence[LabelledSource],
        *,
        dev: tuple[Domain, Sequence[Sentence], Sequence[Sentence]] | None = None,
        run: Run | None = None,
    ) -> Tuned:
        """Tune the language model on source domains (LoRA), and read with it from here on.

        Args:
            sources: domains with labelled sentences; each is asked about with demonstrations from its own sentences.
            dev: a domain, its examples and labelled sentences that choose the best epoch; without it, the last one counts.
            run: where checkpoints go, and what is shown; without it nothing is written or shown.

        Raises:
            BackboneError: the model is behind an endpoint.
            TrainingError: it was tuned already, domains were added, nothing to learn, or peft is not installed.
            TrainingInterrupted: Ctrl-C; a checkpoint was kept if the run has a folder.
        """
        local = self._local("be tuned")
        if self.adapter is not None or self._entries:
            raise TrainingError(
                "a language model is tuned once, before domains are added",
                hint="Start from a fresh IFWRANER.from_pretrained(…), with all sources together.",
            )
        try:
            made = tune(
                local.backbone, sources, self.settings, self.template, self.make_retriever, score=self._scorer(dev),
                run=run,
            )  # fmt: skip
        finally:
            local.forget()  # dev was read under factors that are gone
        self.adopt(made.adapter, sentence_hashes(s for source in sources for s in source.sentences))
        return made

    def _scorer(
        self, dev: tuple[Domain, Sequence[Sentence], Sequence[Sentence]] | None
    ) -> Callable[[], float | None] | None:
        if dev is None or not dev[2]:
            return None
        domain, examples, sentences = dev
        local = self._local("be tuned")
        sample = limited(sentences, self.settings.training.dev_limit)
        reader = IFWRANER(local, settings=self.settings, retriever=self.make_retriever, template=self.template)
        reader.add_domain(domain, examples)

        def score() -> float | None:
            local.forget()
            return reader.evaluate(sample).micro.f1

        return score

    def _local(self, what: str) -> LocalModel:
        if not isinstance(self.llm, LocalModel):
            raise BackboneError(
                f"the language model is behind {self.llm.identity.get('url', 'an endpoint')}: it cannot {what} here",
                hint="Use a local model: an alias, a hub id or a folder.",
            )
        return self.llm


def check_same_model(entry: ExamplesEntry, identity: Mapping[str, str], adapter: Adapter | None) -> None:
    """A domain is read with the language model that it was made for.

    Raises:
        BackboneMismatchError: it is another one.
    """
    name = entry.domain.name
    key = "fingerprint" if entry.llm["kind"] == "local" else "name"
    if entry.llm["kind"] != identity["kind"] or entry.llm[key] != identity[key]:
        raise BackboneMismatchError(
            f"domain {name!r} was made for the language model {entry.llm['name']}, this is {identity['name']}",
            hint=f"Use {entry.llm.get('source') or entry.llm.get('url')}, or make the domain again from its examples.",
        )
    if (entry.adapter and entry.adapter.hash) != (adapter and adapter.hash):
        has = (
            "another adapter than"
            if entry.adapter and adapter
            else "an adapter, not"
            if entry.adapter
            else "no adapter, as"
        )
        raise BackboneMismatchError(
            f"domain {name!r} was made for {has} this recognizer's model",
            hint="Load it with IFWRANER.from_pretrained(llm, adapter=its folder/adapter).",
        )
