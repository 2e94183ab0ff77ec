"""Templates: the words around types, demonstrations and the query, as files with a name and a version.

Those that ship are in ``xdner/data/templates``, one file a version; a user's own is a file of the same form. A domain keeps
the whole text of the template that it is asked with, so a later version changes nothing for it.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdner.errors import TemplateError

__all__ = ["TEMPLATES", "Template", "find_template"]

TEMPLATES = Path(__file__).resolve().parent.parent / "data" / "templates"

#: Each part: the placeholders that it must have, and those that it may have.
_PARTS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "head": (frozenset({"types"}), frozenset({"instruction"})),
    "type": (frozenset({"type", "description"}), frozenset()),
    "bare_type": (frozenset({"type"}), frozenset()),
    "demonstration": (frozenset({"sentence", "answer"}), frozenset()),
    "query": (frozenset({"sentence"}), frozenset()),
}
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_FORM = "A template is UTF-8 TOML with 'name', 'version' and the parts " + ", ".join(_PARTS) + "."


@dataclass(frozen=True)
class Template:
    """A template that was read and checked.

    Attributes:
        name, version: what it calls itself.
        parts: ``head``, ``type``, ``bare_type``, ``demonstration``, ``query``.
        source: the whole file, as a domain keeps it.
    """

    name: str
    version: int
    parts: dict[str, str]
    source: str

    @property
    def title(self) -> str:
        """``name-version``, as the file of one that ships is called."""
        return f"{self.name}-{self.version}"

    @property
    def hash(self) -> str:
        """SHA-256 of its parts: comments may change."""
        return hashlib.sha256("\0".join(f"{k}={self.parts[k]}" for k in _PARTS).encode()).hexdigest()

    def pieces(self, part: str) -> list[tuple[str, bool]]:
        """A part, cut at its placeholders: text and names of placeholders (``True``) in turn."""
        cut = _PLACEHOLDER.split(self.parts[part])
        return [(piece, bool(i % 2)) for i, piece in enumerate(cut) if piece]

    def fill(self, part: str, **values: str) -> str:
        """A part with its placeholders filled in."""
        return "".join(values[piece] if named else piece for piece, named in self.pieces(part))

    @classmethod
    def parse(cls, source: str, path: str = "the template") -> Template:
        """Read a template.

        Raises:
            TemplateError: everything that is wrong, at once.
        """
        try:
            data = tomllib.loads(source)
        except (ValueError, RecursionError) as error:
            raise TemplateError(f"{path}: {error}", hint=_FORM) from None
        problems = [f"unknown key {key!r}" for key in sorted(data.keys() - {"name", "version", *_PARTS})]
        name, version = data.get("name"), data.get("version")
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            problems.append("'name' must be a word of small letters, digits, '.', '_' and '-'")
        if type(version) is not int or version < 1:
            problems.append("'version' must be a whole number from 1 on")
        for part, (needed, allowed) in _PARTS.items():
            problems += _flaws(part, data.get(part), needed, allowed)
        if problems:
            raise TemplateError(f"{path}: {'; '.join(problems)}", hint=_FORM)
        return cls(str(name), int(version or 0), {part: data[part] for part in _PARTS}, source)


def _flaws(part: str, text: Any, needed: frozenset[str], allowed: frozenset[str]) -> list[str]:
    if not isinstance(text, str):
        return [f"{part!r} is missing" if text is None else f"{part!r} must be text"]
    found = set(_PLACEHOLDER.findall(text))
    made = [f"{part!r} lacks {{{name}}}" for name in sorted(needed - found)]
    return made + [f"{part!r} has {{{name}}}, which means nothing there" for name in sorted(found - needed - allowed)]


def find_template(name: str | Path) -> Template:
    """A template that ships, by ``name`` (its latest version) or ``name-version``; or one in a file.

    Raises:
        TemplateError: there is none, the file cannot be read, or it is not a template.
    """
    shipped = {path.stem: path for path in TEMPLATES.glob("*.toml")}
    text = str(name)
    versions = [stem for stem in shipped if stem.rpartition("-")[0] == text]
    if versions:
        text = max(versions, key=lambda stem: int(stem.rpartition("-")[2]))
    path = shipped.get(text)
    if path is None and not text.endswith(".toml"):
        raise TemplateError(
            f"there is no template {text!r}",
            hint=f"Those that ship: {', '.join(sorted(shipped))}. One of your own is a file named .toml.",
        )
    path = Path(text) if path is None else path
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise TemplateError(f"cannot read the template {path}: {error}", hint=_FORM) from None
    template = Template.parse(source, str(path))
    if text in shipped and template.title != text:
        raise TemplateError(f"{path} calls itself {template.title}", hint="A shipped template's file has its own name.")
    return template
