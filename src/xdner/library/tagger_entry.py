"""A domain with a tagger of its own as a folder: everything that reading a text takes.

::

    domain.toml                types
    settings.toml              all settings of the run
    tagger.json                manifest: tags, structure, encoder, hash of every file below, notes
    tagger.safetensors         all weights, the tuned encoder's too, 32 bits
    encoder/config.json        the encoder's configuration and its tokenizer's files
    encoder/tokenizer.json …
    sentences.txt, card.md, index/     as a prefix's domain has them (``entry.py``)

The weights are kept in 32 bits: what was trained and scored is what is read back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from xdner.backbone.encoder import Encoder
from xdner.backbone.words import WordPieces
from xdner.domain import Domain
from xdner.errors import BackboneError, TaggerFormatError
from xdner.files import read_manifest, write_atomically, write_manifest
from xdner.library.parts import ask_back, read_lines, read_text, taking_place, vouch, write_further, write_shared
from xdner.prefix.prefix import Prefix
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import LanerSettings
from xdner.tagger.tags import tags_for

__all__ = ["MANIFEST", "WEIGHTS", "TaggerEntry"]

FORMAT = 1
MANIFEST, WEIGHTS = "tagger.json", "tagger.safetensors"
_MEMBER = re.compile(r"encoder/\w[\w.-]*", re.ASCII)
_RESTORE = "Restore the folder, or train again."


@dataclass(frozen=True, eq=False)
class TaggerEntry:
    """A domain and its trained tagger, as a value; :meth:`build` makes a network of it.

    Attributes:
        domain: its types.
        settings: of the run.
        tags: in the order of the weights' rows.
        tensors: all weights by name, on the CPU.
        files: the encoder's configuration and tokenizer.
        encoder: ``name``, ``source`` and ``fingerprint`` of the encoder before it was tuned.
        notes: whatever else the manifest should say (plain JSON values).
        seen: :func:`~xdner.library.entry.sentence_hashes` of the training sentences, the sources' too.
        card: a text for people (Markdown), or nothing.
    """

    domain: Domain
    settings: LanerSettings
    tags: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    files: Mapping[str, bytes]
    encoder: Mapping[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    card: str = ""

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """It has none."""
        return ()

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @classmethod
    def of(
        cls, domain: Domain, settings: LanerSettings, network: TaggerNetwork, encoder: Encoder, **more: Any
    ) -> TaggerEntry:
        """What a network has learned; later training does not change it."""
        tensors = {name: t.detach().cpu().clone().contiguous() for name, t in network.state_dict().items()}
        identity = {"name": encoder.name, "source": encoder.source, "fingerprint": encoder.fingerprint}
        return cls(domain, settings, network.tags, tensors, encoder.files(), identity, **more)

    def build(self, device: str | torch.device = "cpu") -> tuple[TaggerNetwork, Encoder]:
        """The network, ready to read or to be trained on, and the encoder in it.

        Raises:
            TaggerFormatError: weights, settings and encoder do not belong together.
        """
        inner = {n.removeprefix("encoder."): t for n, t in self.tensors.items() if n.startswith("encoder.")}
        try:
            encoder = Encoder.from_files(self.files, inner, **{k: self.encoder[k] for k in _ENCODER})
            head = self.tensors.get("head.weight")
            if head is None or head.shape[0] != len(self.tags):
                raise ValueError(f"there are {len(self.tags)} tags, but not as many rows")
            network = TaggerNetwork(encoder.model, self.tags, self.settings.tagger, seed=0)
            network.load_state_dict(dict(self.tensors))
        except (BackboneError, RuntimeError, ValueError) as error:
            reason = error.message if isinstance(error, BackboneError) else str(error).strip().splitlines()[0]
            raise TaggerFormatError(
                f"the tagger of domain {self.domain.name!r} does not fit together: {reason}", hint=_RESTORE
            ) from None
        return network.to(device).eval(), encoder

    def pieces(self, encoder: Encoder) -> WordPieces:
        """Words to ids, as in training."""
        return WordPieces(encoder.tokenizer, encoder.positions)

    def renamed(self, domain: Domain) -> TaggerEntry:
        """The same under another name."""
        return replace(self, domain=domain)

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, also: Mapping[str, str] | None = None) -> None:
        """Write the folder in one step; an older one at its place is replaced only when the new one is complete.
        Its ``index`` is kept. ``also`` are further files of text, by name.

        Raises:
            StorageError: it cannot be written.
            LibraryError: somebody is writing to the index.
        """
        with taking_place(folder) as fresh:
            self.write(fresh)
            write_further(fresh, also)

    def write(self, folder: Path) -> None:
        """Write the files into a folder that nobody reads yet."""
        data = {WEIGHTS: safetensors.torch.save(dict(self.tensors), metadata={"format": "pt"})}
        data |= {f"encoder/{name}": content for name, content in self.files.items()}
        manifest = {
            "format": FORMAT,
            "tags": list(self.tags),
            "structure": self.settings.tagger.structure(),
            "encoder": dict(self.encoder),
            "files": vouch(data),
            "notes": dict(self.notes),
        }
        write_shared(folder, self.domain, self.settings, self.seen, self.card)
        for name, content in data.items():
            write_atomically(folder / name, content)
        write_manifest(folder / MANIFEST, manifest)

    @classmethod
    def load(cls, folder: str | Path) -> TaggerEntry:
        """Read what :meth:`save` wrote.

        Raises:
            DomainError, SettingsError, TaggerFormatError: a file is missing, broken or altered, or the domain's labels
                are not those that the tagger was trained for.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder / MANIFEST)
        files = manifest["files"].items()
        data = {name: ask_back(folder / name, told, TaggerFormatError, _RESTORE) for name, told in files}
        try:
            tensors = safetensors.torch.load(data[WEIGHTS])
        except SafetensorError as error:
            raise TaggerFormatError(f"{folder / WEIGHTS}: {error}", hint=_RESTORE) from None
        domain = Domain.read(folder / "domain.toml")
        settings = LanerSettings.stored(folder / "settings.toml")
        tags = tuple(manifest["tags"])
        if set(tags_for(domain.label_names)) != set(tags):
            trained = sorted({tag.partition("-")[2] for tag in tags} - {""})
            raise TaggerFormatError(
                f"{folder}: the domain has the labels {', '.join(sorted(domain.label_names))}, "
                f"but its tagger was trained for {', '.join(trained)}",
                hint="Put the old labels back into domain.toml, or train again with the new ones.",
            )
        if settings.tagger.structure() != manifest["structure"]:
            raise TaggerFormatError(f"{folder}: settings.toml describes another tagger than {MANIFEST}", hint=_RESTORE)
        return cls(
            domain, settings, tags, tensors,
            {n.removeprefix("encoder/"): d for n, d in data.items() if n != WEIGHTS},
            manifest["encoder"], manifest["notes"],
            seen=read_lines(folder, TaggerFormatError, _RESTORE),
            card=read_text(folder / "card.md", TaggerFormatError, _RESTORE),
        )  # fmt: skip


_ENCODER = ("name", "source", "fingerprint")


def _read_manifest(path: Path) -> dict[str, Any]:
    hint = f"A tagger is a folder with {MANIFEST} and {WEIGHTS}, as `xdner train --recognizer laner` writes it."
    kinds = {"format": int, "tags": list, "structure": dict, "encoder": dict, "files": dict, "notes": dict}
    manifest = read_manifest(path, kinds, FORMAT, TaggerFormatError, "a tagger's manifest", hint)
    files = manifest["files"]
    strange = [n for n, told in files.items()
               if not (n == WEIGHTS or _MEMBER.fullmatch(n)) or not isinstance(told, dict) or "sha256" not in told]  # fmt: skip
    if strange or WEIGHTS not in files:
        raise TaggerFormatError(f"{path} has broken entries in 'files'", hint=hint)
    tags = manifest["tags"]
    if not all(isinstance(t, str) for t in tags) or len(set(tags)) != len(tags):
        raise TaggerFormatError(f"{path} has broken entries in 'tags'", hint=hint)
    if not all(isinstance(manifest["encoder"].get(key), str) for key in _ENCODER):
        raise TaggerFormatError(f"{path} does not name its encoder", hint=hint)
    return manifest
