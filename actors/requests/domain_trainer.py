"""Training of domain models on sealed requests: one domain, without the requests of one fold and of the test.

``train(config, context)`` takes JSON values only. The same config gives the same files (on a CPU), whatever the order
of the requests in the set, and no other domain's training has any part in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from gristmill.actors.requests.folds import TEST
from gristmill.models.requests.domain import DomainSettings, Example, to_iob
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom

COLUMNS = ("id", "tokens", "domain", "intent", "slots", "fold")


class DomainTraining(BaseModel):
    """What a training of a domain is given.

    ``data``: the url of requests with ``fold``. ``left_out``: the fold that this model must not see (``None``: it sees
    all but the test). ``settings``: of the family, see :class:`gristmill.models.requests.linear.LinearSettings` and
    :class:`gristmill.models.requests.neural.NeuralSettings`; the requests of other domains that ``negatives`` asks for
    are drawn by (seed, domain, id).
    """

    model_config = ConfigDict(extra="forbid")
    data: str
    domain: str = Field(min_length=1)
    left_out: NonNegativeInt | None = None
    family: Literal["linear", "neural"] = "linear"
    settings: dict[str, Any] = {}
    seed: int = 0


def train(config: dict[str, Any], context: TrainContext) -> dict[str, Any]:
    """Train a domain; return its files, and how many requests of its own and of others it saw.

    Raises:
        UserError: a setting is wrong, or no request of the domain, or of another, is left to train on.
    """
    run = _checked(DomainTraining, config, "domain training")
    family, kind = _family(run.family)
    settings = _checked(kind, run.settings, "domain training: settings")
    own, others = _counts(run)
    where = f"domain {run.domain!r}: {run.data}"
    if not own:
        left = "" if run.left_out is None else f" and fold {run.left_out}"
        raise UserError(
            f"{where} has no request of it outside the test (fold {TEST}){left}; expected at least one in each training"
        )
    if not others:
        raise UserError(f"{where} has requests of no other domain; expected some, to tell them apart")
    ratio = settings.negatives
    share = 1.0 if ratio is None else min(1.0, ratio * own / others)
    examples, negatives = _rows(run, share)
    if not negatives:
        raise UserError(f"{where}: negatives {ratio} draws none of {others} requests; expected a larger number")
    model, told = family.fit(run.domain, examples, negatives, settings, run.seed, context.report)
    saw = {"domain": run.domain, "left_out": run.left_out, "own": len(examples), "others": len(negatives)}
    return {"files": model.files() if context.rank == 0 else {}, **saw, **told}


def _family(name: str) -> tuple[Any, type[DomainSettings]]:
    """Return the module of a family and its settings; only the one that is needed is loaded."""
    if name == "linear":
        from gristmill.models.requests import linear

        return linear, linear.LinearSettings
    from gristmill.models.requests import neural

    return neural, neural.NeuralSettings


def _checked(kind: Any, values: dict[str, Any], where: str) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {place}: {first['msg']}; expected some of {', '.join(kind.model_fields)}") from None


def _seen(run: DomainTraining, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    """Give the requests that this training may see, shard by shard."""
    sealed = open_sealed(run.data)
    missing = sorted(set(columns) - set(sealed.schema.names))
    if missing:
        raise UserError(f"{run.data}: requests without {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    for table in sealed.tables(columns):
        fold = table["fold"]
        if fold.null_count or pc.any(pc.is_null(table["domain"])).as_py():
            raise UserError(f"{run.data}: a request without fold or domain; expected both of each request")
        seen = pc.not_equal(fold, TEST)
        if run.left_out is not None:
            seen = pc.and_(seen, pc.not_equal(fold, run.left_out))
        yield table.filter(seen)


def _counts(run: DomainTraining) -> tuple[int, int]:
    """Return how many requests there are of the domain and of others."""
    own = total = 0
    for table in _seen(run, ("id", "domain", "fold")):
        own += pc.sum(pc.equal(table["domain"], run.domain)).as_py() or 0
        total += table.num_rows
    return own, total - own


def _rows(run: DomainTraining, share: float) -> tuple[list[Example], list[list[str]]]:
    """Return the domain's examples and the tokens of the others that are drawn, both by id."""
    random = RecordRandom(run.seed, f"negatives {run.domain}")
    own: dict[str, Example] = {}
    others: dict[str, list[str]] = {}
    for table in _seen(run, COLUMNS):
        mine = pc.equal(table["domain"], run.domain)
        for row in table.filter(mine).to_pylist():
            tokens = row["tokens"] or []
            if not row["intent"]:
                raise UserError(f"{run.data}: request {row['id']} has no intent; expected one, to train {run.domain!r}")
            spans = [(slot["name"], slot["start"], slot["end"]) for slot in row["slots"] or [] if _placed(slot)]
            own[row["id"]] = Example(tokens, row["intent"], to_iob(len(tokens), spans))
        rest = table.filter(pc.invert(mine)).select(["id", "tokens"])
        drawn = [share >= 1 or random(name).random() < share for name in rest["id"].to_pylist()]
        rest = rest.filter(pa.array(drawn, pa.bool_()))
        others.update(zip(rest["id"].to_pylist(), (tokens or [] for tokens in rest["tokens"].to_pylist()), strict=True))
    return [own[name] for name in sorted(own)], [others[name] for name in sorted(others)]


def _placed(slot: dict[str, Any]) -> bool:
    return slot["start"] is not None and slot["end"] is not None
