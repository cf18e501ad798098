"""What a stage is: the actor it names, its parameters, what a batch may cost and what it adds to a record.

A stage names its actor by path (``gristmill.actors.speech.features:LogMel``), so that planning a run imports no model
code.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from gristmill.shards.errors import UserError
from gristmill.shards.process import prepare
from gristmill.shards.random import RecordRandom


class Actor(Protocol):
    """A worker. Its constructor loads what is heavy; a call gives a batch's rows back, in order.

    A call adds columns. To turn a record down it sets ``reject_reason``; it never removes a row.
    """

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        ...


@dataclass(frozen=True)
class ArtifactRef:
    """A fitted thing that is not a table: where it lies, and the digest of its bytes."""

    url: str
    digest: str


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage holds, and how many there may be (``None``: as many as fit)."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None  # bytes
    min_workers: int = 1
    max_workers: int | None = None
    labels: tuple[tuple[str, str], ...] = ()  # of the nodes that they may run on, as Ray selects them


@dataclass(frozen=True)
class BatchLimits:
    """The most a batch may hold.

    ``cost`` names a numeric column (seconds, tokens); a batch is padded to its longest row, so its cost is
    rows x longest. ``None`` means that only rows are counted.
    """

    rows: int = 64
    cost: str | None = None
    max_cost: float = float("inf")


@dataclass(frozen=True)
class Stage:
    """One kind of work. All but ``resources``, ``measures`` and the artifacts' urls goes into the fingerprint.

    ``measures`` names numeric columns that the actor gives and whose mean is told while the step runs; what is not in
    ``adds`` too is measured and not stored.
    """

    name: str
    actor: str
    adds: tuple[pa.Field, ...] = ()
    drops: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactRef] = field(default_factory=dict)
    version: int = 1
    batch: BatchLimits = BatchLimits()
    resources: Resources = Resources()
    fan_out: bool = False
    seeded: bool = False
    deterministic: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)  # schema metadata of the output
    measures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            json.dumps(dict(self.params))
        except TypeError as error:
            raise UserError(f"stage {self.name}: parameters must be JSON values, {error}") from None

    def build(self, seed: int) -> Actor:
        """Load the actor: parameters, then artifacts by url, then ``rng`` if the stage draws at random.

        It readies the process that it lives in for that (:func:`gristmill.shards.process.prepare`).
        """
        module, _, name = self.actor.partition(":")
        make: Callable[..., Actor] = getattr(importlib.import_module(module), name)
        extra = {"rng": RecordRandom(seed, self.name)} if self.seeded else {}
        urls = {key: ref.url for key, ref in self.artifacts.items()}
        actor = make(**self.params, **urls, **extra)
        prepare()
        return actor

    def identity(self) -> dict[str, Any]:
        """Return what the fingerprint of a step covers of this stage (law 5)."""
        return {
            "name": self.name,
            "version": self.version,
            "params": dict(self.params),
            "artifacts": {key: ref.digest for key, ref in self.artifacts.items()},
            "adds": [f"{f.name}: {f.type}" for f in self.adds],
            "drops": list(self.drops),
            "batch": [self.batch.rows, self.batch.cost, str(self.batch.max_cost)],
            "fan_out": self.fan_out,
            "metadata": dict(self.metadata),
        }

    def output_schema(self, given: pa.Schema) -> pa.Schema:
        """Return the schema that this stage must give for an input schema."""
        missing = [name for name in self.drops if name not in given.names]
        if missing:
            raise UserError(f"stage {self.name} drops {missing}, which its input lacks: {given.names}")
        fields = [f for f in given if f.name not in self.drops]
        added = {f.name: f for f in self.adds}
        fields = [added.pop(f.name, f) for f in fields]
        if self.fan_out and not any(f.name == "parent_id" for f in fields):
            added.setdefault("parent_id", pa.field("parent_id", pa.string()))
        metadata = {k: v for k, v in (given.metadata or {}).items() if k != b"huggingface"}
        metadata |= {k.encode(): v.encode() for k, v in self.metadata.items()}
        return pa.schema([*fields, *added.values()], metadata=metadata or None)
