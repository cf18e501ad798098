"""Settings: what YAML is read into, what a stage or a training is made from, and what of it a fingerprint covers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

Part = TypeVar("Part", bound="Settings")

_HOW = "how"
HOW: dict[str, Any] = {_HOW: True}
"""``Field(json_schema_extra=HOW)`` marks how work is done (memory, threads): no result depends on such a field."""


class Settings(BaseModel):
    """Base of all settings: each field once, with its default, its check and, in a string below it, what it means.

    An unknown key is refused. Settings live with what they set and nest as that does.

        >>> class Noise(Settings):
        ...     snr: float = 10.0
        >>> Noise().identity(), Noise(snr=5).identity()
        ({}, {'snr': 5.0})
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    def identity(self) -> dict[str, Any]:
        """Return what a fingerprint covers (law 5): the fields that are not at their default, as JSON values.

        A field that is added later and left alone changes no fingerprint. What :data:`HOW` marks is in none.
        """
        found = {}
        for name, field in type(self).model_fields.items():
            value = _plain(getattr(self, name))
            if not _is_how(field) and (field.is_required() or value != _plain(_default(field))):
                found[name] = value
        return found

    def part(self, kind: type[Part]) -> Part:
        """Return the fields that this class inherits from another, as settings of that class alone.

        So a flat section of a recipe holds the settings of several actors, each of which is handed its own.
        """
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def but(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked as a whole."""
        return type(self).model_validate({**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def _is_how(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, Mapping) and bool(field.json_schema_extra.get(_HOW))


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.identity()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
