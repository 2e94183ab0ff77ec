"""A better place to start from: δ₀ trained on several source domains together.

All prefixes of a library start from one δ₀, so that they can be averaged. Trained on all sources at once, with their
types in the prompt (shuffled, dropped with their answers, strangers added), δ₀ knows the task and no domain's types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from xdner.backbone.base import Backbone
from xdner.backbone.store import PrefixRows
from xdner.codec.instructor import Instructor
from xdner.errors import TrainingError
from xdner.library.bundled import bundled_initial
from xdner.prefix.parametrization import DirectParametrization
from xdner.prefix.prefix import Prefix
from xdner.recognizers.reader import Reader
from xdner.recognizers.warmup import assert_frozen, initial_prefix
from xdner.settings import Settings
from xdner.training.augmentation import Augmentation
from xdner.training.domain_task import DomainTask, Item, make_items
from xdner.training.loop import TrainingResult, train
from xdner.training.run import Run
from xdner.training.sources import LabelledSource, limited, pools, used

__all__ = ["shipped_start", "train_shared_start"]


def shipped_start(backbone: Backbone, settings: Settings) -> Prefix | None:
    """The δ₀ that ships for a backbone; ``None`` if there is none, or ``settings`` ask for another start than usual.

    How a prefix is trained (``prefix.reparametrization``) does not change where it starts.
    """
    if settings.prefix.start() != Settings.build(base=backbone.recommended).prefix.start():
        return None
    return bundled_initial(backbone.fingerprint, settings.prefix.length)


def train_shared_start(
    reader: Reader,
    sources: Sequence[LabelledSource],
    settings: Settings,
    run: Run | None = None,
) -> tuple[Prefix, TrainingResult]:
    """Train δ₀ on all sources together (Eq. 4 over their union).

    Args:
        reader: of the frozen backbone.
        sources: domains with training sentences; of each at most ``instruct.per_source``.
        settings: ``prefix`` gives length and start, ``training`` the run, ``instruct.add_options`` the strangers.
        run: where checkpoints go, and what is shown.

    Returns:
        δ₀ in 16 bits (held in 32), and the record of the run.

    Raises:
        TrainingError: no sources, or the backbone is not frozen.
    """
    if not sources:
        raise TrainingError("a shared initial prefix needs source domains", hint="Give --source FILE.")
    backbone, training = reader.backbone, settings.training
    begun = initial_prefix(reader, settings.prefix)
    parametrization = DirectParametrization(begun.geometry, begun.keys, begun.values).to(backbone.device)
    instructor = Instructor(reader.encoder, settings.codec)
    items: list[Item] = []
    for source in sources:
        chosen = limited(source.sentences, settings.instruct.per_source)
        items += make_items(
            source.domain, chosen, reader.encoder, instructor, training.max_pieces,
            max_tokens=backbone.max_tokens - settings.prefix.length,
        )  # fmt: skip
    labels = {label.verbalization: label for source in sources for label in source.domain.labels}

    def rows() -> PrefixRows:
        keys, values = ([t.to(backbone.dtype) for t in part] for part in parametrization())
        return PrefixRows.stack([(keys, values)], [0])

    task = DomainTask(
        backbone,
        items,
        settings.codec,
        training,
        encoder=reader.encoder,
        augmentation=Augmentation(
            shuffle=training.shuffle_options,
            drop=training.drop_options,
            add=settings.instruct.add_options,
            pool=tuple(labels.values()),
            replace=training.replace_mentions,
            mentions=pools(sources, settings.instruct.per_source),
        ),
        parameters=dict(parametrization.named_parameters()),
        prefix=rows,
        score=lambda: None,
    )
    assert_frozen(backbone, task.parameters())
    result = train(
        task,
        training,
        run,
        fingerprint=_fingerprint(backbone.exact_fingerprint, items, settings),
    )
    keys, values = parametrization.collapse()
    notes = {
        "backbone_name": backbone.name,
        "backbone_source": backbone.source,
        "sources": used(sources, settings.instruct.per_source),
        "steps": result.steps,
        "losses": [round(record.loss, 4) for record in result.history],
        "settings": settings.to_dict(),
    }
    return Prefix(begun.geometry, keys, values, backbone.fingerprint, notes=notes).rounded(), result


def _fingerprint(backbone: str, items: Sequence[Item], settings: Settings) -> str:
    texts = [[i.domain.to_dict(), i.sentence.text, [e.key for e in i.sentence.entities]] for i in items]
    described = [backbone, settings.to_dict(), texts]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
