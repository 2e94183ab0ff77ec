"""A domain of labelled examples as a folder (IF-WRANER): nothing in it was trained on the domain.

::

    domain.toml            types, descriptions, instruction
    settings.toml          all settings
    wraner.json            manifest: the language model, hash of every file below, notes
    template.toml          the prompt's template, whole
    examples.jsonl         the labelled examples
    adapter/               LoRA factors of the language model, in peft's format, if it was tuned
    index/                 the retriever's own (``retrieval/``); kept as it is when the rest is written anew
    sentences.txt, card.md     as a prefix's domain has them (``entry.py``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xdner.backbone.lora import ADAPTER_FILES, Adapter
from xdner.corpora.io import read_corpus, write_corpus
from xdner.domain import Domain
from xdner.errors import LibraryError
from xdner.files import read_manifest, write_atomically, write_manifest
from xdner.library.parts import ask_back, read_lines, read_text, taking_place, vouch, write_further, write_shared
from xdner.prefix.prefix import Prefix
from xdner.prompting.settings import LlmSettings, WranerSettings
from xdner.prompting.template import Template
from xdner.text import Sentence, split_words

__all__ = ["EXAMPLES_MANIFEST", "ExamplesEntry"]

FORMAT = 1
EXAMPLES_MANIFEST = "wraner.json"
_TEMPLATE, _EXAMPLES, _ADAPTER = "template.toml", "examples.jsonl", "adapter"
_MEMBERS = {_TEMPLATE, _EXAMPLES, *(f"{_ADAPTER}/{name}" for name in ADAPTER_FILES)}
_RESTORE = "Restore the folder, or make the domain again."


@dataclass(frozen=True, eq=False)
class ExamplesEntry:
    """A domain, its examples, and who is asked about it and how.

    Attributes:
        domain: its types.
        settings: of prompts, retrieval and reading.
        template: the prompt's.
        examples: labelled sentences.
        llm: which language model (:attr:`xdner.generation.answers.Generator.identity`).
        adapter: of the language model, if it was tuned.
        notes: whatever else the manifest should say (plain JSON values).
        seen: :func:`~xdner.library.entry.sentence_hashes` of the source sentences that the model was tuned on.
        card: a text for people (Markdown), or nothing.
    """

    domain: Domain
    settings: WranerSettings
    template: Template
    examples: tuple[Sentence, ...]
    llm: Mapping[str, str]
    adapter: Adapter | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    card: str = ""

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """It has none."""
        return ()

    @property
    def nbytes(self) -> int:
        """Bytes of its weights: those of the adapter."""
        return 0 if self.adapter is None else self.adapter.nbytes

    def renamed(self, domain: Domain) -> ExamplesEntry:
        """The same under another name."""
        return replace(self, domain=domain)

    def distrusted(self) -> ExamplesEntry:
        """As it came from somebody else: an address in it must be confirmed before texts and a key are sent there, and the
        key is that of the default variable."""
        if self.llm["kind"] != "endpoint":
            return self
        own = replace(self.settings, llm=replace(self.settings.llm, key_variable=LlmSettings().key_variable))
        return replace(self, settings=own, notes={**self.notes, "imported": True})

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, also: Mapping[str, str] | None = None) -> None:
        """Write the folder in one step; an older one at its place is replaced only when the new one is complete.
        Its ``index`` is kept. ``also`` are further files of text, by name.

        Raises:
            StorageError: it cannot be written.
            LibraryError: somebody is writing to the index.
            CorpusError: examples that no file can hold.
        """
        with taking_place(folder) as fresh:
            self.write(fresh)
            write_further(fresh, also)

    def write(self, folder: Path) -> None:
        """Write the files into a folder that nobody reads yet."""
        write_atomically(folder / _TEMPLATE, self.template.source)
        if self.examples:
            write_corpus(self.examples, folder / _EXAMPLES, format=_fitting(self.examples))
        if self.adapter is not None:
            self.adapter.write(folder / _ADAPTER)
        files = {name: (folder / name).read_bytes() for name in sorted(_MEMBERS) if (folder / name).is_file()}
        manifest = {
            "format": FORMAT,
            "llm": dict(self.llm),
            "files": vouch(files),
            "notes": dict(self.notes),
        }
        write_shared(folder, self.domain, self.settings, self.seen, self.card)
        write_manifest(folder / EXAMPLES_MANIFEST, manifest)

    @classmethod
    def load(cls, folder: str | Path) -> ExamplesEntry:
        """Read what :meth:`save` wrote.

        Raises:
            DomainError, SettingsError, TemplateError, CorpusError, LibraryError: a file is missing, broken or altered.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder / EXAMPLES_MANIFEST)
        files = manifest["files"]
        for name, told in files.items():
            ask_back(folder / name, told, LibraryError, _RESTORE)
        domain = Domain.read(folder / "domain.toml")
        examples = tuple(read_corpus(folder / _EXAMPLES)) if _EXAMPLES in files else ()
        strange = sorted({e.label for s in examples for e in s.entities} - set(domain.label_names))
        if strange:
            raise LibraryError(
                f"{folder}: the examples have labels that the domain has not: {', '.join(strange[:5])}",
                hint="Put the old labels back into domain.toml, or make the domain again.",
            )
        return cls(
            domain, WranerSettings.stored(folder / "settings.toml"),
            Template.parse(read_text(folder / _TEMPLATE, LibraryError, _RESTORE), str(folder / _TEMPLATE)), examples,
            manifest["llm"],
            Adapter.load(folder / _ADAPTER) if f"{_ADAPTER}/{ADAPTER_FILES[1]}" in files else None, manifest["notes"],
            seen=read_lines(folder, LibraryError, _RESTORE), card=read_text(folder / "card.md", LibraryError, _RESTORE),
        )  # fmt: skip


def _fitting(sentences: tuple[Sentence, ...]) -> str:
    """The format that gives the sentences back: characters are kept, and words where they are not those of the rule."""
    ruled = all(tuple(s.words) == split_words(s.text) for s in sentences)
    joined = all(s.text == " ".join(w.text for w in s.words) for s in sentences)
    whole = all(s.word_span(e) is not None for s in sentences for e in s.entities)
    return "tokens" if joined and whole and not ruled else "spans"


def _read_manifest(path: Path) -> dict[str, Any]:
    hint = (
        f"A domain of examples is a folder with {EXAMPLES_MANIFEST}, as `xdner train --recognizer if-wraner` writes it."
    )
    kinds = {"format": int, "llm": dict, "files": dict, "notes": dict}
    manifest = read_manifest(path, kinds, FORMAT, LibraryError, "a domain's manifest", hint)
    files, llm = manifest["files"], manifest["llm"]
    halves = {f"{_ADAPTER}/{name}" in files for name in ADAPTER_FILES}
    if (
        not set(files) <= _MEMBERS
        or _TEMPLATE not in files
        or len(halves) > 1
        or not all(isinstance(told, dict) and isinstance(told.get("sha256"), str) for told in files.values())
    ):
        raise LibraryError(f"{path} has broken entries in 'files'", hint=hint)
    needed = {"local": ("name", "source", "fingerprint"), "endpoint": ("name", "url")}.get(str(llm.get("kind")))
    if needed is None or not all(isinstance(llm.get(key), str) for key in needed):
        raise LibraryError(f"{path} does not name its language model", hint=hint)
    return manifest
