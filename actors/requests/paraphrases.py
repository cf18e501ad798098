"""The requests that a paraphrase detector is trained on, in two passes: templates are collected, then filled.

The templates of a set of annotated requests are an artifact (:func:`collect`); the actor ``Paraphrases`` gives each
request back, and after it the requests made of it, with the kind of pair that the two are.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.models.normalise import joined
from gristmill.models.requests.templates import TEMPLATES, Annotated, TemplateBank, annotated
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import PARENT_ID
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

PAIR_KIND = pa.field("pair_kind", pa.string())  # of the pair with the request of ``parent_id``; null: that one itself
ANNOTATION = ("id", "tokens", "domain", "intent", "slots")


def collect(settings: Settings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Collect the templates of the sealed requests at ``data``; the loop of a job that is not stepwise.

    Returns the file of the templates, and the number of requests.

    Raises:
        UserError: the requests lack a column or a value.
    """
    sealed = open_sealed(data)
    check_columns(sealed.schema.names, ANNOTATION, sealed.name)
    bank, requests = TemplateBank(), 0
    for table in sealed.tables(ANNOTATION):
        for row in table.to_pylist():
            bank.add(annotated(row, sealed.name))
        requests += table.num_rows
    context.report({"step": 0, "requests": float(requests)})
    return {"files": bank.files(), "requests": requests}


def check_columns(names: list[str], wanted: tuple[str, ...], where: str) -> None:
    """Raise a ``UserError`` for requests that lack columns."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(f"{where}: requests without {', '.join(missing)}; expected {', '.join(wanted)}")


class Paraphrases(Actor):
    """Adds after each annotated request those that are made of it and the templates of its domain.

    The added rows have ``pair_kind``, the text, tokens, intent and slots that are said of them, and the label source
    ``synthetic``; all else is their request's. The draws depend on the run's seed and the request's ``id``.
    """

    name = "paraphrases"
    adds: ClassVar[tuple[pa.Field, ...]] = (PARENT_ID, PAIR_KIND)
    columns = (*ANNOTATION, "text", "label_source")
    batch = BatchLimits(1024)
    fan_out = True
    seeded = True

    def __init__(self, settings: Settings, templates: str, rng: RecordRandom) -> None:
        super().__init__(settings)
        self._bank = TemplateBank.from_files(json.loads(read_file(templates, TEMPLATES)))
        self._rng = rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the requests made, each after its own."""
        check_columns(batch.column_names, self.columns, self.name)
        places: list[int] = []
        made: list[dict[str, Any]] = []
        for place, row in enumerate(batch.select(list(self.columns)).to_pylist()):
            request = annotated(row, self.name)
            places.append(place)
            made.append(row | {PAIR_KIND.name: None})
            for kind, other in self._bank.fill(request, self._rng(row["id"])):
                places.append(place)
                made.append(
                    _record(other) | {"id": f"{row['id']}~{kind}", PAIR_KIND.name: kind, "label_source": "synthetic"}
                )
        out = batch.take(pa.array(places, pa.int64()))
        out = set_column(out, PARENT_ID.name, out["id"].combine_chunks().cast(pa.string()))
        for name in (*self.columns, PAIR_KIND.name):
            kind = out.schema.field(name).type if name in batch.column_names else PAIR_KIND.type
            out = set_column(out, name, pa.array([row[name] for row in made], kind))
        return out


def _record(request: Annotated) -> dict[str, Any]:
    slots = [
        {"name": name, "value": joined(request.tokens[start:end]), "start": start, "end": end}
        for name, start, end in request.slots
    ]
    return {
        "text": joined(request.tokens),
        "tokens": list(request.tokens),
        "domain": request.domain,
        "intent": request.intent,
        "slots": slots,
    }
