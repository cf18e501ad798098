"""The bank of what may be said in a simulated session: wordings by meaning, as heard and as read by a recogniser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.sessions.interpretations import interpretations
from gristmill.shards.reducers import Reducer
from gristmill.shards.schema import TRUTH_FIELDS, TURN_FIELDS
from gristmill.shards.stage import Actor, BatchLimits

MEANING = TRUTH_FIELDS[0]
SAID = ("text", "asr_text", "tokens", "lang", "domain", "intent", "slots", "score", "alternatives")
TRUE = ("true_domain", "true_intent", "true_slots", "failed")
_TURN = {field.name: field for field in TURN_FIELDS}
_TRUTH = {field.name: field for field in TRUTH_FIELDS}
UTTERANCE = pa.struct([pa.field("id", pa.string()), *(_TURN[one] for one in SAID), *(_TRUTH[one] for one in TRUE)])
UTTERANCES = pa.field("utterances", pa.list_(UTTERANCE))
_SCORES = ("domain_logprob", "intent_logprob", "slots_logprob")


class AsUtterance(Actor):
    """Makes an utterance of the bank of an annotated request and the readings of it (``hypotheses``, best first).

    The reading of the recogniser is the first, its ``score`` the product of the three probabilities. It has failed
    where its interpretation is not the ``meaning`` of the request.
    """

    name = "utterance"
    columns = ("id", "text", "tokens", "domain", "intent", "slots", "hypotheses", "meaning")
    adds = (
        *(_TURN[one] for one in ("asr_text", "domain", "intent", "slots", "score", "alternatives")),
        *(_TRUTH[one] for one in TRUE),
    )
    drops = ("hypotheses",)
    batch = BatchLimits(rows=1024)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with what was read, and what is true."""
        made = [_read(row) for row in batch.select(list(self.columns)).to_pylist()]
        heard = batch["asr_text"] if "asr_text" in batch.column_names else batch["text"]
        columns = {name: batch[name] for name in batch.column_names if name not in self.drops}
        for field in self.adds:
            columns[field.name] = pa.array([row.get(field.name) for row in made], field.type)
        columns["asr_text"] = heard
        columns["failed"] = pc.not_equal(interpretations(pa.table(columns)), batch["meaning"])
        return pa.table(columns)


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    truth = {"true_domain": row["domain"], "true_intent": row["intent"], "true_slots": row["slots"]}
    if not row["hypotheses"]:
        return {**truth, "slots": []}
    best, *others = row["hypotheses"]
    return {
        **{name: best[name] for name in ("domain", "intent", "slots")},
        "score": _score(best),
        # Errors are of the truth, which nothing that learns from sessions may read.
        "alternatives": [one | {"errors": None, "correct": None} for one in others],
        **truth,
    }


def _score(reading: Mapping[str, Any]) -> float | None:
    """Return the product of a reading's probabilities; ``None`` where it has none."""
    logs = [value for name in _SCORES if (value := reading.get(name)) is not None]
    return float(np.exp(np.float32(sum(logs)))) if len(logs) == len(_SCORES) else None


class Wordings(Reducer):
    """Gathers the utterances of each meaning, in the order of their ids: a row of the bank."""

    name = "wordings"
    columns = ("id", *SAID, *TRUE)
    order = ("id",)
    adds = (MEANING, UTTERANCES)

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the meaning's row."""
        yield {"meaning": name, "utterances": [row for table in tables for row in table.to_pylist()]}
