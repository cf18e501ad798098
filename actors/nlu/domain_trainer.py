"""Training of domain models on sealed requests: one domain, without the requests of one fold and of the test part.

Requests that a model has labelled (``added``) may be trained on beside annotated ones, with a weight of their own. The
same settings give the same files (on a CPU), independent of the order of the requests in the set and of the
training of other domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeInt, PositiveFloat, SerializeAsAny

from gristmill.actors.embed import EMBEDDING, vectors_of
from gristmill.actors.nlu.folds import TEST
from gristmill.actors.nlu.labels import PSEUDO, WITHOUT
from gristmill.actors.nlu.slot_examples import TAGGED, same_slots, slot_names, tagged
from gristmill.actors.training.settings import LoopSettings
from gristmill.models.nlu.domain import Example, FamilySettings
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

COLUMNS = ("id", "tokens", "domain", "intent", "slots", "fold")
_LABELS = ("intent", "slots")
_SELF_LABELLED = ("label_source", WITHOUT.name)


class DomainTraining(Settings):
    """Training of one domain's model."""

    domain: str = Field(min_length=1)
    """The domain."""
    left_out: NonNegativeInt | None = None
    """The fold left out of training (``None``: only the test part is)."""
    model: SerializeAsAny[FamilySettings]
    """Settings of the model; their class selects the family."""
    seed: int = 0
    """With the domain and a request's id, it determines the requests drawn from other domains."""
    loop: LoopSettings = LoopSettings()
    """The training loop of a neural model."""
    added_weight: PositiveFloat = 1.0
    """Weight of a request that a model has labelled; that of an annotated one is 1."""
    same_slots: int = Field(0, ge=0)
    """Requests of other domains with slots of this domain's names, at most, that its slot tagger is trained on too."""
    threshold_folds: int = Field(0, ge=0)
    """Folds of the cross-validation on annotated requests that finds the threshold of acceptance (0: none)."""
    prior: float = Field(0.03, gt=0, lt=1)
    """The share of the domain's requests that the threshold is for."""
    device: str = "cpu"
    """Of a neural model: ``auto`` uses a GPU if there is one, and the network then runs in bfloat16."""


def train(
    settings: DomainTraining, context: TrainContext, *, data: str | Sequence[str], added: Sequence[str] = ()
) -> dict[str, Any]:
    """Train a domain on the sealed requests at ``data``, which have a ``fold``, and on self-labelled ones (``added``).

    Returns the model's files, and the numbers of training requests of the domain and of others.

    Raises:
        UserError: no request of the domain, or of another, is left to train on, or one lacks a required value.
    """
    urls = [data] if isinstance(data, str) else list(data)
    own, others = _counts(settings, urls)
    where = f"domain {settings.domain!r}: {', '.join(urls)}"
    if not own:
        left = "" if settings.left_out is None else f" and fold {settings.left_out}"
        raise UserError(
            f"{where} has none of its requests outside the test (fold {TEST}){left}; expected at least one per training"
        )
    if not others:
        raise UserError(f"{where} has no requests of other domains; expected some as negatives")
    ratio = settings.model.negatives
    share = 1.0 if ratio is None else min(1.0, ratio * own / others)
    rows = _rows(settings, urls, added, share)
    if not rows.others:
        raise UserError(
            f"{where}: {own} of its requests and {others} of other domains are left to train on, and `negatives`, here "
            f"{ratio:.3g} per request of the domain, draws none of {others} requests; expected more records, or a "
            "larger `negatives`"
        )
    saw = {"domain": settings.domain, "left_out": settings.left_out, "own": len(rows.own), "others": len(rows.others)}
    return saw | ({"added": len(rows.added)} if added else {}) | _fit(settings, context, rows)


@dataclass(frozen=True)
class _Row:
    """A request to train on; of a self-labelled one, the folds without which it is accepted too (``None``: any)."""

    example: Example
    vector: np.ndarray | None
    without: Sequence[int] | None = None


@dataclass(frozen=True)
class _Rows:
    """The requests of a training by kind, each kind in the order of its ids."""

    own: list[_Row]
    added: list[_Row]
    others: list[_Row]
    tagged: list[_Row]  # of other domains, for the slot tagger


def _fit(settings: DomainTraining, context: TrainContext, rows: _Rows) -> dict[str, Any]:
    """Train the family's model; only its own modules are imported: the neural one loads torch."""
    model = settings.model
    own = [*rows.own, *rows.added]
    examples, negatives = [row.example for row in own], [list(row.example.tokens) for row in rows.others]
    if model.family == "linear":
        from gristmill.models.nlu.linear import LinearSettings, fit

        assert isinstance(model, LinearSettings)
        given: dict[str, Any] = {"tagged": [row.example for row in rows.tagged]}
        if rows.added:
            given["weights"] = [1.0] * len(rows.own) + [settings.added_weight] * len(rows.added)
        if model.embedding:
            given["vectors"] = _vectors(settings, [*own, *rows.others])
        if settings.threshold_folds:
            given |= _folds(settings.threshold_folds, rows) | {"prior": settings.prior}
        made, metrics = fit(settings.domain, examples, negatives, model, settings.seed, context.report, **given)
        return {"files": made.files(), **metrics}
    from gristmill.actors.nlu.neural_trainer import NeuralTrainer
    from gristmill.actors.training.loop import run_training
    from gristmill.models.nlu.neural import NeuralSettings

    assert isinstance(model, NeuralSettings)
    trainer = NeuralTrainer(settings.domain, examples, negatives, model, settings.seed, settings.device)
    return run_training(trainer, settings.loop, context)


