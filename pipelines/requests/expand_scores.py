"""Metrics of recognisers of a new function: what they find of its requests, how they read it, what else they accept.

Each function in each draw of its annotated requests is a cell. A metric is the mean over cells; its interval is a
bootstrap over functions, all draws of a function together, as they share its requests. With a single function it is
over draws, with a single cell over its requests. Comparisons of systems are paired: the same resamples for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.models.measures.semer import Interpretation, errors, reference_length
from gristmill.pipelines.record_scores import RecordScores
from gristmill.pipelines.report.measures import PERCENT, SEMER, Measure
from gristmill.pipelines.report.report import MetricRow
from gristmill.shards.dataset import SealedSet

REPLICATES = 2000
F1 = Measure("f1", "F1", PERCENT, 1, better="higher", interval=True)
F1_ERROR = Measure("f1_error", "1 - F1", PERCENT, 1, column=False)
F1_BEST = Measure("f1_best", "F1, best threshold", PERCENT, 1, better="higher")
F1_HALF = Measure("f1_half", "F1 at 0.5", PERCENT, 1, better="higher")
SEMER_HALF = Measure("semer_half", "SemER at 0.5", PERCENT, 1)
EXACT = Measure("exact", "Exact readings", PERCENT, 1, better="higher")
FALSE_ACCEPT = Measure("false_accept", "False accepts", PERCENT, 2)
FALSE_ACCEPT_HALF = Measure("false_accept_half", "False accepts at 0.5", PERCENT, 2, column=False)
MEASURES = [
    SEMER,
    F1,
    F1_BEST,
    EXACT,
    FALSE_ACCEPT,
    SEMER_HALF,
    F1_HALF,
    SEMER.relative(),
    F1_ERROR.relative(),
]
RELATIVE = ("semer", "f1_error", "semer_half")
_HALF = float(np.float32(np.log(0.5)))


@dataclass(frozen=True)
class Readings:
    """What one system reads in the test of one cell."""

    own: np.ndarray  # (requests,) bool: of the function
    logprob: np.ndarray  # that a request is of the function
    threshold: float
    errors: np.ndarray  # of intent and slots, if it is accepted; 0 for others
    lengths: np.ndarray  # labels of the reference; 0 for others

    def numbers(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Return the metrics over some requests, by their places; by default over all."""
        own, sure = self.own[rows], self.logprob[rows]
        wrong, lengths = self.errors[rows], self.lengths[rows]

        def f1(limit: float) -> float:
            accepted = sure >= limit
            right = float((accepted & own).sum())
            return 2 * right / max(1.0, accepted.sum() + own.sum())

        def semer(limit: float) -> float:
            return float(np.where(sure >= limit, wrong, lengths)[own].sum() / max(1, lengths.sum()))

        limits = np.unique(sure[own])
        others = max(1, (~own).sum())
        found = f1(self.threshold)
        return {
            "semer": semer(self.threshold),
            "f1": found,
            "f1_error": 1 - found,
            "f1_best": max((f1(limit) for limit in limits), default=0.0),
            "f1_half": f1(_HALF),
            "semer_half": semer(_HALF),
            "exact": float(((wrong == 0) & (sure >= self.threshold))[own].sum() / max(1, own.sum())),
            "false_accept": float((sure >= self.threshold)[~own].sum() / others),
            "false_accept_half": float((sure >= _HALF)[~own].sum() / others),
        }


@dataclass(frozen=True)
class TestedCell:
    """The readings of all systems in one cell."""

    function: str
    draw: int
    ids: tuple[str, ...]
    systems: Mapping[str, Readings]


def read_cell(function: str, draw: int, tested: SealedSet, systems: Sequence[str]) -> TestedCell:
    """Return the readings of a set with ``read_<system>`` of each system."""
    columns = [f"read_{system}" for system in systems]
    table = pa.concat_tables(tested.tables(["id", "domain", "intent", "slots", *columns]))
    references = [
        Interpretation(row["domain"], row["intent"], _slots(row["slots"])) if row["domain"] == function else None
        for row in table.select(["domain", "intent", "slots"]).to_pylist()
    ]
    own = np.array([one is not None for one in references], bool)
    lengths = np.array([0 if one is None else reference_length(one) for one in references])
    found = {}
    for system, column in zip(systems, columns, strict=True):
        read = table[column].to_pylist()
        wrong = np.array(
            [
                0 if wanted is None else errors(wanted, Interpretation(function, one["intent"], _slots(one["slots"])))
                for wanted, one in zip(references, read, strict=True)
            ]
        )
        sure = np.array([one["logprob"] for one in read], np.float32)
        limit = float(np.float32(read[0]["threshold"])) if read else 0.0
        found[system] = Readings(own, sure, limit, wrong, lengths)
    return TestedCell(function, draw, tuple(table["id"].to_pylist()), found)


