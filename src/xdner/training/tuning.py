"""IF-WRANER's one training: LoRA factors on source domains, so that a language model knows the task and the form of answers.

Retrieval is as in inference: each sentence's demonstrations come from its own domain's sentences, never the sentence itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xdner.backbone.base import Backbone
from xdner.backbone.lora import Adapter
from xdner.codec.windows import CUT
from xdner.errors import DomainError, TrainingError
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template
from xdner.retrieval.base import Example, Retriever, text_key
from xdner.retrieval.examples import unique
from xdner.text import Sentence
from xdner.training.factors import factors_on
from xdner.training.loop import TrainingResult, train
from xdner.training.prompt_task import PromptItem, PromptTask, duplicated
from xdner.training.run import Run
from xdner.training.sources import LabelledSource, limited

__all__ = ["RetrieverFactory", "Tuned", "prompt_items", "tune"]

#: Makes a retriever of a pool of examples; :class:`xdner.recognizers.retrievers.Retrievers` is one.
RetrieverFactory = Callable[[Sequence[Example], WranerSettings], Retriever]


@dataclass(frozen=True)
class Tuned:
    """What tuning gave.

    Attributes:
        adapter: the factors of the best epoch (without dev: of the last), in 16 bits.
        result: the record of the run.
        dropped: demonstrations that prompts had no room for, and prompts that lacked some.
        lost: gold mentions that no answer can say, by reason.
    """

    adapter: Adapter
    result: TrainingResult
    dropped: tuple[int, int]
    lost: Mapping[str, int]


def prompt_items(
    sources: Sequence[LabelledSource], settings: WranerSettings, make: RetrieverFactory
) -> list[PromptItem]:
    """The sentences to learn, each with its demonstrations; duplicates last.

    Raises:
        TrainingError: no sources, or a retriever that shows a sentence to itself.
        DomainError: labels in the sentences that their domain does not have.
    """
    if not sources:
        raise TrainingError("tuning needs at least one source domain", hint="Give --source FILE.")
    items: list[PromptItem] = []
    for source in sources:
        strange = sorted({e.label for s in source.sentences for e in s.entities} - set(source.domain.label_names))
        if strange:
            raise DomainError(
                f"the sentences of {source.domain.name!r} have labels that the domain does not: {', '.join(strange)}",
                hint="Add them to the domain, or correct the sentences.",
            )
        pool = unique(map(Example.of, source.sentences))
        chosen = limited(source.sentences, settings.tune.per_source)
        k = settings.retrieval.k
        found = make(pool, settings).retrieve(chosen, k) if k else [()] * len(chosen)
        for sentence, hits in zip(chosen, found, strict=True):
            if any(text_key(hit.example.sentence) == text_key(sentence) for hit in hits):
                raise TrainingError(
                    f"the retriever shows {sentence.text[:40]!r} to itself",
                    hint="A Retriever leaves out examples whose text is the query's, white space and case aside.",
                )
            items.append(PromptItem(source.domain, sentence, tuple(hit.example.sentence for hit in hits)))
    return duplicated(items, settings.tune.duplicate, settings.training.seed)


def tune(
    backbone: Backbone,
    sources: Sequence[LabelledSource],
    settings: WranerSettings,
    template: Template,
    make: RetrieverFactory,
    *,
    score: Callable[[], float | None] | None = None,
    run: Run | None = None,
) -> Tuned:
    """Tune LoRA factors on the sources, with the backbone frozen under them; afterwards it is as it was.

    Args:
        backbone: where to start.
        sources: domains with their training sentences.
        settings: groups ``prompt``, ``retrieval``, ``tune`` and ``training``.
        template: of the prompts.
        make: gives a retriever over a source's sentences.
        score: dev score of the current weights, or ``None``.
        run: where checkpoints go, and what is shown.

    Raises:
        TrainingError: no sources, peft is not installed, or the loss is not a number any more.
        TrainingInterrupted: Ctrl-C; a checkpoint was kept if the run has a folder.
    """
    how = settings.tune
    items = prompt_items(sources, settings, make)
    base = backbone.fingerprint  # before factors stand among its weights
    with factors_on(
        backbone, rank=how.rank, alpha=how.alpha, dropout=how.lora_dropout, seed=settings.training.seed, what="tuning"
    ) as factors:
        task = PromptTask(
            backbone, items, template, settings, parameters=factors.parameters, score=score or (lambda: None),
            dropouts=factors.dropouts,
        )  # fmt: skip
        fingerprint = _fingerprint(backbone.exact_fingerprint, items, settings, template)
        result = train(task, settings.training, run, fingerprint=fingerprint)
        adapter = factors.adapter(backbone.name, base)
    dropped, lost = _account(task)
    return Tuned(adapter, result, dropped, lost)


def _account(task: PromptTask) -> tuple[tuple[int, int], dict[str, int]]:
    """Demonstrations that did not fit, prompts that lacked some, and gold mentions that cannot be said."""
    missing, short = 0, 0
    lost = {CUT: task.cut} if task.cut else {}
    for item in (i for i in task.items if not i.reduced):
        _, _, target, shown = task.prompt(item, item.domain)
        missing += len(item.demonstrations) - shown
        short += shown < len(item.demonstrations)
        for reason, count in target.reasons.items():
            lost[reason] = lost.get(reason, 0) + count
    return (missing, short), lost


def _fingerprint(backbone: str, items: Sequence[PromptItem], settings: WranerSettings, template: Template) -> str:
    """What a run depends on; a checkpoint of another run is refused."""

    def plain(sentence: Sentence) -> list[Any]:
        return [sentence.text, [e.key for e in sentence.entities]]

    described = {
        "backbone": backbone,
        "settings": settings.to_dict(),
        "template": template.hash,
        "domains": {item.domain.name: item.domain.to_dict() for item in items},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for item in items:
        shown = [plain(s) for s in item.demonstrations]
        digest.update(json.dumps([item.domain.name, item.reduced, plain(item.sentence), shown]).encode())
    return digest.hexdigest()