def _folds(count: int, rows: _Rows) -> dict[str, np.ndarray]:
    """Return the folds of the threshold's cross-validation, and what each of them trains on.

    A self-labelled request is trained on in those folds alone whose own recogniser accepted it: it would otherwise tell
    of the annotated requests that are held out, and the held-out scores would be too good.
    """
    dealt = [np.arange(len(rows.own)) % count, np.full(len(rows.added), -1), np.arange(len(rows.others)) % count]
    folds = np.concatenate(dealt)
    seen = folds[:, None] != np.arange(count)
    for place, row in enumerate(rows.added, len(rows.own)):
        if row.without is not None:
            seen[place] = np.isin(np.arange(count), row.without)
    return {"folds": folds, "seen": seen}


def _vectors(settings: DomainTraining, rows: Sequence[_Row]) -> np.ndarray:
    found = [row.vector for row in rows if row.vector is not None]
    if len(found) < len(rows) or len({len(one) for one in found}) != 1:
        raise UserError(
            f"domain {settings.domain!r}: the model reads embeddings, and {len(rows) - len(found)} of {len(rows)} "
            f"requests have none; expected a column {EMBEDDING} of one dimension in each set"
        )
    return np.stack(found).astype(np.float32)


def _seen(settings: DomainTraining, url: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the requests of this training, shard by shard."""
    sealed = open_sealed(url)
    missing = sorted(set(columns) - set(sealed.schema.names))
    if missing:
        raise UserError(f"{url}: requests without {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    more = [EMBEDDING] if "tokens" in columns and EMBEDDING in sealed.schema.names else []
    for table in sealed.tables([*columns, *more]):
        fold = table["fold"]
        if fold.null_count or pc.any(pc.is_null(table["domain"])).as_py():
            raise UserError(f"{url}: a request without fold or domain; expected both for each request")
        seen = pc.not_equal(fold, TEST)
        if settings.left_out is not None:
            seen = pc.and_(seen, pc.not_equal(fold, settings.left_out))
        yield table.filter(seen)


def _counts(settings: DomainTraining, urls: Sequence[str]) -> tuple[int, int]:
    """Return the numbers of requests of the domain and of others."""
    own = total = 0
    for url in urls:
        for table in _seen(settings, url, ("id", "domain", "fold")):
            own += pc.sum(pc.equal(table["domain"], settings.domain)).as_py() or 0
            total += table.num_rows
    return own, total - own


def _rows(settings: DomainTraining, urls: Sequence[str], added: Sequence[str], share: float) -> _Rows:
    """Return the requests to train on: the domain's, and those of others that are drawn."""
    random = RecordRandom(settings.seed, f"negatives {settings.domain}")
    own: dict[str, _Row] = {}
    others: dict[str, _Row] = {}
    for url in urls:
        for table in _seen(settings, url, COLUMNS):
            mine = pc.equal(table["domain"], settings.domain)
            own |= _examples(settings, url, table.filter(mine))
            rest = table.filter(pc.invert(mine)).select([name for name in table.column_names if name not in _LABELS])
            drawn = [share >= 1 or random(name).random() < share for name in rest["id"].to_pylist()]
            rest = rest.filter(pa.array(drawn, pa.bool_()))
            tokens = (one or [] for one in rest["tokens"].to_pylist())
            made = zip(rest["id"].to_pylist(), tokens, _embeddings(rest), strict=True)
            others |= {name: _Row(Example(one, "", ()), vector) for name, one, vector in made}
    labelled: dict[str, _Row] = {}
    for url in added:
        for table in open_sealed(url).tables():
            labelled |= _examples(settings, url, table)
    tagged = _tagged(settings, urls, own) if settings.same_slots else {}
    return _Rows(*([found[name] for name in sorted(found)] for found in (own, labelled, others, tagged)))


def _tagged(settings: DomainTraining, urls: Sequence[str], own: Mapping[str, _Row]) -> dict[str, _Row]:
    """Return requests of other domains with slots of the domain's names."""
    names = slot_names(row.example for row in own.values())
    seen = (table for url in urls for table in _seen(settings, url, COLUMNS))
    others = (table.filter(pc.not_equal(table["domain"], settings.domain)) for table in seen)
    found = same_slots(others, names, settings.domain, settings.same_slots, settings.seed)
    return {name: _Row(example, None) for name, example in found.items()}


def _examples(settings: DomainTraining, url: str, table: pa.Table) -> dict[str, _Row]:
    found = {}
    columns = ["intent", *TAGGED, *(name for name in _SELF_LABELLED if name in table.column_names)]
    for row, vector in zip(table.select(columns).to_pylist(), _embeddings(table), strict=True):
        if not row["intent"]:
            raise UserError(f"{url}: request {row['id']} has no intent; expected one, to train {settings.domain!r}")
        without = row.get(WITHOUT.name) if row.get("label_source") == PSEUDO else None
        found[row["id"]] = _Row(tagged(row, intent=row["intent"]), vector, without)
    return found


def _embeddings(table: pa.Table) -> Sequence[np.ndarray | None]:
    if EMBEDDING not in table.column_names:
        return [None] * table.num_rows
    return list(vectors_of(table[EMBEDDING]))
