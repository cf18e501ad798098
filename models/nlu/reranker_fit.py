"""Training of one domain's re-ranker independently of the others: the losses of Su et al. (SLT 2018) and their minimum.

A domain is trained on utterances of its own and on a sample of the others', weighted to stand for those left out. The
other domains' hypotheses are scored by earlier weights (by R0 where there are none), without a gradient, so nothing
depends on the order in which domains are trained. With w_u the weight of an utterance,

    R1: sum_u w_u sum_h softmax_u(s)(h) SemER(h), over the whole list of the utterance
    R2: -sum_u w_u sum_h [c log sigmoid(s) + (1 - c) log(1 - sigmoid(s))], over the domain's own hypotheses
    R3: a R1 + R2, where a, which the paper does not give, is 1 unless set

are divided by sum_u w_u, and l2 / 2 ||v - v_0||^2 is added to the sums, where v are the weights without the bias and
v_0 those of R0: a domain with little data stays near the unweighted scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import NonNegativeFloat

from gristmill.models.measures.calibration import log_losses
from gristmill.models.nlu.rerankers import (
    FEATURES,
    MOST_VALUES,
    Categorical,
    Column,
    Context,
    DomainReranker,
    Lists,
    Loss,
    Numeric,
)
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

ITERATIONS = 1000


class FitSettings(Settings):
    """Settings of the fit of a domain's weights."""

    l2: NonNegativeFloat = 1.0
    """Weight of the penalty that keeps weights near those of R0."""
    semer_weight: NonNegativeFloat = 1.0
    """Weight of the expected SemER relative to the cross-entropy in R3."""


@dataclass(frozen=True)
class Sample:
    """Training data of one domain. Own hypotheses (n,) are grouped by utterance; each list has at least one."""

    logs: np.ndarray  # (3, n)
    semer: np.ndarray  # (n,)
    correct: np.ndarray  # (n,) float64, 0 or 1
    starts: np.ndarray  # (lists,) the first own hypothesis of each list
    weight: np.ndarray  # (lists,)
    other: np.ndarray  # (lists,) log of the sum of exp(score) over the other domains' hypotheses
    other_semer: np.ndarray  # (lists,) their SemER, weighted by these
    context: Mapping[str, Column]  # (lists,) each
    total: float  # weight of all utterances, also of those without a hypothesis of this domain

    @property
    def counts(self) -> np.ndarray:
        """Number of own hypotheses in each list, (lists,)."""
        return np.diff(self.starts, append=len(self.semer))


def sample(lists: Lists, domain: str, weight: np.ndarray, rivals: Mapping[str, DomainReranker] | None = None) -> Sample:
    """Return a domain's training data from labelled lists.

    ``weight`` (utterances,) is the weight of each, 0 leaves it out; ``rivals`` are the other domains' weights.
    """
    assert lists.semer is not None
    assert lists.correct is not None
    kept = lists.where(weight[lists.utterance] > 0)
    own = kept.of_domain(domain)
    rest = kept.where(kept.domain != (kept.domains.index(domain) if domain in kept.domains else -1))
    full = np.flatnonzero(np.diff(own.offsets))
    other, other_semer = _other(rest, len(weight), rivals or {})
    return Sample(
        logs=own.logs,
        semer=own.semer,  # type: ignore[arg-type]
        correct=own.correct.astype(np.float64),  # type: ignore[union-attr]
        starts=own.offsets[full],
        weight=weight[full],
        other=other[full],
        other_semer=other_semer[full],
        context={name: column.take(full) for name, column in lists.context.items()},
        total=float(weight.sum()),
    )


def _other(rest: Lists, utterances: int, rivals: Mapping[str, DomainReranker]) -> tuple[np.ndarray, np.ndarray]:
    log_sum, semer = np.full(utterances, -np.inf), np.zeros(utterances)
    full = np.flatnonzero(np.diff(rest.offsets))
    if len(full):
        starts, counts = rest.offsets[full], np.diff(rest.offsets)[full]
        scores = _scores(rest, rivals)
        top = np.maximum.reduceat(scores, starts)
        mass = np.exp(scores - np.repeat(top, counts))
        sums = np.add.reduceat(mass, starts)
        log_sum[full] = top + np.log(sums)
        semer[full] = np.add.reduceat(mass * rest.semer, starts) / sums
    return log_sum, semer


