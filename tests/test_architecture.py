"""The house: imports go down only, light things stay light, and every file was looked at."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xdner

PACKAGE = Path(xdner.__file__).parent
# From the ground up; a room may import rooms below it, and itself. Rooms on one line do not import each other.
FLOORS = [
    ["errors"],
    ["files", "geometry", "groups", "text"],
    ["domain", "settings"],
    ["corpora", "codec", "evaluation"],
    ["backbone", "prefix"],
    ["tagger", "retrieval"],
    ["prompting"],
    ["generation", "training", "library"],
    ["recognizers", "plots"],
    ["workflows"],
    ["serving"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# Fakes for tests (they may use anything), and the two doors of the package itself.
FREE = {"testing", "__init__", "__main__"}
WITHOUT_TORCH = {room for rooms in FLOORS[:4] for room in rooms}
HEAVY = {"torch", "transformers", "peft", "safetensors"}


def files() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """All modules that a file imports, wherever the statement stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_all_files_are_seen_and_every_room_has_a_floor() -> None:
    seen = files()
    assert len(seen) >= 50
    assert {p.parent.name for p in seen} >= {"corpora", "codec", "evaluation", "backbone", "prefix", "cli", "training"}
    assert {room_of(p) for p in seen} <= set(LEVEL) | FREE


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(path)
    if room in FREE:
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "xdner" or len(parts) < 2 or parts[1] in {room, "__version__"}:
            continue
        target = parts[1]
        assert target in LEVEL, f"{path} imports {module}, a room without a floor"
        assert LEVEL[target] < LEVEL[room], f"{path} (floor {LEVEL[room]}) imports {module} (floor {LEVEL[target]})"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_tensors_below_floor_two(path: Path) -> None:
    if room_of(path) in WITHOUT_TORCH:
        assert not {m.split(".")[0] for m in imports(path)} & HEAVY


def test_there_is_no_import_cycle_between_modules() -> None:
    names = {
        ".".join(("xdner", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p for p in files()
    }
    edges = {name: {m for m in imports(path) if m in names and m != name} for name, path in names.items()}
    # `from xdner.room import name` also names the package; what counts is the module that holds the name.
    for name, path in names.items():
        if path.name == "__init__.py" and name != "xdner":
            continue
        edges[name] = {m for m in edges[name] if names[m].name != "__init__.py" or m not in name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name in done:
            return
        for target in sorted(edges[name]):
            if target != "xdner":
                visit(target, (*trail, name))
        done.add(name)

    for name in names:
        if name != "xdner":
            visit(name, ())
    assert len(done) >= 50


def test_public_names_are_exactly_all() -> None:
    assert sorted(xdner._HOMES) == xdner.__all__
    for name in xdner.__all__:
        assert getattr(xdner, name) is not None
    assert set(xdner.__all__) <= set(dir(xdner))


def test_what_another_file_imports_is_in_all() -> None:
    """``__all__`` tells a reader which names of a file are for others."""
    modules = {
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in files()
    }
    exported: dict[str, set[str]] = {}
    for name, path in modules.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "__all__"
            ):
                exported[name] = {*ast.literal_eval(node.value), "__version__"}
    assert len(exported) > 150
    missing = {
        f"{node.module}.{alias.name}, for {path.relative_to(PACKAGE)}"
        for path in modules.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in exported
        for alias in node.names
        if alias.name not in exported[node.module] and f"{node.module}.{alias.name}" not in modules
    }
    assert not missing, sorted(missing)


def test_importing_the_package_is_light() -> None:
    code = "import sys, xdner; xdner.Domain, xdner.read_corpus; print(sorted({'torch','transformers','rich'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 420, f"{path} is too long: split it by jobs"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 70, f"{path}:{node.lineno} {node.name} has {lines} lines"
