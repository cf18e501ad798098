"""Training of domain models on sealed requests: one domain, without the requests of one fold and of the test part.

The same settings give the same files (on a CPU), independent of the order of the requests in the set and of the
training of other domains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeInt, SerializeAsAny

from gristmill.actors.requests.folds import TEST
from gristmill.actors.training.settings import LoopSettings
from gristmill.models.requests.domain import Example, FamilySettings, to_iob
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

COLUMNS = ("id", "tokens", "domain", "intent", "slots", "fold")


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
    device: str = "cpu"
    """Of a neural model: ``auto`` uses a GPU if there is one, and the network then runs in bfloat16."""


def train(settings: DomainTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Train a domain on the sealed requests at ``data``, which have a ``fold``.

    Returns the model's files, and the numbers of training requests of the domain and of others.

    Raises:
        UserError: no request of the domain, or of another, is left to train on, or one lacks a required value.
    """
    own, others = _counts(settings, data)
    where = f"domain {settings.domain!r}: {data}"
    if not own:
        left = "" if settings.left_out is None else f" and fold {settings.left_out}"
        raise UserError(
            f"{where} has none of its requests outside the test (fold {TEST}){left}; expected at least one per training"
        )
    if not others:
        raise UserError(f"{where} has no requests of other domains; expected some as negatives")
    ratio = settings.model.negatives
    share = 1.0 if ratio is None else min(1.0, ratio * own / others)
    examples, negatives = _rows(settings, data, share)
    if not negatives:
        raise UserError(
            f"{where}: {own} of its requests and {others} of other domains are left to train on, and `negatives`, here "
            f"{ratio:.3g} per request of the domain, draws none of {others} requests; expected more records, or a "
            "larger `negatives`"
        )
    saw = {"domain": settings.domain, "left_out": settings.left_out, "own": len(examples), "others": len(negatives)}
    return saw | _fit(settings, context, examples, negatives)


def _fit(
    settings: DomainTraining, context: TrainContext, examples: list[Example], negatives: list[list[str]]
) -> dict[str, Any]:
    """Train the family's model; only its own modules are imported: the neural one loads torch."""
    model = settings.model
    if model.family == "linear":
        from gristmill.models.requests.linear import LinearSettings, fit

        assert isinstance(model, LinearSettings)
        made, metrics = fit(settings.domain, examples, negatives, model, settings.seed, context.report)
        return {"files": made.files(), **metrics}
    from gristmill.actors.requests.neural_trainer import NeuralTrainer
    from gristmill.actors.training.loop import run_training
    from gristmill.models.requests.neural import NeuralSettings

    assert isinstance(model, NeuralSettings)
    trainer = NeuralTrainer(settings.domain, examples, negatives, model, settings.seed, settings.device)
    return run_training(trainer, settings.loop, context)


def _seen(settings: DomainTraining, data: str, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    """Yield the requests of this training, shard by shard."""
    sealed = open_sealed(data)
    missing = sorted(set(columns) - set(sealed.schema.names))
    if missing:
        raise UserError(f"{data}: requests without {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    for table in sealed.tables(columns):
        fold = table["fold"]
        if fold.null_count or pc.any(pc.is_null(table["domain"])).as_py():
            raise UserError(f"{data}: a request without fold or domain; expected both for each request")
        seen = pc.not_equal(fold, TEST)
        if settings.left_out is not None:
            seen = pc.and_(seen, pc.not_equal(fold, settings.left_out))
        yield table.filter(seen)


def _counts(settings: DomainTraining, data: str) -> tuple[int, int]:
    """Return the numbers of requests of the domain and of others."""
    own = total = 0
    for table in _seen(settings, data, ("id", "domain", "fold")):
        own += pc.sum(pc.equal(table["domain"], settings.domain)).as_py() or 0
        total += table.num_rows
    return own, total - own


def _rows(settings: DomainTraining, data: str, share: float) -> tuple[list[Example], list[list[str]]]:
    """Return the domain's examples and the tokens of the others drawn, both in the order of their ids."""
    random = RecordRandom(settings.seed, f"negatives {settings.domain}")
    own: dict[str, Example] = {}
    others: dict[str, list[str]] = {}
    for table in _seen(settings, data, COLUMNS):
        mine = pc.equal(table["domain"], settings.domain)
        for row in table.filter(mine).to_pylist():
            tokens = row["tokens"] or []
            if not row["intent"]:
                raise UserError(
                    f"{data}: request {row['id']} has no intent; expected one, to train {settings.domain!r}"
                )
            spans = [(slot["name"], slot["start"], slot["end"]) for slot in row["slots"] or [] if _placed(slot)]
            own[row["id"]] = Example(tokens, row["intent"], to_iob(len(tokens), spans))
        rest = table.filter(pc.invert(mine)).select(["id", "tokens"])
        drawn = [share >= 1 or random(name).random() < share for name in rest["id"].to_pylist()]
        rest = rest.filter(pa.array(drawn, pa.bool_()))
        others.update(zip(rest["id"].to_pylist(), (tokens or [] for tokens in rest["tokens"].to_pylist()), strict=True))
    return [own[name] for name in sorted(own)], [others[name] for name in sorted(others)]


def _placed(slot: dict[str, Any]) -> bool:
    return slot["start"] is not None and slot["end"] is not None
