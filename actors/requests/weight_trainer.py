"""Training of one domain's re-ranker on a sealed set of labelled lists, beside others' weights as they are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.requests.rerank import FILE, lists_of, read_weights
from gristmill.models.requests.reranker_fit import fit, joined, sample
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom


def train(config: Mapping[str, Any], context: TrainContext) -> dict[str, Any]:
    """Fit the weights of ``domain`` by ``loss`` (R1, R2 or R3) and return its file, ``reranker.json``.

    ``data`` is the URL of a sealed set of hypotheses. Records of fold -1 are the test set and are left out. All
    requests of the domain are used and a share ``negatives`` (above 0, at most 1) of the others, drawn by (seed, id);
    each of these counts 1 / ``negatives``, so that confidences stay those of the whole traffic. ``context`` names
    columns, ``l2`` is how strongly weights are held to those of R0, ``semer_weight`` what R1 counts in R3.
    ``rivals`` are artifacts of other domains' weights by domain, which compete in the expected SemER.

    Raises:
        UserError: a setting is out of its range, a column is missing, no request is of the domain, or none of its
            hypotheses is in the lists.
    """
    domain, seed, share = config["domain"], int(config.get("seed", 0)), float(config.get("negatives", 1.0))
    columns = list(config.get("context", ()))
    if not 0 < share <= 1:
        raise UserError(f"re-ranker of {domain!r}: negatives is {share}; expected a share above 0 and at most 1")
    data = open_sealed(config["data"])
    keep = _Kept(data, domain, share, seed)
    rivals = {name: read_weights(url, name) for name, url in config.get("rivals", {}).items() if name != domain}
    parts = [
        sample(lists_of(table, columns, labelled=True), domain, weight, rivals)
        for table, weight in keep.tables(columns)
    ]
    if not keep.positives:
        raise UserError(
            f"re-ranker of {domain!r}: none of the {keep.seen} training requests in {data.name} is of this domain; "
            "expected at least one"
        )
    l2, semer_weight = float(config.get("l2", 1.0)), float(config.get("semer_weight", 1.0))
    trained_on = {
        "data": data.digest,
        "utterances": keep.kept,
        "positives": keep.positives,
        "negatives": share,
        "l2": l2,
        "semer_weight": semer_weight,
        "seed": seed,
    }
    made = fit(domain, joined(parts), config["loss"], l2=l2, semer_weight=semer_weight, trained_on=trained_on)
    context.report({"step": made.iterations, "loss": made.value})
    return {
        "files": {FILE: made.reranker.to_bytes()},
        "domain": domain,
        "loss": made.value,
        "iterations": made.iterations,
        **trained_on,
    }


class _Kept:
    """Reads the records that a domain is trained on, shard by shard, and counts them."""

    def __init__(self, data: SealedSet, domain: str, share: float, seed: int) -> None:
        self.data, self.domain, self.share = data, domain, share
        self.draw = RecordRandom(seed, "negatives")
        self.seen = self.kept = self.positives = 0

    def tables(self, context: list[str]) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Give the records kept of each shard, and their weights (records,)."""
        known = self.data.schema.names
        for name in ("id", "domain", "hypotheses", "reference_length", *context):
            if name not in known:
                raise UserError(f"re-ranker of {self.domain!r}: {self.data.name} has no column {name!r}, only {known}")
        columns = ["id", "domain", "hypotheses", "reference_length", *context, *(["fold"] if "fold" in known else [])]
        for table in self.data.tables(list(dict.fromkeys(columns))):
            if "fold" in table.column_names:
                table = table.filter(pc.greater_equal(table["fold"], 0))
            own = np.array([name == self.domain for name in table["domain"].to_pylist()], bool)
            weight = np.where(own, 1.0, 1.0 / self.share)
            if self.share < 1:
                chosen = [self.draw(name).random() < self.share for name in table["id"].to_pylist()]
                weight[~own & ~np.array(chosen, bool)] = 0.0
            self.seen += len(own)
            self.positives += int(own.sum())
            self.kept += int((weight > 0).sum())
            yield table.filter(pa.array(weight > 0)), weight[weight > 0]
