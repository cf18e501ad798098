"""The results of a run: what makes those that the driver makes itself, and the trace that each leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.shards import canonical
from gristmill.shards.dataset import SealedSet
from gristmill.shards.plan import digests


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


@dataclass(frozen=True)
class SourceWork:
    """Rows that the driver streams; see :meth:`Run.source`."""

    name: str
    tables: Callable[[], Iterator[pa.Table]]
    identity: Mapping[str, Any]
    totals: tuple[str, ...]
    of: SealedSet | None

    @property
    def fingerprint(self) -> str:
        """What names its folder."""
        return canonical.fingerprint([self.name, digests(self.identity)])


def summary(sealed: SealedSet) -> dict[str, Any]:
    """Return the set-level part of a seal, whose size does not depend on the number of shards."""
    seal = sealed.seal
    short = {key: value for key, value in seal.items() if key not in ("shards", "schema", "rejects", "quarantine")}
    return {**short, "shards": len(seal["shards"])}
