"""The domain models and re-rankers that a run left, as what reads requests in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.actors.nlu.folds import TEST
from gristmill.actors.nlu.hypotheses import Hypotheses, ListSettings, readers
from gristmill.actors.nlu.rerank import Rerank, artifacts_of, read_weights
from gristmill.pipelines.finished import Finished, chosen
from gristmill.pipelines.inline import Inline
from gristmill.pipelines.nlu.systems import DOMAIN_MODELS
from gristmill.pipelines.requests.context import contexts
from gristmill.pipelines.requests.reading import RankedReadings, RequestModels, RequestReader
from gristmill.shards.artifact import Artifact
from gristmill.shards.errors import UserError

NO_TEXT = "no text"  # the problem of a blank request
_WEIGHTED = ("R1", "R2", "R3")  # systems with re-rankers
_ALL = (*_WEIGHTED, "R0", "base")  # systems of the domain models of annotated requests; others have their own


def ranked_models(found: Finished, system: str | None) -> RequestModels:
    """Return the domain models of a run of rerank, with the re-rankers of a system, or those of a run of sessions.

    They are those of all training data, of the first seed.

    Raises:
        UserError: there is no such system, or the run trained no domain models.
    """
    name, said = chosen(found, system)
    trained = DOMAIN_MODELS if name in _ALL else f"{DOMAIN_MODELS}_{name}"
    models = _of_first_seed(found, trained, left_out=None)
    if not models:
        raise UserError(
            f"{found.out}: the recipe {found.recipe} trained no domain models; expected that of rerank, expand or "
            "sessions"
        )
    weights = _of_first_seed(found, "weights", loss=name, context=_context(found)) if name in _WEIGHTED else {}
    lists = ListSettings.model_validate(found.report["recipe"].get("lists", {}))
    return RequestModels(name, said, "ranked", models, weights, lists)


def ranked_reader(given: RequestModels) -> RequestReader:
    """Return what reads requests by domain models, whose readings are ranked."""
    context = contexts([read_weights(one.url, domain) for domain, one in given.weights.items()])
    refs: Any = readers({TEST: given.models})
    ranking: Any = artifacts_of({domain: one.ref for domain, one in given.weights.items()})
    read = Inline(Hypotheses.stage(given.lists, **refs), Rerank.stage(**ranking))
    return RequestReader(given.said, tuple(given.models), context, read, _readings, NO_TEXT)


def _readings(row: Mapping[str, Any]) -> RankedReadings:
    kept = ("domain", "intent", "slots")
    readings = [
        {**{name: one[name] for name in kept}, "confidence": score}
        for one, score in zip(row["hypotheses"], row["scores"], strict=True)
    ]
    return RankedReadings(readings, row["best"] if row["best"] >= 0 else None)


def _context(found: Finished) -> list[str]:
    return list(found.report["recipe"].get("weights", {}).get("context", []))


def _of_first_seed(found: Finished, training: str, **wanted: Any) -> dict[str, Artifact]:
    """Return the artifacts of a training by domain: those of the first seed whose settings are the ``wanted`` ones.

    A setting at its default is not in an artifact's identity.
    """
    seed = found.report["run"]["seeds"][0]
    defaults: dict[str, Any] = {"seed": 0, "left_out": None, "context": [], "loss": "R3"}
    made = {}
    for one in found.artifacts(training):
        settings = defaults | one.identity.get("settings", {})
        if settings["seed"] == seed and all(settings[name] == value for name, value in wanted.items()):
            made[settings["domain"]] = one
    return dict(sorted(made.items()))
