"""Requests of which several skills are right: from Schema-Guided Dialogue, and from the turns of sessions."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from gristmill.actors.nlu.annotation import split
from gristmill.actors.nlu.folds import FoldSettings, fold_of
from gristmill.actors.sessions.skill_trainer import SKILL_REQUEST_FIELDS
from gristmill.actors.sessions.skill_turns import SkillTurns, SkillTurnSettings
from gristmill.models.normalise import normalise
from gristmill.pipelines.generated import assistant
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions import skill_requests
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import deal, merge
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

_SCHEMA = pa.schema(SKILL_REQUEST_FIELDS)
_COLUMNS = ("dialogue", "turn", "text", "state")
_ROWS = 4000
Right = Literal["services_that_take_these_slots", "services_same_intent"]


class SgdSkillSettings(FoldSettings):
    """Turns of Schema-Guided Dialogue that open a new intent, with services as skills."""

    right: Right = "services_that_take_these_slots"
    """The column of right services: those with the same intent whose schema has the slots that the dialogue has filled,
    or all with the same intent."""
    context: bool = True
    """Whether the names of slots that the dialogue has filled are context: many texts ("yes, on the 11th") do not say
    what they are about, and which services can take over depends on the slots."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the dialogues that is read."""
    seed: int = 0
    """Of the draws of folds and of the service that is not hidden, by dialogue and turn."""


def sgd_requests(run: Run, name: str, url: str, settings: SgdSkillSettings | None = None) -> SealedSet:
    """Seal the requests of a table of turns; all right services but one, drawn by the turn, are hidden.

    A dialogue is in one fold.

    Raises:
        UserError: a column is missing.
    """
    settings = settings or SgdSkillSettings()
    data = store.read_bytes(url)
    identity = {"sha256": hashlib.sha256(data).hexdigest(), **settings.identity(), "version": 1}
    return run.source(name, partial(_sgd_tables, data, url, settings), identity)


def _sgd_tables(data: bytes, url: str, settings: SgdSkillSettings) -> Iterator[pa.Table]:
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [column for column in (*_COLUMNS, settings.right) if column not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{url}: no column {', '.join(missing)}; expected those of sgd_new_intent_turns.tsv.gz")
    read, folds = RecordRandom(settings.seed, "skill_dialogues"), RecordRandom(settings.seed, "skill_folds")
    shown = RecordRandom(settings.seed, "skill_shown")
    rows: list[dict[str, Any]] = []
    for row in reader:
        dialogue = row["dialogue"]
        if read(dialogue).random() >= settings.share:
            continue
        right = sorted(set(row[settings.right].split()))
        key = f"{dialogue}/{row['turn']}"
        context = sorted(json.loads(row["state"])) if settings.context else None
        made = skill_request(key, dialogue, row["text"], right, shown, fold_of(dialogue, settings, folds), context)
        rows.append(made)
        if len(rows) == _ROWS:
            yield pa.Table.from_pylist(rows, schema=_SCHEMA)
            rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=_SCHEMA)


def skill_request(
    key: str, group: str, text: str, right: list[str], shown: RecordRandom, fold: int, context: list[str] | None
) -> dict[str, Any]:
    """Return the record of a request, labelled with one of the right skills, drawn by its id."""
    return {
        "id": key,
        "group": group,
        "tokens": split(normalise(text)),
        "context": context,
        "skill": right[int(shown(key).integers(len(right)))],
        "negative": None,
        "right": right,
        "fold": fold,
    }


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
