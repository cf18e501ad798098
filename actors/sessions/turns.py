"""The turns of each session in their order, each once: what all that learns from sessions reads.

Repeated turns are dropped here alone; those of simulated sessions come so already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from gristmill.shards.errors import RejectRecord
from gristmill.shards.reducers import Reducer
from gristmill.shards.schema import TURN_FIELDS
from gristmill.shards.settings import Settings

KEPT = tuple(field.name for field in TURN_FIELDS if field.name not in ("id", "turn"))
_TOLD = ("succeeded", "barge_in")
TOO_MANY = "session of too many turns"


class OrderSettings(Settings):
    """What a session may be."""

    most: int = Field(1000, ge=1)
    """Turns of a session. One with more is no user's (a test that runs by itself, an identifier that is shared), and is
    rejected."""


class OrderTurns(Reducer):
    """Numbers the turns of each session from 0 on, by ``turn`` and then by ``time``, and drops repeated ones.

    A turn is repeated if the one before it has the same number, the same time and the same words, and one of the two
    is known: a log that was written twice, and no user who says the same again. What a repeated turn alone tells of the
    outcome is kept. How many there were is what the ``records`` of a session's turns are more than these. Sessions of
    any size are read in bounded memory: what is held is ``most`` turns.

    Example:
        >>> row = {"group": "s1", "turn": 4, "time": 2.0, "tokens": ["stop"], "session": "s1"}
        >>> given = [row, {**row, "turn": 7, "time": 3.0, "tokens": ["play", "jazz"]}, {**row, "turn": 7, "time": 3.0}]
        >>> made = OrderTurns(OrderSettings())(pa.Table.from_pylist(given, schema=OrderTurns.input_schema()))
        >>> [(row["turn"], row["tokens"]) for row in made.to_pylist()]
        [(0, ['stop']), (1, ['play', 'jazz']), (2, ['stop'])]
    """

    name = "order_turns"
    columns = ("turn", *KEPT)
    keeps = ()
    adds = TURN_FIELDS[1:]
    order = ("turn", "time")
    settings: OrderSettings

    @staticmethod
    def input_schema() -> pa.Schema:
        """Return the columns of a dealt set of turns."""
        return pa.schema([pa.field("group", pa.string()), *TURN_FIELDS])

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the turns of one session."""
        rows: list[dict[str, Any]] = []
        last: tuple[Any, ...] = ()
        for table in tables:
            for row in table.select(list(self.columns)).to_pylist():
                said = (row["turn"], row["time"], row["tokens"])
                if said == last and said[:2] != (None, None):
                    for one in _TOLD:
                        rows[-1][one] = row[one] if rows[-1][one] is None else rows[-1][one]
                    continue
                last = said
                if len(rows) == self.settings.most:
                    raise RejectRecord(TOO_MANY)
                rows.append(row)
        for number, row in enumerate(rows):
            yield {"id": f"{name}/{number}", **row, "turn": number}
