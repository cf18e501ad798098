"""Training of the taggers that find unknown spans, on a sealed set of annotated requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from gristmill.actors.nlu.slot_examples import tagged
from gristmill.models.measures.semer import slot_value
from gristmill.models.nlu.crf import CrfSettings
from gristmill.models.nlu.domain import Example
from gristmill.models.sessions.teaching import CatalogueSettings, Masks, MaskSettings, catalogue_of, fit_taggers, masked
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

FILE = "catalogue.json"
HELD = pa.field("held", pa.bool_())  # whether a request has a value that is hidden from training
_COLUMNS = ("id", "tokens", "domain", "intent", "slots")


class TeachingTraining(Settings):
    """Training of the taggers that find unknown spans."""

    catalogue: CatalogueSettings = CatalogueSettings()
    """Which slots have a catalogue, whose values are masked."""
    mask: MaskSettings = MaskSettings()
    """How they are."""
    crf: CrfSettings = CrfSettings(iterations=40)
    """The taggers."""
    seed: int = 0
    """Of the masks."""


def collect(settings: CatalogueSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Return the artifact's file: the catalogue slots, and the values of other slots, of annotated requests."""
    tables = open_sealed(data).tables(["slots"])
    found = catalogue_of(
        (
            (slot["name"], slot["value"])
            for table in tables
            for slots in table["slots"].to_pylist()
            for slot in slots or []
        ),
        settings,
    )
    context.report({"step": 0, "values": float(len(found.values))})
    files = {FILE: canonical.dumps({"slots": sorted(found.slots), "closed": sorted(found.closed)})}
    return {"files": files, "slots": sorted(found.slots), "values": len(found.values)}


class HoldOutSettings(Settings):
    """The values that are hidden from training."""

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the values of catalogue slots."""
    draw: int = 0
    """The number of the draw."""


class HoldOutValues(Actor):
    """Adds ``held``: whether a request has a catalogue value that is drawn to be hidden from training.

    A value that a slot without a catalogue has, too, is not hidden. ``catalogue``: the artifact of :func:`collect`.
    """

    name = "hold_out_values"
    columns = ("slots",)
    adds = (HELD,)
    batch = BatchLimits(rows=4096)
    settings: HoldOutSettings

    def __init__(self, settings: HoldOutSettings, catalogue: str) -> None:
        super().__init__(settings)
        told = json.loads(read_file(catalogue, FILE))
        self._slots, self._closed = frozenset(told["slots"]), frozenset(told["closed"])
        self._random = RecordRandom(settings.draw, "hidden values")
        self._drawn: dict[str, bool] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``held``."""
        held = [any(self._hidden(slot) for slot in slots or []) for slots in batch["slots"].to_pylist()]
        return batch.append_column(HELD, pa.array(held, HELD.type))

    def _hidden(self, slot: Mapping[str, Any]) -> bool:
        if slot["name"] not in self._slots:
            return False
        value = slot_value(slot["value"])
        if value not in self._drawn:
            drawn = value not in self._closed and self._random(value).random() < self.settings.share
            self._drawn[value] = drawn
        return self._drawn[value]


def train(settings: TeachingTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Train a tagger for each domain of the requests at ``data``, without those that are ``held``.

    Raises:
        UserError: no request is left, or none has a slot.
    """
    examples: dict[str, dict[str, Example]] = {}
    slots: list[tuple[str, str]] = []
    for row in _rows(data):
        examples.setdefault(row["domain"], {})[row["id"]] = tagged(row, intent=row["intent"] or "")
        slots += [(slot["name"], slot["value"]) for slot in row["slots"] or []]
    if not slots:
        raise UserError(f"teaching: no request at {data} has a slot to learn from; expected annotated requests")
    catalogue = catalogue_of(slots, settings.catalogue)
    # The order of requests decides the taggers' last bits.
    ordered = {domain: dict(sorted(examples[domain].items())) for domain in sorted(examples)}
    every = (example for own in ordered.values() for example in own.values())
    masks = Masks.of(every, catalogue.slots, settings.mask.common)
    copies: dict[str, list[Example]] = {}
    for number in range(settings.mask.copies):
        random = RecordRandom(settings.seed, f"masks {number}")
        for domain, own in ordered.items():
            copies.setdefault(domain, []).extend(
                masked(example, masks, settings.mask.share, random(name))
                for name, example in own.items()
                if any(tag[2:] in catalogue.slots for tag in example.tags)
            )
    model = fit_taggers(
        {domain: list(own.values()) for domain, own in ordered.items()}, catalogue, copies, settings.crf
    )
    requests = sum(map(len, ordered.values()))
    context.report({"step": 0, "requests": float(requests)})
    return {"files": model.files(), "requests": requests, "values": len(catalogue.values)}


def _rows(data: str) -> Iterator[dict[str, Any]]:
    sealed = open_sealed(data)
    more = [HELD.name] if HELD.name in sealed.schema.names else []
    for table in sealed.tables([*_COLUMNS, *more]):
        for row in table.to_pylist():
            if row["domain"] and not row.get(HELD.name):
                yield row
