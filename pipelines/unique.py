"""A set without the equal and nearly equal records of it."""

from __future__ import annotations

from gristmill.actors.near_duplicates import MEETING, DuplicateSettings, Meet, RejectFound, Search
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.exchange import Deal, DealSettings, merge
from gristmill.shards.stage import Resources
from gristmill.shards.step import Step


def unique(run: Run, parsed: SealedSet, name: str, settings: DuplicateSettings) -> SealedSet:
    """Keep the first of equal (``key``) and of nearly equal (``signature``) records."""
    dealing = DealSettings(
        key=(MEETING.name,), parts=settings.parts(parsed.records), columns=("parent_id", "signature")
    )
    dealt = run.step(Step(f"dealt_{name}", (Meet.stage(settings), Deal.stage(dealing)), parsed))
    search = Search.stage(settings, resources=Resources(memory=settings.memory))
    found = run.step(merge(f"repeated_{name}", dealt, search))
    reject = RejectFound.stage(settings, found=found.ref)
    return run.step(Step(name, (reject,), parsed))
