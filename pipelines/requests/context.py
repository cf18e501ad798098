"""The context of single requests, checked against what re-rankers were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.models.nlu.rerankers import DomainReranker, Numeric
from gristmill.shards.errors import RejectRecord

_BOOLEAN = {"true", "false"}  # the categories of a column of booleans
_NUMBER, _TEXT, _TRUE_OR_FALSE = "a number", "a text", "true or false"


@dataclass(frozen=True)
class ContextColumn:
    """A context column: its name and, in words, what its values are."""

    name: str
    holds: str

    @property
    def type(self) -> pa.DataType:
        """The type of a table's column that has its values."""
        return pa.float64() if self.holds == _NUMBER else pa.string()

    def value(self, given: Any) -> float | str | None:
        """Return a value as a table holds it; ``None`` stays.

        Raises:
            RejectRecord: it is of another type.
        """
        if given is None:
            return None
        if type_of(given) != self.holds:
            raise RejectRecord(f'"{self.name}" is {type_of(given)}; expected {self.holds}')
        if self.holds == _TEXT:
            return whole(given, self.name)
        if self.holds == _TRUE_OR_FALSE:
            return str(given).lower()
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            raise RejectRecord(f'"{self.name}" is too large a number')
        return number


def contexts(rerankers: Iterable[DomainReranker]) -> dict[str, ContextColumn]:
    """Return the context columns of re-rankers by name."""
    numbers: set[str] = set()
    categories: dict[str, set[str]] = {}
    for spec in (spec for one in rerankers for spec in one.context):
        if isinstance(spec, Numeric):
            numbers.add(spec.name)
        categories.setdefault(spec.name, set()).update(() if isinstance(spec, Numeric) else spec.values)
    found = {}
    for name, values in categories.items():
        holds = _TRUE_OR_FALSE if values and values <= _BOOLEAN else _TEXT
        found[name] = ContextColumn(name, _NUMBER if name in numbers else holds)
    return found


def type_of(given: Any) -> str:
    """Return in words what a value of JSON or numpy is.

    Example:
        >>> [type_of(value) for value in ("tv", 3, True, None, ["tv"])]
        ['a text', 'a number', 'true or false', 'null', 'a list']
    """
    kinds = (
        (bool | np.bool_, _TRUE_OR_FALSE),
        (Real, _NUMBER),
        (str, _TEXT),
        (list | tuple, "a list"),
        (dict, "an object"),
    )
    return "null" if given is None else next((name for kind, name in kinds if isinstance(given, kind)), "another value")


def whole(text: str, name: str) -> str:
    """Return a text that a table can hold.

    Raises:
        RejectRecord: it has half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RejectRecord(f'"{name}" has half of a surrogate pair') from None
    return text
