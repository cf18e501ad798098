"""Transitions between interpretations: what users go on to where a request did not do what they wanted.

Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents" (AAAI 2020). A *chain* is a run
of consecutive turns of a session, each within a window of seconds after the one before; a turn that succeeded ends it,
as what follows is a new request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.models.sessions.interpretations import FAILURE, SUCCESS, UNKNOWN, interpretations, numbers, utterances
from gristmill.shards.reducers import Reducer
from gristmill.shards.runs import LargeGroup, group_starts
from gristmill.shards.settings import Settings
from gristmill.shards.stage import GROUP, Actor, BatchLimits

OURS = "rewritten"  # reason of a session with no other turns
_SURE = 0.5  # probability of failure from which a turn is taken to have failed


class InterpretSettings(Settings):
    """The nodes of chains."""

    nodes: Literal["interpretation", "utterance"] = "interpretation"
    """What a node is: an interpretation, as in the paper, or one with the utterance that was so interpreted."""
    failure: str | None = None
    """A column with the probability that a turn failed, which is read where ``succeeded`` is null."""


class Interpret(Actor):
    """Adds to turns what their chains are made of.

    ``node`` is the number of the turn's interpretation (:func:`gristmill.models.sessions.interpretations.number`),
    ``person`` that of its user, or where that is not known of its session, and ``outcome`` whether it succeeded.
    """

    name = "interpret"
    batch = BatchLimits(rows=1 << 16)
    keeps = ("session", "turn", "time", "rewritten")
    adds = (
        pa.field("node", pa.int64()),
        pa.field("person", pa.int64()),
        pa.field("outcome", pa.bool_()),
        pa.field("interpretation", pa.string()),
        pa.field("utterance", pa.string()),
    )
    settings: InterpretSettings

    @classmethod
    def contract(cls, settings: InterpretSettings) -> Mapping[str, Any]:
        """Return the columns that are read."""
        read = ("user", "text", "asr_text", "lang", "domain", "intent", "slots", "succeeded")
        return {"columns": (*read, settings.failure) if settings.failure else read}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the columns."""
        heard = utterances(batch)
        read = interpretations(batch, heard)
        node = read
        if self.settings.nodes == "utterance":
            node = pc.binary_join_element_wise(read, heard, "\t")
        person = pc.coalesce(batch["user"], pc.binary_join_element_wise("session", batch["session"], "\t"))
        outcome = batch["succeeded"]
        if self.settings.failure:
            outcome = pc.coalesce(outcome, pc.less(batch[self.settings.failure], _SURE))
        made = (pa.array(numbers(node)), pa.array(numbers(person.combine_chunks())), outcome, read, heard)
        for field, values in zip(self.adds, made, strict=True):
            batch = batch.append_column(field, values)
        return batch


class ChainSettings(Settings):
    """Which turns are of one chain.

    Its window is a setting apart from those of pairs and goals: nothing but the window says that the next turn is
    another attempt at the same, and it holds from turn to turn, so that a chain may last longer.
    """

    window: float = Field(60.0, gt=0)
    """Seconds from a turn to the next one of its chain, at most. Where the time of one is not known, it is taken to be
    in the window."""
    after_success: bool = False
    """Whether a chain goes on after a turn that succeeded."""
    longest: int = Field(50, ge=2)
    """Turns of a chain; one of more is cut, and no transition crosses the cut."""


