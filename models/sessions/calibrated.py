"""A small classifier whose outputs are probabilities: logistic regression with a calibration that is cross-fitted.

Features of examples of one group (a session, a meaning) are alike, so a group is in one fold as a whole. Each fold's
log-odds come from a fit without it; on them Platt's two parameters are fitted (Platt 1999), and what is told of the
model (area under the ROC curve, expected calibration error) is measured. The model itself is fitted on all examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from pydantic import Field
from scipy import sparse

from gristmill.models.measures.calibration import ece
from gristmill.models.measures.discrimination import auc
from gristmill.models.nlu.logistic import logistic
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

FORMAT = 1
_MOST = 30.0  # log-odds
_FREE = 1e3  # inverse regularisation of Platt's two parameters: next to none


class CalibratedSettings(Settings):
    """The fit of a calibrated classifier."""

    c: float = Field(1.0, gt=0)
    """Inverse regularisation."""
    products: bool = False
    """Whether products of two features are features too."""
    folds: int = Field(5, ge=2)
    """Folds of the cross-fitted calibration."""
    seed: int = 0
    """Seed of the dealing of groups to folds."""


@dataclass(frozen=True)
class CalibratedModel:
    """The classifier: standardised features, weights, and the slope and offset of its calibration."""

    features: tuple[str, ...]
    products: bool
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float
    slope: float = 1.0
    offset: float = 0.0

    def log_odds(self, rows: np.ndarray) -> np.ndarray:
        """Return the calibrated log-odds of rows of features, (n,)."""
        # Row by row, so that a row's bytes do not depend on the batch that it is in.
        given = _expanded((rows - self.mean) * self.scale, self.products)
        raw = (given * self.weights).sum(1) + self.bias if len(rows) else np.zeros(0)
        return np.clip(self.slope * raw + self.offset, -_MOST, _MOST)

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return the probabilities of rows of features, (n,) float64."""
        return 1 / (1 + np.exp(-self.log_odds(rows)))

    def described(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        return {
            "format": FORMAT,
            "features": list(self.features),
            "products": self.products,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias,
            "slope": self.slope,
            "offset": self.offset,
        }

    @classmethod
    def from_described(cls, given: Mapping[str, Any], features: Sequence[str]) -> Self:
        """Return the model of JSON values.

        Raises:
            UserError: it is of another format, or of other features.
        """
        if given.get("format") != FORMAT or given.get("features") != list(features):
            raise UserError(
                f"model: format {given.get('format')} of {len(given.get('features', ()))} features; expected "
                f"{FORMAT}, of {', '.join(features)}"
            )
        mean, scale, weights = (np.array(given[name], np.float64) for name in ("mean", "scale", "weights"))
        bias, slope, offset = (float(given[name]) for name in ("bias", "slope", "offset"))
        return cls(tuple(features), bool(given["products"]), mean, scale, weights, bias, slope, offset)


@dataclass(frozen=True)
class CalibratedFit:
    """A fitted model, and the probability of each example by a fit without its fold."""

    model: CalibratedModel
    held_out: np.ndarray
    auc: float
    ece: float


def fit_calibrated(
    rows: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    features: Sequence[str],
    settings: CalibratedSettings,
    weights: np.ndarray | None = None,
) -> CalibratedFit:
    """Fit to rows of features (n, features) with labels (n,) bool; ``groups`` (n,) are not torn apart.

    ``weights`` (n,) are those of the examples; measures of the fit are without them.

    Raises:
        UserError: examples of one kind only, or too few of either.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(400, 2))
        >>> labels = rows[:, 0] + rng.normal(size=400) > 0
        >>> made = fit_calibrated(rows, labels, [str(n // 4) for n in range(400)], ("a", "b"), CalibratedSettings())
        >>> made.auc > 0.8, made.ece < 0.1
        (True, True)
    """
    labels = np.asarray(labels, bool)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)

    def fit(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
        return _fit(rows[inside], labels[inside], features, settings, weights[inside]).log_odds(rows[outside])

    found = cross_calibrate(fit, labels, groups, settings.folds, settings.seed, weights)
    model = replace(_fit(rows, labels, features, settings, weights), slope=found.slope, offset=found.offset)
    return CalibratedFit(model, found.held_out, auc(found.held_out, labels), ece(found.held_out, labels))


@dataclass(frozen=True)
class CrossCalibration:
    """Platt's two parameters, and the calibrated probability of each example by a fit without its fold, (n,)."""

    slope: float
    offset: float
    held_out: np.ndarray


def cross_calibrate(
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    labels: np.ndarray,
    groups: Sequence[str],
    folds: int,
    seed: int = 0,
    weights: np.ndarray | None = None,
    said: str = "examples are positive",
) -> CrossCalibration:
    """Return the calibration of a classifier of examples with labels (n,) bool; ``groups`` (n,) are not torn apart.

    ``fit(inside, outside)`` fits to the examples of the one mask, (n,) bool, and returns the log-odds of those of the
    other. ``weights`` (n,) are those of the examples; ``said`` is what errors say of labels.

    Raises:
        UserError: examples of one kind only, or too few of either.

    Example:
        >>> scores = np.tile([-3.0, 3.0, 3.0], 20)  # a third of what it is sure of is wrong
        >>> labels = np.tile([False, True, False], 20)
        >>> names = [str(n // 3) for n in range(60)]
        >>> made = cross_calibrate(lambda inside, outside: scores[outside], labels, names, 5)
        >>> made.held_out[:2].round(2).tolist()
        [0.0, 0.5]
    """
    fold = deal_groups(groups, folds, seed)
    least = min((int((labels == kind).sum()) for kind in (True, False)), default=0)
    if least < folds:
        raise UserError(
            f"fit: {int(labels.sum())} of {len(labels)} {said}; expected {folds} or more of each kind, "
            "one for each fold"
        )
    raw = np.zeros(len(labels))
    for number in np.unique(fold):
        outside = fold == number
        if len({*labels[~outside].tolist()}) < 2:
            raise UserError(f"fit: without fold {number} all examples are of one kind; expected more groups")
        raw[outside] = fit(~outside, outside)
    found, bias, _ = logistic(sparse.csr_array(raw[:, None]), labels, _FREE, "lbfgs", 200, weights)
    slope, offset = float(found[0, 1]), float(bias[-1])
    return CrossCalibration(slope, offset, 1 / (1 + np.exp(-np.clip(slope * raw + offset, -_MOST, _MOST))))


def deal_groups(groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold of each example: groups are drawn by name, as long as there are enough of them."""
    random = RecordRandom(seed, "calibration folds")
    names = sorted(set(groups), key=lambda name: (random(name).random(), name))
    of = {name: place % folds for place, name in enumerate(names)}
    return np.array([of[name] for name in groups])


def _fit(
    rows: np.ndarray, labels: np.ndarray, features: Sequence[str], settings: CalibratedSettings, weights: np.ndarray
) -> CalibratedModel:
    mean, spread = rows.mean(0), rows.std(0)
    scale = 1 / np.where(spread > 1e-6, spread, 1.0)
    given = sparse.csr_array(_expanded((rows - mean) * scale, settings.products))
    found, bias, _ = logistic(given, labels, settings.c, "lbfgs", 500, weights)
    return CalibratedModel(tuple(features), settings.products, mean, scale, found[:, 1], float(bias[-1]))


def _expanded(rows: np.ndarray, products: bool) -> np.ndarray:
    if not products:
        return rows
    rows = np.clip(rows, -4, 4)
    left, right = np.triu_indices(rows.shape[1])
    return np.concatenate([rows, rows[:, left] * rows[:, right]], axis=1)
