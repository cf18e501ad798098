"""Settings: the classes of parsed YAML that configure stages and trainings, and their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveFloat, ValidationError
from pydantic.fields import FieldInfo

from gristmill.shards.errors import SettingsError
from gristmill.shards.wording import sentences

Part = TypeVar("Part", bound="Settings")

_HOW = "how"
HOW: dict[str, Any] = {_HOW: True}
"""``Field(json_schema_extra=HOW)`` marks a setting of execution (memory, threads), on which no result depends."""


def _ordered(given: tuple[Any, Any]) -> tuple[Any, Any]:
    if given[0] > given[1]:
        raise ValueError(f"expected the smallest value first, got {list(given)}")
    return given


Ordered = AfterValidator(_ordered)
"""Marks a setting that is a range, (minimum, maximum)."""
Range = Annotated[tuple[float, float], Ordered]
PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], Ordered]


def _at_most(most: int, why: str) -> AfterValidator:
    """Mark a number that memory is taken for, so that an absurd one is refused before any work."""

    def check(given: int) -> int:
        if given > most:
            raise ValueError(f"expected at most {most} ({why}), got {given}")
        return given

    return AfterValidator(check)


Size = Annotated[int, _at_most(1 << 16, "a matrix of that width takes 16 GiB")]
"""A size of a model: a width, or a number of layers, heads, units or hypotheses. Lower limits are the field's."""
Batch = Annotated[int, _at_most(1 << 24, "a batch is held in memory")]
"""A number of rows, frames or units that are worked on together. Lower limits are the field's."""

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # has no public name


class _InSentences(ModelMetaclass):
    """Reports what is wrong in a call of the class as a config's errors are; inside pydantic nothing changes."""

    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805
            try:
                return super().__call__(*args, **values)
            except ValidationError as error:
                name = cls.__qualname__.rpartition("<locals>.")[2]
                raise SettingsError("; ".join(f"{name}: {one}" for one in sentences(error, cls))) from None


class Settings(BaseModel, metaclass=_InSentences):
    """Base of all settings: each field is declared once, with its default, bounds and, in a string below, its meaning.

    Unknown keys are rejected. Settings are defined in the module that uses them, and nest as those modules do.

        >>> class Noise(Settings):
        ...     snr: float = 10.0
        >>> Noise().identity(), Noise(snr=5).identity()
        ({}, {'snr': 5.0})

    A wrong value raises a :class:`~gristmill.shards.errors.SettingsError`:

        >>> Noise(snr="loud")
        Traceback (most recent call last):
            ...
        gristmill.shards.errors.SettingsError: Noise: snr: 'loud' is not right; expected a valid number
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    def identity(self) -> dict[str, Any]:
        """Return the part covered by fingerprints (law 5): the fields that are not at their default, as JSON values.

        So adding a field changes no fingerprint. Fields marked with :data:`HOW` are left out.
        """
        found = {}
        for name, field in type(self).model_fields.items():
            value = _plain(getattr(self, name))
            if not _is_how(field) and (field.is_required() or value != _plain(_default(field))):
                found[name] = value
        return found

    def part(self, kind: type[Part]) -> Part:
        """Return the fields that this class inherits from another, as settings of that class.

        So a flat section of a recipe can contain the settings of several actors, and each receives its own.

        Example:
            >>> class Rate(Settings):
            ...     sampling_rate: int = 16000
            >>> class Corpus(Rate):
            ...     places: str = "/data"
            >>> Corpus(sampling_rate=8000).part(Rate)
            Rate(sampling_rate=8000)
        """
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def but(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


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
