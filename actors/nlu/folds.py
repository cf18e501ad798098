"""The actor that assigns records to the test part and to training folds, by their text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.records import Filter, Record
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

TEST = -1  # the fold of the test part
FOLD = pa.field("fold", pa.int32())
SMALL_DOMAIN = "domain of too few requests"  # a mistyped name is one


def normalised(text: str) -> str:
    """Return a text in lower case and NFKC, without punctuation, its words separated by single spaces.

    Apostrophes are removed (``o'clock`` and ``oclock`` are equal), other punctuation is replaced by a space.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    kept = "".join(" " if unicodedata.category(one)[0] in "PSZC" else one for one in folded)
    return " ".join(unicodedata.normalize("NFKC", kept).split())


class FoldSettings(Settings):
    """Sizes of the test part and the folds."""

    folds: int = Field(5, ge=2)
    """Training folds: a request is read by models trained without its fold."""
    test_share: float = Field(0.2, ge=0, lt=1)
    """Share of the texts in the test part."""


def fold_of(name: str, settings: FoldSettings, draw: Callable[[str], np.random.Generator]) -> int:
    """Return the fold that is drawn by a name: of a text, or of a group that is to be in one fold."""
    drawn = draw(name)
    # The fold is drawn first, so that a change of the test share moves no text between folds.
    fold = int(drawn.integers(settings.folds))
    return TEST if drawn.random() < settings.test_share else fold


class Folds(Actor):
    """Adds ``fold``: -1 for the test part, 0 to ``folds`` - 1, uniformly, for the others.

    It depends only on the run's seed and the normalised text, so that equal texts share a fold. A column ``part`` with
    the value "test" takes precedence.

    Example:
        >>> from gristmill.shards.random import RecordRandom
        >>> folds = Folds(FoldSettings(folds=3), RecordRandom(seed=0, stage="folds"))
        >>> first, second = folds(pa.table({"text": ["Lights on!", "lights on"]}))["fold"].to_pylist()
        >>> first == second
        True
    """

    name = "folds"
    adds = (FOLD,)
    batch = BatchLimits(1024)
    seeded = True
    settings: FoldSettings

    def __init__(self, settings: FoldSettings, rng: Callable[[str], np.random.Generator]) -> None:
        super().__init__(settings)
        self._rng = rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``fold``."""
        texts = batch["text"].to_pylist()
        parts = batch["part"].to_pylist() if "part" in batch.column_names else [None] * len(texts)
        folds = [TEST if part == "test" else self._drawn(text or "") for text, part in zip(texts, parts, strict=True)]
        return batch.append_column(FOLD, pa.array(folds, FOLD.type))

    def _drawn(self, text: str) -> int:
        return fold_of(normalised(text), self.settings, self._rng)


class SmallDomainSettings(Settings):
    """The domains that no model can be trained for."""

    domains: tuple[str, ...]
    """Their names."""


class RejectSmallDomains(Filter):
    """Rejects the requests of domains that have too few to train on without each fold."""

    name = "small_domains"
    columns = ("domain",)
    settings: SmallDomainSettings

    def reason(self, record: Record) -> str | None:
        """Return the reason, if the request's domain is one of them."""
        return SMALL_DOMAIN if record["domain"] in self.settings.domains else None
