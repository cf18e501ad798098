"""How long the utterances were that a recogniser was trained on, and so what it can hear as one."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gristmill.pipelines.finished import Finished, read_finished
from gristmill.shards import store
from gristmill.shards.dataset import find_sealed
from gristmill.shards.errors import Damaged

SETTINGS = "settings.json"
"""The file of a published model that tells the mean length."""
MEAN_LENGTH = "mean_utterance_seconds"
"""Its key there."""
TRAINED_ON = ("labelled", "unlabelled", "transcribed")  # sets of a run
UNKNOWN = 10.0  # s of a recording that is one utterance if nothing tells what the model was trained on
# A model trained on requests of 2.5 s makes five times the errors where two are in one recording, and more in longer
# ones (benchmarks/RESULTS.md).
_TIMES = 2.0
_LEAST, _MOST = 4.0, 30.0  # s


@dataclass(frozen=True)
class Lengths:
    """The lengths that a model is used to."""

    mean: float | None
    """Of the utterances that it was trained on, s, if that is known."""

    @property
    def whole(self) -> float:
        """Length of a recording up to which it is one utterance, s."""
        return UNKNOWN if self.mean is None else min(max(_TIMES * self.mean, _LEAST), _MOST)

    def describe(self) -> str:
        """Return what is cut and why, in words."""
        why = (
            "it is not known how long the utterances were that the model was trained on"
            if self.mean is None
            else f"the model was trained on utterances of {self.mean:.1f} s on average"
        )
        return f"recordings of over {self.whole:.1f} s are cut into utterances: {why}"


def lengths_of(model: str) -> Lengths:
    """Return the lengths of a model's training, as its published folder or the finished run that made it tells."""
    path = store.join(model, SETTINGS)
    if store.exists(path):
        return Lengths(_told(store.read_bytes(path)))
    try:
        run = read_finished(posixpath.dirname(posixpath.dirname(model)))
        if run is not None and any(model in urls for urls in run.trained.values()):
            return Lengths(mean_length(sizes_of(run, TRAINED_ON)))
    except Damaged:  # the model is told of by what is beside it, and can be used without
        pass
    return Lengths(None)


def _told(settings: bytes) -> float | None:
    try:
        found = json.loads(settings)
    except ValueError:  # another tool's
        return None
    mean = found.get(MEAN_LENGTH) if isinstance(found, dict) else None
    return mean if isinstance(mean, int | float) and mean > 0 else None


def mean_length(sizes: Mapping[str, tuple[int, float]]) -> float | None:
    """Return the mean length of the utterances in the sets of speech that are trained on, s.

    Example:
        >>> mean_length({"labelled": (100, 0.1), "unlabelled": (200, 0.2), "test": (10, 9.0)})
        3.6
    """
    found = [sizes[name] for name in TRAINED_ON if name in sizes]
    records, hours = sum(size[0] for size in found), sum(size[1] for size in found)
    return round(hours * 3600 / records, 3) if records and hours else None


def sizes_of(run: Finished, names: Iterable[str]) -> dict[str, tuple[int, float]]:
    """Return the records and hours of sets of speech of a run, by their seals; of those that are there."""
    sealed = {name: find_sealed(run.sets[name][0]) for name in names if name in run.sets}
    return {name: (one.records, one.total("duration") / 3600) for name, one in sealed.items() if one is not None}
