"""Fits of the paraphrase and the friction model to sealed sets, and the actors that apply them to turns or pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.sessions.candidate_pairs import NEXT
from gristmill.models.sessions import friction, paraphrase
from gristmill.models.sessions.calibrated import CalibratedModel, CalibratedSettings, fit_calibrated
from gristmill.models.sessions.friction import friction_features, prior_model
from gristmill.models.sessions.meaning_pairs import MeaningPairSettings, chosen_texts, draw_pairs
from gristmill.models.sessions.meaning_texts import MeaningText, OneWordChanges
from gristmill.models.sessions.paraphrase import ParaphraseModel, count_words, pair_features
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

PARAPHRASE = pa.field("paraphrase", pa.float64())
LOG_ODDS = pa.field("friction_log_odds", pa.float64())


class ParaphraseFit(CalibratedSettings):
    """The fit of a paraphrase model."""

    c: float = Field(0.1, gt=0)
    """Inverse regularisation."""
    products: bool = True
    """Whether products of two features are features too."""
    pairs: MeaningPairSettings = MeaningPairSettings()
    """The pairs that are drawn from groups of texts that mean the same."""
    lang: str = "en"
    """Language of the texts, for number words; that of a record goes first."""


def train_paraphrase(settings: ParaphraseFit, context: TrainContext, *, groups: Sequence[str]) -> dict[str, Any]:
    """Fit a paraphrase model to the sealed sets ``groups``: ``id``, ``tokens``, and ``meaning``, equal of texts that
    mean the same; ``intent``, ``slots`` and ``lang`` help where they are known.

    Returns the model's file, and on held-out groups ``auc``, ``ece`` and by kind of pair how many there are
    (``pairs``) and the share that is told right (``right``).

    Raises:
        UserError: a set lacks a column, or no meaning has two texts.
    """
    texts = [text for url in groups for text in _texts(url)]
    changes = OneWordChanges(chosen_texts(texts, settings.pairs))
    pairs = draw_pairs(texts, settings.pairs, changes)
    positive = np.array([pair.positive for pair in pairs], bool)
    if not positive.any() or positive.all():
        raise UserError(
            f"paraphrase: {len(texts)} texts in {', '.join(groups)} give {int(positive.sum())} pairs that mean "
            f"the same, of {len(pairs)}; expected groups of two or more texts, and more than one group"
        )
    spans = [None if text.slots is None else [slot[1:] for slot in text.slots] for text in texts]
    given = zip((text.tokens for text in texts), spans, strict=True)
    counts = count_words(given, settings.lang, changes, settings.pairs.politeness)
    rows = np.stack([pair_features(pair.left, pair.right, counts, settings.lang) for pair in pairs])
    meanings = [pair.meaning for pair in pairs]
    fitted = fit_calibrated(rows, positive, meanings, paraphrase.FEATURES, settings.part(CalibratedSettings))
    context.report({"step": 0, "auc": fitted.auc, "ece": fitted.ece})
    right = (fitted.held_out > 0.5) == positive
    kinds = {kind: np.array([pair.kind == kind for pair in pairs]) for kind in sorted({pair.kind for pair in pairs})}
    told = {
        "pairs": {kind: int(own.sum()) for kind, own in kinds.items()},
        "right": {kind: float(right[own].mean()) for kind, own in kinds.items()},
    }
    model = ParaphraseModel(fitted.model, counts)
    files = {paraphrase.MODEL: canonical.dumps(model.described())}
    return {"files": files, **told, "auc": fitted.auc, "ece": fitted.ece}


def _texts(url: str) -> Iterator[MeaningText]:
    sealed = open_sealed(url)
    missing = sorted({"meaning", "tokens"} - set(sealed.schema.names))
    if missing:
        raise UserError(f"{url}: texts without {', '.join(missing)}; expected id, meaning and tokens")
    more = [name for name in ("domain", "intent", "slots") if name in sealed.schema.names]
    for table in sealed.tables(["id", "meaning", "tokens", *more]):
        for row in table.to_pylist():
            if row["meaning"] is None or not row["tokens"]:
                continue
            intent = row.get("intent") and f"{row.get('domain') or ''}/{row['intent']}"
            slots = row.get("slots")
            spans = None if slots is None else [(one["name"], one["start"], one["end"]) for one in slots]
            known = None if spans is None else tuple(span for span in spans if span[1] is not None)
            yield MeaningText(row["id"], row["meaning"], tuple(row["tokens"]), intent, known)


class FrictionFit(CalibratedSettings):
    """The fit of a friction model."""

    most: int = Field(100_000, ge=10)
    """Turns that it is fitted on at most: of more, so many are drawn by session."""
    least: int = Field(50, ge=10)
    """Turns of known outcome, of each kind, below which the model is one with weights that are not fitted."""


def train_friction(settings: FrictionFit, context: TrainContext, *, turns: str) -> dict[str, Any]:
    """Fit a friction model to the turns of a sealed set (of :class:`FollowedTurns`, with ``paraphrase``) of which it is
    known whether they ``succeeded``.

    Returns the model's file, the number of turns, and ``auc`` and ``ece`` on held-out sessions (``null`` of a model
    that is not fitted).
    """
    features, failed, sessions = [], [], []
    for row in _known(settings, turns):
        features.append(friction_features(row))
        failed.append(not row["succeeded"])
        sessions.append(row["session"])
    wrong = sum(failed)
    told: dict[str, Any] = {"turns": len(failed), "failed": wrong, "auc": None, "ece": None}
    model = prior_model()
    if min(wrong, len(failed) - wrong) >= settings.least:
        given = settings.part(CalibratedSettings)
        fitted = fit_calibrated(np.stack(features), np.array(failed), sessions, friction.FEATURES, given)
        model, told = fitted.model, told | {"auc": fitted.auc, "ece": fitted.ece}
        context.report({"step": 0, "auc": fitted.auc, "ece": fitted.ece})
    return {"files": {friction.MODEL: canonical.dumps(model.described())}, **told}


def _known(settings: FrictionFit, url: str) -> Iterator[Mapping[str, Any]]:
    sealed = open_sealed(url)
    share = settings.most / max(sealed.records, 1)
    random = RecordRandom(settings.seed, "friction")
    columns = ["session", "succeeded", *_friction_columns(sealed.schema.names)]
    for table in sealed.tables(columns):
        for row in table.to_pylist():
            if row["succeeded"] is not None and (share >= 1 or random(row["session"]).random() < share):
                yield row


def _friction_columns(names: Sequence[str]) -> list[str]:
    own = ("tokens", "domain", "intent", "slots", "score", "alternatives", "barge_in", "seconds", PARAPHRASE.name)
    later = (NEXT + name for name in ("tokens", "domain", "intent", "slots"))
    return [name for name in (*own, *later) if name in names]


class ParaphraseSettings(Settings):
    """The language of turns that tell none."""

    lang: str = "en"
    """Language, for number words."""


class Paraphrase(Actor):
    """Adds ``paraphrase``, the probability that a turn and the later one of its row (``next_tokens``) mean the same.

    It is null where there is no later one.
    """

    name = "paraphrase"
    columns = ("tokens", NEXT + "tokens")
    adds = (PARAPHRASE,)
    batch = BatchLimits(1024)
    settings: ParaphraseSettings

    def __init__(self, settings: ParaphraseSettings, model: str) -> None:
        super().__init__(settings)
        self._model = ParaphraseModel.from_described(json.loads(read_file(model, paraphrase.MODEL)))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``paraphrase``."""
        langs = batch["lang"].to_pylist() if "lang" in batch.column_names else [None] * len(batch)
        given = zip(batch["tokens"].to_pylist(), batch[NEXT + "tokens"].to_pylist(), langs, strict=True)
        made = [
            None if later is None else self._model.probability(one or [], later, lang or self.settings.lang)
            for one, later, lang in given
        ]
        return set_column(batch, PARAPHRASE.name, pa.array(made, PARAPHRASE.type))


class Friction(Actor):
    """Adds ``friction_log_odds``, those that a turn failed by itself and by what the user did next, to the turns of
    :class:`FollowedTurns` with ``paraphrase``."""

    name = "friction"
    columns = ("tokens", NEXT + "tokens", PARAPHRASE.name)
    adds = (LOG_ODDS,)
    batch = BatchLimits(1024)

    def __init__(self, settings: Settings, model: str) -> None:
        super().__init__(settings)
        described = json.loads(read_file(model, friction.MODEL))
        self._model = CalibratedModel.from_described(described, friction.FEATURES)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the log-odds."""
        rows = batch.select(_friction_columns(batch.column_names)).to_pylist()
        features = np.array([friction_features(row) for row in rows]).reshape(len(rows), len(friction.FEATURES))
        return set_column(batch, LOG_ODDS.name, pa.array(self._model.log_odds(features), LOG_ODDS.type))
