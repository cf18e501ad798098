"""The actor that reads a request with every domain and keeps the n best readings, with the errors of each.

Cross-fitted: a request of fold f is read by models trained without fold f, one of the test part (fold -1) by models of
all folds. Models whose metadata says otherwise are rejected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.nlu.folds import TEST
from gristmill.models.measures.semer import Interpretation, errors, reference_length
from gristmill.models.nlu.domain import Domains, Reading
from gristmill.models.nlu.families import load
from gristmill.shards.artifact import Artifact, get_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.schema import HYPOTHESES_FIELDS
from gristmill.shards.settings import Settings, Size
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits


class ListSettings(Settings):
    """Sizes of the lists of hypotheses."""

    n: Size = Field(20, ge=1)
    """Hypotheses per request, at most."""
    intents: Size = Field(2, ge=1)
    """Hypotheses per domain and request, at most; they differ in their intent."""


class Hypotheses(Actor):
    """Adds ``hypotheses``, ``reference_length`` and ``oracle_errors`` to requests with ``fold``.

    Hypotheses are the best readings, best first by the sum of the three log-probabilities. ``models``: urls by
    ``fold/domain``, see :func:`readers`. A request without a domain has readings whose errors are null, as are the two
    other columns.
    """

    name = "hypotheses"
    adds = HYPOTHESES_FIELDS
    batch = BatchLimits(256)
    settings: ListSettings

    def __init__(self, settings: ListSettings, **models: str) -> None:
        super().__init__(settings)
        folds: dict[int, dict[str, str]] = {}
        for key, url in models.items():
            fold, _, domain = key.partition("/")
            folds.setdefault(int(fold), {})[domain] = url
        self._folds = {
            fold: Domains(_load(url, fold, domain) for domain, url in sorted(urls.items()))
            for fold, urls in sorted(folds.items())
        }

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the hypotheses of each request and their errors."""
        if "fold" not in batch.column_names:
            raise UserError(f"hypotheses: requests without fold; expected -1 for the test, given {batch.column_names}")
        folds = np.array(batch["fold"].to_pylist(), dtype=object)
        unknown = sorted(set(folds.tolist()) - set(self._folds), key=str)
        if unknown:
            raise UserError(f"hypotheses: requests of fold {unknown}; there are models for {sorted(self._folds)}")
        tokens = [one or [] for one in batch["tokens"].to_pylist()]
        found: list[list[tuple[str, Reading]]] = [[] for _ in tokens]
        for fold, domains in self._folds.items():
            rows = np.flatnonzero(folds == fold).tolist()
            read = domains.read([tokens[row] for row in rows], self.settings.n, self.settings.intents)
            for row, readings in zip(rows, read, strict=True):
                found[row] = readings
        references = batch.select(["domain", "intent", "slots"]).to_pylist()
        columns = zip(*map(_judged, found, references), strict=True) if found else ((), (), ())
        for field, values in zip(HYPOTHESES_FIELDS, columns, strict=True):
            batch = set_column(batch, field.name, pa.array(values, field.type))
        return batch


def _judged(
    found: list[tuple[str, Reading]], row: dict[str, Any]
) -> tuple[list[dict[str, Any]], int | None, int | None]:
    """Return a request's hypotheses as stored, its reference's length and the oracle's errors."""
    reference = None
    if row["domain"] is not None:
        slots = tuple((slot["name"], slot["value"]) for slot in row["slots"] or [])
        reference = Interpretation(row["domain"], row["intent"], slots)
    hypotheses, counts = [], []
    for domain, reading in found:
        wrong = None
        if reference is not None:
            slots = tuple(slot[:2] for slot in reading.slots)
            wrong = errors(reference, Interpretation(domain, reading.intent, slots))
            counts.append(wrong)
        hypotheses.append(
            {
                "domain": domain,
                "intent": reading.intent,
                "slots": [slot._asdict() for slot in reading.slots],
                "domain_logprob": reading.domain_logprob,
                "intent_logprob": reading.intent_logprob,
                "slots_logprob": reading.slots_logprob,
                "errors": wrong,
                "correct": None if wrong is None else wrong == 0,
            }
        )
    if reference is None:
        return hypotheses, None, None
    length = reference_length(reference)
    return hypotheses, length, min(counts, default=length)


def _load(url: str, fold: int, domain: str) -> Any:
    artifact = get_artifact(url)
    if artifact is None:
        raise UserError(f"hypotheses: no model of domain {domain!r} at {url}; expected the artifact of its training")
    files = {name: artifact.read(name) for name in artifact.files}
    left_out = json.loads(files.get("training.json", b"{}")).get("left_out", "unknown")
    # A model is overconfident on its own training data, and nothing downstream could detect it.
    if left_out != (None if fold == TEST else fold):
        raise UserError(
            f"hypotheses: {url} is for fold {fold} but was trained with left_out {left_out}; "
            f"expected {'none' if fold == TEST else fold}"
        )
    model = load(files)
    if model.domain != domain:
        raise UserError(f"hypotheses: {url} is of domain {model.domain!r}; expected {domain!r}")
    return model


def readers(models: Mapping[int, Mapping[str, Artifact]]) -> dict[str, ArtifactRef]:
    """Return the artifacts of the stage, from the models of each fold (-1: the test part) and domain.

    Raises:
        UserError: the folds do not all have the same domains.
    """
    domains = {fold: sorted(given) for fold, given in models.items()}
    if not domains or len({tuple(given) for given in domains.values()}) > 1 or not all(domains.values()):
        raise UserError(f"hypotheses: models of {domains}; expected the same domains in each fold")
    return {f"{fold}/{domain}": models[fold][domain].ref for fold in models for domain in domains[fold]}
