"""Metrics of re-rankers: errors of the readings they choose, and calibration of their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.models.measures import calibration
from gristmill.models.measures.semer import Estimate, Interpretation, SemerResult, ratio, reference_length, score
from gristmill.models.measures.wer import UNKNOWN
from gristmill.pipelines.record_scores import RecordScores
from gristmill.pipelines.report.measures import ECE, ICER, IRER, NLL, SEMER, SLOT_F1, Measure
from gristmill.pipelines.report.report import Diagram, MetricRow, Reliability, TestSet
from gristmill.shards.dataset import SealedSet

REPLICATES = 2000
BINS = 15
NORMAL = 1.96  # half the width of a 95 % interval, in standard errors
ECE_TOP1 = Measure("ece_top1", "ECE of the chosen")
MEASURES = [
    SEMER,
    ICER,
    IRER,
    SLOT_F1,
    ECE,
    ECE_TOP1,
    NLL,
    SEMER.relative(),
]
LABELS = {
    "test": "Test",
    "R0": "R0 (unweighted)",
    "R1": "R1 (expected SemER)",
    "R2": "R2 (cross-entropy)",
    "R3": "R3 (both)",
    "R1_no_context": "R1 without context",
    "R2_no_context": "R2 without context",
    "R3_no_context": "R3 without context",
    "lambdarank": "LambdaRank",
    "lambdarank_temperature": "LambdaRank + temperatures",
    "lambdarank_platt": "LambdaRank + Platt",
}
COLUMNS = ["id", "domain", "intent", "slots", "fold", "hypotheses", "reference_length", "oracle_errors"]


@dataclass(frozen=True)
class TestLists:
    """The lists of one test set, flattened: the hypotheses of list i are at ``offsets[i]:offsets[i + 1]``."""

    ids: tuple[str, ...]
    references: list[Interpretation]
    readings: list[Interpretation]
    correct: np.ndarray
    offsets: np.ndarray
    oracle: np.ndarray  # errors of the best in each list
    scores: Mapping[str, np.ndarray]  # by system
    best: Mapping[str, np.ndarray]  # by system: the index of the chosen one in its list, -1: none

    def __len__(self) -> int:
        return len(self.references)

    @property
    def domains(self) -> np.ndarray:
        """The domain of each hypothesis."""
        return np.array([reading.domain for reading in self.readings])


def read_lists(ranked: SealedSet, systems: Sequence[str], only: str | None = None) -> TestLists:
    """Return the test lists of a set with scores of each system; ``only`` names a column that must be true."""
    names = [f"{part}_{system}" for system in systems for part in ("scores", "best")]
    wanted = [*COLUMNS, *names, *([only] if only else [])]
    tables = [table.filter(pa.compute.equal(table["fold"], -1)) for table in ranked.tables(wanted)]
    table = pa.concat_tables(tables)
    if only:
        table = table.filter(table[only])
    lists = table["hypotheses"].to_pylist()
    found = [one for some in lists for one in some]
    return TestLists(
        tuple(table["id"].to_pylist()),
        [_reading(row) for row in table.select(["domain", "intent", "slots"]).to_pylist()],
        [_reading(one) for one in found],
        np.array([one["correct"] for one in found], bool),
        np.cumsum([0, *map(len, lists)]),
        table["oracle_errors"].to_numpy(),
        {s: np.concatenate(table[f"scores_{s}"].to_numpy()).astype(float) for s in systems},
        {s: table[f"best_{s}"].to_numpy() for s in systems},
    )


def _reading(row: Mapping) -> Interpretation:
    return Interpretation(row["domain"], row["intent"], tuple((s["name"], s["value"]) for s in row["slots"]))


def chosen(lists: TestLists, system: str) -> SemerResult:
    """Score the reading that a system chose from each list."""
    best = lists.best[system]
    picked = [lists.readings[o + b] if b >= 0 else None for o, b in zip(lists.offsets, best, strict=False)]
    return score(lists.references, picked)


def measures(lists: TestLists, system: str, result: SemerResult) -> dict[str, tuple[float, float, float]]:
    """Return each metric of a system with its 95 % interval (NaN: none); ``result`` is the score of its choices."""
    counted = result.metrics().items()
    found = {name: _around(got, math.inf if name == "semer" else 1.0) for name, got in counted}
    scores, best = lists.scores[system], lists.best[system]
    sizes = np.diff(lists.offsets)
    utterance = np.repeat(np.arange(len(lists)), sizes)
    top = (lists.offsets[:-1] + best)[best >= 0]
    found["ece"] = calibration.ece_interval(scores, lists.correct, utterance, BINS)
    found["ece_mass"] = calibration.ece_interval(scores, lists.correct, utterance, BINS, "mass")
    found["ece_top1"] = calibration.ece_interval(scores[top], lists.correct[top], utterance[top], BINS)
    for name, each in (("nll", calibration.log_losses), ("brier", calibration.squared_errors)):
        sums = np.bincount(utterance, each(scores, lists.correct), len(lists))
        found[name] = _around(ratio(sums, sizes))
    return found


def _around(got: Estimate, most: float = math.inf) -> tuple[float, float, float]:
    if math.isnan(got.error):  # of a single request; min and max would let the bounds stand
        return got.value, math.nan, math.nan
    low, high = got.value - NORMAL * got.error, got.value + NORMAL * got.error
    return got.value, max(0.0, low), min(most, high)


def record_scores(judged: Mapping[str, Mapping[int, TestLists]]) -> dict[str, dict[str, dict[int, RecordScores]]]:
    """Return the errors and labels of each request, by system, test set and split."""
    made: dict[str, dict[str, dict[int, RecordScores]]] = {}
    for test_set, splits in judged.items():
        for seed, lists in splits.items():
            for system in lists.scores:
                result, unknown = chosen(lists, system), tuple(UNKNOWN + name for name in lists.ids)
                own = RecordScores(result.errors, result.length, unknown, lists.ids)
                made.setdefault(system, {}).setdefault(test_set, {})[seed] = own
    return made


def metrics(splits: Mapping[int, TestLists], test_set: str, baseline: str, also: Sequence[str] = ()) -> list[MetricRow]:
    """Return the metrics in long form: each system on each random split (``seed``), and their mean (``seed`` null).

    Splits share utterances, so the interval of the mean is no narrower than that of a split: its variance is the mean
    of their variances plus the variance between them. ``semer_relative`` is against the baseline on the same lists,
    ``semer_relative:X`` against each system X of ``also``.
    """
    systems = list(next(iter(splits.values())).scores)
    results = {(seed, system): chosen(lists, system) for seed, lists in splits.items() for system in systems}
    rows: list[MetricRow] = []
    drawn = {seed: _resampled({system: results[seed, system] for system in systems}) for seed in splits}
    for system in systems:
        each = {seed: measures(lists, system, results[seed, system]) for seed, lists in splits.items()}
        for seed, lists in splits.items():
            lengths = np.array([reference_length(reference) for reference in lists.references])
            each[seed]["oracle_semer"] = _around(ratio(lists.oracle, lengths))
            for other in (baseline, *also):
                if system != other:
                    name = "semer_relative" if other == baseline else f"semer_relative:{other}"
                    each[seed][name] = _relative(drawn[seed][system], drawn[seed][other])
        for name in next(iter(each.values())):
            parts = {seed: found[name] for seed, found in each.items() if name in found}
            total = sum(len(lists) for lists in splits.values())
            rows.append(_row(system, test_set, name, _together(list(parts.values())), total, None))
            rows += [_row(system, test_set, name, part, len(splits[seed]), seed) for seed, part in parts.items()]
    return rows


def describe(splits: Mapping[int, TestLists]) -> TestSet:
    """Return the size of a test set over its splits."""
    sizes = {
        "utterances": sum(len(lists) for lists in splits.values()),
        "hypotheses": sum(len(lists.readings) for lists in splits.values()),
    }
    return TestSet(sizes | ({"splits": len(splits)} if len(splits) > 1 else {}))


def _together(parts: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    value, low, high = np.array(parts).T
    mean = value.mean()
    spread = value.var(ddof=1) if len(value) > 1 else 0.0
    below, above = (np.sqrt(((value - end) ** 2).mean() + NORMAL**2 * spread) for end in (low, high))
    return float(mean), float(mean - below), float(mean + above)


def _resampled(results: Mapping[str, SemerResult]) -> dict[str, np.ndarray]:
    """Return each system's errors, of all utterances and of resamples of them: (1 + replicates,), the same for all."""
    rng = np.random.Generator(np.random.Philox(0))
    n = len(next(iter(results.values())))
    errors = np.stack([result.errors for result in results.values()], 1).astype(float)
    drawn = [np.bincount(rng.integers(n, size=n), minlength=n) @ errors for _ in range(REPLICATES)]
    return dict(zip(results, np.array([errors.sum(0), *drawn]).T, strict=True))


