"""Follow-ups: the pairs of goals that are together more often than all traffic lets expect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.actors.sessions.goal_pairs import COUNTED
from gristmill.models.sessions import goals
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

FILE = "traffic.json"
NO_SUPPORT = "too few sessions or users"
REPHRASES = "rephrases"
NOT_SIGNIFICANT = "may be by chance"
OTHER_ORDER = "no clear order"
FOLLOW_UP = (
    pa.field("pmi", pa.float64()),
    pa.field("npmi", pa.float64()),
    pa.field("llr", pa.float64()),
    pa.field("p", pa.float64()),
    pa.field("direction_p", pa.float64()),
)


class FollowUpSettings(Settings):
    """Which pairs of goals are follow-ups."""

    support: int = Field(5, ge=1)
    """Fewest sessions of a pair."""
    users: int = Field(3, ge=1)
    """Fewest users of a pair."""
    rephrases: float = Field(0.3, ge=0, lt=1)
    """Largest share of a pair's sessions in which its second goal is of a rephrase: some rephrases are not noticed."""
    rate: float = Field(0.01, gt=0, lt=1)
    """Share of the pairs found, at most, that are together by chance (false discovery rate, over all pairs)."""
    direction: float = Field(0.05, gt=0, le=1)
    """Largest p-value of the order: that the latent goal follows, and is not followed (1: in any order)."""
    rank: Literal["pmi", "npmi", "llr", "support"] = "npmi"
    """By which column they are ranked."""


def fit(settings: FollowUpSettings, context: TrainContext, *, goal_counts: str, pairs: str) -> dict[str, Any]:
    """Return the artifact's file: how many sessions have each goal, and the p-value from which a pair counts."""
    by_goal: dict[str, int] = {}
    sessions = 0
    for table in open_sealed(goal_counts).tables(["id", "records", "first"]):
        sessions += pc.sum(table["first"]).as_py() or 0
        by_goal |= dict(zip(table["id"].to_pylist(), table["records"].to_pylist(), strict=True))
    by_goal.pop("", None)
    found = [np.zeros(0)]
    for table in open_sealed(pairs).tables([field.name for field in COUNTED[:4]]):
        counts = _counts(table, by_goal)
        found.append(goals.association_p(*counts, sessions)[counts[0] > 0])
    p = np.concatenate(found)
    cutoff = goals.discovery_cutoff(p, settings.rate)
    context.report({"step": 0, "pairs": float(len(p))})
    files = {FILE: canonical.dumps({"sessions": sessions, "goals": by_goal, "cutoff": cutoff})}
    return {"files": files, "sessions": sessions, "goals": len(by_goal), "pairs": len(p)}


def _counts(table: pa.Table, by_goal: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sessions of each pair, of its first goal and of its second, (pairs,) int64."""
    support = table["support"].to_numpy()
    return support, *(np.array([by_goal.get(name, 0) for name in table[key].to_pylist()], np.int64) for key in KEYS)


KEYS = ("direct", "latent")


class FollowUps(Actor):
    """Adds the association of counted pairs of goals, and rejects those that are no follow-ups.

    Added are mutual information (``pmi``, ``npmi``), ``llr``, ``p`` and ``direction_p``. ``traffic`` is the artifact of
    :func:`fit`.
    """

    name = "follow_ups"
    columns = tuple(field.name for field in COUNTED)
    adds = FOLLOW_UP
    batch = BatchLimits(rows=1 << 14)
    settings: FollowUpSettings

    def __init__(self, settings: FollowUpSettings, traffic: str) -> None:
        super().__init__(settings)
        told = json.loads(read_file(traffic, FILE))
        self._sessions, self._goals, self._cutoff = told["sessions"], told["goals"], told["cutoff"]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with what is measured, and ``reject_reason``."""
        own = self.settings
        pair, first, second = _counts(batch, self._goals)
        counts = pair, np.maximum(first, 1), np.maximum(second, 1), max(1, self._sessions)
        backward = batch["backward"].to_numpy()
        p, order = goals.association_p(*counts), goals.direction_p(pair, backward)
        values = [goals.pmi(*counts), goals.normalised_pmi(*counts), goals.log_likelihood_ratio(*counts), p, order]
        few = (pair < own.support) | (batch["users"].to_numpy() < own.users)
        chance = (p > self._cutoff) | (values[0] <= 0)
        rephrased = batch["rephrased"].to_numpy()
        reasons = np.select(
            [rephrased > own.rephrases * (pair + rephrased), few, chance, order > own.direction],
            [REPHRASES, NO_SUPPORT, NOT_SIGNIFICANT, OTHER_ORDER],
            "",
        )
        for declared, found in zip(FOLLOW_UP, values, strict=True):
            batch = batch.append_column(declared, pa.array(found, declared.type))
        told = pa.array([str(one) or None for one in reasons], pa.string())
        return batch.append_column("reject_reason", told)


def ranked(tables: Sequence[pa.Table], by: str) -> list[dict[str, Any]]:
    """Return follow-ups in the order of a column, the largest first; of equal ones by support, then by name."""
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (-row[by], -row["support"], row["direct"], row["latent"]))
