"""A frozen backbone that knows the task: instruction tuning on source domains with LoRA, merged into new weights.

This joins the two papers: IF-WRANER's regularized instruction tuning makes the backbone, CP-NER's prefixes steer it.
The types stand in the prompt, shuffled, some dropped together with their answers, some added that nothing answers, so
that the model learns to read the options instead of remembering the sources' types.

The result is a backbone like any other, with its own fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdner.backbone.base import Backbone
from xdner.codec.instructor import Instructor
from xdner.codec.words import WordEncoder
from xdner.errors import TrainingError
from xdner.files import check_replaceable, holds, replace_folder, write_atomically
from xdner.settings import Settings
from xdner.text import Sentence
from xdner.training.augmentation import Augmentation
from xdner.training.domain_task import DomainTask, Item, make_items
from xdner.training.factors import factors_on
from xdner.training.loop import TrainingResult, train
from xdner.training.run import Run
from xdner.training.sources import LabelledSource, limited, pools, used

__all__ = ["BY", "RECORD", "Instructed", "instruct"]


#: How the factors were made; a folder with it may be replaced by new factors.
RECORD = "instruct.json"
#: What the record says, so that its folder is known as one that may be made again.
BY = "xdner instruct"


@dataclass(frozen=True)
class Instructed:
    """What instruction tuning gave: the record of the run, and the folder of the LoRA factors."""

    result: TrainingResult
    folder: Path


def instruct(
    backbone: Backbone,
    sources: Sequence[LabelledSource],
    out: str | Path,
    *,
    settings: Settings,
    run: Run | None = None,
) -> Instructed:
    """Tune LoRA factors on the sources, with the backbone frozen under them, and write them in peft's format.

    Merging them into the weights makes the new backbone: :func:`xdner.backbone.lora.merge_lora`.

    Args:
        backbone: where to start.
        sources: domains with their training sentences.
        out: folder of the factors, stored in 16 bits.
        settings: groups ``codec``, ``training`` and ``instruct``.
        run: where checkpoints go, and what is shown.

    Raises:
        TrainingError: no sources, or peft is not installed.
        StorageError: ``out`` cannot be written, or holds something else than factors of an earlier run.
    """
    check_replaceable(out, holds(RECORD))
    how = settings.instruct
    encoder = WordEncoder(backbone.tokenizer)
    items = _items(sources, settings, encoder, backbone.max_tokens)
    pool = {label.verbalization: label for source in sources for label in source.domain.labels}
    empty = backbone.empty_prefix()
    base = backbone.fingerprint  # before factors stand among its weights
    with factors_on(
        backbone, rank=how.rank, alpha=how.alpha, dropout=how.lora_dropout, seed=settings.training.seed,
        what="instruction tuning",
    ) as factors:  # fmt: skip
        task = DomainTask(
            backbone,
            items,
            settings.codec,
            settings.training,
            encoder=encoder,
            augmentation=Augmentation(
                shuffle=settings.training.shuffle_options,
                drop=settings.training.drop_options,
                add=how.add_options,
                pool=tuple(pool.values()),
                replace=settings.training.replace_mentions,
                mentions=pools(sources, how.per_source),
            ),
            parameters=factors.parameters,
            prefix=lambda: empty,
            score=lambda: None,
            dropouts=factors.dropouts,
        )
        fingerprint = _run_fingerprint(backbone.exact_fingerprint, sources, settings)
        result = train(task, settings.training, run, fingerprint=fingerprint)
        adapter = factors.adapter(backbone.name, base)
    with replace_folder(out, holds(RECORD)) as fresh:
        adapter.write(fresh)
        _describe(backbone, fresh, sources, settings, result)
    return Instructed(result, Path(out))


def _items(sources: Sequence[LabelledSource], settings: Settings, encoder: WordEncoder, most: int) -> list[Item]:
    if not sources:
        raise TrainingError("instruction tuning needs at least one source domain", hint="Give --source FILE.")
    instructor = Instructor(encoder, settings.codec)
    items: list[Item] = []
    for source in sources:
        chosen = limited(source.sentences, settings.instruct.per_source)
        items += make_items(
            source.domain, chosen, encoder, instructor, settings.training.max_pieces, max_tokens=most
        )  # fmt: skip
    return items


def _run_fingerprint(backbone: str, sources: Sequence[LabelledSource], settings: Settings) -> str:
    """What a run depends on; a checkpoint of another run is refused."""

    def plain(sentence: Sentence) -> list[Any]:
        return [sentence.text, [e.key for e in sentence.entities]]

    described = {
        "backbone": backbone,
        "settings": settings.to_dict(),
        "sources": [[s.domain.to_dict(), [plain(x) for x in s.sentences]] for s in sources],
    }
    return json.dumps(described, sort_keys=True, ensure_ascii=False)


def _describe(
    backbone: Backbone, folder: Path, sources: Sequence[LabelledSource], settings: Settings, result: TrainingResult
) -> None:
    """A manifest that says how the factors were made, and how to prompt the result."""
    manifest = {
        "by": BY,
        "base": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "sources": used(sources, settings.instruct.per_source),
        "settings": settings.to_dict(),
        "steps": result.steps,
        "losses": [round(record.loss, 4) for record in result.history],
    }
    recommended = {"codec": settings.to_dict()["codec"]}
    write_atomically(folder / "recommended.json", json.dumps(recommended, indent=2) + "\n")
    write_atomically(folder / RECORD, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