def _scores(lists: Lists, rivals: Mapping[str, DomainReranker]) -> np.ndarray:
    """Return s of each hypothesis by the weights of its domain, by R0 where there are none."""
    scores, utterance = lists.logs.sum(0), lists.utterance
    for place, name in enumerate(lists.domains):
        if name in rivals:
            rows = np.flatnonzero(lists.domain == place)
            own = {key: column.take(utterance[rows]) for key, column in lists.context.items()}
            scores[rows] = rivals[name].scores(lists.logs[:, rows], own)
    return scores


def joined(samples: Sequence[Sample]) -> Sample:
    """Return the samples of several shards as one, in the order given."""
    places = np.cumsum([0, *(len(s.semer) for s in samples)])
    return Sample(
        logs=np.concatenate([s.logs for s in samples], 1),
        semer=np.concatenate([s.semer for s in samples]),
        correct=np.concatenate([s.correct for s in samples]),
        starts=np.concatenate([s.starts + place for s, place in zip(samples, places, strict=False)]),
        weight=np.concatenate([s.weight for s in samples]),
        other=np.concatenate([s.other for s in samples]),
        other_semer=np.concatenate([s.other_semer for s in samples]),
        context={name: _stacked([s.context[name] for s in samples], name) for name in samples[0].context},
        total=float(sum(s.total for s in samples)),
    )


def _stacked(columns: Sequence[Column], name: str) -> Column:
    kinds = {column.names is None for column in columns if not column.empty}
    if len(kinds) > 1:
        raise UserError(f"context column {name!r} has texts in one shard and numbers in another")
    if kinds == {False}:
        names = sorted({name for column in columns for name in column.names or ()})
        lookup = {name: place for place, name in enumerate(names)}
        codes = []
        for column in columns:
            own = np.array([*(lookup[name] for name in column.names or ()), -1])
            codes.append(own[column.values] if column.names is not None else np.full(len(column.values), -1))
        return Column(np.concatenate(codes), tuple(names))
    nothing = [np.full(len(c.values), np.nan) if c.names is not None else c.values for c in columns]
    return Column(np.concatenate(nothing))


def context_specs(columns: Mapping[str, Column]) -> tuple[Context, ...]:
    """Return the encoding of context columns as features, from the values of the training lists, columns by name."""
    return tuple(_spec(name, columns[name]) for name in sorted(columns))


def _spec(name: str, column: Column) -> Context:
    if column.names is not None:
        seen = sorted({column.names[code] for code in np.unique(column.values) if code >= 0})
        if len(seen) > MOST_VALUES:
            raise UserError(
                f"context column {name!r} has {len(seen)} values; expected numbers, or at most {MOST_VALUES} categories"
            )
        return Categorical(name, tuple(seen))
    found = column.values[np.isfinite(column.values)]
    if not len(found):
        return Numeric(name, 0.0, 1.0)
    return Numeric(name, float(found.mean()), float(found.std()) or 1.0)


