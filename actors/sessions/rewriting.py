"""Rewrites of each component of interpretations, and what of them is used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from scipy import sparse
from threadpoolctl import threadpool_limits

from gristmill.models.sessions.absorbing import best_targets, probabilities
from gristmill.shards.reducers import Reducer
from gristmill.shards.runs import LargeGroup, group_starts
from gristmill.shards.settings import Settings
from gristmill.shards.stage import GROUP, Actor, BatchLimits

NOTHING = "no chain through a node succeeded at another"  # reason of a component without candidates
MARGIN, SUPPORT, LOSSES, SAME = "margin", "support", "losses", "same text"  # reasons of candidates
_COUNTS = ("support", "wins", "losses", "users", "turns")


class SolveSettings(Settings):
    """How components are solved."""

    smoothing: float = Field(0.1, gt=0)
    """Failed turns that are added to nodes from which no chain ever ends."""
    exact: int = Field(1000, ge=0)
    """Nodes of a component that is solved exactly; in a larger one chains are followed from each source."""
    pruned: float = Field(1e-5, gt=0, lt=1)
    """Where chains are followed: the probability that one comes to a node and goes on from there, below which it is
    not followed on. What all of that is bounds the error of a score (``dropped``)."""
    largest: int = Field(1_000_000, ge=2)
    """Nodes of a component that are held, at most: those of the most turns. Chains through others are taken to have
    failed."""


class Solve(Reducer):
    """Returns the best rewrite of each node of a component (:mod:`gristmill.models.sessions.absorbing`) whose chains
    have succeeded elsewhere, whether it is worth it or not (:class:`KeepRewrites`).

    - ``source`` and ``target`` (numbers of nodes), with their interpretations and their commonest texts;
    Of chains that ended nobody knows how, as many are taken to have succeeded as of the others that ended there.

    - ``confidence``: the probability that a chain that starts at the source succeeds through the target; ``margin``:
      how much more that is than through the source itself; ``success``: the share of the source's turns that succeed
      at once;
    - ``support``: users whose chains came from the source to success at the target; ``wins``: their chains;
      ``losses``: turns of the source that succeeded at once, which a rewrite would have changed;
    - ``users`` and ``turns`` of the source; ``component`` and ``nodes``, its size; ``left_out``: nodes of it that were
      too many; ``dropped``: a bound of what the confidence lacks.
    """

    name = "solve"
    columns = (
        *("node", "interpretation", "utterance", "turns", "users", "total", "succeeded", "failed", "unknown"),
        *("targets", "steps", "ends", "won", "support"),
    )
    order = ("node",)
    adds = (
        pa.field("source", pa.int64()),
        pa.field("source_interpretation", pa.string()),
        pa.field("source_text", pa.string()),
        pa.field("target", pa.int64()),
        pa.field("target_interpretation", pa.string()),
        pa.field("target_text", pa.string()),
        pa.field("confidence", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("success", pa.float32()),
        *(pa.field(name, pa.int64()) for name in _COUNTS),
        pa.field("component", pa.int64()),
        pa.field("nodes", pa.int64()),
        pa.field("left_out", pa.int64()),
        pa.field("dropped", pa.float32()),
    )
    settings: SolveSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows of whole components."""
        sizes = np.diff(group_starts(batch), append=batch.num_rows)
        return self._solved(_heaviest(batch, self.settings.largest), sizes)

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the rows of a component that is larger than a batch, with its heaviest nodes in memory."""
        held, size = group.schema.empty_table(), 0
        for table in group:
            size += table.num_rows
            held = _heaviest(pa.concat_tables([held, table]), self.settings.largest)
        yield self._solved(held, np.array([size]))

    def _solved(self, rows: pa.Table, sizes: np.ndarray) -> pa.Table:
        starts = group_starts(rows)
        components = np.repeat(np.arange(len(starts)), np.diff(starts, append=rows.num_rows))
        nodes, total, succeeded = (rows[name].to_numpy() for name in ("node", "total", "succeeded"))
        ended = succeeded + _share(rows) * rows["unknown"].to_numpy()
        begin, end, steps = _inside(rows, nodes, "targets", "steps")
        shape = (len(nodes), len(nodes))
        given = sparse.csr_array((steps.astype(np.float64), (begin, end)), shape=shape)
        q, success = probabilities(given, ended, total, self.settings.smoothing)
        won = _inside(rows, nodes, "ends", "won", "support")
        sources = np.unique(won[0][(won[0] != won[1]) & (won[2] > 0)])
        with threadpool_limits(1):  # sums are the same on every machine of a level
            best = best_targets(q, success, components, sources, self.settings.exact, self.settings.pruned)
        some = best.target >= 0
        source, target = sources[some], best.target[some]
        where = np.full(len(nodes), -1)
        where[source] = target
        counted = won[1] == where[won[0]]
        counts = np.zeros((2, len(nodes)), np.int64)
        counts[:, won[0][counted]] = won[2][counted], won[3][counted]
        names = rows[GROUP.name].take(pa.array(source))
        place = np.arange(len(source)) - np.searchsorted(components[source], components[source])
        numbered = pc.binary_join_element_wise(names, pa.array(place).cast(pa.string()), "\t")
        sides = {
            f"{side}{column}": rows[given].take(pa.array(at))
            for side, at in (("source", source), ("target", target))
            for column, given in (("", "node"), ("_interpretation", "interpretation"), ("_text", "utterance"))
        }
        kept = np.diff(starts, append=rows.num_rows)
        columns = {
            "id": pc.if_else(pa.array(place == 0), names, numbered),
            "parent_id": names,
            **sides,
            "confidence": pa.array(best.score[some], pa.float32()),
            "margin": pa.array((best.score - best.own)[some], pa.float32()),
            "success": pa.array(success[source], pa.float32()),
            "support": counts[1, source],
            "wins": counts[0, source],
            "losses": succeeded[source],
            **{name: rows[name].take(pa.array(source)) for name in ("users", "turns")},
            "component": names.cast(pa.int64()),
            "nodes": sizes[components[source]],
            "left_out": (sizes - kept)[components[source]],
            "dropped": pa.array(best.dropped[some], pa.float32()),
            "reject_reason": pa.nulls(len(source), pa.string()),
        }
        made = pa.table(columns)
        without = np.setdiff1d(np.arange(len(starts)), components[source])
        lacking = rows[GROUP.name].take(pa.array(starts[without]))
        nothing = {field.name: pa.nulls(len(lacking), field.type) for field in made.schema}
        nothing |= {"id": lacking, "parent_id": lacking, "reject_reason": pa.repeat(NOTHING, len(lacking))}
        return pa.concat_tables([made, pa.table(nothing)])


def _share(rows: pa.Table) -> np.ndarray:
    """Return the share of a node's ends that succeed, by those of which that is known: the more, the surer."""
    succeeded, failed = rows["succeeded"].to_numpy(), rows["failed"].to_numpy()
    return (succeeded + 0.5) / (succeeded + failed + 1)


