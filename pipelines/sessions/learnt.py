"""What one seed of the recipe learns from sessions: the handles of all of its parts, and the models that are tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gristmill.pipelines.nlu.systems import DomainSettings
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.goals import MinedGoals
from gristmill.pipelines.sessions.projection import ProjectionParts
from gristmill.pipelines.sessions.retrained import (
    BASE,
    Models,
    Periods,
    TestReadings,
    head_of,
    read_tests,
    retrain,
    successes,
)
from gristmill.pipelines.sessions.rewrites import MinedRewrites
from gristmill.pipelines.sessions.skills import LearntSkills
from gristmill.pipelines.sessions.teaching import TaughtSpans
from gristmill.shards.dataset import SealedSet

SUCCESSES, PROJECTED = "successes", "projected"


@dataclass
class Learnt:
    """The parts of one seed; those that are switched off are ``None``."""

    seed: int
    turns: SealedSet  # that are learnt from
    periods: Periods | None = None  # of simulated sessions
    bank: SealedSet | None = None  # what is said in them
    projection: ProjectionParts | None = None
    rewrites: MinedRewrites | None = None
    later_nodes: SealedSet | None = None  # of the later sessions, in which wins and losses are counted
    goals: MinedGoals | None = None
    skills: LearntSkills | None = None
    teaching: TaughtSpans | None = None
    taught: SealedSet | None = None  # what teaching finds in the turns
    read: Mapping[str, TestReadings] = field(default_factory=dict)  # by system


def test_models(
    run: Run, given: DomainSettings, made: Learnt, annotated: SealedSet, base: Models, domains: list[str]
) -> dict[str, TestReadings]:
    """Train domain models on what was learnt, and return how each system reads the tests."""
    suffix = f"_{made.seed}"
    added = {SUCCESSES: successes(run, made.turns, suffix)}
    if made.projection is not None:
        added[PROJECTED] = made.projection.emitted
    systems = {BASE: base} | {
        system: retrain(run, system, given, annotated, more, domains, made.seed) for system, more in added.items()
    }
    head = head_of(run, annotated, suffix)
    later = None if made.periods is None else made.periods.later
    return {system: read_tests(run, system, models, later, head, suffix) for system, models in systems.items()}
