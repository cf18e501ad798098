"""The code that a stage or training is made by, as a digest: what tells that it changed and its version did not.

A fingerprint covers a stage's version and not its source (law 5), so that moving or reformatting code redoes nothing.
The digest is kept beside results, in the plan and the seal of a step and in an artifact. It is of the syntax of the
class or function and of all that it uses of its module; and, of code outside this package, of the user's other modules
too. Comments, docstrings, blank lines and unrelated code of the same module are in no digest.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from gristmill.shards import canonical

_PACKAGE = __name__.partition(".")[0]
_PYTHON = ".".join(platform.python_version_tuple()[:2])  # another has another syntax tree
_INSTALLED = tuple(os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ("stdlib", "purelib", "platlib"))


def code_of(names: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of some code: the version of this package, and digests of classes or functions.

    ``names`` are those of stages or trainings, each with that of its code (``module:name``). Code without a source
    file has no digest.
    """
    found = {name: digest for name, code in names.items() if (digest := _digest(code)) is not None}
    return {_PACKAGE: installed(), "digests": found}


def changed(kept: Any, names: Mapping[str, str]) -> list[str]:
    """Return those of some stages or trainings whose code is not that which was kept with a result.

    Of this package's own they are named only if the result was made by another version of it: it raises the versions of
    stages itself.
    """
    if not isinstance(kept, Mapping) or not isinstance(kept.get("digests"), Mapping):
        return []  # made before this was kept
    found = []
    for name, code in names.items():
        was = kept["digests"].get(name)
        if not isinstance(was, str) or not was.startswith(f"{_PYTHON}:"):
            continue
        if _is_own(code) and kept.get(_PACKAGE) == installed():
            continue
        if _digest(code) not in (None, was):
            found.append(name)
    return found


@functools.cache
def installed() -> str:
    """Return the version of this package that is installed; "" in a checkout that is not."""
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


def _is_own(code: str) -> bool:
    return code.partition(".")[0] == _PACKAGE


def _digest(code: str) -> str | None:
    module, _, name = code.partition(":")
    root = _module(module)
    if root is None:
        return None
    seen: dict[tuple[str, str], str] = {}
    _gather(root, name.partition(".")[0], seen, _is_own(code))
    # Not where it is: a module may be renamed, or a class moved, without another result.
    return f"{_PYTHON}:{canonical.digest(sorted(seen.values()))[:32]}"


class _Module:
    """The syntax of a module: its statements by the names that they define, and what it imports."""

    def __init__(self, name: str, file: str, tree: ast.Module) -> None:
        self.name, self.file = name, file
        self.package = name if os.path.basename(file) == "__init__.py" else name.rpartition(".")[0]
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, tuple[str, str]] = {}  # name -> module, and the name in it or ""
        self._syntax: dict[str, tuple[str, list[str]]] = {}
        for statement in tree.body:
            for name in _names_of(statement):
                self.defined.setdefault(name, []).append(statement)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imported[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0],
                        "",
                    )
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (self._absolute(node), alias.name)

    def syntax(self, name: str) -> tuple[str, list[str]]:
        """Return the syntax of a name that is defined here, and the names that it uses; a run asks many times."""
        if name not in self._syntax:
            statements = self.defined[name]
            used = [node.id for one in statements for node in ast.walk(one) if isinstance(node, ast.Name)]
            self._syntax[name] = "\n".join(map(_plain, statements)), list(dict.fromkeys(used))
        return self._syntax[name]

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        above = parts[: len(parts) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])


def _names_of(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module defines or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            # The first name of a target such as `too_short.version`, or all of several.
            yield from {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
    elif isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
        for inner in ast.iter_child_nodes(statement):
            if isinstance(inner, ast.stmt):
                yield from _names_of(inner)


def _gather(module: _Module, name: str, seen: dict[tuple[str, str], str], own: bool) -> None:
    """Add the syntax of a name of a module, and of all that it uses."""
    if (module.name, name) in seen or name not in module.defined:
        return
    seen[module.name, name], used = module.syntax(name)
    for one in used:
        if one in module.defined:
            _gather(module, one, seen, own)
        elif one in module.imported and not own:
            _gather_imported(*module.imported[one], seen)


def _gather_imported(name: str, inner: str, seen: dict[tuple[str, str], str]) -> None:
    """Add what is imported from another module of the user's: one name, or all of it."""
    module = _users(name)
    if module is not None and inner in module.defined:
        _gather(module, inner, seen, False)
        return
    whole = _users(f"{name}.{inner}") if inner else module  # a module in a package, or all of a module
    if whole is not None:
        for one in whole.defined:
            _gather(whole, one, seen, False)


def _users(name: str) -> _Module | None:
    """Return a module that is neither this package's nor installed."""
    found = None if name.partition(".")[0] == _PACKAGE else _module(name)
    return None if found is None or os.path.realpath(found.file).startswith(_INSTALLED) else found


def _plain(statement: ast.stmt) -> str:
    """Return a statement's syntax without docstrings, places and comments."""
    return ast.dump(_Undocumented().visit(ast.parse(ast.unparse(statement))))


class _Undocumented(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:  # ast's name
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _module(name: str) -> _Module | None:
    """Return the syntax of a module, which need not be imported; ``None`` if it has no source file."""
    found = getattr(sys.modules.get(name), "__file__", None)
    if found is None and name != "__main__":
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # its parent is no package
            return None
        found = spec.origin if spec is not None else None
    if found is None or not found.endswith(".py"):
        return None
    try:
        state = os.stat(found)
    except OSError:
        return None
    return _parsed(name, found, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=512)
def _parsed(name: str, file: str, changed: int, size: int) -> _Module | None:
    try:
        with open(file, "rb") as source:
            return _Module(name, file, ast.parse(source.read()))
    except (OSError, SyntaxError, ValueError):
        return None
