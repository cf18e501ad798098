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
from gristmill.pipelines.requests.reading import RankedReadings, RequestReader
from gristmill.shards.artifact import Artifact
from gristmill.shards.errors import UserError

_WHOLE = "fused"


def function_reader(found: Finished, system: str | None) -> RequestReader:
    """Return the recognisers of a run's best system, of ``system``, or where nothing was measured of ``fused``.

    They are those of the first draw and number of seeds. A request is of the function that accepts it, of several of
    the one that is furthest above its threshold.

    Raises:
        UserError: there is no such system.
    """
    known = system is not None or found.best is not None
    name, said = chosen(found, system) if known else (_WHOLE, f"{_WHOLE}; nothing was measured")
    recipe = found.report["recipe"]
    in_rounds = {"self", _WHOLE}
    training = f"model_{name}_{recipe['training']['rounds']}" if name in in_rounds else f"model_{name}"
    models: dict[str, Artifact] = {}
    for one in found.artifacts(training):
        models.setdefault(one.identity["settings"]["domain"], one)
    if not models:
        raise UserError(f"{found.out}: has no model of {name}; expected the output of a run of the recipe expand")
    stages = []
    if recipe[_WHOLE if name.startswith(_WHOLE) else "recogniser"]["model"]["embedding"]:
        stages.append(embedder_stage(EmbedderSettings.model_validate(recipe["embedder"])))
    refs: Any = {f"read_{domain}": one.ref for domain, one in models.items()}
    read = Inline(*stages, Detect.stage(DetectSettings(systems=tuple(models)), **refs))

    def readings(row: Mapping[str, Any]) -> RankedReadings:
        return _readings(row, list(models))

    return RequestReader(said, tuple(sorted(models)), {}, lambda table: read(_with_text(table)), readings, None)


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
