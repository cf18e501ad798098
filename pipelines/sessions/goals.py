"""Latent goals: what users often want after something else, mined from sessions without labels.

Of each pair of goals in which one follows the other within a window, the sessions are counted by key over all shards,
and compared with what all traffic lets expect: pointwise mutual information, with support, users, significance over all
pairs and the order of the two. Turns that say the turn before again are one request with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from gristmill.actors.sessions import goals as fitting
from gristmill.actors.sessions.goal_pairs import CountPairs, GoalCounts, GoalPairs, GoalPairSettings, goal_name
from gristmill.actors.sessions.goals import FollowUps, FollowUpSettings, ranked
from gristmill.models.sessions.goals import precision_at
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import deal, merge
from gristmill.shards.job import TrainJob
from gristmill.shards.reducers import Sums, SumSettings
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

TOP = 100


class GoalSettings(Settings):
    """Mining of latent goals."""

    pairs: GoalPairSettings = GoalPairSettings()
    """What is a goal, and when one follows another."""
    follow_ups: FollowUpSettings = FollowUpSettings()
    """Which pairs are follow-ups."""


@dataclass(frozen=True)
class MinedGoals:
    """Pairs of goals by how many sessions have them, what all traffic has, and the follow-ups among the pairs."""

    counted: SealedSet
    traffic: Artifact
    follow_ups: SealedSet

    def ranked(self, by: str) -> list[dict[str, Any]]:
        """Return the follow-ups in the order of a column, the largest first."""
        return ranked(list(self.follow_ups.tables()), by)

    def by_count(self, settings: FollowUpSettings) -> list[dict[str, Any]]:
        """Return all pairs of enough support by their number of sessions alone: the baseline."""
        rows = ranked(list(self.counted.tables()), "support")
        return [row for row in rows if row["support"] >= settings.support and row["users"] >= settings.users]


def mine_goals(run: Run, settings: GoalSettings, turns: SealedSet, suffix: str = "") -> MinedGoals:
    """Declare the mining of follow-ups from turns (``shards.schema.TURN_FIELDS``).

    Raises:
        UserError: the turns lack the column that tells rephrases.

    Example:
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> import pyarrow as pa
        >>> from gristmill.shards.schema import TURN_FIELDS
        >>> said = [("hall lamp on", "lights/on"), ("wake me at six", "alarm/set")]
        >>> rows = [
        ...     {"id": f"{s}/{n}", "session": f"s{s}", "turn": n, "user": f"u{s}", "text": text, "tokens": text.split(),
        ...      "domain": goal.split("/")[0], "intent": goal.split("/")[1], "slots": []}
        ...     for s in range(30) for n, (text, goal) in enumerate(said if s < 10 else said[s % 2 : s % 2 + 1])
        ... ]
        >>> run = Run("made/goals", InProcessRunner())
        >>> turns = run.table("turns", pa.Table.from_pylist(rows, schema=pa.schema(TURN_FIELDS)))
        >>> found = mine_goals(run, GoalSettings(follow_ups=FollowUpSettings(rate=0.9)), turns)
        >>> found.counted.read(0).select(["direct", "latent", "support", "users"]).to_pylist()
        [{'direct': 'lights/on', 'latent': 'alarm/set', 'support': 10, 'users': 10}]
    """
    given = settings.pairs
    if given.rephrase is not None and given.rephrase not in turns.schema.names:
        raise UserError(
            f"goals: pairs.rephrase is {given.rephrase!r}, and {turns.name} has no such column; expected one of "
            f"{', '.join(turns.schema.names)}, or null"
        )
    columns = [*GoalPairs.contract(given)["columns"]]
    dealt = run.step(deal(f"goals_by_session{suffix}", turns, ["session"], columns))

    # How many sessions have each goal, and each pair.
    having = run.step(merge(f"session_goals{suffix}", dealt, GoalCounts.stage(given)))
    by_goal = run.step(deal(f"by_goal{suffix}", having, ["goal"], ["first"]))
    goals = run.step(merge(f"goal_traffic{suffix}", by_goal, Sums.stage(SumSettings(sums={"first": "int64"}))))
    paired = run.step(merge(f"session_pairs{suffix}", dealt, GoalPairs.stage(given)))
    by_pair = run.step(deal(f"by_pair{suffix}", paired, ["low", "high"], list(CountPairs.columns)))
    counted = run.step(merge(f"goal_pairs{suffix}", by_pair, CountPairs.stage()))

    # Which of the pairs are more often than all traffic lets expect.
    inputs = {"goal_counts": goals, "pairs": counted}
    traffic = run.train(TrainJob(f"traffic{suffix}", fitting.fit, settings.follow_ups, inputs, stepwise=False))
    stage = FollowUps.stage(settings.follow_ups, traffic=traffic.ref)
    return MinedGoals(counted, traffic, run.step(Step(f"follow_ups{suffix}", (stage,), counted)))


@dataclass(frozen=True)
class GoalTruth:
    """What is true of simulated turns: planted pairs of goals, and pairs whose second goal was read of a rephrase."""

    planted: AbstractSet[tuple[str, str]]
    rephrased: AbstractSet[tuple[str, str]]


@dataclass(frozen=True)
class GoalScores:
    """How many of the first pairs there are, were planted, and are rephrases that were not planted."""

    found: int
    precision: float
    recall: float  # of the planted pairs, among those found
    rephrases: int


def goal_truth(turns: SealedSet, planted: Iterable[tuple[str, str]]) -> GoalTruth:
    """Return the truth of simulated turns (``TRUTH_FIELDS``), whose planted pairs are given as names of goals.

    A pair is rephrased if its second goal is the interpretation of a rephrase of what has the first one.
    """
    rephrased = set()
    last: Mapping[str, Any] | None = None
    for table in turns.tables(["session", "turn", "domain", "intent", "role"]):
        for row in table.to_pylist():  # the turns of a session are beside each other, in order
            if row["role"] == "rephrase" and last is not None and last["session"] == row["session"]:
                goals = goal_name(last["domain"], last["intent"]), goal_name(row["domain"], row["intent"])
                if goals[0] and goals[1] and goals[0] != goals[1]:
                    rephrased.add((goals[0], goals[1]))
            last = row
    return GoalTruth(frozenset(planted), frozenset(rephrased))


def score_goals(rows: Sequence[Mapping[str, Any]], truth: GoalTruth, top: int = TOP) -> GoalScores:
    """Return the scores of the first ``top`` pairs of a ranked table."""
    pairs = [(row["direct"], row["latent"]) for row in rows[:top]]
    missed = set(pairs) - truth.planted
    return GoalScores(
        len(pairs),
        precision_at(pairs, truth.planted, top),
        len(set(pairs) & truth.planted) / len(truth.planted) if truth.planted else 0.0,
        len(missed & truth.rephrased),
    )
