"""The import table of the rooms and wings, read from the source: what may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

# What each room may import of the others, and of which only some modules.
ROOMS = {
    "shards": (),
    "models": ("shards",),
    "cluster": ("shards",),
    "actors": ("models", "shards"),
    "pipelines": ("actors", "cluster", "models", "shards"),
}
ONLY = {"models": {"shards": {"canonical", "errors", "random", "settings"}}}  # no input or output, no Ray
SHARED = {
    "measures",
    "ngrams",
    "nlu",
    "sources",
    "training",
    "report",
    "generated",
    "command",
    "fleet",
}  # sub-rooms that are no wing
TOP = "command"  # the verbs: they may import wings, no wing imports them


def breaches(root: Path) -> Iterator[str]:
    """Give the imports below a checkout that the table does not allow, one sentence each."""
    for room in (*ROOMS, "tests", "benchmarks", "examples"):
        for path in sorted((root / room).rglob("*.py")):
            place = path.relative_to(root)
            for line, module in _imports(path, root):
                for what in _wrong(place, module):
                    yield f"{place}:{line}: {what}"


def _imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Give the line and name of each module that a file imports: x.y for ``from x import y`` where y is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if _is_module(root, inner) else node.module
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level


def _is_module(root: Path, name: str) -> bool:
    place = root.joinpath(*name.removeprefix("gristmill.").split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


def _wrong(place: Path, module: str) -> Iterator[str]:
    room, *inner = place.parts
    first, *rest = module.split(".")
    if first in ROOMS:
        yield f"{module} is a plain name; expected gristmill.{module}"
    if module.startswith("."):
        yield "a relative import; expected the full name"
    if first != "gristmill" or not rest or room not in ROOMS or rest[0] not in ROOMS:
        return
    target, *names = rest
    if target != room and target not in ROOMS[room]:
        yield f"{room} may not import {target}"
    allowed = ONLY.get(room, {}).get(target)
    if allowed is not None and names and names[0] not in allowed:
        yield f"{room} may import of {target} only {', '.join(sorted(allowed))}, not {names[0]}"
    wing = inner[0] if len(inner) > 1 else None
    theirs = names[0] if len(names) > 1 else None
    if theirs == TOP and wing != TOP:
        yield f"{TOP} may be imported by nothing"
    if theirs and theirs not in SHARED and theirs != wing and wing != TOP:
        yield f"{'the shared files' if wing is None or wing in SHARED else f'wing {wing}'} may not import wing {theirs}"


def circles(root: Path) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle, also inside of functions."""
    edges: dict[str, set[str]] = {}
    for room in ROOMS:
        for path in (root / room).rglob("*.py"):
            name = ".".join(("gristmill", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            edges[name] = {module for _, module in _imports(path, root)} - {name}
    names = sorted(edges)
    matrix = np.array([[other in edges[name] for other in names] for name in names])
    number, group = connected_components(csr_array(matrix), connection="strong")
    groups = [[name for name, of in zip(names, group, strict=True) if of == one] for one in range(number)]
    return sorted(some for some in groups if len(some) > 1)


def missing(root: Path) -> Iterator[str]:
    """Give the names of the project that a script below a checkout imports and that are not there, one sentence each.

    The type checker reads the rooms; benchmarks and examples are scripts that nothing else imports.
    """
    known: dict[Path, set[str]] = {}
    for path in sorted(file for room in ("benchmarks", "examples") for file in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(("gristmill.", "tests.")):
                continue
            place = root.joinpath(*str(node.module).removeprefix("gristmill.").split("."))
            for alias in node.names:
                if (place / f"{alias.name}.py").exists() or (place / alias.name).is_dir():
                    continue
                file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
                if file not in known:
                    known[file] = _defined(file) if file.exists() else set()
                if alias.name not in known[file]:
                    yield f"{path.relative_to(root)}:{node.lineno}: {node.module} has no {alias.name}"


def _defined(path: Path) -> set[str]:
    """Return the names that a module has at its top level, under conditions too."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For):
            todo += [one for one in ast.walk(node) if isinstance(one, ast.stmt) and one is not node]
        else:
            found.update(one.id for one in ast.walk(node) if isinstance(one, ast.Name))
    return found
