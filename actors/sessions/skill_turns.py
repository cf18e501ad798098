"""Requests with skills from the turns of sessions: the skill of a turn is the domain that was chosen for it.

A turn that succeeded is labelled with its domain. One that failed has negative feedback for its domain; where a later
turn of the session, within some turns, succeeded with another domain, it is labelled with that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from gristmill.actors.nlu.folds import FoldSettings, fold_of
from gristmill.actors.sessions.skill_trainer import SKILL_REQUEST_FIELDS
from gristmill.shards.errors import RejectRecord
from gristmill.shards.random import RecordRandom
from gristmill.shards.reducers import Reducer

_GIVEN = {field.name: field for field in SKILL_REQUEST_FIELDS}
_WRITTEN = ("group", "tokens", "skill", "negative", "fold")


class SkillTurnSettings(FoldSettings):
    """How requests with skills are made of turns; a session is in one fold."""

    within: int = Field(2, ge=1)
    """Turns after a failed one, in which another domain may succeed."""
    rewritten: bool = False
    """Whether turns whose interpretation is of a rewrite of ours are read: what the user said had another one."""
    seed: int = 0
    """Of the draws of folds, by session."""


class SkillTurns(Reducer):
    """Makes a request of each turn whose outcome is known.

    It has ``id``, ``group``, ``tokens``, ``skill``, ``negative`` and ``fold``. Groups are sessions, dealt by
    ``session``; a session without such a turn is rejected.
    """

    name = "skill_turns"
    columns = ("id", "tokens", "domain", "succeeded", "rewritten")
    order = ("turn",)
    adds = tuple(_GIVEN[name] for name in _WRITTEN)
    settings: SkillTurnSettings

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the requests of one session."""
        fold = fold_of(name, self.settings, RecordRandom(self.settings.seed, "skill_folds"))
        waiting: list[dict[str, Any]] = []  # failed turns that a later one may correct
        made = False
        for table in tables:
            for turn in table.select(list(self.columns)).to_pylist():
                for ready in self._after(turn, waiting):
                    made = True
                    yield _request(name, fold, ready)
        for one in waiting:
            made = True
            yield _request(name, fold, one)
        if not made:
            raise RejectRecord("no turn whose outcome is known")

    def _after(self, turn: dict[str, Any], waiting: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the turns that are done with when one follows; those that wait stay in their order."""
        succeeded, domain = turn["succeeded"], turn["domain"]
        for one in list(waiting):
            one["left"] -= 1
            if succeeded and domain is not None and domain != one["negative"]:
                one["skill"] = domain
            if one["skill"] is not None or not one["left"]:
                waiting.remove(one)
                yield one
        if succeeded is None or domain is None or (turn["rewritten"] and not self.settings.rewritten):
            return
        made = {"id": turn["id"], "tokens": turn["tokens"], "left": self.settings.within}
        if succeeded:
            yield made | {"skill": domain, "negative": None}
        else:
            waiting.append(made | {"skill": None, "negative": domain})


def _request(session: str, fold: int, row: dict[str, Any]) -> dict[str, Any]:
    own = {name: row[name] for name in ("id", "tokens", "skill", "negative")}
    return {**own, "group": session, "fold": fold}
