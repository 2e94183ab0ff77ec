"""A frozen backbone that knows the task: instruction tuning on source domains with LoRA, merged into new weights.

This joins the two papers: IF-WRANER's regularized instruction tuning makes the backbone, CP-NER's prefixes steer it.
The types stand in the prompt, shuffled, some dropped together with their answers, some added that nothing answers, so
that the model learns to read the options instead of remembering the sources' types.

The result is a backbone like any other, with its own fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from xdner.backbone.base import Backbone
from xdner.codec.instructor import Instructor
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import BackboneMismatchError, TrainingError
from xdner.files import replace_folder, write_atomically
from xdner.settings import Settings
from xdner.text import Sentence
from xdner.training.augmentation import Augmentation, mention_pool
from xdner.training.domain_task import DomainTask, Item, make_items
from xdner.training.loop import TrainingResult, train
from xdner.training.progress import Progress

__all__ = ["Instructed", "Source", "instruct", "limited", "pools"]


@dataclass(frozen=True)
class Source:
    """A source domain: its types and sentences."""

    domain: Domain
    sentences: Sequence[Sentence]


@dataclass(frozen=True)
class Instructed:
    """What instruction tuning gave: the record of the run, and the folder of the LoRA factors."""

    result: TrainingResult
    folder: Path


def instruct(
    backbone: Backbone,
    sources: Sequence[Source],
    out: str | Path,
    *,
    settings: Settings,
    score: Callable[[], float | None] | None = None,
    run_folder: Path | None = None,
    resume: bool = False,
    resume_hint: str = "",
    progress: Progress | None = None,
) -> Instructed:
    """Tune LoRA factors on the sources, with the backbone frozen under them, and write them in peft's format.

    Merging them into the weights makes the new backbone: :func:`xdner.backbone.lora.merge_lora`.

    Args:
        backbone: where to start.
        sources: domains with their training sentences.
        out: folder of the factors, stored in 16 bits.
        settings: groups ``codec``, ``training`` and ``instruct``.
        score: dev score of the current weights, or ``None``.
        run_folder, resume, resume_hint, progress: see :func:`xdner.training.loop.train`.

    Raises:
        TrainingError: no sources, or peft is not installed.
        StorageError: ``out`` cannot be written.
    """
    try:
        from peft import LoraConfig, LoraModel, get_peft_model_state_dict
    except ImportError:
        raise TrainingError("instruction tuning needs the package peft", hint="pip install 'xdner[instruct]'") from None
    how = settings.instruct
    encoder = WordEncoder(backbone.tokenizer)
    items = _items(sources, settings, encoder)
    before = backbone.compute_fingerprint()
    config = LoraConfig(
        r=how.rank,
        lora_alpha=how.alpha,
        lora_dropout=how.lora_dropout,
        target_modules=_linear_names(backbone),
        init_lora_weights=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.training.seed)
        lora = LoraModel(backbone.model, config, "default")
    trained = {n: p for n, p in backbone.model.named_parameters() if "lora_" in n}
    for parameter in backbone.model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    pool = {label.verbalization: label for source in sources for label in source.domain.labels}
    empty = backbone.empty_prefix()
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
        parameters=trained,
        prefix=lambda: empty,
        score=score or (lambda: None),
    )
    result = train(
        task,
        settings.training,
        run_folder=run_folder,
        resume=resume,
        fingerprint=_run_fingerprint(backbone.fingerprint, sources, settings),
        progress=progress,
        resume_hint=resume_hint,
    )
    factors = get_peft_model_state_dict(lora, adapter_name="default")
    adapter = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in factors.items()}
    lora.unload()
    backbone.freeze()
    if backbone.compute_fingerprint() != before:
        raise BackboneMismatchError(
            "the weights under the LoRA factors changed during training, although they are frozen",
            hint="This is a bug, or another thread trains the same model; nothing was written.",
        )
    folder = _write(backbone, config.to_dict(), adapter, Path(out), sources, settings, result)
    return Instructed(result, folder)


def _items(sources: Sequence[Source], settings: Settings, encoder: WordEncoder) -> list[Item]:
    if not sources:
        raise TrainingError("instruction tuning needs at least one source domain", hint="Give --source FILE.")
    instructor = Instructor(encoder, settings.codec)
    items: list[Item] = []
    for source in sources:
        chosen = limited(source.sentences, settings.instruct.per_source)
        items.extend(make_items(source.domain, chosen, encoder, instructor, settings.training.max_pieces))
    return items


def pools(sources: Sequence[Source], per_source: int) -> dict[str, dict[str, tuple[tuple[str, ...], ...]]]:
    """The mentions of each source's training sentences, by domain and label."""
    return {s.domain.name: mention_pool(limited(s.sentences, per_source)) for s in sources}


def limited(sentences: Sequence[Sentence], limit: int) -> list[Sentence]:
    """A seeded sample of at most ``limit`` sentences (0 = all), in their order."""
    if not limit or len(sentences) <= limit:
        return list(sentences)
    chosen = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0))[:limit].tolist()
    return [sentences[i] for i in sorted(chosen)]


def _linear_names(backbone: Backbone) -> list[str]:
    """The last names of all linear layers but the output layer."""
    head = backbone.model.get_output_embeddings()
    names = {
        path.rpartition(".")[2]
        for path, module in backbone.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return sorted(names)


def _run_fingerprint(backbone: str, sources: Sequence[Source], settings: Settings) -> str:
    described = {
        "backbone": backbone,
        "settings": settings.to_dict(),
        "sources": [[s.domain.to_dict(), [x.text for x in s.sentences]] for s in sources],
    }
    return json.dumps(described, sort_keys=True, ensure_ascii=False)


def _write(
    backbone: Backbone,
    config: Mapping[str, Any],
    adapter: Mapping[str, torch.Tensor],
    out: Path,
    sources: Sequence[Source],
    settings: Settings,
    result: TrainingResult,
) -> Path:
    """A folder in peft's format, with a manifest that says how the factors were made and how to prompt the result."""
    manifest = {
        "base": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "sources": [{"domain": s.domain.name, "sentences": len(s.sentences)} for s in sources],
        "settings": settings.to_dict(),
        "steps": result.steps,
        "losses": [round(record.loss, 4) for record in result.history],
    }
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    plain["base_model_name_or_path"] = backbone.name
    with replace_folder(out) as fresh:
        write_atomically(fresh / "adapter_config.json", json.dumps(plain, indent=2, default=str) + "\n")
        write_atomically(fresh / "adapter_model.safetensors", to_safetensors(dict(adapter), metadata={"format": "pt"}))
        recommended = {"codec": settings.to_dict()["codec"]}
        write_atomically(fresh / "recommended.json", json.dumps(recommended, indent=2) + "\n")
        write_atomically(fresh / "instruct.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return out
