"""The results of a run: what makes those that the driver makes itself, and the trace that each leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.shards import canonical
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import BuildJob, TrainJob
from gristmill.shards.names import named
from gristmill.shards.plan import PlanNode, digests, resolved
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step


@dataclass
class Trace:
    """One set, artifact or model of a run."""

    name: str
    kind: str  # source, step, artifact, training
    url: str
    digest: str
    inputs: list[str]  # digests
    records: int = 0
    seconds: float = 0.0  # wall
    kept: bool = False  # finished by an earlier run
    summary: Mapping[str, Any] = field(default_factory=dict)  # the set-level part of a set's seal
    processor: str = ""  # the level that it was made at, if that was recorded
    unreadable: Mapping[str, int] = field(default_factory=dict)  # input that a set's step rejected: records by reason


@dataclass(frozen=True)
class SourceWork:
    """Rows that the driver streams; see :meth:`Run.source`."""

    name: str
    tables: Callable[[], Iterator[pa.Table]]
    identity: Mapping[str, Any]
    totals: tuple[str, ...]
    of: SealedSet | None
    complete: bool = False

    @property
    def fingerprint(self) -> str:
        """What names its folder."""
        return canonical.fingerprint([self.name, digests(self.identity)])


def is_on_driver(node: PlanNode) -> bool:
    """Return whether the driver makes a result itself: what only its machine has, or what the recipe streams."""
    return node.kind == "source" or (isinstance(node.work, BuildJob) and node.work.on_driver)


def workers_of(node: PlanNode) -> int:
    """Return how many workers of one CPU a result keeps busy while it is made: 0 if the driver makes it itself, and 1
    for a step, of whose shards it is not known how many there will be."""
    if isinstance(node.work, TrainJob):
        return max(1, math.ceil(node.work.ranks * node.work.resources.cpus))
    return 0 if is_on_driver(node) else 1


def trace_of(node: PlanNode, made: SealedSet | Artifact, inputs: list[str], seconds: float, kept: bool) -> Trace:
    """Return the trace of a result, given the digests of its inputs."""
    trace = Trace(node.name, node.kind, made.url, made.digest, inputs, seconds=seconds, kept=kept)
    trace.processor = made.processor
    if isinstance(made, SealedSet):
        trace.records, trace.summary = made.records, summary(made)
        trace.unreadable = _unreadable(node, trace.summary["reasons"])
    return trace


def summary(sealed: SealedSet) -> dict[str, Any]:
    """Return the set-level part of a seal, whose size does not depend on the number of shards."""
    seal = sealed.seal
    short = {key: value for key, value in seal.items() if key not in ("shards", "schema", "rejects", "quarantine")}
    return {**short, "shards": len(seal["shards"])}


def _unreadable(node: PlanNode, reasons: Mapping[str, int]) -> dict[str, int]:
    """Return what stages of a step that read input rejected, of the reasons of its seal."""
    if not reasons or not isinstance(node.work, Step):
        return {}
    stages: Sequence[Stage] = resolved(node.work.stages)
    reading = {stage.name for stage in stages if getattr(named(stage.actor), "reads_input", False)}
    parts = ((*key.partition(": "), count) for key, count in reasons.items())
    return {reason: count for stage, _, reason, count in parts if stage in reading}
