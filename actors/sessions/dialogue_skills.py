"""Requests of which several skills are right, of dialogues: the actor that parses a table of their turns.

Rastogi et al., "Towards scalable multi-domain conversational agents: the Schema-Guided Dialogue dataset" (AAAI 2020):
an intent is served by several services, which are the skills here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gristmill.actors.nlu.annotation import split
from gristmill.actors.nlu.folds import FoldSettings, fold_of
from gristmill.actors.sessions.parse_object import ParseObject
from gristmill.actors.sessions.skill_trainer import SKILL_REQUEST_FIELDS
from gristmill.actors.sources.reading import NO_OBJECT, read_json
from gristmill.models.normalise import normalise
from gristmill.shards.errors import RejectRecord
from gristmill.shards.random import RecordRandom
from gristmill.shards.stage import BatchLimits

NOT_READ = "request: not in the share of the dialogues that is read"
NO_SKILL = "request: no service is right"
COLUMNS = ("dialogue", "turn", "text", "state")
"""What a table has, beside a column of right services."""


class SgdSkillSettings(FoldSettings):
    """Turns of Schema-Guided Dialogue that open a new intent, with services as skills."""

    right: Literal["services_that_take_these_slots", "services_same_intent"] = "services_that_take_these_slots"
    """The column of right services: those with the same intent whose schema has the slots that the dialogue has filled,
    or all with the same intent."""
    context: bool = True
    """Whether the names of slots that the dialogue has filled are context: many texts ("yes, on the 11th") do not say
    what they are about, and which services can take over depends on the slots."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the dialogues that is read."""
    seed: int = 0
    """Of the draws of folds and of the service that is not hidden, by dialogue and turn."""


class ParseDialogueTurn(ParseObject):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into a request with skills: ``text`` of a
    ``turn`` of a ``dialogue``, its ``state`` (JSON, by slot) and its right services, all of which but one are hidden.

    A dialogue is in one fold.

    Example:
        >>> import json
        >>> import pyarrow as pa
        >>> row = {"dialogue": "d1", "turn": "0", "text": "a table", "state": "{}", "services_same_intent": "A B"}
        >>> listed = pa.table({"id": ["a#1"], "raw": [json.dumps(row)], "problem": [None]})
        >>> parsed = ParseDialogueTurn(SgdSkillSettings(right="services_same_intent"))(listed)
        >>> parsed.select(["group", "tokens", "right"]).to_pylist()
        [{'group': 'd1', 'tokens': ['a', 'table'], 'right': ['A', 'B']}]
    """

    name = "parse_dialogue_turn"
    adds = SKILL_REQUEST_FIELDS[1:]
    batch = BatchLimits(1024)
    settings: SgdSkillSettings

    def __init__(self, settings: SgdSkillSettings) -> None:
        super().__init__(settings)
        self._read = RecordRandom(settings.seed, "skill_dialogues")
        self._folds = RecordRandom(settings.seed, "skill_folds")
        self._shown = RecordRandom(settings.seed, "skill_shown")

    def parsed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns of a request."""
        try:
            dialogue, turn, text, state = (values[name] for name in COLUMNS)
            context = sorted(read_json(state)) if self.settings.context else None
            right = sorted(set((values[self.settings.right] or "").split()))
            tokens = split(normalise(text))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise RejectRecord(NO_OBJECT) from None
        if self._read(str(dialogue)).random() >= self.settings.share:
            raise RejectRecord(NOT_READ)
        if not right:
            raise RejectRecord(NO_SKILL)
        fold = fold_of(str(dialogue), self.settings, self._folds)
        return skill_request(f"{dialogue}/{turn}", str(dialogue), tokens, right, self._shown, fold, context)


def skill_request(
    key: str,
    group: str,
    tokens: Sequence[str],
    right: Sequence[str],
    shown: Callable[[str], np.random.Generator],
    fold: int,
    context: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the columns of a request beside its id, labelled with one of the right skills, drawn by its key."""
    return {
        "group": group,
        "tokens": tokens,
        "context": context,
        "skill": right[int(shown(key).integers(len(right)))],
        "negative": None,
        "right": right,
        "fold": fold,
    }
