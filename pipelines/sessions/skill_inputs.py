"""Requests of which several skills are right: from Schema-Guided Dialogue, and from the turns of sessions."""

from __future__ import annotations

from functools import partial

from pydantic import Field

from gristmill.actors.nlu.folds import FoldSettings
from gristmill.actors.sessions.dialogue_skills import COLUMNS, ParseDialogueTurn, SgdSkillSettings
from gristmill.actors.sessions.skill_turns import SkillTurns, SkillTurnSettings
from gristmill.actors.sources.objects import list_objects
from gristmill.pipelines.generated import assistant
from gristmill.pipelines.inputs import check_listed, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions import skill_requests
from gristmill.pipelines.sessions.listing import listed_objects
from gristmill.shards.dataset import SealedSet
from gristmill.shards.exchange import deal, merge
from gristmill.shards.index import Cut
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

_CUT = Cut(rows=4000)


def check_table(url: str, settings: SgdSkillSettings) -> None:
    """Raise a ``UserError`` for a table of turns that is missing or has not its columns."""
    check_listed([partial(list_objects, url, "skill_requests", required=_columns(settings))])


def _columns(settings: SgdSkillSettings) -> dict[str, str]:
    return {column: column for column in (*COLUMNS, settings.right)}


def sgd_requests(run: Run, name: str, url: str, settings: SgdSkillSettings | None = None) -> SealedSet:
    """Return the requests of a table of turns (:func:`check_table`); all right services but one, drawn by the turn, are
    hidden."""
    settings = settings or SgdSkillSettings()
    listed = listed_objects(run, f"listed_{name}", url, name, required=_columns(settings), own=())
    made = run.step(Step(name, (ParseDialogueTurn.stage(settings),), listed, cut=_CUT))
    refuse_empty(made, name)
    return made


class GeneratedSkillSettings(FoldSettings):
    """Generated requests (:mod:`gristmill.pipelines.sessions.skill_requests`)."""

    records: int = Field(6000, ge=1)
    """Number of requests."""
    seed: int = 0
    """Of all draws."""


def generated_requests(run: Run, name: str, settings: GeneratedSkillSettings | None = None) -> SealedSet:
    """Seal generated requests; nothing needs to be there but the package of templates."""
    settings = settings or GeneratedSkillSettings()
    identity = {**assistant.identity(), "shared": skill_requests.VERSION, **settings.identity()}
    made = partial(skill_requests.requests, settings.records, settings.part(FoldSettings), settings.seed)
    return run.source(name, made, identity)


def turn_requests(run: Run, name: str, turns: SealedSet, settings: SkillTurnSettings | None = None) -> SealedSet:
    """Return requests with skills of the turns of sessions (``TURN_FIELDS``), a session in one fold."""
    settings = settings or SkillTurnSettings()
    columns = ["turn", "tokens", "domain", "succeeded", "rewritten"]
    dealt = run.step(deal(f"{name}_dealt", turns, key=["session"], columns=columns))
    return run.step(merge(name, dealt, SkillTurns.stage(settings)))


class SkillSourceSettings(Settings):
    """Requests of which several skills are right."""

    turns: bool = False
    """Of a user's own sessions: whether skills are learnt from their turns. A skill is the domain of a turn that
    succeeded; one that failed, before another domain succeeded, got negative feedback. Nothing is measured of it."""
    table: str | None = None
    """The URL of a table of Schema-Guided Dialogue (``sgd_new_intent_turns.tsv.gz``); without it they are generated."""
    dialogue: SgdSkillSettings = SgdSkillSettings()
    """How the table is read."""
    generated: GeneratedSkillSettings = GeneratedSkillSettings()
    """The requests that are generated."""


def skill_requests_of(run: Run, settings: SkillSourceSettings, seed: int = 0) -> SealedSet:
    """Return the requests; the seed decides their folds, and which skills are hidden."""
    if settings.table is not None:
        return sgd_requests(run, "skill_requests", settings.table, settings.dialogue.but(seed=seed))
    return generated_requests(run, "skill_requests", settings.generated.but(seed=seed))
