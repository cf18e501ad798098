"""Evaluation of word error rates over trainings, for recipes of all wings: rates, relative changes, MAPSSWE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.models.measures import significance
from gristmill.models.measures.wer import UNKNOWN, WerResult
from gristmill.pipelines.report.measures import (
    CER,
    DELETIONS,
    INSERTIONS,
    MAPSSWE,
    MAPSSWE_Z,
    SUBSTITUTIONS,
    WER,
    Measure,
)
from gristmill.pipelines.report.report import FEW_SPEAKERS, OF_UNKNOWN, UNKNOWN_SPEAKERS, MetricRow, TestSet
from gristmill.shards.errors import UserError

Results = Mapping[str, Mapping[str, Mapping[int, WerResult]]]  # system, test set, training seed

_PARTS: dict[str, Callable[[WerResult], np.ndarray]] = {
    SUBSTITUTIONS.name: lambda run: run.substitutions,
    DELETIONS.name: lambda run: run.deletions,
    INSERTIONS.name: lambda run: run.insertions,
}


def evaluate(
    results: Results,
    *,
    measure: Measure = WER,
    baseline: str,
    also_against: Sequence[str] = (),
    replicates: int = 2000,
    seed: int = 0,
) -> list[MetricRow]:
    """Return the metrics of scored systems: for each seed, and over all of them (``seed`` None).

    Metrics: ``measure`` itself; ``substitutions``, ``deletions``, ``insertions`` as rates over the reference
    words; beside word error rates ``cer``, that of characters; ``{measure}_difference``, ``{measure}_relative`` and
    ``{measure}_p`` (of the difference, by paired bootstrap), ``mapsswe_p`` and ``mapsswe_z`` against the baseline (the
    same with ``:{system}`` appended against each system of ``also_against``). A system trained with seed s is compared
    with the baseline's seed s, or its first if it has none. Over all seeds ``mapsswe_p`` is the largest of the seeds'
    (all of them must be significant), with its z. Systems must have been scored on the same utterances.

    Example:
        >>> from gristmill.models.measures.wer import score
        >>> texts = ["turn on the lights", "play music"]
        >>> base, ours = score(texts, ["turn on lights", "play"]), score(texts, ["turn on the lights", "play"])
        >>> wanted = ("wer", "wer_relative")
        >>> rows = evaluate({"base": {"test": {0: base}}, "ours": {"test": {0: ours}}}, baseline="base")
        >>> [(row.system, row.metric, round(row.value, 3)) for row in rows if row.metric in wanted and row.seed is None]
        [('base', 'wer', 0.333), ('ours', 'wer', 0.167), ('ours', 'wer_relative', -0.5)]
    """
    missing = [name for name in (baseline, *also_against) if name not in results]
    if missing:
        raise UserError(f"evaluation: no results for {missing[0]!r}; there are {sorted(results)}")
    rows: list[MetricRow] = []
    for system, by_set in results.items():
        for test_set, runs in by_set.items():
            compared = _Compared(system, test_set, runs, measure, replicates, seed)
            rows += compared.rates()
            for other in (baseline, *also_against):
                theirs = results[other].get(test_set)
                if other != system and theirs is not None:
                    rows += compared.against(theirs, "" if other == baseline else f":{other}")
    return rows


@dataclass(frozen=True)
class _Compared:
    """The runs of a system on a test set, and the settings of their intervals."""

    system: str
    test_set: str
    runs: significance.Runs
    measure: Measure
    replicates: int
    seed: int

    @property
    def words(self) -> int:
        return int(next(iter(self.runs.values())).words.sum())

    def row(self, metric: str, got: significance.Interval, seed: int | None, n: int | None = None) -> MetricRow:
        n = self.words if n is None else n
        return MetricRow(self.system, self.test_set, metric, got.value, got.low, got.high, n, seed)

    def rates(self) -> list[MetricRow]:
        """Return the rows of the error rate and its parts."""
        rows = []
        keyed: list[tuple[int | None, significance.Runs]] = [(None, self.runs)]
        keyed += [(key, {key: run}) for key, run in self.runs.items()]
        for key, some in keyed:
            for name in (self.measure.name, *_PARTS):
                got = significance.wer_interval(some, _PARTS.get(name), replicates=self.replicates, seed=self.seed)
                rows.append(self.row(name, got, key))
            if self.measure == WER and all(run.texts for run in some.values()):
                rows.append(self.characters(some, key))
        return rows

    def characters(self, runs: significance.Runs, seed: int | None) -> MetricRow:
        """Return the row of the character error rate."""
        scored = {key: run.characters for key, run in runs.items()}
        got = significance.wer_interval(scored, replicates=self.replicates, seed=self.seed)
        return self.row(CER.name, got, seed, int(next(iter(scored.values())).words.sum()))

    def against(self, theirs: significance.Runs, suffix: str) -> list[MetricRow]:
        """Return the rows of the comparison with another system."""
        first = next(iter(theirs))
        rows, tests = self.change(self.runs, theirs, suffix, None), {}
        for key, run in self.runs.items():
            partner = theirs[key if key in theirs else first]
            tests[key] = significance.mapsswe(run, partner)
            rows += self.change({0: run}, {0: partner}, suffix, key)
        weakest = max(tests.values(), key=lambda test: test.p)
        named: list[tuple[int | None, significance.Mapsswe]] = [(None, weakest), *tests.items()]
        for of, test in named:
            for metric, value in ((MAPSSWE.name, test.p), (MAPSSWE_Z.name, test.z)):
                own = (self.system, self.test_set, metric + suffix, value, None, None, test.segments, of)
                rows.append(MetricRow(*own))
        return rows

    def change(
        self, mine: significance.Runs, theirs: significance.Runs, suffix: str, seed: int | None
    ) -> list[MetricRow]:
        """Return the rows of the difference, of the relative change if there is one, and of the p-value."""
        found = significance.paired_change(mine, theirs, replicates=self.replicates, seed=self.seed)
        name = self.measure.name
        rows = [self.row(f"{name}_difference{suffix}", found.difference, seed)]
        if found.relative is not None:
            rows.append(self.row(f"{self.measure.relative().name}{suffix}", found.relative, seed))
        p = MetricRow(self.system, self.test_set, f"{name}_p{suffix}", found.p, None, None, self.words, seed)
        return [*rows, p]


def describe_test_set(result: WerResult) -> TestSet:
    """Return a test set's size, and the unit resampled for its intervals."""
    known = {name for name in result.speakers if not name.startswith(UNKNOWN)}
    unknown = sum(name.startswith(UNKNOWN) for name in result.speakers)
    sizes = {"utterances": len(result), "words": int(result.words.sum())}
    if not known:
        return TestSet(sizes, UNKNOWN_SPEAKERS)
    sizes |= {"speakers": len(known)} | ({OF_UNKNOWN: unknown} if unknown else {})
    few = len(known) + unknown < significance.MIN_SPEAKERS
    return TestSet(sizes, FEW_SPEAKERS if few else "speakers")
