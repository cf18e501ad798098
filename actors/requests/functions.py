"""The parts of requests in which some are taken for those of a new function: seeds, others, pool and test.

An annotated corpus stands for what the builder of a new function has: ``seeds``, a few of its requests, annotated;
``others``, the annotated requests of the functions that exist; ``pool``, requests without labels, among them the
function's; and ``test``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from gristmill.actors.audio import set_column
from gristmill.actors.nlu.folds import FOLD, TEST
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import REQUEST_FIELDS, SLOT
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

ANNOTATED = 0  # the fold of the annotated requests of other functions
GOLD = (
    pa.field("gold_domain", pa.string()),
    pa.field("gold_intent", pa.string()),
    pa.field("gold_slots", pa.list_(SLOT)),
)
DRAWN = "drawn.json"
NOT_OF_PART = "of another part"
Part = Literal["seeds", "others", "pool", "test"]
_LABELS = ("domain", "intent", "slots", "label_source")
_DOMAIN = pa.field("domain", pa.string())


def _as_name(name: str) -> str:
    """Check the name of a function, which is part of the names of folders and files."""
    if not name or name.strip() != name or name.startswith(".") or not all(one.isprintable() for one in name):
        raise ValueError(f"{name!r}; expected a name of visible characters, without a blank at an end or a leading dot")
    if set(name) & set("/\\:"):
        raise ValueError(f"{name!r}; expected a name without /, \\ and :, as it is part of the names of folders")
    return name


FunctionName = Annotated[str, AfterValidator(_as_name)]


class FunctionSettings(Settings):
    """A new function, as those requests of a corpus that are taken for its own."""

    name: FunctionName
    """Its name, which is that of its domain."""
    intents: tuple[str, ...] = ()
    """The intents of its requests; by default any."""
    domains: tuple[str, ...] = ()
    """The domains of its requests in the corpus; by default any."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.intents and not self.domains:
            raise ValueError(f"{self.name}: neither intents nor domains; expected what its requests are in the corpus")
        return self

    def own(self, domain: str | None, intent: str | None) -> bool:
        """Return whether a request of a domain and an intent of the corpus is its own."""
        return (not self.intents or intent in self.intents) and (not self.domains or domain in self.domains)


def draw_seeds(functions: Sequence[FunctionSettings], count: int, draw: int, url: str) -> dict[str, bytes]:
    """Return the ids of ``count`` requests of each function outside the test, in the order in which they are drawn.

    The first n of them are a draw of n, with one request of each intent first, as long as there are some. ``url`` is
    that of the split requests. Returns the files of an artifact.
    """
    random = RecordRandom(draw, "seeds")
    found: dict[str, list[tuple[float, str, str]]] = {one.name: [] for one in functions}
    for table in open_sealed(url).tables(["id", "domain", "intent", "fold"]):
        for row in table.to_pylist():
            for one in functions:
                if one.own(row["domain"], row["intent"]) and row["fold"] != TEST:
                    number = random(f"{one.name} {row['id']}").random()
                    found[one.name].append((number, row["id"], row["intent"]))
    return {DRAWN: canonical.dumps({name: _first(rows, count) for name, rows in found.items()})}


def _first(rows: list[tuple[float, str, str]], count: int) -> list[str]:
    met: set[str] = set()
    ordered = []
    for number, name, intent in sorted(rows):
        ordered.append((intent in met, number, name))
        met.add(intent)
    return [name for _, _, name in sorted(ordered)[:count]]


def domains_of(name: str, domains: Sequence[str], own: Sequence[bool]) -> list[str]:
    """Return the domain of each request: the function's name for its own, and another one for all others."""
    return [name if mine else f"{one} (others)" if one == name else one for one, mine in zip(domains, own, strict=True)]


class PartSettings(FunctionSettings):
    """One part of the requests, seen from one function."""

    which: Part
    """The part."""
    count: int = Field(ge=1)
    """Annotated requests of the function."""


class TakePart(Actor):
    """Keeps one part of split requests (``fold``: 0 annotated, 1 unlabelled, -1 test) and rejects the others.

    The domain of the function's requests becomes its name; that of another domain of that name is told apart. Those of
    the pool lose their labels, which are kept as ``gold_domain``, ``gold_intent`` and ``gold_slots`` for the report.
    ``drawn``: the artifact of :func:`draw_seeds`.
    """

    name = "part"
    batch = BatchLimits(4096)
    settings: PartSettings

    def __init__(self, settings: PartSettings, drawn: str) -> None:
        super().__init__(settings)
        ids = json.loads(read_file(drawn, DRAWN))[settings.name]
        self._seeds = set(ids[: settings.count])

    @classmethod
    def contract(cls, settings: PartSettings) -> dict[str, Any]:
        """Return the added and dropped columns."""
        if settings.which == "pool":
            return {"adds": GOLD, "drops": (*_LABELS, "fold")}
        return {"adds": (_DOMAIN, FOLD)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason`` where a request is of another part."""
        labels = zip(batch["domain"].to_pylist(), batch["intent"].to_pylist(), strict=True)
        own = [self.settings.own(*label) for label in labels]
        parts = [self._part(*row) for row in zip(batch["id"].to_pylist(), batch["fold"].to_pylist(), own, strict=True)]
        if self.settings.which == "pool":
            for field, name in zip(GOLD, ("domain", "intent", "slots"), strict=True):
                batch = set_column(batch, field.name, batch[name].combine_chunks())
        domains = domains_of(self.settings.name, batch["domain"].to_pylist(), own)
        batch = set_column(batch, _DOMAIN.name, pa.array(domains, _DOMAIN.type))
        reasons = [None if part == self.settings.which else NOT_OF_PART for part in parts]
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))

    def _part(self, name: str, fold: int, own: bool) -> Part:
        if fold == TEST:
            return "test"
        if own:
            return "seeds" if name in self._seeds else "pool"
        return "others" if fold == ANNOTATED else "pool"


class Reveal(Actor):
    """Gives the function's requests of a pool their annotation back, and rejects the others: the most to be gained."""

    name = "reveal"
    batch = BatchLimits(4096)
    adds = (_DOMAIN, *REQUEST_FIELDS[4:6], REQUEST_FIELDS[7])
    settings: FunctionSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``domain``, ``intent``, ``slots`` and ``reject_reason``."""
        labels = zip(batch["gold_domain"].to_pylist(), batch["gold_intent"].to_pylist(), strict=True)
        own = [self.settings.own(*label) for label in labels]
        for field, name in zip(REQUEST_FIELDS[4:6], ("gold_intent", "gold_slots"), strict=True):
            batch = set_column(batch, field.name, batch[name].combine_chunks())
        rows = batch.num_rows
        batch = set_column(batch, _DOMAIN.name, pa.array([self.settings.name] * rows, _DOMAIN.type))
        batch = set_column(batch, "label_source", pa.array(["gold"] * rows, pa.string()))
        reasons = pa.array([None if mine else NOT_OF_PART for mine in own], pa.string())
        return set_column(batch, "reject_reason", reasons)