class Transitions(Reducer):
    """Makes of each turn of a session the transition from its interpretation, as one row.

    ``source`` is its node and ``target`` that of the next turn of its chain, or at the end of the chain an absorbing
    state, success (1) or failure (0), or -1 where the outcome is not known. ``end`` is the last node of the chain, and
    ``won`` whether the chain succeeded there; at further turns of one node in a chain ``end`` is null.

    Turns are there once (:mod:`gristmill.actors.sessions.turns`). Those whose interpretation is of a rewrite of ours
    are left out, and so are the transitions to them, so that rewrites do not feed themselves; where they cut a chain,
    its ``target`` and ``end`` are null. A session of nothing else is rejected.
    """

    name = "transitions"
    columns = ("turn", "time", "rewritten", "node", "person", "outcome", "interpretation", "utterance")
    order = ("turn", "time", "node")
    adds = (
        pa.field("source", pa.int64()),
        pa.field("target", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("won", pa.bool_()),
        pa.field("person", pa.int64()),
        pa.field("interpretation", pa.string()),
        pa.field("utterance", pa.string()),
    )
    settings: ChainSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each turn of whole sessions."""
        starts = group_starts(batch)
        made, _ = self._made(batch, final=True)
        begun = group_starts(made)
        place = np.arange(made.num_rows) - np.repeat(begun, np.diff(begun, append=made.num_rows))
        names = batch[GROUP.name].take(starts)
        lacking = names.filter(pc.invert(pc.is_in(names, value_set=made[GROUP.name].combine_chunks())))
        return pa.concat_tables([self._named(made, place), self._rejected(lacking)])

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the rows of a session that is larger than memory: the turns of the last chain wait for the next."""
        number, rest = 0, group.schema.empty_table()
        for table in group:
            made, rest = self._made(pa.concat_tables([rest, table]), final=False)
            yield self._named(made, np.arange(number, number + made.num_rows))
            number += made.num_rows
        made, _ = self._made(rest, final=True)
        yield self._named(made, np.arange(number, number + made.num_rows))
        if not number + made.num_rows:
            yield self._rejected(pa.array([group.name]))

    def _named(self, made: pa.Table, place: np.ndarray) -> pa.Table:
        names = made[GROUP.name]
        numbered = pc.binary_join_element_wise(names, pa.array(place).cast(pa.string()), "\t")
        ids = pc.if_else(pa.array(place == 0), names, numbered)
        columns = {field.name: made[field.name] for field in self.adds}
        reasons = pa.nulls(made.num_rows, pa.string())
        return pa.table({"id": ids, "parent_id": names, **columns, "reject_reason": reasons})

    def _rejected(self, names: Any) -> pa.Table:
        nothing = {field.name: pa.nulls(len(names), field.type) for field in self.adds}
        return pa.table({"id": names, "parent_id": names, **nothing, "reject_reason": pa.repeat(OURS, len(names))})

    def _made(self, turns: pa.Table, *, final: bool) -> tuple[pa.Table, pa.Table]:
        """Return the transitions of sorted turns, and the turns of the last chain if more may follow."""
        ours = pc.fill_null(turns["rewritten"], False).to_numpy()
        node = turns["node"].to_numpy()
        near = self._near(turns)  # whether the next turn is in the window
        known = turns["outcome"].is_valid().to_numpy()
        won = pc.fill_null(turns["outcome"], False).to_numpy()
        goes_on = near & ~(won & (not self.settings.after_success))
        cut = goes_on & np.append(ours[1:], False)  # the next turn is ours
        goes_on &= ~ours & ~cut
        starts = np.flatnonzero(np.append(True, ~goes_on[:-1]))
        place = np.arange(len(node)) - np.repeat(starts, np.diff(starts, append=len(node)))
        too_long = goes_on & (place % self.settings.longest == self.settings.longest - 1)
        cut, goes_on = cut | too_long, goes_on & ~too_long
        held = len(node) if final else int(np.flatnonzero(np.append(True, ~goes_on[:-1]))[-1])
        last = ~goes_on
        lasts = np.flatnonzero(last)
        chain = np.cumsum(np.append(False, last[:-1]))
        at = lasts[chain]  # the end of each turn's chain
        outcome = np.where(known, np.where(won, SUCCESS, FAILURE), UNKNOWN)
        target = np.where(last, outcome, np.append(node[1:], 0))
        order = np.lexsort((np.arange(len(node)), node, chain))
        again = np.zeros(len(node), bool)
        again[order[1:]] = (np.diff(node[order]) == 0) & (np.diff(chain[order]) == 0)
        columns = {
            GROUP.name: turns[GROUP.name],
            "source": node,
            "target": pa.array(target, mask=cut),
            "end": pa.array(node[at], mask=again | cut[at]),
            "won": won[at] & ~cut[at],
            **{name: turns[name] for name in ("person", "interpretation", "utterance")},
        }
        keep = ~ours & (np.arange(len(node)) < held)
        return pa.table(columns).filter(pa.array(keep)), turns.slice(held)

    def _near(self, turns: pa.Table) -> np.ndarray:
        """Return whether the turn after each one is of the same session and in the window, (turns,)."""
        times = turns["time"].to_numpy()
        apart = np.abs(np.diff(times))
        same = np.ones(len(times) - 1, bool)
        same[group_starts(turns)[1:] - 1] = False
        return np.append(same & ~(apart > self.settings.window), False)
