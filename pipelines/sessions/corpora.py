"""The turns that are learnt from: a user's own, or simulated ones of generated requests or of real recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from gristmill.actors.nlu.folds import TEST
from gristmill.actors.nlu.hypotheses import Hypotheses, ListSettings, readers
from gristmill.actors.sessions.bank import AsUtterance, Wordings
from gristmill.actors.sessions.parse_dialogue import IDS, TURNS_KEYS, DialogueSettings, ParseDialogue
from gristmill.actors.sessions.parse_turn import ParseTurn, TurnSettings
from gristmill.actors.sessions.prepare import AsTest, NameMeaning
from gristmill.actors.sessions.recordings import AnswerSettings, ParseRecording
from gristmill.actors.sessions.simulate import NUMBER, Simulate, SimulationSettings
from gristmill.actors.sessions.turns import OrderSettings, OrderTurns
from gristmill.actors.sources.objects import Required, list_objects, object_files
from gristmill.pipelines.generated import assistant
from gristmill.pipelines.generated import wordings as generated
from gristmill.pipelines.inputs import (
    Places,
    check_listed,
    refuse_empty,
    urls_of,
)
from gristmill.pipelines.overlap import Item, refuse_shared
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.listing import listed_objects
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import deal, merge
from gristmill.shards.index import Cut
from gristmill.shards.schema import ID
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

_RECORDING = {"sentence": "sentence", "asr_text": "asr_text"}
_DIALOGUE = {"turns": TURNS_KEYS}
_OTHERS = 10_000  # added to a seed: requests that are in no session


class BankSettings(AnswerSettings):
    """What may be said in simulated sessions."""

    kind: Literal["assistant", "slurp"] | None = None
    """Requests to a home, generated from pip packages, or SLURP's real recordings; by default ``slurp`` if ``places``
    is set, else ``assistant``."""
    places: Places | None = None
    """slurp: the URL of its recordings (JSONL: ``sentence``, ``asr_text``, ``entities``, ``predictions``)."""
    meanings: int = Field(600, ge=2)
    """assistant: things to say."""
    wordings: int = Field(6, ge=1)
    """assistant: wordings of each, at most."""
    lang: str = "en"
    """assistant: the language."""
    shard: Cut = Cut(rows=1000)

    @model_validator(mode="after")
    def _has_places(self) -> Self:
        if (self.chosen == "slurp") != (self.places is not None):
            raise ValueError("places: expected the URL of SLURP's recordings with kind: slurp, and none without it")
        return self

    @property
    def chosen(self) -> str:
        """The kind, as set or derived."""
        return self.kind or ("slurp" if self.places else "assistant")

    def generated(self) -> BankSettings:
        """Return the settings of generated requests beside these."""
        return BankSettings(meanings=self.meanings, wordings=self.wordings, lang=self.lang, shard=self.shard)


class SessionSettings(TurnSettings):
    """The user's own sessions, or those that are simulated."""

    kind: Literal["turns", "dialogues"] = "turns"
    """What an object at the places is: a turn, or a whole dialogue (Schema-Guided Dialogue, MultiWOZ)."""
    places: Places | None = None
    """The URL of the user's own turns or dialogues (JSONL, JSON or Parquet), or several; without it, sessions are
    simulated."""
    order: OrderSettings = OrderSettings()
    """What a session of the user's own may be."""
    bank: BankSettings = BankSettings()
    """What may be said in simulated sessions."""
    simulation: SimulationSettings = SimulationSettings()
    """How sessions are simulated."""
    shard: Cut = Cut(rows=1000)

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Self:
        if self.kind == "dialogues" and self.places is None:
            raise ValueError("places: not given; expected the URL of dialogues, of which kind is dialogues")
        if self.kind == "dialogues" and self.fields:
            raise ValueError("fields: expected none with kind: dialogues, whose layouts are known")
        return self


def check_sessions(settings: SessionSettings) -> None:
    """Raise a ``UserError`` for places that are missing or hold nothing of their kind."""
    if settings.places is not None:
        urls = urls_of(settings.places)
        _check_objects(settings, urls)
        apart = [partial(_items, url) for url in urls]
        refuse_shared({"sessions.places": apart}, "turns would count twice", "each file in one place", divided=True)
    elif settings.bank.chosen == "slurp":
        places = urls_of(settings.bank.places)
        check_listed(partial(list_objects, url, "slurp", required=_RECORDING) for url in places)
    else:
        assistant.check_languages([settings.bank.lang])


def _check_objects(settings: SessionSettings, urls: Sequence[str]) -> None:
    fields = "sessions.fields" if settings.kind == "turns" else ""
    try:
        check_listed(partial(list_objects, url, "own", required=_keys(settings), fields=fields) for url in urls)
    except UserError as error:
        if settings.kind == "turns" and _are_dialogues(urls):
            raise UserError(f"{error}; whole dialogues are read with sessions.kind=dialogues") from None
        raise


def _are_dialogues(urls: Sequence[str]) -> bool:
    try:
        check_listed(partial(list_objects, url, "own", required=_DIALOGUE) for url in urls)
    except UserError:
        return False
    return True


