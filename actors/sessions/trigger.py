"""Offers of another goal: their reading from sessions, and the training and use of a model of their acceptance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.sessions.parse_object import ParseObjects
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.models.sessions.trigger import COUNTS, MODEL, TriggerModel, TriggerSettings, fit_trigger, rate_trigger
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.schema import PARENT_ID
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

NO_OFFER = "session: no offer with an answer"
NO_ANSWER = "offer: whether it was accepted is not known"
PART = "part"
OFFER_FIELDS = (
    pa.field("session", pa.string()),
    pa.field(PART, pa.string()),  # train, dev or test, where the corpus is published in parts
    pa.field("service", pa.string()),
    pa.field("goal", pa.string()),  # that is open
    pa.field("offered", pa.string()),
    pa.field("text", pa.string()),  # of the user, before the offer
    *(pa.field(name, pa.int32()) for name in COUNTS),
    pa.field("known", pa.list_(pa.string())),  # names of slots
    pa.field("accepted", pa.bool_()),
)
CHANCE = pa.field("acceptance", pa.float32())
FEATURES = ("service", "goal", "offered", "text", *COUNTS, "known")
_PARTS = ("train", "dev", "test")


class ParseOffers(ParseObjects):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into offers with whether each was accepted.

    An object is a session, whose ``events`` open goals (``intent``), call services (``call``), offer goals
    (``offered``) and accept or decline the last offer (``offer``); or one offer, with ``offered``, ``accepted`` and,
    where they are known, ``text``, ``goal`` and the other columns. Of an offer, only what was before it is read.

    Example:
        >>> raw = '{"id": "o1", "text": "that one", "goal": "Find", "offered": "Book", "accepted": true}'
        >>> parsed = ParseOffers(Settings())(pa.table({"id": ["a"], "raw": [raw], "problem": [None]}))
        >>> parsed.select(["goal", "offered", "accepted"]).to_pylist()
        [{'goal': 'Find', 'offered': 'Book', 'accepted': True}]
    """

    name = "parse_offers"
    adds = (PARENT_ID, *OFFER_FIELDS)
    batch = BatchLimits(512)

    def several(self, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the offers of an object; one offer keeps the object's id."""
        offers = list(_offers(values, name))
        return [{"id": f"{name}/{place}" if len(offers) > 1 else name, **offer} for place, offer in enumerate(offers)]


def _offers(values: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    try:
        found = [_offer(values, name)] if "offered" in values else list(_of_events(values, name))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        raise RejectRecord(NO_OBJECT) from None
    if not found:
        raise RejectRecord(NO_OFFER)
    yield from found


def _offer(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(values.get("accepted"), bool):
        raise RejectRecord(NO_ANSWER)
    texts = {key: str(values[key]) for key in ("service", "goal", "offered", "text", PART) if values.get(key)}
    counts = {key: int(values[key]) for key in COUNTS if values.get(key) is not None}
    known = values.get("known")
    more = {"known": [str(one) for one in known]} if known is not None else {}
    return {"session": str(values.get("session") or name), **texts, **counts, **more, "accepted": values["accepted"]}


def _of_events(values: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    key = str(values["id"])
    first = key.split("/")[0]
    shared = {"session": name, PART: first if first in _PARTS else None}
    goal, text = None, None
    known: list[str] = []
    calls = offers = declined = opened = called = 0
    made: dict[str, Any] | None = None
    for event in values["events"]:
        turn = int(event["turn"])
        if "offered" in event:
            made = {
                **shared,
                **{"service": event.get("service"), "goal": goal, "offered": event["offered"][0], "text": text},
                **{"calls": calls, "offers": offers, "declined": declined},
                **{"since_call": turn - called, "open_turns": turn - opened, "known": known},
            }
            offers += 1
        elif "offer" in event:
            if made is not None:
                declined += event["offer"] != "accepted"
                yield made | {"accepted": event["offer"] == "accepted"}
            made = None
        elif "call" in event:
            calls, called = calls + 1, turn
        elif "intent" in event:
            goal, text, known, opened = event["intent"], event.get("text"), sorted(event.get("state") or ()), turn


class OfferTable(NamedTuple):
    """Offers as they are read by models, with whether they were accepted, their sessions and parts."""

    offers: list[dict[str, Any]]
    accepted: np.ndarray  # (offers,) bool
    sessions: list[str]
    parts: list[str | None]


def read_offers(url: str) -> OfferTable:
    """Return the offers of a sealed set."""
    columns = ["id", *FEATURES, "session", PART, "accepted"]
    rows = sorted((row for t in open_sealed(url).tables(columns) for row in t.to_pylist()), key=lambda row: row["id"])
    return OfferTable(
        [{name: row[name] for name in FEATURES} for row in rows],
        np.array([row["accepted"] for row in rows], bool),
        [row["session"] for row in rows],
        [row[PART] for row in rows],
    )


class TriggerTraining(TriggerSettings):
    """The model of acceptance, and which offers it is trained on."""

    without: tuple[str, ...] = ("dev", "test")
    """Parts of the corpus that are left out."""
    baseline: bool = False
    """Whether the model is only the rate at which offers of each goal are accepted."""


def train(settings: TriggerTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Return the files of a model of the offers at ``data``, without the parts that are left out.

    Raises:
        UserError: no offer is left, or all were accepted, or none.
    """
    given = read_offers(data)
    kept = [row for row, part in enumerate(given.parts) if part not in settings.without]
    if not kept:
        raise UserError(f"trigger: {data} has no offer outside the parts {', '.join(settings.without)}; expected some")
    offers, accepted = [given.offers[row] for row in kept], given.accepted[kept]
    sessions = [given.sessions[row] for row in kept]
    if settings.baseline:
        model = rate_trigger(offers, accepted)
    else:
        model = fit_trigger(offers, accepted, sessions, settings.part(TriggerSettings))
    context.report({"step": 0, "offers": float(len(kept))})
    return {"files": model.files(), "offers": len(kept), "accepted": int(accepted.sum())}


class ChanceSettings(Settings):
    """The column of the probability."""

    column: str = CHANCE.name
    """Its name."""


class Trigger(Actor):
    """Adds ``acceptance``: the probability that the user accepts an offer. Columns that are not there are not known.

    ``trigger``: the artifact of :func:`train`.
    """

    name = "trigger"
    columns = ("offered",)
    batch = BatchLimits(4096)
    settings: ChanceSettings

    def __init__(self, settings: ChanceSettings, trigger: str) -> None:
        super().__init__(settings)
        self._model = TriggerModel.from_files({MODEL: read_file(trigger, MODEL)})

    @classmethod
    def contract(cls, settings: ChanceSettings) -> Mapping[str, Any]:
        """Return the column that is added."""
        return {"adds": (pa.field(settings.column, CHANCE.type),)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the probability."""
        offers = batch.select([name for name in FEATURES if name in batch.column_names]).to_pylist()
        return set_column(batch, self.settings.column, pa.array(self._model.probability(offers), CHANCE.type))
