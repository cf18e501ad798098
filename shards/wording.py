"""Sentences about wrong settings: where, what was given, what was expected and the nearest right name."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_NEAR = 0.65  # likeness, 0 to 1, from which a name may be what was meant; 0.57: transcription and duration
_LEAST = 3  # characters of a name with which another begins


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return a sentence for each validation error of a model."""
    return list(dict.fromkeys(sentence(e, model) for e in error.errors()))


def sentence(error: Any, model: type[BaseModel], beside: type[BaseModel] | None = None) -> str:
    """Return one of pydantic's validation errors as a sentence; ``beside`` has further top-level settings."""
    loc = error["loc"]
    named = [part for part in loc if not (isinstance(part, str) and "[" in part)]  # without the tags of unions
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")
    if error["type"] == "extra_forbidden":
        names = _names(model, loc[:-1])
        if len(loc) == 1 and beside is not None:
            names = {**names, **dict.fromkeys(beside.model_fields)}
        near = nearest(str(loc[-1]), names) or _elsewhere(str(loc[-1]), model)
        known = f"one of {', '.join(sorted(names))}" if names else "none"
        return f"{path}: there is no such setting{or_else(near, known)}"
    if error["type"] == "missing":
        return f"{path}: this setting is missing; it has no default"
    if error["type"] == "too_short":
        return f"{path}: nothing is given; expected at least {error['ctx']['min_length']}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = re.sub(r"a valid dictionary or (instance|object) .*", "a section of settings", message)
    expected = message.removeprefix("Input should be ").replace("a valid tuple", "a list")
    if expected == message:
        return f"{path}: {message}" if path else message
    given = error["input"]
    # What pydantic found when it tried to convert the value says no more than the value does.
    expected = re.sub(r"^(a valid [\w ]+), (unable|got|could not) .*", r"\1", expected)
    if given is None:
        return f"{path}: nothing is given; expected {expected}"
    near = ""
    if error["type"] == "literal_error" and isinstance(given, str):
        near = nearest(given, re.findall(r"'([^']*)'", expected))
    shown = repr(given) if len(repr(given)) <= 80 else repr(given)[:77] + "..."
    return f"{path}: {shown} is not right{or_else(near, expected)}"


def _names(model: Any, loc: Sequence[Any]) -> dict[str, Any]:
    """Return the settings below a path of a model; empty if unknown."""
    for part in loc:
        if isinstance(part, int):
            continue
        fields = _names(model, ())
        if part not in fields:
            continue  # the tag of a union
        model = fields[part].annotation
    found: dict[str, Any] = {}
    for candidate in _flat(model):
        found |= candidate.model_fields
    return found


def _flat(kind: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation may hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for inner in typing.get_args(kind) for model in _flat(inner)]


def _paths(model: Any, prefix: str = "", depth: int = 0) -> dict[str, str]:
    """Return the path of each setting by its last name."""
    found: dict[str, str] = {}
    for name, field in _names(model, ()).items():
        found.setdefault(name, prefix + name)
        if depth < 4:
            for last, path in _paths(field.annotation, f"{prefix}{name}.", depth + 1).items():
                found.setdefault(last, path)
    return found


def _elsewhere(name: str, model: Any) -> str:
    paths = _paths(model)
    close = difflib.get_close_matches(name, paths, n=1, cutoff=0.75)
    return f", did you mean {paths[close[0]]!r}?" if close else ""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint with the most similar name, as part of a sentence; empty if none is near enough to be meant.

    Example:
        >>> nearest("recrds", ["records", "seed"]), nearest("transcription", ["duration"])
        (", did you mean 'records'?", '')
    """
    for one in by_nearness(name, names):
        begins = min(len(name), len(one)) >= _LEAST and (name.startswith(one) or one.startswith(name))
        if begins or _likeness(name, one) >= _NEAR:
            return f", did you mean {one!r}?"
    return ""


def some_of(name: str, names: Iterable[str], most: int = 10) -> str:
    """Return the choices in place of a wrong name, as part of a sentence: the nearest first, and not more than a reader
    looks through.

    Example:
        >>> some_of("cont", ["upper", "twice", "count"], 2)
        'one of count, twice, or 1 more'
    """
    near = by_nearness(name, names)
    more = f", or {len(near) - most} more" if len(near) > most else ""
    return f"one of {', '.join(near[:most])}{more}"


def by_nearness(name: str, names: Iterable[str]) -> list[str]:
    """Return distinct names, those that are most like a name first."""
    return sorted(dict.fromkeys(names), key=lambda one: -_likeness(name, one))


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other.lower(), name.lower()).ratio()


def or_else(near: str, expected: str) -> str:
    """Return the end of a sentence: a hint of :func:`nearest`, if there is one, and what was expected.

    Example:
        >>> or_else(", did you mean 'records'?", "one of records, seed"), or_else("", "a number")
        (", did you mean 'records'? (expected one of records, seed)", '; expected a number')
    """
    return f"{near} (expected {expected})" if near else f"; expected {expected}"
