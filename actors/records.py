"""Actors that process one record at a time: filters, and functions that add columns.

Written as a class, or as a function whose positional parameters are columns and whose keyword-only ones are settings::

    class TooShort(Filter):
        columns = ("text",)

        def reason(self, record):
            return "too short" if len(record["text"]) < 3 else None

    @filter_records
    def too_short(text: str, *, least: int = 3) -> str | None:
        return f"shorter than {least}" if len(text) < least else None

Only the records for which the function raises are quarantined, each with its error.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_type_hints

import pyarrow as pa
from pydantic import create_model

from gristmill.shards.errors import BrokenRecords, GristmillError, RejectRecord, UserError
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor

Record = dict[str, Any]
Kind = TypeVar("Kind", bound="_PerRecord")

_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}


class _PerRecord(Actor):
    """Processes records one by one; a subclass names the ``columns`` that it reads, or none to read all."""

    def _outcomes(self, batch: pa.Table, work: Callable[[Record], Any]) -> list[Any]:
        """Return a function's result for each record; an exception affects that record only.

        Raises:
            BrokenRecords: the function raised for some of them.
        """
        outcomes, errors = [], {}
        for place, record in enumerate(batch.select(list(self.columns or batch.column_names)).to_pylist()):
            try:
                outcomes.append(work(record))
            except (GristmillError, MemoryError):
                raise
            except RejectRecord as rejected:
                outcomes.append(rejected)
            except Exception as error:
                errors[place] = _described(error)
        if errors:
            raise BrokenRecords(errors)
        return outcomes

    @classmethod
    def _named(cls) -> str:
        return cls.name or cls.__name__


class Filter(_PerRecord):
    """Base of filters: :meth:`reason` returns the reason to reject a record, or ``None`` to keep it.

    ``columns`` are the columns of the record passed to it; an input that lacks one is rejected before any work.
    Settings are in a settings class, as for any actor (:class:`gristmill.shards.stage.Actor`).

    Example:
        >>> class LengthSettings(Settings):
        ...     least: int = 3
        >>> class TooShort(Filter):
        ...     columns = ("text",)
        ...     settings: LengthSettings
        ...
        ...     def reason(self, record):
        ...         return "too short" if len(record["text"]) < self.settings.least else None
        >>> batch = pa.table({"id": ["a", "b"], "text": ["on", "off"]})
        >>> TooShort(LengthSettings())(batch)["reject_reason"].to_pylist()
        ['too short', None]
    """

    def reason(self, record: Record) -> str | None:
        """Return the reason to reject a record; ``None`` keeps it."""
        raise TypeError(f"{type(self).__name__} has no reason: expected a method that takes a record")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        reasons = self._outcomes(batch, self._checked)
        texts = [reason.reason if isinstance(reason, RejectRecord) else reason for reason in reasons]
        return batch.append_column("reject_reason", pa.array(texts, pa.string()))

    def _checked(self, record: Record) -> str | None:
        reason = self.reason(record)
        if reason is None or (isinstance(reason, str) and reason):
            return reason
        raise UserError(f"{self._named()}: returned the reason {reason!r}; expected a text, or None to keep the record")


class PerRecord(_PerRecord):
    """Base of functions of a record: :meth:`record` returns the values of the added columns (``adds``).

    Columns left out are null. To reject the record it raises :class:`gristmill.shards.errors.RejectRecord`.

    Example:
        >>> class Words(PerRecord):
        ...     columns, adds = ("text",), (pa.field("words", pa.int64()),)
        ...
        ...     def record(self, record):
        ...         return {"words": len(record["text"].split())}
        >>> Words(Settings())(pa.table({"id": ["a"], "text": ["lights on"]}))["words"].to_pylist()
        [2]
    """

    def record(self, record: Record) -> Mapping[str, Any]:
        """Return the values of new columns, by name."""
        raise TypeError(f"{type(self).__name__} has no record: expected a method that takes a record")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the added columns."""
        rows = self._outcomes(batch, self._checked)
        rejected = [row.reason if isinstance(row, RejectRecord) else None for row in rows]
        for field in self.adds:
            values = _array([row.get(field.name) if isinstance(row, Mapping) else None for row in rows], field.type)
            place = batch.schema.get_field_index(field.name)
            batch = batch.append_column(field, values) if place < 0 else batch.set_column(place, field, values)
        if any(rejected):
            batch = batch.append_column("reject_reason", pa.array(rejected, pa.string()))
        return batch

    def _checked(self, record: Record) -> Mapping[str, Any]:
        row = self.record(record)
        names = [field.name for field in self.adds]
        if not isinstance(row, Mapping) or not set(row) <= set(names):
            given = sorted(row) if isinstance(row, Mapping) else row
            raise UserError(f"{self._named()}: returned {given!r}; expected a mapping with values of {names}")
        return row


def filter_records(function: Callable[..., str | None]) -> type[Filter]:
    """Make a filter of a function: positional parameters are columns, keyword-only ones become its settings.

    The result is an actor under the function's name, with its settings class as ``Settings`` and the function itself
    as ``function``.

    Example:
        >>> @filter_records
        ... def too_long(text: str, *, most: int = 3) -> str | None:
        ...     return f"longer than {most}" if len(text) > most else None
        >>> too_long(too_long.Settings())(pa.table({"text": ["on", "dimmed"]}))["reject_reason"].to_pylist()
        [None, 'longer than 3']

        Its stage with other settings than the defaults, and with a version that is raised when its results change:

        >>> too_long.stage(too_long.Settings(most=9)).params.identity()
        {'most': 9}
        >>> too_long.version = 2
    """
    _check_returns(function, str)

    class Made(_OfFunction, Filter):
        def reason(self, record: Record) -> str | None:
            return self._call(record)

    return _dressed(Made, function)