def _keys(settings: SessionSettings) -> Required:
    """Return the keys that objects have to have: of turns that of the session, and all that the user names."""
    return _DIALOGUE if settings.kind == "dialogues" else {"session": "session"} | settings.fields


def _items(url: str) -> Iterator[Item]:
    return map(Item, object_files(url))


def own_turns(run: Run, settings: SessionSettings) -> SealedSet:
    """Return the turns of the user's own sessions, in order within each (``shards.schema.TURN_FIELDS``)."""
    required = _keys(settings)
    if settings.kind == "dialogues":
        how: dict[str, Any] = {"required": required, "own": IDS, "by_folder": True}
        listed = listed_objects(run, "listed_dialogues", settings.places, "dialogues", **how)
        stage = ParseDialogue.stage(settings.part(DialogueSettings))
    else:
        own = (settings.fields.get("id", "id"),)
        listed = listed_objects(run, "listed_turns", settings.places, "turns", required=required, own=own)
        stage = ParseTurn.stage(settings.part(TurnSettings))
    parsed = run.step(Step("parsed_turns", (stage,), listed, cut=settings.shard))
    refuse_empty(parsed, "sessions")
    dealt = run.step(deal("turns_by_session", parsed, ["session"]))
    made = run.step(merge("turns", dealt, OrderTurns.stage(settings.order)))
    refuse_empty(made, "sessions")
    return made


def repeated_turns(turns: SealedSet) -> int:
    """Return how many turns of :func:`own_turns` were dropped as repeats of the one before them."""
    found = 0
    for table in turns.tables(["turn", "records"]):  # records of a session, on each of its turns
        own = table.filter(pc.equal(table["turn"], 0))["records"]
        found += (pc.sum(own).as_py() or 0) - table.num_rows
    return found


def said(run: Run, settings: BankSettings, seed: int = 0, name: str = "said") -> SealedSet:
    """Return annotated requests by ``meaning``: generated by a seed, or SLURP's recordings as they were heard."""
    if settings.chosen == "slurp":
        own = ("recording",)
        listed = listed_objects(run, "listed_recordings", settings.places, "recordings", required=_RECORDING, own=own)
        stage = ParseRecording.stage(settings.part(AnswerSettings))
        made = run.step(Step("recordings", (stage,), listed, cut=settings.shard))
        refuse_empty(made, "recordings")
        return made
    given = (settings.meanings, settings.wordings, settings.lang, seed)
    identity = {"wordings": list(given), "version": generated.VERSION, "made_by": assistant.identity()}
    listed = run.source(f"generated_{name}_{seed}", lambda: generated.wordings(*given), identity)
    return run.step(Step(f"{name}_{seed}", (NameMeaning.stage(),), listed, cut=settings.shard))


def wording_groups(run: Run, settings: SessionSettings, annotated: SealedSet, seed: int = 0) -> list[SealedSet]:
    """Return sets of texts by ``meaning``, to learn from what means the same: generated ones that are in no session,
    and beside real sessions or recordings the ``annotated`` requests."""
    groups = [said(run, settings.bank.generated(), seed + _OTHERS, "groups")]
    if settings.places is None and settings.bank.chosen == "assistant":
        return groups
    return [*groups, run.step(Step(f"annotated_groups_{seed}", (NameMeaning.stage(),), annotated))]


def bank_of(
    run: Run, requests: SealedSet, models: Mapping[str, Artifact] | None, lists: ListSettings, suffix: str = ""
) -> tuple[SealedSet, SealedSet]:
    """Return utterances, as they are read, and the bank: these by meaning.

    ``models`` are the domains' (by domain) that read them; ``None``: they have answers of a system.
    """
    stages: list[Stage] = []
    if models is not None:
        refs: Any = readers({TEST: models})
        stages += [AsTest.stage(), Hypotheses.stage(lists, **refs)]
    utterances = run.step(Step(f"utterances{suffix}", (*stages, AsUtterance.stage()), requests))
    dealt = run.step(deal(f"by_meaning{suffix}", utterances, ["meaning"]))
    return utterances, run.step(merge(f"bank{suffix}", dealt, Wordings.stage()))


def simulated_turns(run: Run, settings: SimulationSettings, bank: SealedSet, seed: int = 0) -> SealedSet:
    """Return the turns of simulated sessions (``TURN_FIELDS``, ``TRUTH_FIELDS``, and whether they are ``later``)."""

    def numbers() -> Iterator[pa.Table]:
        schema = pa.schema([ID, NUMBER])
        for first in range(0, settings.sessions, 5000):
            found = range(first, min(first + 5000, settings.sessions))
            yield pa.table([[f"session{n:08d}" for n in found], list(found)], schema=schema)

    made = run.source("sessions", numbers, {"sessions": settings.sessions})
    refuse_empty(bank, "bank")
    stage = Simulate.stage(settings, name=f"simulate_{seed}", bank=bank.ref)
    return run.step(Step(f"turns_{seed}", (stage,), made, cut=Cut(rows=500)))
