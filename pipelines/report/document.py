"""``report.json``: a report's data for tools."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from gristmill.pipelines.report.files import checksum
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.report.tables import label_of
from gristmill.pipelines.report.verdict import conclude, summary

FORMAT = 2  # of ``report.json``; 2 added the verdict, phases of curves and audio of examples. None: earlier

# Measured anew by a rerun of the same work; only a change of the rest makes a report be rewritten.
_VOLATILE = ("plan", "run", "versions", "identity")
_MEASURED = ("rows", "bytes", "seconds")  # of a node of the lineage; its digest stands for what it holds


def to_json(report: Report, page: bytes = b"") -> bytes:
    """Return ``report.json``: keys in a fixed order, no times of day, numbers that JSON can hold.

    Its last key is a checksum over the rest and over the report's page.
    """
    verdict = conclude(report)
    document: dict[str, Any] = {
        "format": FORMAT,
        "title": report.title,
        "summary": summary(report),
        "verdict": None if verdict is None else verdict.to_json(),
        "use": None if report.use is None else asdict(report.use),
        **({"to_do": [asdict(one) for one in report.to_do]} if report.to_do else {}),
        "recipe": report.recipe,
        "metric": None if report.main is None else report.main.name,
        "baseline": report.baseline or None,
        "baselines": list(report.compared),
        "proposals": list(report.proposed),
        "metrics": [row.to_json() for row in report.metrics],
        "measures": [
            {
                "name": measure.name,
                "label": label_of(report, measure),
                "unit": measure.unit.name,
                "better": measure.better,
            }
            for measure in report.measures
        ],
        "test_sets": {name: given.to_json() for name, given in report.test_sets.items()},
        "digests": report.digests,
        "records": [asdict(flow) for flow in report.records],
        "plan": report.plan,
        "run": report.run,
        "versions": report.versions,
        "lineage": [asdict(node) for node in report.lineage],
        "grids": [grid.to_json() for grid in report.grids],
        "reliability": report.reliability.to_json(),
        "filters": [one.to_json() for one in report.filters],
        "measured": [asdict(one) for one in report.measured],
        "curves": [point.to_json() for point in report.curves],
        "examples": [example.to_json() for example in report.examples],
        "spectrograms": [one.to_json() for one in report.spectrograms],
        **({"pictures": [one.to_json() for one in report.pictures]} if report.pictures else {}),
        "notes": report.notes,
    }
    document = _plain(document)
    lasting = {key: value for key, value in document.items() if key not in _VOLATILE}
    lasting["lineage"] = [
        {key: value for key, value in node.items() if key not in _MEASURED} for node in document["lineage"]
    ]
    lasting["measured"] = [one for one in document["measured"] if not one["timed"]]
    document["identity"] = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
    document["checksum"] = checksum(document, page)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Convert numpy numbers and tuples to JSON types; non-finite numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
