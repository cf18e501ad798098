"""Actors that make of a user's own sets what a new function is expanded with: a pool of text, and parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.nlu.annotation import NO_TEXT, split
from gristmill.actors.nlu.folds import FOLD
from gristmill.actors.requests.functions import ANNOTATED, domains_of
from gristmill.actors.sources.sides import sides_of
from gristmill.actors.sources.text import TEXT_SIDES, listed
from gristmill.models.normalise import normalise
from gristmill.shards.errors import RejectRecord
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

_POOL = (pa.field("text", pa.string()), pa.field("tokens", pa.list_(pa.string())))


class PoolSettings(Settings):
    """The texts of a pool."""

    lang: str = "en"
    """Their language."""
    names: tuple[str, ...] = ("text",)
    """The names that the field of the text may have in JSONL."""
    max_words: int = Field(50, ge=1)
    """Maximum words: a longer text is no request."""


class PoolText(Actor):
    """Makes a request without labels of each listed text (:mod:`gristmill.actors.sources.text`), or rejects it."""

    name = "pool_text"
    batch = BatchLimits(2048)
    adds = _POOL
    drops = tuple(name for name in listed(TEXT_SIDES).names if name not in ("id", "text"))
    settings: PoolSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``text`` and ``tokens``, and ``reject_reason``."""
        texts: list[str | None] = []
        reasons: list[str | None] = []
        for row in batch.to_pylist():
            text, reason = self._read(row)
            texts.append(text)
            reasons.append(reason)
        found = [split(text) if text else [] for text in texts]
        most = self.settings.max_words
        reasons = [
            reason or (f"more than {most} words" if len(words) > most else None)
            for reason, words in zip(reasons, found, strict=True)
        ]
        for field, values in zip(_POOL, (texts, found), strict=True):
            batch = set_column(batch, field.name, pa.array(values, field.type))
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))

    def _read(self, row: Mapping[str, Any]) -> tuple[str | None, str | None]:
        if row["problem"]:
            return None, row["problem"]
        try:
            text = normalise(sides_of(row, TEXT_SIDES, [self.settings.names])[0], self.settings.lang)
        except RejectRecord as reject:
            return None, reject.reason
        return (text, None) if text else (None, NO_TEXT)


class OwnPartSettings(Settings):
    """A part of a user's own requests, seen from a new function."""

    name: str = Field(min_length=1)
    """The function, which is its domain."""
    which: Literal["seeds", "others", "test"]
    """What they are: all of the function, all of others, or both by their domain."""


class OwnPart(Actor):
    """Gives the function's requests its name as their domain, and all the fold of what is trained on."""

    name = "own_part"
    batch = BatchLimits(4096)
    adds = (pa.field("domain", pa.string()), FOLD)
    settings: OwnPartSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``domain`` and ``fold``; of others, requests of the function's domain are rejected."""
        name, part = self.settings.name, self.settings.which
        own = [one == name for one in batch["domain"].to_pylist()]
        mine: Sequence[bool] = [True] * len(own) if part == "seeds" else own if part == "test" else [False] * len(own)
        domains = domains_of(name, batch["domain"].to_pylist(), mine)
        batch = set_column(batch, "domain", pa.array(domains, pa.string()))
        batch = set_column(batch, FOLD.name, pa.array([ANNOTATED] * len(own), FOLD.type))
        reasons = [f"of {name} itself" if one and part == "others" else None for one in own]
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))
