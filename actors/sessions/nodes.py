"""What all sessions say of each interpretation: how often users went on to which others, and where chains succeeded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.sessions.interpretations import FAILURE, SUCCESS
from gristmill.shards.reducers import Reducer
from gristmill.shards.runs import LargeGroup, group_starts
from gristmill.shards.stage import GROUP

_CODE = "#"  # the number of a row's group in its table
_COUNTS = pa.list_(pa.int64())


class Nodes(Reducer):
    """Counts the transitions of :class:`gristmill.actors.sessions.transitions.Transitions` from each node.

    - ``node``, its ``interpretation`` and commonest ``utterance`` (of those that succeeded, if any did);
    - ``turns``, and how many ``users`` they are of;
    - ``total``: turns that went on or ended with a known outcome, of which ``succeeded`` did so at the node itself;
    - ``targets``, in order, and ``steps``: to which nodes they went on, and how often;
    - ``ends``, in order, and for each how many chains with the node ended there (``ended``), how many with success
      (``won``), and of how many users the latter are (``support``).

    Groups may be of any size: what is held of one is a count for each pair of its values.
    """

    name = "nodes"
    columns = ("source", "target", "end", "won", "person", "interpretation", "utterance")
    adds = (
        pa.field("node", pa.int64()),
        pa.field("interpretation", pa.string()),
        pa.field("utterance", pa.string()),
        pa.field("turns", pa.int64()),
        pa.field("users", pa.int64()),
        pa.field("total", pa.int64()),
        pa.field("succeeded", pa.int64()),
        pa.field("targets", _COUNTS),
        pa.field("steps", _COUNTS),
        pa.field("ends", _COUNTS),
        pa.field("ended", _COUNTS),
        pa.field("won", _COUNTS),
        pa.field("support", _COUNTS),
    )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each node."""
        starts = group_starts(batch)
        codes = np.repeat(np.arange(len(starts)), np.diff(starts, append=batch.num_rows))
        return _rows(batch[GROUP.name].take(starts), _counted(batch, codes))

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the row of a node with more transitions than memory holds."""
        whole: dict[str, pa.Table] | None = None
        for table in group:
            found = _counted(table, np.zeros(table.num_rows, np.int64))
            whole = found if whole is None else {name: _joined(whole[name], found[name]) for name in found}
        yield _rows(pa.array([group.name]), whole or {})


def _counted(rows: pa.Table, codes: np.ndarray) -> dict[str, pa.Table]:
    """Return how often each pair of values occurs in a group, and of them how many won."""
    won = pc.fill_null(rows["won"], False).cast(pa.int64())
    direct = pc.fill_null(pc.equal(rows["target"], SUCCESS), False).cast(pa.int64())
    given = pa.table(
        {
            _CODE: codes,
            **{name: rows[name] for name in ("source", "target", "end", "person", "interpretation", "utterance")},
            "count": np.ones(len(codes), np.int64),
            "won": won,
            "direct": direct,
        }
    )
    return {
        "targets": _summed(given.filter(given["target"].is_valid()), ["target"], ["count"]),
        "ends": _summed(given.filter(given["end"].is_valid()), ["end", "person"], ["count", "won"]),
        "people": _summed(given, ["person"], ["count"]),
        "texts": _summed(given, ["source", "interpretation", "utterance"], ["count", "direct"]),
    }


def _joined(one: pa.Table, other: pa.Table) -> pa.Table:
    sums = [name for name in ("count", "won", "direct") if name in one.column_names]
    keys = [name for name in one.column_names if name not in (_CODE, *sums)]
    return _summed(pa.concat_tables([one, other]), keys, sums)


def _summed(rows: pa.Table, keys: list[str], sums: list[str]) -> pa.Table:
    """Return the sums of whole numbers for each key of each group, in no order."""
    found = rows.group_by([_CODE, *keys], use_threads=False).aggregate([(name, "sum") for name in sums])
    return found.select([_CODE, *keys, *(f"{name}_sum" for name in sums)]).rename_columns([_CODE, *keys, *sums])


def _rows(names: Any, counted: dict[str, pa.Table]) -> pa.Table:
    """Return the rows of nodes by the counts of their groups."""
    size = len(names)
    code, target, steps = _sorted(counted["targets"], ["target", "count"])
    absorbed = (target == SUCCESS) | (target == FAILURE)
    total = np.bincount(code, steps, size).astype(np.int64)
    succeeded = np.bincount(code[target == SUCCESS], steps[target == SUCCESS], size).astype(np.int64)
    code, target, steps = code[~absorbed], target[~absorbed], steps[~absorbed]
    of, end, person, ended, won = _sorted(counted["ends"], ["end", "person", "count", "won"])
    first = np.flatnonzero((np.diff(of, prepend=-1) != 0) | (np.diff(end, prepend=-1) != 0))
    sums = [np.add.reduceat(one, first) if len(first) else one for one in (ended, won, (won > 0).astype(np.int64))]
    people = np.bincount(counted["people"][_CODE].to_numpy(), minlength=size)
    turns = np.bincount(counted["people"][_CODE].to_numpy(), counted["people"]["count"].to_numpy(), size)
    by = [(_CODE, "ascending"), ("direct", "descending"), ("count", "descending"), ("utterance", "ascending")]
    texts = counted["texts"].sort_by([*by, ("interpretation", "ascending")])
    texts = texts.take(np.flatnonzero(np.diff(texts[_CODE].to_numpy(), prepend=-1)))
    columns = {
        "node": texts["source"],
        "interpretation": texts["interpretation"],
        "utterance": texts["utterance"],
        "turns": turns.astype(np.int64),
        "users": people,
        "total": total,
        "succeeded": succeeded,
        "targets": _lists(code, target, size),
        "steps": _lists(code, steps, size),
        "ends": _lists(of[first], end[first], size),
    }
    lists = {name: _lists(of[first], one, size) for name, one in zip(("ended", "won", "support"), sums, strict=True)}
    return pa.table({"id": names, "parent_id": names, **columns, **lists})


def _sorted(table: pa.Table, names: list[str]) -> list[np.ndarray]:
    """Return the groups and columns of a table, sorted by group and the first two columns."""
    columns = [table[name].to_numpy() for name in (_CODE, *names)]
    order = np.lexsort(columns[2::-1])
    return [one[order] for one in columns]


def _lists(codes: np.ndarray, values: np.ndarray, size: int) -> pa.ListArray:
    """Return the values of each group as a list."""
    ends = np.searchsorted(codes, np.arange(size + 1))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values, pa.int64()))