def _heaviest(rows: pa.Table, most: int) -> pa.Table:
    """Return sorted rows with the ``most`` nodes of each component that have the most turns."""
    starts = group_starts(rows)
    sizes = np.diff(starts, append=rows.num_rows)
    if sizes.max(initial=0) <= most:
        return rows
    codes = np.repeat(np.arange(len(starts)), sizes)
    order = np.lexsort((rows["node"].to_numpy(), -rows["turns"].to_numpy(), codes))
    return rows.take(pa.array(np.sort(order[np.arange(len(order)) - starts[codes] < most])))


def _inside(rows: pa.Table, nodes: np.ndarray, other: str, *counts: str) -> list[np.ndarray]:
    """Return pairs of nodes (places of both) and their counts, without those of which one is not there."""
    lists = [rows[name].combine_chunks() for name in (other, *counts)]
    begin = np.repeat(np.arange(len(nodes)), pc.list_value_length(lists[0]).to_numpy())
    wanted, *values = (one.flatten().to_numpy() for one in lists)
    order = np.argsort(nodes)
    place = np.minimum(np.searchsorted(nodes, wanted, sorter=order), len(nodes) - 1)
    end = order[place]
    known = nodes[end] == wanted
    return [one[known] for one in (begin, end, *values)]


class GuardSettings(Settings):
    """The guardrails of rewrites."""

    margin: float = Field(0.1, ge=0, le=1)
    """How much more probable success has to be through the target than through the source itself."""
    support: int = Field(3, ge=1)
    """Users whose chains came from the source to success at the target, at least."""
    win_loss: float = Field(3.0, ge=0)
    """Wins for each loss, at least."""


class KeepRewrites(Actor):
    """Rejects rewrites that are not worth it, and those that would change no word."""

    name = "keep_rewrites"
    batch = BatchLimits(rows=1 << 14)
    columns = ("margin", "dropped", "support", "wins", "losses", "source_text", "target_text")
    settings: GuardSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        given = self.settings
        sure = pc.subtract(batch["margin"], batch["dropped"])
        allowed = pc.multiply(batch["losses"].cast(pa.float64()), given.win_loss)
        reasons = [
            (pc.less_equal(sure, given.margin), MARGIN),
            (pc.less(batch["support"], given.support), SUPPORT),
            (pc.less(batch["wins"].cast(pa.float64()), allowed), LOSSES),
            (pc.equal(batch["source_text"], batch["target_text"]), SAME),
        ]
        found = pa.nulls(batch.num_rows, pa.string())
        for holds, reason in reversed(reasons):
            found = pc.if_else(holds, reason, found)
        return batch.append_column("reject_reason", found)
