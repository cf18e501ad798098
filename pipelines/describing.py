"""What can be set: the settings of a recipe as its classes declare them, each with its kind, default and meaning."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

_KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "any value",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
ALONE = "alone"
"""In a field's ``json_schema_extra``: the setting of its section that is meant by a value in the section's place."""
_DEEPEST = 8  # levels; a class that holds itself is described once


@dataclass(frozen=True)
class Described:
    """One setting.

    ``default`` and ``value`` are plain values as JSON and YAML have them; ``value`` is that of a file, or the default.
    The settings of a section are ``inner``; those of each entry of a list or mapping of sections too (``each``).
    """

    path: str
    kind: str
    doc: str
    default: Any = None
    required: bool = False
    value: Any = None
    given: bool = False  # a file sets it to something else than the default
    choices: tuple[str, ...] = ()  # if it is one of a few words
    each: bool = False
    inner: tuple[Described, ...] = ()

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def is_section(self) -> bool:
        """Whether it is a section that is always there, so that all of it is in its settings."""
        return bool(self.inner) and not self.each and isinstance(self.value, Mapping)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        found: dict[str, Any] = {"path": self.path, "kind": self.kind, "doc": self.doc}
        found |= {"required": True} if self.required else {"default": self.default}
        if self.given:
            found["value"] = self.value
        if self.inner:
            found["settings"] = [one.to_json() for one in self.inner]
        return found

    def walk(self) -> Iterator[Described]:
        """Yield it, and then the settings in it."""
        yield self
        for one in self.inner:
            yield from one.walk()


def describe(
    model: type[BaseModel],
    values: Mapping[str, Any] | None = None,
    prefix: str = "",
    within: Sequence[type] = (),
    defaults: Mapping[str, Any] | None = None,
) -> tuple[Described, ...]:
    """Return the settings of a class in the order of their declaration, inherited ones first.

    ``values`` are the plain values of such settings, those of a file for instance; ``defaults`` those of the section,
    if the class that holds it gives it others than its own.

    Example:
        >>> from gristmill.shards.index import Cut
        >>> rows = describe(Cut, {"rows": 100})[0]
        >>> rows.path, rows.kind, rows.default, rows.value, rows.given
        ('rows', 'whole number, at least 1', 2000, 100, True)
    """
    if model in within or len(within) > _DEEPEST:
        return ()
    found = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        required = field.is_required()
        default = None if required else _plain(field)
        default = defaults.get(name, default) if defaults is not None else default
        value = values[name] if values is not None and name in values else default
        sections, each = sections_of(field.annotation)
        inner: tuple[Described, ...] = ()
        for section in sections:
            below = value if isinstance(value, Mapping) and not each else None
            own = default if isinstance(default, Mapping) and not each else None
            inner += describe(section, below, f"{path}{'[]' if each else ''}.", (*within, model), own)
        doc = _meaning(model, name) or (_about(sections[0]) if sections else "")
        kind = _bounded(in_words(field.annotation), field.metadata)
        choices = _alone(field, sections[0]) if sections and not each else choices_of(field.annotation)
        found.append(Described(path, kind, doc, default, required, value, value != default, choices, each, inner))
    return tuple(found)


def in_words(kind: Any) -> str:
    """Return a type in words that need no Python.

    Example:
        >>> in_words(tuple[int, ...] | None), in_words(tuple[float, float]), in_words(Literal["a", "b"])
        ('list of whole numbers; or null', 'list of 2: number, number', 'a or b')
    """
    if kind in _KINDS:
        return _KINDS[kind]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if hasattr(kind, "__metadata__"):
        return _bounded(in_words(inner[0]), kind.__metadata__)
    if origin is Literal:
        return _either([str(one) if one is not None else "null" for one in inner])
    if origin in (Union, types.UnionType):
        return _alternatives(inner)
    if origin in (tuple, list, Sequence, set, frozenset) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
            return f"list of {len(inner)}: {', '.join(map(in_words, inner))}"
        return f"list of {_many(in_words(inner[0]))}" if inner else "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of names to {_many(in_words(inner[1]))}" if len(inner) == 2 else "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    value = getattr(kind, "__value__", None)  # of a named type
    return in_words(value) if value is not None else "text"


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the words that a value may be, if it may be no other.

    Example:
        >>> choices_of(Literal["a", "b"] | None), choices_of(bool), choices_of(int | bool)
        (('a', 'b', 'null'), ('true', 'false'), ())
    """
    if kind is bool:
        return ("true", "false")
    if kind is type(None):
        return ("null",)
    if typing.get_origin(kind) is Literal:
        return tuple(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (Union, types.UnionType):
        each = [choices_of(one) for one in typing.get_args(kind)]
        return tuple(word for one in each for word in one) if all(each) else ()
    return ()


def _alone(field: FieldInfo, section: type[BaseModel]) -> tuple[str, ...]:
    """Return the words that may stand in the place of a section: those of its setting ``ALONE``, and null."""
    extra = field.json_schema_extra
    name = extra.get(ALONE) if isinstance(extra, dict) else None
    words = choices_of(section.model_fields[name].annotation) if isinstance(name, str) else ()
    return words + (("null",) if type(None) in typing.get_args(field.annotation) else ())


def _alternatives(kinds: Sequence[Any]) -> str:
    words = list(dict.fromkeys(in_words(one) for one in kinds if one is not type(None)))
    whole = "; or ".join(words) if any("," in one or " or " in one for one in words) else _either(words)
    return f"{whole}; or null" if type(None) in kinds else whole


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _many(words: str) -> str:
    first, comma, rest = words.partition(",")
    plural = {"text": "texts", "number": "numbers", "whole number": "whole numbers", "section": "sections"}
    return plural.get(first, first) + comma + rest


def _bounded(words: str, metadata: Sequence[Any]) -> str:
    """Return a type's words with its bounds, which precede ``or null``."""
    found = []
    for one in metadata:
        found += [f"{text} {getattr(one, key)}" for key, text in _BOUNDS.items() if getattr(one, key, None) is not None]
        if (least := getattr(one, "min_length", None)) and words != "text":
            found.append(f"{least} or more")
    if not found:
        return words
    first, sign, rest = words.partition("; or ")
    return f"{first}, {' and '.join(found)}{sign}{rest}"


def sections_of(kind: Any) -> tuple[list[type[BaseModel]], bool]:
    """Return the settings classes of a field's type, and whether they are of the entries of a list or mapping."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind], False
    origin = typing.get_origin(kind)
    found = [sections_of(one) for one in typing.get_args(kind)]
    sections = list(dict.fromkeys(section for one, _ in found for section in one))
    held = isinstance(origin, type) and issubclass(origin, Sequence | Mapping)
    return sections, bool(sections) and (held or any(each for _, each in found))


def _plain(field: FieldInfo) -> Any:
    """Return a field's default as a plain value."""
    value = field.get_default(call_default_factory=True)
    return TypeAdapter(Any).dump_python(value, mode="json")


def _meaning(model: type[BaseModel], name: str) -> str:
    """Return the text below a field, or that of the class whose field it overrides."""
    fields = (getattr(one, "model_fields", {}).get(name) for one in model.__mro__)
    return next((text for field in fields if field is not None and (text := _text(field.description))), "")


def _about(section: type[BaseModel]) -> str:
    """Return the first paragraph of a settings class's own docstring."""
    text = section.__doc__ or ""
    return _text(inspect.cleandoc(text).split("\n\n")[0])


def _text(text: str | None) -> str:
    plain = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", (text or "").replace("``", "`"))
    return " ".join(plain.split())
