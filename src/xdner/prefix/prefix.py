"""The prefix: keys and values that are put before the text at every attention site (δ of Eq. 2), as a value.

A :class:`Prefix` belongs to one backbone, named by its fingerprint; on another one it would be noise, so it is
refused. It is stored as safetensors with a JSON manifest beside it, never as a pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from xdner.errors import PrefixFormatError, PrefixMismatchError
from xdner.files import read_manifest, write_atomically, write_manifest
from xdner.geometry import PrefixGeometry, SiteShape

__all__ = ["Prefix", "short"]

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values for every site, and where they come from.

    Attributes:
        geometry: the sites.
        keys, values: one tensor [heads, length, head_dim] per site, in the order of the geometry.
        backbone: fingerprint of the backbone it was trained on.
        initial: hash of the prefix that training started from (δ₀); only prefixes of one δ₀ may be combined.
        notes: whatever else the manifest should say (plain JSON values): domain, seed, settings, scores.
    """

    geometry: PrefixGeometry
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    backbone: str
    initial: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.geometry.sites) or len(self.values) != len(self.geometry.sites):
            raise PrefixMismatchError(
                f"a prefix for {len(self.geometry.sites)} sites came with {len(self.keys)} keys and "
                f"{len(self.values)} values",
                hint="Give one key and one value tensor per site, in the geometry's order.",
            )
        for site, key, value in zip(self.geometry.sites, self.keys, self.values, strict=True):
            expected = (site.heads, self.length, site.head_dim)
            for what, tensor in (("key", key), ("value", value)):
                if tuple(tensor.shape) != expected:
                    raise PrefixMismatchError(
                        f"the prefix {what} at {site.name} has shape {tuple(tensor.shape)}, expected {expected}",
                        hint="Shapes are (key-value heads, prefix length, head size).",
                    )

    @property
    def length(self) -> int:
        """Prefix keys per site, n."""
        return self.keys[0].shape[1] if self.keys else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def hash(self) -> str:
        """``sha256:…`` over names, shapes and bytes, in 32-bit floats (so that storing in 16 bits is seen)."""
        digest = hashlib.sha256()
        for name, tensor in self.tensors().items():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return "sha256:" + digest.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """``{"<site>.key": [heads, length, head_dim], "<site>.value": …}``."""
        named: dict[str, Tensor] = {}
        for site, key, value in zip(self.geometry.sites, self.keys, self.values, strict=True):
            named[f"{site.name}.key"] = key
            named[f"{site.name}.value"] = value
        return named

    @classmethod
    def from_tensors(cls, geometry: PrefixGeometry, tensors: Mapping[str, Tensor], **rest: Any) -> Prefix:
        """The inverse of :meth:`tensors`.

        Raises:
            PrefixMismatchError: tensors are missing, left over or of a wrong shape.
        """
        wanted = [f"{s.name}.{part}" for s in geometry.sites for part in ("key", "value")]
        if set(wanted) != set(tensors):
            missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
            raise PrefixMismatchError(
                f"the prefix does not fit the backbone's {geometry}: missing {_some(missing)}, left over {_some(extra)}",
                hint="It was made for another architecture; train a new one on this backbone.",
            )
        keys = tuple(tensors[f"{s.name}.key"] for s in geometry.sites)
        values = tuple(tensors[f"{s.name}.value"] for s in geometry.sites)
        return cls(geometry, keys, values, **rest)

    def with_notes(self, **notes: Any) -> Prefix:
        """The same prefix with more entries in its manifest."""
        return replace(self, notes={**self.notes, **notes})

    def rounded(self) -> Prefix:
        """The same prefix with 16-bit values, held in 32 bits: what will be read back after :meth:`save`."""
        return replace(self, keys=tuple(_half(k) for k in self.keys), values=tuple(_half(v) for v in self.values))

    def check(
        self, backbone: str, geometry: PrefixGeometry, name: str = "this backbone", what: str = "the prefix"
    ) -> None:
        """Refuse to run on a backbone that the prefix was not made for.

        Args:
            backbone, geometry, name: of the model.
            what: the prefix, for messages.

        Raises:
            PrefixMismatchError: another fingerprint or other sites.
        """
        if self.geometry != geometry:
            raise PrefixMismatchError(
                f"{what} was made for {self.geometry}, but {name} has {geometry}",
                hint="Load the backbone that the prefix was trained on, or train a new prefix.",
            )
        if self.backbone != backbone:
            raise PrefixMismatchError(
                f"{what} was trained on a backbone with fingerprint {short(self.backbone)}, "
                f"but {name} has {short(backbone)}",
                hint=f"Load the backbone it was trained on ({self.notes.get('backbone_name', 'see its manifest')}), "
                "or train a new prefix. An adapted or merged backbone counts as another one.",
            )

    # -- files ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``prefix.safetensors`` (16 bits) and ``prefix.json`` into ``folder``.

        Raises:
            PrefixFormatError: a value is too large for 16 bits, or not a number.
            StorageError: the folder cannot be written.
        """
        folder = Path(folder)
        tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in self.tensors().items()}
        bad = next((name for name, t in tensors.items() if not bool(t.isfinite().all())), None)
        if bad is not None:
            raise PrefixFormatError(
                f"{bad} holds values that do not fit into 16 bits, or are not numbers",
                hint="Training went astray: lower the learning rate and train again.",
            )
        data = safetensors.torch.save(tensors, metadata={"format": "pt"})
        manifest = {
            "format": FORMAT,
            "backbone": self.backbone,
            "initial": self.initial,
            "length": self.length,
            "sites": [[s.name, s.heads, s.head_dim] for s in self.geometry.sites],
            "file": {"name": "prefix.safetensors", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
            "notes": dict(self.notes),
        }
        # The manifest goes last: until it is there, the pair does not match and is refused rather than half-read.
        write_atomically(folder / "prefix.safetensors", data)
        write_manifest(folder / "prefix.json", manifest)

    @classmethod
    def load(cls, folder: str | Path) -> Prefix:
        """Read what :meth:`save` wrote; the values come as 32-bit floats.

        Raises:
            PrefixFormatError: a file is missing, truncated, altered or of a later format, or holds values that are not numbers.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder / "prefix.json")
        try:
            data = (folder / "prefix.safetensors").read_bytes()
        except OSError as error:
            raise PrefixFormatError(
                f"cannot read {folder / 'prefix.safetensors'}: {error.strerror}",
                hint="Restore the file, or train again.",
            ) from None
        found = hashlib.sha256(data).hexdigest()
        if found != manifest["file"]["sha256"]:
            raise PrefixFormatError(
                f"{folder / 'prefix.safetensors'} is truncated or was altered: its hash is {found[:12]}…, "
                f"the manifest says {manifest['file']['sha256'][:12]}… ({len(data)} of {manifest['file']['bytes']} bytes)",
                hint="Copy both files again from where they came, or train again.",
            )
        try:
            tensors = {k: v.to(torch.float32) for k, v in safetensors.torch.load(data).items()}
        except SafetensorError as error:
            raise PrefixFormatError(f"{folder / 'prefix.safetensors'}: {error}", hint="Train again.") from None
        # Places in the engine's store are masked, not cleared, and 0 * nan is nan: other domains' rows would be hurt too.
        bad = next((name for name, t in sorted(tensors.items()) if not bool(t.isfinite().all())), None)
        if bad is not None:
            raise PrefixFormatError(f"{folder / 'prefix.safetensors'}: {bad} holds values that are not numbers",
                                    hint="Train again.")  # fmt: skip
        geometry = PrefixGeometry(tuple(SiteShape(n, h, d) for n, h, d in manifest["sites"]))
        return cls.from_tensors(
            geometry, tensors, backbone=manifest["backbone"], initial=manifest["initial"], notes=manifest["notes"]
        )


def _read_manifest(path: Path) -> dict[str, Any]:
    hint = "A prefix is a folder with prefix.json and prefix.safetensors, as `xdner train` writes it."
    kinds = {"format": int, "backbone": str, "initial": str, "length": int, "sites": list, "file": dict, "notes": dict}
    manifest = read_manifest(path, kinds, FORMAT, PrefixFormatError, "a prefix's manifest", hint)
    rows = manifest["sites"]
    if not all(isinstance(r, list) and [type(x) for x in r] == [str, int, int] for r in rows):
        raise PrefixFormatError(f"{path} has broken entries in 'sites'", hint=hint)
    if not {"sha256", "bytes"} <= set(manifest["file"]):
        raise PrefixFormatError(f"{path} lacks the file's hash", hint=hint)
    return manifest


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float16).to(torch.float32)


def short(fingerprint: str) -> str:
    """A hash for messages."""
    return fingerprint[:19] + "…" if len(fingerprint) > 20 else fingerprint or "(none)"


def _some(names: Sequence[str]) -> str:
    return "nothing" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
