"""Domain models: the interface of all families, and the readings of a request by several domains.

A domain reads a request with three models of its own, trained without the other domains: domain (one against all),
intent and slots. A family stores them in at most three files, ``model.json`` and those it names; none is a pickle.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args

import numpy as np
from pydantic import PositiveFloat

from gristmill.models.normalise import joined
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

FORMAT = 1
FamilyName = Literal["linear", "neural"]
FAMILIES: tuple[str, ...] = get_args(FamilyName)
OUTSIDE = "O"


class Slot(NamedTuple):
    """A slot: its name, its value, and its tokens from ``start`` up to and excluding ``end``."""

    name: str
    value: str
    start: int
    end: int


class Reading(NamedTuple):
    """A domain's reading of a request; natural logarithms, rounded to float32."""

    intent: str
    slots: tuple[Slot, ...]
    domain_logprob: float
    intent_logprob: float
    slots_logprob: float

    @property
    def total(self) -> float:
        """The unweighted score: the sum of the three."""
        return self.domain_logprob + self.intent_logprob + self.slots_logprob


class Example(NamedTuple):
    """A training example of a domain: one tag per token (see :func:`to_iob`)."""

    tokens: Sequence[str]
    intent: str
    tags: Sequence[str]


class FamilySettings(Settings):
    """Settings of every family's training; each family has a subclass."""

    family: ClassVar[str] = ""

    negatives: PositiveFloat | None = 6.0
    """Requests of other domains per request of the domain (``None``: all). With fewer, a domain claims more."""

    def identity(self) -> dict[str, Any]:
        """Return the part that a fingerprint covers, with the family: two families may both be at their defaults."""
        return {"family": self.family} | super().identity()


class Scores(Protocol):
    """The scores of one family's models for a batch of requests."""

    domain: np.ndarray  # (requests, models) float32
    intents: list[np.ndarray]  # of each model, (requests, its intents) float32

    def slots(self, row: int, place: int) -> tuple[tuple[Slot, ...], float]:
        """Return a model's slots of a request and their log-probability, computed on demand."""
        ...


class Scorer(Protocol):
    """Several models of one family, which share common computations."""

    def __call__(self, tokens: Sequence[Sequence[str]], vectors: np.ndarray | None = None) -> Scores:
        """Return the scores of a batch of requests, token lists; ``vectors`` are their sentence embeddings."""
        ...


class DomainModel(Protocol):
    """The three models of one domain."""

    family: ClassVar[str]
    domain: str
    intents: tuple[str, ...]  # sorted

    def files(self) -> dict[str, bytes]:
        """Return the model's files by name; the same model gives the same bytes."""
        ...

    @classmethod
    def from_files(cls, described: Mapping[str, Any], files: Mapping[str, bytes]) -> DomainModel:
        """Return the model described by ``model.json``."""
        ...

    @classmethod
    def together(cls, models: Sequence[Any]) -> Scorer:
        """Return a scorer of several models of this family."""
        ...


