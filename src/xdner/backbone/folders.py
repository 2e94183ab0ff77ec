"""What a model's folder holds: is it usable, and what kind of model is it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xdner.backbone.aliases import Kind
from xdner.errors import BackboneError, BackboneNotFoundError

__all__ = ["check_folder", "kind_of", "read_json"]

_ENCODERS = {
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "eurobert", "flaubert",
    "modernbert", "mpnet", "nomic_bert", "roberta", "roformer", "xlm-roberta", "xlm-roberta-xl",
}  # fmt: skip
#: Where a tokenizer's words may be; any one is enough for transformers.
_VOCABULARIES = (
    "tokenizer.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "vocab.json",
    "vocab.txt",
)
_OF_BYTES = {"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"}
_SEQ2SEQ = {"t5", "mt5", "umt5"}


def check_folder(folder: Path, name: str) -> None:
    """A folder must hold ``config.json``, a tokenizer's file and safetensors weights that are complete; only headers are
    read.

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
                f"the folder {name} has only pickled weights ({', '.join(pickles[:3])}), which can run code",
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
    if not any((folder / vocabulary).is_file() for vocabulary in _VOCABULARIES) and not _reads_bytes(folder):
        raise BackboneNotFoundError(  # transformers would make up a tokenizer of a hundred tokens
            f"the folder {name} has no tokenizer.json",
            hint="Copy the tokenizer's files beside the weights: tokenizer.json, or the vocabulary that it comes from "
            f"({', '.join(_VOCABULARIES[1:])}).",
        )


def _reads_bytes(folder: Path) -> bool:
    """Whether the tokenizer is one of bytes or characters: it has no vocabulary. (It is no fast one either.)"""
    config = folder / "tokenizer_config.json"
    return config.is_file() and read_json(config).get("tokenizer_class") in _OF_BYTES


def _weight_files(folder: Path, name: str) -> list[Path]:
    """``model.safetensors``, or all parts that its index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    told = read_json(index).get("weight_map")
    names = list(told.values()) if isinstance(told, dict) else []
    if not names or not all(isinstance(one, str) and Path(one).name == one for one in names):
        raise BackboneError(
            f"{index} does not say in which files weights are", hint="Copy or download the model again."
        )
    parts = sorted(set(names))
    missing = [part for part in parts if not (folder / part).is_file()]
    if missing:
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
    config = read_json(folder / "config.json")
    told = config.get("architectures")
    architectures = [str(a) for a in told] if isinstance(told, list) else []
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BackboneError: the file holds none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{path} cannot be read: {error}", hint="Copy or download the model again.") from None
    if not isinstance(value, dict):
        raise BackboneError(f"{path} is not a JSON object", hint="Copy or download the model again.")
    return value
