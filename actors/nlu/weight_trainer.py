"""Training of one domain's re-ranker on a sealed set of labelled lists, with the other domains' weights fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.actors.nlu.rerank import FILE, labelled_lists, read_weights
from gristmill.models.nlu.reranker_fit import FitSettings, Fitted, fit, joined, sample
from gristmill.models.nlu.rerankers import DomainReranker, Loss
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom


class WeightSettings(FitSettings):
    """Training of a domain's weights."""

    context: tuple[str, ...] = ()
    """Feature columns in addition to the three scores."""
    negatives: float = Field(1.0, gt=0, le=1)
    """Share of the other domains' requests in a domain's training data; each has weight 1 / ``negatives``."""


class WeightTraining(WeightSettings):
    """Training of the weights of one domain by one loss."""

    domain: str = Field(min_length=1)
    """The domain whose hypotheses are weighted."""
    loss: Loss
    """R1, R2 or R3, see :mod:`gristmill.models.nlu.reranker_fit`."""
    seed: int = 0
    """With a request's id, it determines the requests drawn from other domains."""


def train(
    settings: WeightTraining, context: TrainContext, *, data: str, rivals: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Fit the weights of a domain on the sealed hypotheses at ``data`` and return its file, ``reranker.json``.

    Records of fold -1 are the test set and are left out. All requests of the domain are used, and a share of the
    others, weighted so that confidences hold for the whole traffic. ``rivals`` are the artifacts of other domains'
    weights by domain, which compete in the expected SemER. In a plan's trial, a domain without hypotheses is left
    unweighted.

    Raises:
        UserError: a column is missing, no request is of the domain, none of its hypotheses is in the lists, or a list
            cannot be scored.
    """
    domain, hypotheses = settings.domain, open_sealed(data)
    keep = _Kept(hypotheses, settings)
    others = {name: read_weights(url, name) for name, url in (rivals or {}).items() if name != domain}
    parts = [
        sample(labelled_lists(table, settings.context, hypotheses.name), domain, weight, others)
        for table, weight in keep.tables()
    ]
    if not keep.positives:
        raise UserError(
            f"re-ranker of {domain!r}: none of the {keep.seen} training requests in {hypotheses.name} is of this "
            "domain; expected at least one"
        )
    trained_on = {
        "data": hypotheses.digest,
        "utterances": keep.kept,
        "positives": keep.positives,
        "negatives": settings.negatives,
        "l2": settings.l2,
        "semer_weight": settings.semer_weight,
        "seed": settings.seed,
    }
    given = joined(parts)
    if context.trial_steps is not None and not len(given.semer):
        made = Fitted(DomainReranker.unweighted(domain), 0.0, 0)  # models of a few steps may rank a rare domain last
    else:
        made = fit(domain, given, settings.loss, settings.part(FitSettings), trained_on=trained_on)
    context.report({"step": made.iterations, "loss": made.value})
    return {
        "files": {FILE: made.reranker.to_bytes()},
        "domain": domain,
        "loss": made.value,
        "iterations": made.iterations,
        **trained_on,
    }


class _Kept:
    """Reads the training records of a domain, shard by shard, and counts them."""

    def __init__(self, data: SealedSet, settings: WeightTraining) -> None:
        self.data, self.settings = data, settings
        self.draw = RecordRandom(settings.seed, "negatives")
        self.seen = self.kept = self.positives = 0

    def tables(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the records kept of each shard, and their weights (records,)."""
        known, domain, context = self.data.schema.names, self.settings.domain, self.settings.context
        share = self.settings.negatives
        for name in ("id", "domain", "hypotheses", "reference_length", *context):
            if name not in known:
                raise UserError(f"re-ranker of {domain!r}: {self.data.name} has no column {name!r}, only {known}")
        columns = ["id", "domain", "hypotheses", "reference_length", *context, *(["fold"] if "fold" in known else [])]
        for table in self.data.tables(list(dict.fromkeys(columns))):
            if "fold" in table.column_names:
                table = table.filter(pc.greater_equal(table["fold"], 0))
            own = np.array([name == domain for name in table["domain"].to_pylist()], bool)
            weight = np.where(own, 1.0, 1.0 / share)
            if share < 1:
                chosen = [self.draw(name).random() < share for name in table["id"].to_pylist()]
                weight[~own & ~np.array(chosen, bool)] = 0.0
            self.seen += len(own)
            self.positives += int(own.sum())
            self.kept += int((weight > 0).sum())
            yield table.filter(pa.array(weight > 0)), weight[weight > 0]
