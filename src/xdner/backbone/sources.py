"""From a name to a folder of weights: an embedded alias, a folder, or a hub id.

>>> resolve("smollm2-135m").kind           # doctest: +SKIP
'causal'
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xdner.backbone.aliases import DEFAULT_BACKBONE, Kind, aliases, folder_of, is_pulled, read_manifest
from xdner.backbone.hub import from_hub
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError, BackboneNotFoundError

__all__ = ["DEFAULT_BACKBONE", "ResolvedBackbone", "check_folder", "fingerprint", "kind_of", "resolve"]

_ENCODERS = {
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "eurobert", "flaubert",
    "modernbert", "mpnet", "nomic_bert", "roberta", "roformer", "xlm-roberta", "xlm-roberta-xl",
}  # fmt: skip
_SEQ2SEQ = {"t5", "mt5", "umt5", "longt5"}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ResolvedBackbone:
    """Where a backbone's weights are.

    Attributes:
        path: a folder with ``config.json`` and safetensors weights.
        name: the alias, the hub id, or what the folder's manifest says (else the folder's own name).
        kind: ``causal``, ``seq2seq`` or ``encoder``.
        origin: which of the three forms the name had.
    """

    path: Path
    name: str
    kind: Kind
    origin: Literal["alias", "folder", "hub"]


def resolve(name: str | Path) -> ResolvedBackbone:
    """Find a backbone's weights.

    A name is tried as an alias, then as a folder, then as a hub id; ``./name`` is always a folder.

    Raises:
        BackboneNotFoundError: nothing is there, an alias was not pulled yet, or the hub cannot be reached.
        BackboneError: a folder or hub model whose files cannot be used.
    """
    table = aliases()
    if isinstance(name, str) and name in table:
        alias = table[name]
        if not is_pulled(alias):
            raise BackboneNotFoundError(
                f"the backbone {name!r} is not in the cache {folder_of(alias).parent}",
                hint=f"xdner backbones pull {name}",
            )
        return ResolvedBackbone(folder_of(alias), name, alias.kind, "alias")
    folder = Path(name).expanduser()
    if _is_there(folder):
        check_folder(folder, str(name))
        title = read_manifest(folder).get("name")
        return ResolvedBackbone(folder, str(title or folder.resolve().name), kind_of(folder), "folder")
    embedded = (
        f"Use the embedded backbone {DEFAULT_BACKBONE} (`xdner backbones pull {DEFAULT_BACKBONE}`), or give the path of "
        "a folder with config.json, model.safetensors and tokenizer.json."
    )
    if isinstance(name, Path) or not _HUB_ID.fullmatch(name):
        raise BackboneNotFoundError(f"there is no folder {str(name)!r}", hint=embedded)
    folder = from_hub(name, hint=embedded)
    check_folder(folder, name)
    return ResolvedBackbone(folder, name, kind_of(folder), "hub")


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except (OSError, ValueError):  # too long, or characters that no path can hold
        return False


def check_folder(folder: Path, name: str) -> None:
    """A folder must hold ``config.json`` and safetensors weights that are complete; only headers are read.

    Raises:
        BackboneNotFoundError: it does not.
        BackboneError: a weights file is cut off, or is only a pointer to the weights.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise BackboneNotFoundError(
            f"{name} is a file, not a model's folder", hint="Give the folder that holds config.json and the weights."
        )
    if not (folder / "config.json").is_file():
        raise BackboneNotFoundError(
            f"the folder {name} has no config.json",
            hint="Give the folder of one model, as transformers' save_pretrained writes it.",
        )
    weights = _weight_files(folder, name)
    if not weights:
        pickles = sorted(p.name for suffix in ("bin", "pt", "pth") for p in folder.glob(f"*.{suffix}"))
        if pickles:
            raise BackboneNotFoundError(
                f"the folder {name} has only pickled weights ({', '.join(pickles[:3])}), which can run code when opened",
                hint="If you trust them, load the model with transformers once and save it anew with save_pretrained: "
                "that writes model.safetensors.",
            )
        raise BackboneNotFoundError(
            f"the folder {name} has no model.safetensors",
            hint="Give the folder of one model, as transformers' save_pretrained writes it.",
        )
    for path in weights:
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise BackboneError(
                f"{path} is not a complete safetensors file: {error}",
                hint="Copy or download it again; a file of a few hundred bytes is only a pointer to the weights.",
            ) from None


def _weight_files(folder: Path, name: str) -> list[Path]:
    """``model.safetensors``, or all parts that its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    parts = sorted(set(_read_json(index).get("weight_map", {}).values()))
    missing = [part for part in parts if not (folder / part).is_file()]
    if missing or not parts:
        raise BackboneNotFoundError(
            f"the folder {name} lacks {len(missing)} of {len(parts)} parts of its weights: {', '.join(missing[:3])}",
            hint="Copy or download the model again.",
        )
    return [folder / part for part in parts]


def kind_of(folder: Path) -> Kind:
    """What ``config.json`` says that the model is.

    Raises:
        BackboneError: the file is not JSON or names no model type.
    """
    config = _read_json(folder / "config.json")
    architectures = [str(a) for a in config.get("architectures") or []]
    model_type = str(config.get("model_type") or "")
    if not model_type:
        raise BackboneError(
            f"{folder / 'config.json'} names no model_type", hint="Give the folder of a transformers model."
        )
    if architectures and all(a.endswith("EncoderModel") for a in architectures):
        return "encoder"
    if config.get("is_encoder_decoder") or model_type in _SEQ2SEQ:
        return "seq2seq"
    masked = any(a.endswith("ForMaskedLM") for a in architectures)
    if (model_type in _ENCODERS or masked) and not config.get("is_decoder"):
        return "encoder"
    return "causal"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read: {error}", hint="Copy or download the model again.") from None
    if not isinstance(value, dict):
        raise BackboneError(f"{path} is not a JSON object", hint="Copy or download the model again.")
    return value
