"""The recognisers of new functions that a run of the expansion left, as what reads requests in this process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.embed import EmbedderSettings, embedder_stage
from gristmill.actors.requests.function_reader import Detect, DetectSettings
from gristmill.models.normalise import joined
from gristmill.pipelines.finished import Finished, chosen
from gristmill.pipelines.inline import Inline
from gristmill.pipelines.requests.reading import RankedReadings, RequestModels, RequestReader
from gristmill.shards.artifact import Artifact
from gristmill.shards.errors import UserError

_WHOLE = "fused"


def function_models(found: Finished, system: str | None) -> RequestModels:
    """Return the recognisers of a run's best system, or of ``system``: those of the first draw and number of seeds.

    Raises:
        UserError: there is no such system.
    """
    name, said = chosen(found, system)
    recipe = found.report["recipe"]
    in_rounds = {"self", _WHOLE}
    training = f"model_{name}_{recipe['training']['rounds']}" if name in in_rounds else f"model_{name}"
    models: dict[str, Artifact] = {}
    for one in found.artifacts(training):
        models.setdefault(one.identity["settings"]["domain"], one)
    if not models:
        raise UserError(f"{found.out}: has no model of {name}; expected the output of a run of the recipe expand")
    embedder = None
    if recipe[_WHOLE if name.startswith(_WHOLE) else "recogniser"]["model"]["embedding"]:
        embedder = EmbedderSettings.model_validate(recipe["embedder"])
    return RequestModels(name, said, "functions", models, embedder=embedder)


def function_reader(given: RequestModels) -> RequestReader:
    """Return what reads requests by recognisers: a request is of the function that accepts it, of several of the one
    that is furthest above its threshold."""
    stages = [] if given.embedder is None else [embedder_stage(given.embedder)]
    refs: Any = {f"read_{domain}": one.ref for domain, one in given.models.items()}
    read = Inline(*stages, Detect.stage(DetectSettings(systems=tuple(given.models)), **refs))

    def readings(row: Mapping[str, Any]) -> RankedReadings:
        return _readings(row, list(given.models))

    domains = tuple(sorted(given.models))
    return RequestReader(given.said, domains, {}, lambda table: read(_with_text(table)), readings, None)


def _with_text(table: pa.Table) -> pa.Table:
    texts = [joined(one or []) for one in table["tokens"].to_pylist()]
    return table.append_column("text", pa.array(texts, pa.string()))


def _readings(row: Mapping[str, Any], functions: list[str]) -> RankedReadings:
    found, ahead = [], []
    for function in functions:
        read = row[f"read_{function}"]
        slots = read["slots"] or []
        sure = math.exp(read["logprob"])
        found.append({"domain": function, "intent": read["intent"], "slots": slots, "confidence": sure})
        ahead.append(read["logprob"] - read["threshold"])
    best = max(range(len(found)), key=lambda place: ahead[place])
    return RankedReadings(found, best if ahead[best] >= 0 else None)
