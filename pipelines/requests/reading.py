"""What reads requests in this process: the models of a finished run or of a published folder, whatever their recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from gristmill.actors.embed import EmbedderSettings
from gristmill.actors.nlu.hypotheses import ListSettings
from gristmill.pipelines.requests.context import ContextColumn
from gristmill.shards.artifact import Artifact
from gristmill.shards.work import Work


class RankedReadings(NamedTuple):
    """The readings of a request (domain, intent, slots, confidence), and the place of the best, if one is accepted."""

    readings: Sequence[Mapping[str, Any]]
    best: int | None


@dataclass(frozen=True)
class RequestModels:
    """The models of one system that read requests, by domain."""

    system: str
    said: str
    """Which system it is, and why."""
    kind: Literal["functions", "ranked"]
    """Recognisers of new functions, each of which accepts a request or not; or domain models, whose readings are
    ranked."""
    models: Mapping[str, Artifact]
    weights: Mapping[str, Artifact] = field(default_factory=dict)
    """Re-rankers; none: the readings are ranked without weights."""
    lists: ListSettings | None = None
    """The lists that are ranked."""
    embedder: EmbedderSettings | None = None
    """The sentence embeddings that the models read; ``None``: they read words alone."""


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
