"""The bases of actors that parse listed objects: one record each, or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.objects import OBJECTS
from gristmill.actors.sources.reading import read_object
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import ID
from gristmill.shards.stage import Actor


class ParseObject(Actor):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into the columns that a subclass adds."""

    reads_input = True
    columns = ("id", "raw", "problem")
    drops = tuple(name for name in OBJECTS.names if name != "id")

    def parsed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns of an object's record.

        Raises:
            RejectRecord: it is none of its kind.
        """
        raise TypeError(f"{type(self).__name__} has no parsed: expected a method that takes an object's values")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the columns; records that do not parse are rejected."""
        fields = (ID, *self.contract(self.settings).get("adds", self.adds))
        made = [self._row(row) for row in batch.select(list(self.columns)).to_pylist()]
        columns = {field.name: pa.array([row.get(field.name) for row in made], field.type) for field in fields}
        kept = {name: batch[name] for name in batch.column_names if name not in (*columns, *self.drops)}
        reasons = pa.array([row.get("reject_reason") for row in made], pa.string())
        return pa.table({**columns, **kept, "reject_reason": reasons})

    def _row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return {"id": row["id"], **self.parsed(_listed_object(row))}
        except RejectRecord as reject:
            return {"id": row["id"], "reject_reason": reject.reason}


class ParseObjects(Actor):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into several records, of which a subclass
    says how they come of an object."""

    reads_input = True
    columns = ParseObject.columns
    keeps = ()
    fan_out = True

    def several(self, name: str, values: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """Return the records of an object, given its id; one with a ``reject_reason`` is rejected by itself.

        Raises:
            RejectRecord: it is none of its kind.
        """
        raise TypeError(f"{type(self).__name__} has no several: expected a method that takes an object's id and values")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the records of all objects; objects that do not parse are rejected."""
        made: list[Mapping[str, Any]] = []
        for row in batch.select(list(self.columns)).to_pylist():
            parent = {"parent_id": row["id"]}
            try:
                made += [{**parent, **one} for one in self.several(row["id"], _listed_object(row))]
            except RejectRecord as reject:
                made.append({"id": row["id"], **parent, "reject_reason": reject.reason})
        return pa.Table.from_pylist(made, schema=pa.schema([ID, *self.adds, pa.field("reject_reason", pa.string())]))


def _listed_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a listed object.

    Raises:
        RejectRecord: the listing has a problem with it, or it is no object.
    """
    if row["problem"]:
        raise RejectRecord(row["problem"])
    return read_object(row["raw"])
