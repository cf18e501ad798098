"""The relevance filter of a new function, in two passes: it is fitted on annotated requests, and scores any corpus.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019). The records of a corpus with the best scores
are found exactly by :mod:`gristmill.actors.nearest`: the distance is the negative of the score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.embed import EMBEDDING, vectors_of
from gristmill.actors.nearest import DISTANCE, Keep
from gristmill.actors.nlu.annotation import split
from gristmill.models.normalise import normalise
from gristmill.models.requests.relevance import MODEL, WEIGHTS, RelevanceModel, RelevanceSettings, fit
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits


class RelevanceFitSettings(RelevanceSettings):
    """The relevance model, and what it is fitted on."""

    others: int = Field(20_000, ge=1)
    """Requests of other functions, or of the pool, at most; drawn by their ids."""
    seed: int = 0
    """Seed of the draw."""


def train(
    settings: RelevanceFitSettings, context: TrainContext, *, seeds: Sequence[str], others: str
) -> dict[str, Any]:
    """Fit the relevance to the requests of the sets ``seeds`` against a sample of those at ``others``.

    Returns the model's files, and the numbers of requests.

    Raises:
        UserError: there are no requests in one of the sets.
    """
    second = settings.embedding > 0
    own = [one for url in seeds for one in _requests(open_sealed(url), second)]
    against = open_sealed(others)
    share = min(1.0, settings.others / max(1, against.records))
    random = RecordRandom(settings.seed, "relevance")
    drawn = [one for one in _requests(against, second) if share >= 1 or random(one.id).random() < share]
    both = [*own, *drawn]
    vectors = np.stack([one.vector for one in both if one.vector is not None]) if second and both else None
    tokens = ([one.tokens for one in own], [one.tokens for one in drawn])
    model = fit(tokens[0], tokens[1], settings.part(RelevanceSettings), vectors)
    context.report({"step": 0, "grams": float(len(model.weights))})
    return {"files": model.files(), "own": len(own), "others": len(drawn)}


class _Request(NamedTuple):
    id: str
    tokens: list[str]
    vector: np.ndarray | None


def _requests(sealed: SealedSet, embedded: bool) -> Iterator[_Request]:
    """Yield each request of a set, with its embedding if that is to be read."""
    if embedded and EMBEDDING not in sealed.schema.names:
        raise UserError(f"{sealed.url}: requests without {EMBEDDING}; expected it, for the second score of relevance")
    more = [EMBEDDING] if embedded else []
    for table in sealed.tables(["id", _column(sealed.schema.names, sealed.url), *more]):
        vectors = vectors_of(table[EMBEDDING]) if embedded else [None] * len(table)
        yield from map(_Request, table["id"].to_pylist(), tokens_of(table), vectors)


def tokens_of(table: pa.Table) -> list[list[str]]:
    """Return the tokens of each record: those that it has, or else the words of its ``text``.

    Raises:
        UserError: there is neither column.
    """
    return [one or [] for one in _token_lists(table).to_pylist()]


def _token_lists(table: pa.Table) -> pa.ListArray:
    """Return the tokens of each record as they lie in the table, where that has them."""
    column = _column(table.column_names, "relevance")
    values = table[column].combine_chunks()
    if column == "tokens":
        return values
    return pa.array([split(normalise(one or "")) for one in values.to_pylist()], pa.list_(pa.string()))


def _column(names: list[str], where: str) -> str:
    found = next((name for name in ("tokens", "text") if name in names), None)
    if found is None:
        raise UserError(f"{where}: records with {', '.join(names)}; expected a column tokens or text")
    return found


class Relevance(Actor):
    """Adds ``distance``, the negative log-odds that a request is of the function: the less, the more relevant."""

    name = "relevance"
    adds = (DISTANCE,)
    batch = BatchLimits(4096)

    def __init__(self, settings: Settings, relevance: str) -> None:
        super().__init__(settings)
        self._model = RelevanceModel.from_files(json.loads(read_file(relevance, MODEL)), read_file(relevance, WEIGHTS))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``distance``."""
        read = self._model.vector is not None and EMBEDDING in batch.column_names
        scores = self._model.score(_token_lists(batch), vectors_of(batch[EMBEDDING]) if read else None)
        return set_column(batch, DISTANCE.name, pa.array(-scores, DISTANCE.type))


class KeepRelevant(Keep):
    """Rejects the requests that are not among the most relevant ones, by a threshold of their ``distance``."""

    version = 2  # with a reason of its own
    why = "not among the {kept} most relevant"


class KeepDrawn(Keep):
    """Rejects the requests that were not drawn, by a threshold of their random ``distance``."""

    version = 2  # with a reason of its own
    why = "not among the {kept} drawn at random"