class Objective:
    """A loss and its gradient over one sample, as a function of the weights and, last, the bias."""

    def __init__(self, given: Sample, specs: Iterable[Context], loss: Loss, settings: FitSettings) -> None:
        self.given, self.l2 = given, settings.l2
        self.expected = {"R1": 1.0, "R2": 0.0, "R3": settings.semer_weight}[loss]  # weight of the expected SemER
        self.entropy = loss in ("R2", "R3")
        self.list = np.repeat(np.arange(len(given.starts)), given.counts)
        own = {name: column.take(self.list) for name, column in given.context.items()}
        rows = [given.logs, *(spec.matrix(own[spec.name]) for spec in specs), np.ones((1, len(given.semer)))]
        self.features = np.concatenate(rows)  # (weights + 1, n)
        self.start = np.zeros(len(self.features))
        self.start[: len(FEATURES)] = 1.0
        self.weight = given.weight[self.list]

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value at weights and bias (weights + 1,), and the gradient there."""
        # Sums along rows, not matrix products: the order of additions in a BLAS may depend on the number of threads.
        s = (point[:, None] * self.features).sum(0)
        away = point - self.start
        away[-1] = 0.0
        value, slope = 0.5 * self.l2 * float((away**2).sum()), np.zeros_like(s)
        if self.expected:
            more, steeper = self._expected_semer(s)
            value, slope = value + self.expected * more, slope + self.expected * steeper
        if self.entropy:
            c = self.given.correct
            value += float((self.weight * (np.logaddexp(0.0, s) - c * s)).sum())
            slope += self.weight * (np.exp(-np.logaddexp(0.0, -s)) - c)
        gradient = (slope * self.features).sum(1) + self.l2 * away
        return value / self.given.total, gradient / self.given.total

    def _expected_semer(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        given, place = self.given, self.list
        top = np.maximum(np.maximum.reduceat(s, given.starts), given.other)
        mass, rest = np.exp(s - top[place]), np.exp(given.other - top)
        whole = np.add.reduceat(mass, given.starts) + rest
        expected = (np.add.reduceat(mass * given.semer, given.starts) + rest * given.other_semer) / whole
        slope = self.weight * mass / whole[place] * (given.semer - expected[place])
        return float((given.weight * expected).sum()), slope


class Fitted(NamedTuple):
    """A domain's weights, and the course of the fit."""

    reranker: DomainReranker
    value: float  # of the objective
    iterations: int


def fit(
    domain: str,
    given: Sample,
    loss: Loss,
    settings: FitSettings | None = None,
    *,
    trained_on: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit a domain's weights by L-BFGS in float64, from those of R0; the same sample gives the same bytes.

    Raises:
        UserError: no hypothesis of the domain is in the sample, or no finite minimum is found (``l2`` of 0 on separable
            hypotheses).
    """
    from scipy.optimize import minimize

    if not len(given.semer):
        raise UserError(
            f"re-ranker of {domain!r}: no hypothesis of this domain is in the training lists; expected at least one: "
            "more requests of it, or longer lists"
        )
    settings = settings or FitSettings()
    specs = context_specs(given.context)
    objective = Objective(given, specs, loss, settings)
    spread = objective.features.std(1)  # in these units one step size suits all weights
    unit = 1.0 / np.where(spread > 0, spread, 1.0)

    def scaled(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(objective.start + point * unit)
        return value, gradient * unit

    found = minimize(
        scaled,
        np.zeros_like(unit),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "maxfun": 4 * ITERATIONS, "ftol": 1e-13, "gtol": 1e-9},
    )
    if found.nit >= ITERATIONS or not np.isfinite(found.x).all():
        raise UserError(
            f"re-ranker of {domain!r}: no minimum of {loss} after {found.nit} iterations; "
            f"expected l2 above {settings.l2}"
        )
    *weights, bias = (objective.start + found.x * unit).tolist()
    made = DomainReranker(domain, loss, tuple(weights), bias, specs, dict(trained_on or {}))
    return Fitted(made, float(found.fun), int(found.nit))


class Gate(NamedTuple):
    """The log loss of a domain's hypotheses under its old and its new weights, and their number."""

    old: float
    new: float
    n: int


def gate(old: DomainReranker, new: DomainReranker, lists: Lists) -> Gate:
    """Compare a domain's new weights with its old ones on labelled lists that neither was trained on.

    Raises:
        UserError: the new ones have the higher log loss, are of another domain, or no hypothesis is of this domain.
    """
    if old.domain != new.domain:
        raise UserError(f"gate: the new weights are of domain {new.domain!r}; expected {old.domain!r}")
    own = lists.of_domain(new.domain)
    assert own.correct is not None
    if not len(own.domain):
        raise UserError(f"gate: no held-out hypothesis is of domain {new.domain!r}; expected at least one")
    context = {name: column.take(own.utterance) for name, column in own.context.items()}
    losses = [
        float(log_losses(np.exp(made.log_confidences(own.logs, context)), own.correct).mean()) for made in (old, new)
    ]
    found = Gate(losses[0], losses[1], len(own.domain))
    if not found.new <= found.old:
        raise UserError(
            f"re-ranker of {new.domain!r}: the held-out log loss of the new weights is {found.new:.4f}, of those "
            f"in use {found.old:.4f} ({found.n} hypotheses); the new weights are rejected"
        )
    return found