def _relative(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Return the relative change of SemER with its interval, by a paired bootstrap over utterances."""
    if not theirs[0]:
        return math.nan, math.nan, math.nan
    low, high = np.percentile(mine[1:] / np.maximum(theirs[1:], 1) - 1, [2.5, 97.5])
    return float(mine[0] / theirs[0] - 1), float(low), float(high)


def _row(
    system: str, test_set: str, name: str, interval: tuple[float, float, float], n: int, seed: int | None
) -> MetricRow:
    value, low, high = (None if math.isnan(number) else number for number in interval)
    return MetricRow(system, test_set, name, value, low, high, n, seed)


def diagrams(splits: Mapping[int, TestLists]) -> Reliability:
    """Return the reliability diagrams of each system over all splits: of all domains together, and per domain."""
    made = []
    names = np.concatenate([lists.domains for lists in splits.values()])
    correct = np.concatenate([lists.correct for lists in splits.values()])
    for system in next(iter(splits.values())).scores:
        scores = np.concatenate([lists.scores[system] for lists in splits.values()])
        for domain in [None, *sorted(set(names))]:
            here = slice(None) if domain is None else names == domain
            bins = calibration.reliability(scores[here], correct[here], BINS)
            made.append(Diagram(system, [b for b in bins if b.n], domain))
    return Reliability(made, scored="hypotheses", part="domain")