def map_records(
    function: Callable[..., Any] | None = None, *, adds: Sequence[pa.Field] = ()
) -> type[PerRecord] | Callable[[Callable[..., Any]], type[PerRecord]]:
    """Make an actor of a function that returns new columns; its parameters are as for :func:`filter_records`.

    Without ``adds``, the function returns the value of one column, which has the function's name and the type of its
    return annotation; with ``adds`` it returns a mapping.

    Example:
        >>> @map_records
        ... def length(text: str) -> int:
        ...     return len(text)
        >>> length(length.Settings())(pa.table({"text": ["on", "off"]}))["length"].to_pylist()
        [2, 3]
        >>> @map_records(adds=[pa.field("first", pa.string()), pa.field("last", pa.string())])
        ... def ends(text: str):
        ...     return {"first": text[0], "last": text[-1]}
        >>> ends(ends.Settings())(pa.table({"text": ["on"]}))["last"].to_pylist()
        ['n']
    """
    if function is None:
        return lambda given: typing.cast("type[PerRecord]", map_records(given, adds=adds))
    name = function.__name__
    alone = not adds

    class Made(_OfFunction, PerRecord):
        def record(self, record: Record) -> Mapping[str, Any]:
            return {name: self._call(record)} if alone else self._call(record)

    if adds:
        _check_returns(function, Mapping)
    Made.adds = tuple(adds) or (pa.field(name, _arrow_type(name, get_type_hints(function).get("return"))),)
    return _dressed(Made, function)


class _OfFunction(_PerRecord):
    """Calls a function with the values of the columns, and with the settings by name."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, settings: Settings, **artifacts: Any) -> None:
        super().__init__(settings, **artifacts)
        self._given = {name: getattr(settings, name) for name in type(settings).model_fields}

    def _call(self, record: Record) -> Any:
        return type(self).function(*(record[name] for name in self.columns), **self._given)


def _dressed(made: type[Kind], function: Callable[..., Any]) -> type[Kind]:
    """Return a class under a function's name, with the columns and settings of its signature."""
    hints = get_type_hints(function, include_extras=True)
    columns, fields = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name) or _type_of_default(function, name, default), default)
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UserError(f"{function.__name__}: {parameter} names no column; expected one parameter per column")
        elif parameter.default is not parameter.empty:
            raise UserError(
                f"{function.__name__}: {name} has a default, but columns have none; expected it after `*`, as a setting"
            )
        else:
            columns.append(name)
    if not columns:
        raise UserError(f"{function.__name__}: has no positional parameter; expected the columns that it reads")
    own: Any = create_model("Settings", __base__=Settings, __module__=function.__module__, **fields)  # type: ignore[call-overload]
    own.__qualname__ = f"{function.__qualname__}.Settings"
    made.__name__, made.__qualname__ = function.__name__, function.__qualname__
    made.__module__, made.__doc__ = function.__module__, function.__doc__
    made.columns = tuple(columns)
    made.__annotations__ = {"settings": own}
    for attribute, value in {"Settings": own, "function": staticmethod(function)}.items():
        setattr(made, attribute, value)
    return made


def _type_of_default(function: Callable[..., Any], name: str, default: Any) -> Any:
    """Return the type of a setting without an annotation, so that every setting has one."""
    if default is ... or default is None:
        raise UserError(
            f"{function.__name__}: the setting {name} has no type; expected an annotation, such as {name}: int"
        )
    return type(default)


def _check_returns(function: Callable[..., Any], wanted: type) -> None:
    """Check a function's return annotation, if it has one: ``wanted``, ``None`` or either."""
    kind = get_type_hints(function).get("return", Any)
    either = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    for part in typing.get_args(kind) if either else (kind,):
        plain = typing.get_origin(part) or part
        if plain is not Any and plain is not type(None) and not (isinstance(plain, type) and issubclass(plain, wanted)):
            expected = (
                "str | None: the reason to reject the record, or None" if wanted is str else "a mapping by column"
            )
            shown = kind.__name__ if isinstance(kind, type) else kind
            raise UserError(f"{function.__name__}: returns {shown} by its annotation; expected {expected}")


def _arrow_type(name: str, kind: Any) -> pa.DataType:
    """Return the column type of a Python type's values."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        inner = [part for part in typing.get_args(kind) if part is not type(None)]
        if len(inner) == 1:
            return _arrow_type(name, inner[0])
    elif typing.get_origin(kind) is list:
        return pa.list_(_arrow_type(name, typing.get_args(kind)[0]))
    elif kind in _TYPES:
        return _TYPES[kind]
    known = ", ".join(one.__name__ for one in _TYPES)
    raise UserError(f"{name}: its return type has no column type; expected one of {known}, a list of these, or `adds`")


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column.

    Raises:
        BrokenRecords: some values are not of the type.
    """
    try:
        return pa.array(values, kind)
    except Exception:
        errors = {}
        for place, value in enumerate(values):
            try:
                pa.scalar(value, kind)
            except Exception as error:
                errors[place] = _described(error)
        if errors:
            raise BrokenRecords(errors) from None
        raise


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
