"""From a name to a folder of weights: an embedded alias, a folder, or a hub id.

>>> resolve("smollm2-135m").kind           # doctest: +SKIP
'causal'
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xdner.backbone.aliases import DEFAULT_BACKBONE, Kind, aliases, folder_of, is_pulled, manifest_of
from xdner.backbone.folders import check_folder, kind_of
from xdner.backbone.hub import from_hub
from xdner.errors import BackboneNotFoundError

__all__ = ["DEFAULT_BACKBONE", "LOADING", "ResolvedBackbone", "resolve"]

#: Held while transformers makes a model: it throws switches of the whole process for the time, and of two threads that load
#: one would find weights missing.
LOADING = threading.RLock()

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
        title = manifest_of(folder).get("name")
        return ResolvedBackbone(folder, str(title or folder.resolve().name), kind_of(folder), "folder")
    embedded = (
        f"Use the embedded backbone {DEFAULT_BACKBONE} (`xdner backbones pull {DEFAULT_BACKBONE}`), or give the path "
        "of a folder with config.json, model.safetensors and tokenizer.json."
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
