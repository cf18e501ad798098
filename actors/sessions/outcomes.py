"""Outcomes of the same reading, over all sessions: their counts, and the friction of turns in their light."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.records import PerRecord
from gristmill.actors.sessions.candidate_pairs import FRICTION
from gristmill.actors.sessions.pair_models import LOG_ODDS, FrictionFit
from gristmill.models.sessions import outcomes
from gristmill.models.sessions.calibrated import CalibratedModel, CalibratedSettings, fit_calibrated
from gristmill.models.sessions.friction import reading
from gristmill.models.sessions.outcomes import COUNTS, MEANT, SAID, count_turn, outcome_features, with_outcome
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.reducers import Reducer
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

MODEL = "outcomes.json"
UTTERANCE, READING = pa.field("utterance", pa.string()), pa.field("reading", pa.string())
READ_SO = pa.field("read_so", pa.string())  # the utterance and how it was read
COUNTED = tuple(pa.field(prefix + name, pa.float64()) for prefix in (SAID, MEANT) for name in COUNTS)
NO_WORDS = "turn: no words"


class TurnKeys(PerRecord):
    """Adds what turns are brought together by: ``utterance`` (its words in lower case), ``reading`` and both."""

    name = "keys"
    columns = ("tokens", "domain", "intent", "slots")
    adds = (UTTERANCE, READING, READ_SO)

    def record(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys; a turn without words has an empty utterance."""
        said = " ".join(record["tokens"] or ()).lower()
        read = canonical.dumps(reading(record)).decode().strip()
        return {UTTERANCE.name: said, READING.name: read, READ_SO.name: canonical.dumps([said, read]).decode().strip()}


class Outcomes(Reducer):
    """Counts the turns of a reading, over all sessions, and those of each utterance that is read so: a row of each."""

    columns = (READ_SO.name, LOG_ODDS.name, "succeeded")
    adds = (READ_SO, *COUNTED)

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterable[Mapping[str, Any]]:
        """Yield the counts of each utterance with the reading."""
        by_utterance: dict[str, np.ndarray] = {}
        for table in tables:
            for row in table.to_pylist():
                own = np.array(list(count_turn(row[LOG_ODDS.name], row["succeeded"]).values()))
                key = row[READ_SO.name]
                by_utterance[key] = by_utterance.get(key, np.zeros(len(COUNTS))) + own
        total = np.zeros(len(COUNTS))
        for key in sorted(by_utterance):
            total = total + by_utterance[key]
        for key in sorted(by_utterance):
            counts = np.concatenate([by_utterance[key], total]).tolist()
            yield {READ_SO.name: key, **dict(zip((field.name for field in COUNTED), counts, strict=True))}


def train_outcomes(settings: FrictionFit, context: TrainContext, *, turns: str) -> dict[str, Any]:
    """Fit the friction of turns in the light of others' outcomes, to turns with counts of which it is known whether
    they ``succeeded``; of too few, the log-odds of the turn alone are kept.

    Returns the model's file, the number of turns, and ``auc`` and ``ece`` on held-out utterances.
    """
    sealed = open_sealed(turns)
    share = settings.most / max(sealed.records, 1)
    random = RecordRandom(settings.seed, "outcomes")
    features, failed, groups = [], [], []
    for table in sealed.tables([READ_SO.name, LOG_ODDS.name, "succeeded", *(field.name for field in COUNTED)]):
        for row in table.to_pylist():
            known = row["succeeded"]
            if known is not None and (share >= 1 or random(row[READ_SO.name]).random() < share):
                features.append(outcome_features(row[LOG_ODDS.name], known, row))
                failed.append(not known)
                groups.append(row[READ_SO.name])
    wrong = sum(failed)
    told: dict[str, Any] = {"turns": len(failed), "failed": wrong, "auc": None, "ece": None}
    weights = np.array([float(name == "own") for name in outcomes.FEATURES])
    count = len(outcomes.FEATURES)
    model = CalibratedModel(outcomes.FEATURES, False, np.zeros(count), np.ones(count), weights, 0.0)
    if min(wrong, len(failed) - wrong) >= settings.least:
        given = settings.part(CalibratedSettings)
        fitted = fit_calibrated(np.stack(features), np.array(failed), groups, outcomes.FEATURES, given)
        model, told = fitted.model, told | {"auc": fitted.auc, "ece": fitted.ece}
        context.report({"step": 0, "auc": fitted.auc, "ece": fitted.ece})
    return {"files": {MODEL: canonical.dumps(model.described())}, **told}


class OutcomeSettings(Settings):
    """How far known outcomes are trusted."""

    mistaken: float = Field(0.05, gt=0, lt=1)
    """Share of the known outcomes that are taken for wrong."""


class PooledFriction(Actor):
    """Adds ``friction``, the probability that a turn failed, to turns with ``friction_log_odds`` and counts of others'
    outcomes."""

    name = "pooled_friction"
    columns = (LOG_ODDS.name, "succeeded", *(field.name for field in COUNTED))
    adds = (FRICTION,)
    drops = tuple(field.name for field in COUNTED)
    batch = BatchLimits(1024)
    settings: OutcomeSettings

    def __init__(self, settings: OutcomeSettings, model: str) -> None:
        super().__init__(settings)
        described = json.loads(read_file(model, MODEL))
        self._model = CalibratedModel.from_described(described, outcomes.FEATURES)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``friction``."""
        rows = batch.select(list(self.columns)).to_pylist()
        given = [outcome_features(row[LOG_ODDS.name], row["succeeded"], row) for row in rows]
        odds = self._model.log_odds(np.array(given).reshape(len(rows), len(outcomes.FEATURES))).tolist()
        known = batch["succeeded"].to_pylist()
        made = [with_outcome(one, own, self.settings.mistaken) for one, own in zip(odds, known, strict=True)]
        return set_column(batch.drop_columns(list(self.drops)), FRICTION.name, pa.array(made, FRICTION.type))
