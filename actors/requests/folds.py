"""The actor that says which records are for test and which fold of training each other one is in, by its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from gristmill.shards.errors import UserError
from gristmill.shards.stage import BatchLimits, Stage

TEST = -1  # the fold of what no model is trained on
FOLD = pa.field("fold", pa.int32())


def normalised(text: str) -> str:
    """Return a text in small letters, composed alike, without punctuation, its words separated by single spaces.

    Signs within a word stand for nothing (``o'clock`` and ``oclock`` are equal), others for a space.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    kept = "".join(" " if unicodedata.category(sign)[0] in "PSZC" else sign for sign in folded)
    return " ".join(unicodedata.normalize("NFKC", kept).split())


class Folds:
    """Adds ``fold``: -1 for a share of the texts, the others spread evenly over 0 to ``folds`` - 1.

    It is drawn from the run's seed and the normalised text alone, so that equal texts never fall apart. A column
    ``part`` that says "test" decides by itself.
    """

    def __init__(self, folds: int, test_share: float, rng: Callable[[str], np.random.Generator]) -> None:
        self._folds, self._test_share, self._rng = folds, test_share, rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        texts = batch["text"].to_pylist()
        parts = batch["part"].to_pylist() if "part" in batch.column_names else [None] * len(texts)
        folds = [TEST if part == "test" else self._drawn(text or "") for text, part in zip(texts, parts, strict=True)]
        return batch.append_column(FOLD, pa.array(folds, FOLD.type))

    def _drawn(self, text: str) -> int:
        draw = self._rng(normalised(text))
        # The fold is drawn first: another share for test moves no other text to another fold.
        fold = int(draw.integers(self._folds))
        return TEST if draw.random() < self._test_share else fold


def stage(name: str = "folds", *, folds: int = 5, test_share: float = 0.2, drops: tuple[str, ...] = ()) -> Stage:
    """Return the stage; ``folds`` is at least 2, ``test_share`` of the texts from 0 up to but not with 1."""
    if folds < 2 or not 0 <= test_share < 1:
        raise UserError(
            f"folds: {folds} folds and {test_share:g} for test; expected 2 folds or more, and 0 up to but not 1"
        )
    params = {"folds": folds, "test_share": test_share}
    return Stage(
        name, "gristmill.actors.requests.folds:Folds", (FOLD,), drops, params, batch=BatchLimits(1024), seeded=True
    )
