"""Modules, classes and functions by name: the references to code in plans and configs, and the search path."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gristmill.shards.errors import GristmillError, UserError

_PACKAGE = __name__.partition(".")[0]
_folders: list[Path] = []  # of the user's own modules
# The modules outside this package that may be imported by name, and what to say of others; None: any may.
_permitted: contextvars.ContextVar[tuple[frozenset[str], str] | None] = contextvars.ContextVar("only", default=None)


def name_of(thing: Any) -> str:
    """Return the name by which :func:`named` finds a class or function.

    Example:
        >>> from gristmill.shards.canonical import digest
        >>> name_of(digest)
        'gristmill.shards.canonical:digest'
    """
    return f"{thing.__module__}:{thing.__qualname__}"


def named(name: str) -> Any:
    """Return the class or function with a name such as ``lab.filters:TooShort``.

    Raises:
        UserError: the module does not exist, or has nothing of that name.

    Example:
        >>> named("gristmill.shards.canonical:digest")({"size": 3})[:8]
        '5437a864'
    """
    module, colon, inner = name.partition(":")
    if not colon or not module or not inner:
        raise UserError(
            f"{name!r} is not the name of a class or function; expected module:name, such as lab.filters:TooShort"
        )
    found: Any = named_module(module)
    for part in inner.split("."):
        if not hasattr(found, part):
            if module == "__main__":
                raise UserError(
                    f"{name} is not in this process; expected it in a module of its own, which workers import"
                )
            raise UserError(
                f"{name}: {module} has no {inner}{hidden(module)}; expected the name of a class or function in it"
            )
        found = getattr(found, part)
    return found


def named_module(name: str) -> ModuleType:
    """Return a module by its dotted name.

    Raises:
        UserError: the module does not exist, may not be imported (:func:`only`), or is the user's and raises when it is
            imported. A failed import of this package's own modules is a bug and keeps its traceback.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{name!r} is not the name of a module; expected one such as lab.filters")
    check_permitted(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(name, error) from error
        raise UserError(f"{name} cannot be imported: there is no module {error.name!r}{_looked()}") from None
    except (Exception, SystemExit) as error:
        raise _import_error(name, error) from error


def _import_error(name: str, error: BaseException) -> BaseException:
    """Return an error inside a module as a sentence with its place; for one of this package, the error itself."""
    if name.partition(".")[0] == _PACKAGE or isinstance(error, GristmillError):
        return error
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<frozen ")]
    place, line = (frames[-1].filename, frames[-1].lineno) if frames else (name, None)
    if isinstance(error, SyntaxError) and error.filename:
        place, line = error.filename, error.lineno
    what = f"{type(error).__name__}: {' '.join(str(getattr(error, 'msg', error)).split())}"
    return UserError(f"{name} cannot be imported: {what} ({place}, line {line})")


@contextlib.contextmanager
def only(modules: frozenset[str], expected: str) -> Iterator[None]:
    """Permit, of the modules outside this package, no import by name but of these: data may not choose what is run.

    Nothing is run by naming a module that is loaded already.

    ``expected`` is the end of the sentence about any other.
    """
    before = _permitted.set((modules, expected))
    try:
        yield
    finally:
        _permitted.reset(before)


def check_permitted(name: str) -> None:
    """Raise a :class:`UserError` for a module that may not be imported by name."""
    permitted = _permitted.get()
    if permitted is None or name in permitted[0] or name.partition(".")[0] == _PACKAGE:
        return
    if name not in sys.modules:
        raise UserError(f"{name} is not a module of {_PACKAGE}, and no output may choose what is run; {permitted[1]}")


def look_in(folder: str | Path) -> None:
    """Add a folder to the end of the module search path, so that it hides no installed package."""
    path = Path(os.path.abspath(folder))
    if path not in _folders:
        _folders.append(path)
    if str(path) not in map(os.path.abspath, sys.path):
        sys.path.append(str(path))
        importlib.invalidate_caches()


def lies_in_own_folder(name: str) -> bool:
    """Return whether a folder of :func:`look_in` contains a top-level module of this name."""
    # By os.path, which says no of a name that is too long for a file.
    return any(os.path.isfile(folder / f"{name}.py") or os.path.isdir(folder / name) for folder in _folders)


def own_file(name: str) -> Path | None:
    """Return the file of a top-level module of this name in a folder of :func:`look_in`, imported or not."""
    places = [folder / inner for folder in _folders for inner in (f"{name}.py", f"{name}/__init__.py")]
    return next((place for place in places if place.is_file()), None)


def hidden(name: str) -> str:
    """Return, as part of a sentence, that a module hides the user's own of the same name; empty if it does not."""
    top = name.partition(".")[0]
    own, found = own_file(top), getattr(sys.modules.get(top), "__file__", None)
    if own is None or (
        found is not None and any(Path(found).resolve().is_relative_to(one.resolve()) for one in _folders)
    ):
        return ""
    return f" (it is {found or 'a module of Python'}, which hides {own}; expected another name for that)"


def own_modules() -> dict[str, Path]:
    """Return the user's own loaded top-level modules, each with its file or the folder of its package.

    They are those found in the folders of :func:`look_in`, and are uploaded for workers on other machines.
    """
    folders = {folder.resolve() for folder in _folders}
    found = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name in (_PACKAGE, "__main__", "__mp_main__"):
            continue
        for place in list(getattr(module, "__path__", None) or [getattr(module, "__file__", None)]):
            path = Path(os.path.abspath(place)) if isinstance(place, str) else None
            if path is not None and path.parent.resolve() in folders and (path.suffix == ".py" or path.is_dir()):
                found[name] = path
                break
    return dict(sorted(found.items()))


def _looked() -> str:
    return f" (also searched in {', '.join(map(str, _folders))})" if _folders else ""
