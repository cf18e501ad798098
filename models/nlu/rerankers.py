"""Re-rankers: weights, one small file per domain, that make the scores of domains' models comparable.

After Su et al., "A Re-ranker Scheme for Integrating Large Scale NLU Models" (SLT 2018). A hypothesis of domain d has
the features f = (log domain, log intent, log slots score, context...); s = w_d . f + b_d, and its confidence is
sigmoid(s). R0, the unweighted scheme, has s = the sum of the three logs, and its confidence is the product exp(s).
A domain's weights affect the scores of its own hypotheses only, so one domain can be replaced alone.

Scores are computed elementwise over the hypotheses of a batch, in one fixed order of the features, so the score of a
hypothesis is bit for bit independent of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from gristmill.shards import canonical
from gristmill.shards.errors import UserError, with_class

FORMAT = 1
FEATURES = ("log_domain", "log_intent", "log_slots")
UNWEIGHTED = "R0"
Loss = Literal["R1", "R2", "R3"]
LOSSES: tuple[str, ...] = get_args(Loss)
LOG_FLOOR = -100.0  # logarithm of a probability of 0, and of any below e^-100
LOG_SLACK = 1e-3  # by which rounding may lift the logarithm of a probability of 1 above 0
MOST_VALUES = 256  # of a categorical context column


class HypothesisError(ValueError):
    """A list of hypotheses that cannot be scored. It is the fault of one record, which is quarantined (law 6)."""


class Column(NamedTuple):
    """A context column, one value per utterance: numbers (NaN: none), or indices into ``names`` (-1: none)."""

    values: np.ndarray
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, values: Sequence[str | float | bool | None]) -> Column:
        """Make a column of Python values: numbers stay, strings and booleans become categories."""
        if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
            return cls(np.array([np.nan if value is None else value for value in values], np.float64))
        names: dict[str, int] = {}
        texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
        codes = [-1 if text is None else names.setdefault(str(text), len(names)) for text in texts]
        return cls(np.array(codes, np.int64), tuple(names))

    def take(self, places: np.ndarray) -> Column:
        """Return the column of selected utterances."""
        return Column(self.values[places], self.names)

    @property
    def empty(self) -> bool:
        """Whether no utterance has a value, so that the column may be of either kind."""
        return bool(np.isnan(self.values).all() if self.names is None else (self.values < 0).all())


@dataclass(frozen=True)
class Lists:
    """The hypotheses of several utterances, flattened: those of utterance u are at ``offsets[u]:offsets[u + 1]``."""

    offsets: np.ndarray  # (utterances + 1,) int64
    domains: tuple[str, ...]
    domain: np.ndarray  # (hypotheses,) index into domains
    logs: np.ndarray  # (3, hypotheses) float64, in the order of FEATURES
    context: Mapping[str, Column] = field(default_factory=dict)  # (utterances,) each
    semer: np.ndarray | None = None  # (hypotheses,) float64, errors over the reference's length, where labelled
    correct: np.ndarray | None = None  # (hypotheses,) bool, where labelled

    def __post_init__(self) -> None:
        broken = np.isnan(self.logs)
        if broken.any():
            name = self.domains[self.domain[np.argmax(broken.any(0))]]
            raise HypothesisError(f"a hypothesis of domain {name!r} has a score that is no number")
        above = self.logs > LOG_SLACK
        if above.any():
            name = self.domains[self.domain[np.argmax(above.any(0))]]
            raise HypothesisError(
                f"a hypothesis of domain {name!r} has a log-probability of {self.logs.max():.3g}; expected at most 0"
            )
        object.__setattr__(self, "logs", np.maximum(self.logs, LOG_FLOOR))

    @property
    def utterance(self) -> np.ndarray:
        """The utterance of each hypothesis, (hypotheses,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def where(self, kept: np.ndarray) -> Lists:
        """Return the lists with the hypotheses of a mask only; every utterance stays."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self,
            offsets=before[self.offsets],
            domain=self.domain[kept],
            logs=self.logs[:, kept],
            semer=None if self.semer is None else self.semer[kept],
            correct=None if self.correct is None else self.correct[kept],
        )

    def of_domain(self, name: str) -> Lists:
        """Return the lists with the hypotheses of one domain only."""
        place = self.domains.index(name) if name in self.domains else -1
        return self.where(self.domain == place)


@dataclass(frozen=True)
class Categorical:
    """A context column of categories: one-hot over the values seen in training; any other value is all zeros."""

    name: str
    values: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its features."""
        return tuple(f"{self.name}={value}" for value in self.values)

    def matrix(self, column: Column) -> np.ndarray:
        """Return its features, (features, utterances) float64."""
        return (self._places(column) == np.arange(len(self.values))[:, None]).astype(np.float64)

    def term(self, column: Column, weights: Sequence[float]) -> np.ndarray:
        """Return its contribution to a score, (utterances,)."""
        return np.append(weights, 0.0)[self._places(column)]

    def _places(self, column: Column) -> np.ndarray:
        if column.names is None:
            _of_kind(column, self.name, "numbers", "texts")
            return np.full(len(column.values), -1)
        known = {value: place for place, value in enumerate(self.values)}
        return np.array([*(known.get(name, -1) for name in column.names), -1])[column.values]


@dataclass(frozen=True)
class Numeric:
    """A context column of numbers, as (x - mean) / scale; a missing value counts as the mean."""

    name: str
    mean: float
    scale: float

    @property
    def features(self) -> tuple[str, ...]:
        """The name of its feature."""
        return (self.name,)

    def matrix(self, column: Column) -> np.ndarray:
        """Return its feature, (1, utterances) float64."""
        if column.names is not None:
            _of_kind(column, self.name, "texts", "numbers")
            return np.zeros((1, len(column.values)))
        z = (column.values - self.mean) / self.scale
        return np.where(np.isfinite(z), z, 0.0)[None]

    def term(self, column: Column, weights: Sequence[float]) -> np.ndarray:
        """Return its contribution to a score, (utterances,)."""
        return self.matrix(column)[0] * weights[0]


Context = Categorical | Numeric


def _of_kind(column: Column, name: str, held: str, wanted: str) -> None:
    if not column.empty:
        raise UserError(f"context column {name!r} has {held}; the re-ranker was trained on {wanted}")


@dataclass(frozen=True)
class DomainReranker:
    """The weights of one domain, in the order of ``features``."""

    domain: str
    loss: str
    weights: tuple[float, ...]
    bias: float = 0.0
    context: tuple[Context, ...] = ()
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unweighted(cls, domain: str) -> DomainReranker:
        """Return R0: all three scores have weight 1."""
        return cls(domain, UNWEIGHTED, (1.0,) * len(FEATURES))

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its features: the three logarithms, then those of the context."""
        return FEATURES + tuple(name for spec in self.context for name in spec.features)

    def scores(self, logs: np.ndarray, context: Mapping[str, Column]) -> np.ndarray:
        """Return s of hypotheses, all of this domain: logs (3, n), context (n,) a column; (n,) float64."""
        total = np.full(logs.shape[1], self.bias)
        for weight, row in zip(self.weights, logs, strict=False):
            total += weight * row
        place = len(FEATURES)
        for spec in self.context:
            if spec.name not in context:
                raise UserError(
                    f"the re-ranker of {self.domain!r} needs the context column {spec.name!r}, which is missing"
                )
            end = place + len(spec.features)
            total += spec.term(context[spec.name], self.weights[place:end])
            place = end
        return total

    def log_confidences(self, logs: np.ndarray, context: Mapping[str, Column]) -> np.ndarray:
        """Return the natural logarithms of the confidences, (n,): of the product in R0, of sigmoid(s) otherwise."""
        s = self.scores(logs, context)
        return np.minimum(s, 0.0) if self.loss == UNWEIGHTED else -np.logaddexp(0.0, -s)

    def to_bytes(self) -> bytes:
        """Return the weights as a file: one line of JSON, the same bytes for the same weights."""
        body = {
            "format": FORMAT,
            "domain": self.domain,
            "loss": self.loss,
            "features": list(self.features),
            "weights": list(self.weights),
            "bias": self.bias,
            "context": [context_json(spec) for spec in self.context],
            "trained_on": dict(self.trained_on),
        }
        return canonical.dumps(body) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> DomainReranker:
        """Read a file; ``source`` names it in errors.

        Raises:
            UserError: it is not a re-ranker's file, or one of another format or another set of features.
        """
        try:
            body = json.loads(data)
            form = body["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{source}: not a re-ranker's file; expected JSON with a format number") from None
        if form != FORMAT:
            raise UserError(f"{source}: the re-ranker's file is of format {form}, this version reads format {FORMAT}")
        try:
            specs = tuple(context_of(given) for given in body["context"])
            weights = tuple(float(weight) for weight in body["weights"])
            names = tuple(body["features"])
            made = cls(body["domain"], body["loss"], weights, float(body["bias"]), specs, body["trained_on"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{source}: the re-ranker's file is damaged ({with_class(error)})") from None
        if names != made.features or len(weights) != len(names):
            raise UserError(
                f"{source}: {len(weights)} weights for the features {', '.join(names)}; "
                f"this version computes {', '.join(made.features)}"
            )
        if made.loss not in (UNWEIGHTED, *LOSSES) or not np.isfinite([made.bias, *weights]).all():
            raise UserError(f"{source}: the re-ranker's file is damaged (loss {made.loss}, or a weight not a number)")
        return made


def context_json(spec: Context) -> dict[str, Any]:
    """Return the JSON of a context column's features; :func:`context_of` is the inverse."""
    if isinstance(spec, Categorical):
        return {"kind": "categorical", "name": spec.name, "values": list(spec.values)}
    return {"kind": "numeric", "name": spec.name, "mean": spec.mean, "scale": spec.scale}


def context_of(given: Mapping[str, Any]) -> Context:
    """Return the features of :func:`context_json`; other JSON is a :class:`KeyError` or :class:`ValueError`."""
    if given["kind"] == "categorical":
        return Categorical(given["name"], tuple(given["values"]))
    if given["kind"] == "numeric":
        return Numeric(given["name"], float(given["mean"]), float(given["scale"]))
    raise ValueError(f"context of kind {given['kind']}")


class Ranked(NamedTuple):
    """A hypothesis in its ranked list: its index in the original list, and its confidence."""

    place: int
    confidence: float


class ListScores(NamedTuple):
    """Scores of a batch of lists, to rank them by."""

    confidence: np.ndarray  # (hypotheses,) float32
    key: np.ndarray  # (hypotheses,) float64: logarithms of the confidences, which keep those near 0 and 1 distinct
    best: np.ndarray  # (utterances,) int32: the index in its list, the first of equals; -1: the list is empty


class Reranker:
    """The weights of all domains. Immutable; :meth:`replaced` returns a copy with one domain's weights replaced.

    Example:
        >>> given = [("music", -0.1, -0.7), ("video", -0.4, -0.2)]
        >>> lists = [{"domain": d, "domain_logprob": a, "intent_logprob": b, "slots_logprob": 0.0} for d, a, b in given]
        >>> reranker = Reranker.unweighted(["music", "video"])
        >>> [(one.place, round(one.confidence, 2)) for one in reranker.rank(lists)]
        [(1, 0.55), (0, 0.45)]
    """

    def __init__(self, domains: Iterable[DomainReranker]) -> None:
        self.domains = {made.domain: made for made in domains}

    @classmethod
    def unweighted(cls, domains: Iterable[str]) -> Reranker:
        """Return R0 for the given domains."""
        return cls(DomainReranker.unweighted(name) for name in domains)

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Reranker:
        """Read one file per domain, each under its name in error messages.

        Raises:
            UserError: as :meth:`DomainReranker.from_bytes`, and where two files are of one domain or there is none.
        """
        if not files:
            raise UserError("re-ranker: there is no weights file; expected one per domain")
        sources: dict[str, str] = {}
        read = []
        for source, data in sorted(files.items()):
            made = DomainReranker.from_bytes(data, source)
            if made.domain in sources:
                raise UserError(f"{source}: has the weights of {made.domain!r}, as {sources[made.domain]} does")
            sources[made.domain] = source
            read.append(made)
        return cls(read)

    def replaced(self, new: DomainReranker) -> Reranker:
        """Return the re-ranker with one domain's weights replaced or added."""
        return Reranker({**self.domains, new.domain: new}.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """The context columns required."""
        return tuple(sorted({spec.name for made in self.domains.values() for spec in made.context}))

    def score(self, lists: Lists) -> ListScores:
        """Return the scores of a batch of lists.

        Raises:
            HypothesisError: a hypothesis is of a domain without weights.
            UserError: a context column is missing or of another kind.
        """
        # By domain, so that each one's weights apply to arrays of its own hypotheses; 16 bits are sorted by radix.
        order = np.argsort(lists.domain.astype(np.uint16), kind="stable")
        logs, utterance = lists.logs.take(order, 1), lists.utterance.take(order)
        counts = np.bincount(lists.domain, minlength=len(lists.domains))
        ends = np.cumsum(counts)
        needed = [name for name in self.columns if name in lists.context]
        parts = np.empty(len(order))
        for name, start, end in zip(lists.domains, ends - counts, ends, strict=True):
            if start == end:
                continue
            if name not in self.domains:
                known = ", ".join(sorted(self.domains))
                raise HypothesisError(f"a hypothesis is of domain {name!r}, which has no re-ranker; there are: {known}")
            own = {column: lists.context[column].take(utterance[start:end]) for column in needed}
            parts[start:end] = self.domains[name].log_confidences(logs[:, start:end], own)
        key = np.empty_like(parts)
        key[order] = parts
        return ListScores(np.exp(key).astype(np.float32), key, best_of(key, lists.offsets))

    def rank(
        self, hypotheses: Sequence[Mapping[str, Any]], context: Mapping[str, str | float | bool | None] | None = None
    ) -> list[Ranked]:
        """Rank one utterance's hypotheses, best first and the earlier of equals first.

        A hypothesis is a mapping as in records: ``domain``, ``domain_logprob``, ``intent_logprob`` and
        ``slots_logprob``. The numbers are exactly those of a batch, which stores scores and confidences as float32.
        """
        names = list(dict.fromkeys(h["domain"] for h in hypotheses))
        keys = ("domain_logprob", "intent_logprob", "slots_logprob")
        lists = Lists(
            offsets=np.array([0, len(hypotheses)]),
            domains=tuple(names),
            domain=np.array([names.index(h["domain"]) for h in hypotheses], np.int64),
            logs=np.array([[h[key] for h in hypotheses] for key in keys], np.float32).astype(np.float64),
            context={name: Column.of([value]) for name, value in (context or {}).items()},
        )
        scores = self.score(lists)
        order = np.argsort(-scores.key, kind="stable")
        return [Ranked(int(place), float(scores.confidence[place])) for place in order]


def best_of(key: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the index in its list of each utterance's highest key, the first of equals; -1 where the list is empty.

    ``key`` (hypotheses,), ``offsets`` (utterances + 1,); (utterances,) int32.
    """
    best = np.full(len(offsets) - 1, -1, np.int32)
    full = np.flatnonzero(np.diff(offsets))
    if len(full):
        starts = offsets[full]
        top = np.maximum.reduceat(key, starts)
        hits = np.flatnonzero(key == np.repeat(top, np.diff(offsets)[full]))
        best[full] = hits[np.searchsorted(hits, starts)] - starts
    return best
