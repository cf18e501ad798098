"""What reads requests in this process: the models of a finished run, whatever its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from gristmill.pipelines.requests.context import ContextColumn
from gristmill.shards.work import Work


class RankedReadings(NamedTuple):
    """The readings of a request (domain, intent, slots, confidence), and the place of the best, if one is accepted."""

    readings: Sequence[Mapping[str, Any]]
    best: int | None


@dataclass(frozen=True)
class RequestReader:
    """The models of a run that read requests."""

    said: str
    """Which system they are of, and why."""
    domains: tuple[str, ...]
    context: Mapping[str, ContextColumn]
    """The context of a request that they use, by column."""
    read: Callable[[pa.Table], Work]
    """Reads a table of requests."""
    readings: Callable[[Mapping[str, Any]], RankedReadings]
    """What a row of the result says."""
    none: str | None
    """The problem of a request without a best reading; ``None``: that is no problem."""
