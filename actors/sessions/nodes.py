"""What all sessions say of each interpretation: how often users went on to which others, and where chains succeeded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.models.sessions.interpretations import FAILURE, SUCCESS, UNKNOWN
from gristmill.shards.reducers import Reducer
from gristmill.shards.runs import LargeGroup, group_starts
from gristmill.shards.settings import Settings
from gristmill.shards.stage import GROUP

_CODE = "#"  # the number of a row's group in its table
_COUNTS = pa.list_(pa.int64())


class NodeSettings(Settings):
    """Which transitions are followed."""

    followed: int = Field(2, ge=1)
    """Users of a transition from one interpretation to another, at least. One of fewer is not followed: chains through
    it are taken to have failed."""


class CountNodes(Reducer):
    """Counts the transitions of :class:`gristmill.actors.sessions.transitions.Transitions` from each node.

    - ``node``, its ``interpretation`` and commonest ``utterance`` (of those that succeeded, if any did);
    - ``turns``, and how many ``users`` they are of;
    - ``total``: turns of which it is known what came next, of which ``succeeded`` and ``failed`` ended a chain so, and
      of ``unknown`` that ended one it is not known how;
    - ``targets``, in order, and ``steps``: to which nodes they went on, and how often, where enough users did;
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
        pa.field("failed", pa.int64()),
        pa.field("unknown", pa.int64()),
        pa.field("targets", _COUNTS),
        pa.field("steps", _COUNTS),
        pa.field("ends", _COUNTS),
        pa.field("ended", _COUNTS),
        pa.field("won", _COUNTS),
        pa.field("support", _COUNTS),
    )
    settings: NodeSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each node."""
        starts = group_starts(batch)
        codes = np.repeat(np.arange(len(starts)), np.diff(starts, append=batch.num_rows))
        return _rows(batch[GROUP.name].take(starts), _counted(batch, codes), self.settings.followed)

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the row of a node with more transitions than memory holds."""
        whole: dict[str, pa.Table] | None = None
        for table in group:
            found = _counted(table, np.zeros(table.num_rows, np.int64))
            whole = found if whole is None else {name: _joined(whole[name], found[name]) for name in found}
        yield _rows(pa.array([group.name]), whole or {}, self.settings.followed)


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
        "targets": _summed(given.filter(given["target"].is_valid()), ["target", "person"], ["count"]),
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


def _rows(names: Any, counted: dict[str, pa.Table], followed: int) -> pa.Table:
    """Return the rows of nodes by the counts of their groups."""
    size = len(names)
    code, target, (steps, walkers) = _by_pair(counted["targets"], "target", ["count"])
    total = np.bincount(code, steps, size).astype(np.int64)
    ended = {
        name: np.bincount(code[target == state], steps[target == state], size).astype(np.int64)
        for name, state in (("succeeded", SUCCESS), ("failed", FAILURE), ("unknown", UNKNOWN))
    }
    others = ~np.isin(target, (SUCCESS, FAILURE, UNKNOWN)) & (walkers >= followed)
    code, target, steps = code[others], target[others], steps[others]
    of, end, sums = _by_pair(counted["ends"], "end", ["count", "won"])
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
        **ended,
        "targets": _lists(code, target, size),
        "steps": _lists(code, steps, size),
        "ends": _lists(of, end, size),
    }
    lists = {name: _lists(of, one, size) for name, one in zip(("ended", "won", "support"), sums, strict=True)}
    return pa.table({"id": names, "parent_id": names, **columns, **lists})


def _by_pair(table: pa.Table, other: str, sums: list[str]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return group and other node of each pair, in order, with its sums, and of how many people the last one is."""
    code, node, *values = (table[name].to_numpy() for name in (_CODE, other, *sums))
    order = np.lexsort((node, code))
    code, node, values = code[order], node[order], [one[order] for one in values]
    values.append((values[-1] > 0).astype(np.int64))
    first = np.flatnonzero((np.diff(code, prepend=-1) != 0) | (np.diff(node, prepend=-1) != 0))
    return code[first], node[first], [np.add.reduceat(one, first) if len(first) else one for one in values]


def _lists(codes: np.ndarray, values: np.ndarray, size: int) -> pa.ListArray:
    """Return the values of each group as a list."""
    ends = np.searchsorted(codes, np.arange(size + 1))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values, pa.int64()))