class Domains:
    """Models of different domains, of one family or several, that read requests together.

    A domain's readings depend only on its own model and the request.
    """

    def __init__(self, models: Iterable[DomainModel]) -> None:
        self._models = sorted(models, key=lambda model: model.domain)
        names = [model.domain for model in self._models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise UserError(f"domain models: {twice or 'none'} given; expected one model per domain")
        self.names = tuple(names)
        families: dict[type, list[int]] = {}
        for place, model in enumerate(self._models):
            families.setdefault(type(model), []).append(place)
        self._groups = [
            (places, kind.together([self._models[place] for place in places]))  # type: ignore[attr-defined]
            for kind, places in families.items()
        ]

    def read(
        self, tokens: Sequence[Sequence[str]], n: int, intents: int = 3, vectors: np.ndarray | None = None
    ) -> list[list[tuple[str, Reading]]]:
        """Return the ``n`` best readings of each request with their domains, best first.

        ``vectors`` are the requests' sentence embeddings, for models that read them. A domain gives at most ``intents``
        readings. They are ordered by the sum of the three log-probabilities, ties by domain and intent.
        """
        if n < 1 or intents < 1:
            raise UserError(f"readings: n {n} and intents {intents}; expected 1 or more of each")
        if not tokens:
            return []
        domain = np.empty((len(tokens), len(self._models)), np.float32)
        best: list[tuple[np.ndarray, np.ndarray]] = [(domain, domain)] * len(self._models)
        scored: list[tuple[Scores, int]] = [(None, 0)] * len(self._models)  # type: ignore[list-item]
        for places, scorer in self._groups:
            scores = scorer(tokens, vectors)
            domain[:, places] = scores.domain
            for i, place in enumerate(places):
                # Stable: intents are sorted, so that of equal ones the first by name is kept.
                order = np.argsort(-scores.intents[i], axis=1, kind="stable")[:, :intents]
                best[place] = order, np.take_along_axis(scores.intents[i], order, axis=1)
                scored[place] = scores, i
        # Slots never add to a sum of logarithms: a reading whose other two are below the n-th best cannot come in.
        bounds = domain.astype(np.float64) + np.stack([values[:, 0] for _, values in best], axis=1)
        out = []
        for row, order in enumerate(np.argsort(-bounds, axis=1, kind="stable").tolist()):
            found: list[tuple[float, str, str, Reading]] = []
            for place in order:
                if len(found) >= n and -bounds[row, place] > found[n - 1][0]:
                    break
                model, (scores, i) = self._models[place], scored[place]
                slots, slots_logprob = scores.slots(row, i)
                which, values = best[place]
                for intent, value in zip(which[row].tolist(), values[row].tolist(), strict=True):
                    reading = Reading(model.intents[intent], slots, float(domain[row, place]), value, slots_logprob)
                    bisect.insort(found, (-reading.total, model.domain, reading.intent, reading))
                del found[n:]
            out.append([(name, reading) for _, name, _, reading in found])
        return out


def predict(model: DomainModel, tokens: Sequence[Sequence[str]], intents: int = 3) -> list[list[Reading]]:
    """Return up to ``intents`` readings of each request by one domain, best first."""
    return [[reading for _, reading in found] for found in Domains([model]).read(tokens, intents, intents)]


def describe(model: DomainModel, **more: Any) -> bytes:
    """Return ``model.json`` of a model."""
    common = {"format": FORMAT, "family": model.family, "domain": model.domain, "intents": list(model.intents)}
    return canonical.dumps(common | more)


def to_iob(length: int, spans: Iterable[tuple[str, int, int]]) -> list[str]:
    """Return the tags of ``length`` tokens from (name, start, end): ``B-name`` begins a slot, ``I-name`` continues it.

    Spans that exceed the tokens, or begin inside an earlier one, are left out.
    """
    tags = [OUTSIDE] * length
    free = 0
    for start, end, name in sorted((start, end, name) for name, start, end in spans):
        if free <= start < end <= length:
            tags[start:end] = [f"B-{name}", *[f"I-{name}"] * (end - start - 1)]
            free = end
    return tags


def from_iob(tokens: Sequence[str], tags: Sequence[str]) -> tuple[Slot, ...]:
    """Return the slots marked by tags; an ``I-`` that continues nothing begins a slot."""
    slots: list[Slot] = []
    name, start = "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        kind, _, now = tag.partition("-")
        if name and (kind != "I" or now != name):
            slots.append(Slot(name, joined(tokens[start:place]), start, place))
            name = ""
        if not name and now:
            name, start = now, place
    return tuple(slots)


def log_sigmoid(values: np.ndarray) -> np.ndarray:
    """Return log(1 / (1 + exp(-values))), float64."""
    return -np.logaddexp(0.0, -np.asarray(values, np.float64))


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Return log-probabilities over the last axis, float64."""
    values = np.asarray(values, np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def single(value: float) -> float:
    """Return a log-probability as stored: at most 0, rounded to float32."""
    return min(0.0, float(np.float32(value)))
