"""Whether to offer another goal at all: the probability that an offer is accepted where it is made.

A logistic regression on the situation (the goal that is open and the one offered, calls and offers so far, how long ago
the last call was, which slots are known) and on the words of the user's last text. Its log-odds are calibrated by what
it says of offers of sessions that it was not trained on (:mod:`gristmill.models.sessions.calibrated`): of its own it is
too sure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.special import expit

from gristmill.models.nlu.logistic import logistic
from gristmill.models.sessions.calibrated import cross_calibrate
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

MODEL = "trigger.json"
FORMAT = 1
COUNTS = ("calls", "offers", "declined", "since_call", "open_turns")
_MOST = 8  # counts above it are one
_PRIOR = 5.0  # offers that the rate of a goal is smoothed with


class TriggerSettings(Settings):
    """The model of whether an offer is accepted."""

    c: float = Field(0.03, gt=0)
    """Inverse regularisation."""
    words: bool = True
    """Whether the words of the user's last text are read."""
    least: int = Field(3, ge=1)
    """Fewest offers with a feature."""
    folds: int = Field(5, ge=2)
    """Parts of the sessions for calibration."""


def offer_features(offer: Mapping[str, Any], words: bool = True) -> Iterator[str]:
    """Yield the features of an offer: ``goal``, ``offered``, ``service``, ``text``, ``known`` and counts.

    Example:
        >>> list(offer_features({"goal": "Find", "offered": "Book", "calls": 2, "text": "fine"}, words=False))
        ['offered=Book', 'pair=Find Book', 'calls=2', 'calls=2 Book']
    """
    offered = offer.get("offered") or ""
    yield f"offered={offered}"
    yield f"pair={offer.get('goal') or ''} {offered}"
    if offer.get("service"):
        yield f"service={offer['service']}"
    for name in COUNTS:
        count = offer.get(name)
        if count is not None:
            yield f"{name}={min(int(count), _MOST)}"
            yield f"{name}={min(int(count), _MOST)} {offered}"
    if offer.get("known") is not None:
        yield f"known={min(len(offer['known']), _MOST)}"
        yield from (f"knows={name}" for name in sorted(set(offer["known"])))
    if words:
        said = (offer.get("text") or "").lower().split()
        yield from dict.fromkeys([f"w={word}" for word in said] + [f"w={one} {other}" for one, other in pairwise(said)])


class TriggerModel:
    """The weights of features by name, the bias, and the scale and shift of log-odds."""

    def __init__(self, weights: Mapping[str, float], bias: float, scale: float, shift: float, words: bool) -> None:
        self.weights, self.bias, self.scale, self.shift, self.words = dict(weights), bias, scale, shift, words

    def log_odds(self, offers: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return the calibrated log-odds (offers,) that each is accepted."""
        sums = [sum(self.weights.get(name, 0.0) for name in offer_features(one, self.words)) for one in offers]
        return self.scale * (np.array(sums, np.float64) + self.bias) + self.shift

    def probability(self, offers: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return the probability (offers,) float32 that each is accepted."""
        return expit(self.log_odds(offers)).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """Return the model's file."""
        told = {"format": FORMAT, "bias": self.bias, "scale": self.scale, "shift": self.shift, "words": self.words}
        return {MODEL: canonical.dumps(told | {"weights": self.weights})}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> TriggerModel:
        """Return the model of its file.

        Raises:
            UserError: it is of another format.
        """
        told = json.loads(files[MODEL])
        if told.get("format") != FORMAT:
            raise UserError(f"trigger: {MODEL} is of another format; expected that of a model of offers")
        return cls(told["weights"], told["bias"], told["scale"], told["shift"], told["words"])


def fit_trigger(
    offers: Sequence[Mapping[str, Any]], accepted: np.ndarray, sessions: Sequence[str], settings: TriggerSettings
) -> TriggerModel:
    """Fit the model on offers and whether each was accepted, (offers,) bool.

    Raises:
        UserError: too few were accepted, or too few were not.
    """

    def fit(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
        model = _plain([offers[row] for row in np.flatnonzero(inside).tolist()], accepted[inside], settings)
        return model.log_odds([offers[row] for row in np.flatnonzero(outside).tolist()])

    found = cross_calibrate(fit, accepted, sessions, settings.folds, said="offers were accepted")
    whole = _plain(offers, accepted, settings)
    whole.scale, whole.shift = found.slope, found.offset
    return whole


def _plain(offers: Sequence[Mapping[str, Any]], accepted: np.ndarray, settings: TriggerSettings) -> TriggerModel:
    found = [list(offer_features(one, settings.words)) for one in offers]
    counts = Counter(name for names in found for name in names)
    names = sorted(name for name, count in counts.items() if count >= settings.least)
    place = {name: column for column, name in enumerate(names)}
    columns = [sorted(place[name] for name in own if name in place) for own in found]
    ends = np.cumsum([0, *map(len, columns)]).astype(np.int32)
    indices = np.array([column for own in columns for column in own], np.int32)
    rows = sparse.csr_array((np.ones(len(indices)), indices, ends), shape=(len(offers), len(names)))
    weights, bias, _ = logistic(rows, accepted.astype(int), settings.c, "liblinear", 500)
    own_weights = dict(zip(names, weights[:, 1].tolist(), strict=True))
    return TriggerModel(own_weights, float(bias[1]), 1.0, 0.0, settings.words)


def rate_trigger(offers: Sequence[Mapping[str, Any]], accepted: np.ndarray) -> TriggerModel:
    """Return the baseline: the share of offers of each goal that were accepted, smoothed by that of all.

    Example:
        >>> offers = [{"offered": "Book"}, {"offered": "Book"}, {"offered": "Play"}]
        >>> rate_trigger(offers, np.array([True, True, False])).probability(offers).round(2)
        array([0.76, 0.76, 0.56], dtype=float32)
    """
    share = min(max(float(accepted.mean()), 1e-6), 1 - 1e-6)
    counts: dict[str, list[int]] = {}
    for offer, yes in zip(offers, accepted.tolist(), strict=True):
        own = counts.setdefault(offer.get("offered") or "", [0, 0])
        own[0] += yes
        own[1] += 1
    bias = float(np.log(share / (1 - share)))
    weights = {}
    for name, (yes, all_) in counts.items():
        rate = (yes + _PRIOR * share) / (all_ + _PRIOR)
        weights[f"offered={name}"] = float(np.log(rate / (1 - rate))) - bias
    return TriggerModel(weights, bias, 1.0, 0.0, words=False)