def _slots(given: Sequence[Mapping[str, str]] | None) -> tuple[tuple[str, str], ...]:
    return tuple((slot["name"], slot["value"]) for slot in given or ())


def sizes(cells: Sequence[TestedCell]) -> dict[str, int]:
    """Return the size of a test set."""
    own = [next(iter(cell.systems.values())).own for cell in cells]
    return {"cells": len(cells), "requests": sum(map(len, own)), "of the functions": int(sum(map(sum, own)))}


def metrics(cells: Sequence[TestedCell], test_set: str, baselines: Sequence[str]) -> list[MetricRow]:
    """Return the metrics in long form: over all cells (``seed`` null), and over those of each draw.

    ``<metric>_relative`` is against the first baseline, ``<metric>_relative:X`` against each other one.
    """
    systems = list(cells[0].systems)
    numbers = {system: [cell.systems[system].numbers() for cell in cells] for system in systems}
    drawn = {system: _resampled(cells, system, numbers[system]) for system in systems}
    tested = sum(int(next(iter(cell.systems.values())).own.sum()) for cell in cells)
    draws = sorted({cell.draw for cell in cells})
    rows = []
    for system in systems:
        for name, values in drawn[system].items():
            low, high = np.percentile(values[1:], [2.5, 97.5])
            rows.append(MetricRow(system, test_set, name, float(values[0]), float(low), float(high), tested, None))
        for place, other in enumerate(baselines):
            for name in RELATIVE if other != system else ():
                mine, theirs = drawn[system][name], drawn[other][name]
                if not theirs.all():
                    continue
                change = mine / theirs - 1
                low, high = np.percentile(change[1:], [2.5, 97.5])
                named = f"{name}_relative" if place == 0 else f"{name}_relative:{other}"
                rows.append(MetricRow(system, test_set, named, float(change[0]), float(low), float(high), tested, None))
        for draw in draws:
            each = [one for cell, one in zip(cells, numbers[system], strict=True) if cell.draw == draw]
            for name in each[0]:
                value = float(np.mean([one[name] for one in each]))
                rows.append(MetricRow(system, test_set, name, value, None, None, len(each), draw))
    return rows


def _resampled(
    cells: Sequence[TestedCell], system: str, numbers: Sequence[Mapping[str, float]]
) -> dict[str, np.ndarray]:
    """Return each metric, over all and over resamples: (1 + replicates,), the same resamples for every system.

    ``numbers`` are the system's metrics of each cell.
    """
    rng = np.random.Generator(np.random.Philox(0))
    if len(cells) == 1:
        own, rows = cells[0].systems[system], len(cells[0].ids)
        each = [*numbers, *(own.numbers(rng.integers(rows, size=rows)) for _ in range(REPLICATES // 4))]
        return {name: np.array([one[name] for one in each]) for name in each[0]}
    functions = sorted({cell.function for cell in cells})
    key = [cell.function if len(functions) > 1 else str(cell.draw) for cell in cells]
    units = sorted(set(key))
    counts = np.stack([np.ones(len(units)), *rng.multinomial(len(units), [1 / len(units)] * len(units), REPLICATES)])
    weights = counts[:, [units.index(one) for one in key]]
    weights = weights / weights.sum(1, keepdims=True)
    return {name: weights @ np.array([one[name] for one in numbers]) for name in numbers[0]}


def record_scores(tested: Mapping[str, Sequence[TestedCell]]) -> dict[str, dict[str, dict[int, RecordScores]]]:
    """Return the errors and labels of each request of the functions, by system, test set and draw."""
    made: dict[str, dict[str, dict[int, RecordScores]]] = {}
    for test_set, cells in tested.items():
        for system in cells[0].systems:
            for draw in sorted({cell.draw for cell in cells}):
                own = [cell for cell in cells if cell.draw == draw]
                parts = [(cell, cell.systems[system]) for cell in own]
                wrong = [np.where(one.logprob >= one.threshold, one.errors, one.lengths)[one.own] for _, one in parts]
                names = [[f"{cell.function}/{cell.ids[row]}" for row in np.flatnonzero(one.own)] for cell, one in parts]
                blocks = [[cell.function] * int(one.own.sum()) for cell, one in parts]
                made.setdefault(system, {}).setdefault(test_set, {})[draw] = RecordScores(
                    np.concatenate(wrong),
                    np.concatenate([one.lengths[one.own] for _, one in parts]),
                    tuple(name for some in blocks for name in some),
                    tuple(name for some in names for name in some),
                )
    return made
