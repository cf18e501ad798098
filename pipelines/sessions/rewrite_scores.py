"""Scores of rewrites: against the truth of simulated or annotated turns, and by wins and losses in the logs.

The baseline, "the last reformulation", rewrites each interpretation to the one that its chains most often end at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.measures.significance import Interval
from gristmill.models.sessions.interpretations import interpretations, numbers, true_interpretations, utterances
from gristmill.pipelines.report.measures import NUMBER, PERCENT, Measure
from gristmill.pipelines.report.report import MetricRow, NumberTable
from gristmill.pipelines.sessions.rewrites import MinedRewrites, RewriteSettings
from gristmill.shards.dataset import SealedSet

PRECISION = Measure("precision_at_1", "Precision at 1", PERCENT, 1, better="higher", interval=True)
BY_TRAFFIC = Measure("precision_traffic", "Precision by traffic", PERCENT, 1, better="higher")
RECALL = Measure("recall", "Recall", PERCENT, 1, better="higher", interval=True)
WIN_LOSS = Measure("win_loss", "Win/loss ratio", NUMBER, 1, better="higher", interval=True)
MEASURES = (PRECISION, RECALL, WIN_LOSS, BY_TRAFFIC)
_READ = (
    *("text", "asr_text", "lang", "domain", "intent", "slots", "rewritten"),
    *("meaning", "true_domain", "true_intent", "true_slots", "failed"),
)
_REPLICATES = 1000
_DRAWS = 1 << 22  # held at a time
_SHOWN, _WRONG = 10, 5  # rewrites in a table, and more of those that are wrong


@dataclass(frozen=True)
class Rewrites:
    """Rewrites as numbers of nodes, by source in ascending order."""

    source: np.ndarray  # (rewrites,) int64
    target: np.ndarray  # (rewrites,) int64

    def found(self, sources: np.ndarray) -> np.ndarray:
        """Return the target of each source, -1 where there is none."""
        if not len(self.source):
            return np.full(len(sources), -1)
        place = np.minimum(np.searchsorted(self.source, sources), len(self.source) - 1)
        return np.where(self.source[place] == sources, self.target[place], -1)


@dataclass(frozen=True)
class Truth:
    """What turns mean, by node in ascending order."""

    pairs: np.ndarray  # (pairs, 4): node, number of a meaning, how many of its turns have it, and of them have failed

    @cached_property
    def node(self) -> np.ndarray:
        """The nodes, (nodes,)."""
        return np.unique(self.pairs[:, 0])

    @cached_property
    def gold(self) -> np.ndarray:
        """The commonest meaning of each node, (nodes,); of equal ones, the smallest number."""
        order = np.lexsort((-self.pairs[:, 1], self.pairs[:, 2]))  # the last to be set is it
        found = np.zeros(len(self.node), np.int64)
        found[np.searchsorted(self.node, self.pairs[order, 0])] = self.pairs[order, 1]
        return found

    @cached_property
    def fails(self) -> np.ndarray:
        """Whether most turns of each node have failed, (nodes,)."""
        place = np.searchsorted(self.node, self.pairs[:, 0])
        return 2 * np.bincount(place, self.pairs[:, 3]) > np.bincount(place, self.pairs[:, 2])

    def of(self, nodes: np.ndarray, *, right: bool = False) -> np.ndarray:
        """Return the commonest meaning of nodes, -1 where it is not known or, with ``right``, where most turns of the
        node have failed."""
        if not len(self.node):
            return np.full(len(nodes), -1)
        place = np.minimum(np.searchsorted(self.node, nodes), len(self.node) - 1)
        known = (self.node[place] == nodes) & ~(self.fails[place] & right)
        return np.where(known, self.gold[place], -1)


@dataclass(frozen=True)
class SourceCounts:
    """Counts of each source of which one sum is divided by the other."""

    counts: np.ndarray  # (sources,)
    of: np.ndarray  # (sources,)

    @property
    def value(self) -> float:
        """The ratio of the sums; not a number where both are 0."""
        return float(_ratio(self.counts.sum(), self.of.sum()))


def emitted(made: SealedSet) -> Rewrites:
    """Return the rewrites of a set of candidates or rewrites."""
    tables = [(table["source"].to_numpy(), table["target"].to_numpy()) for table in made.tables(["source", "target"])]
    return _by_source(tables)


def last_reformulations(nodes: SealedSet) -> Rewrites:
    """Return the baseline: each node to the other one that most of its chains end at, of equal ones the first."""
    tables = []
    for table in nodes.tables(["node", "ends", "ended"]):
        row, end, ended = _pairs(table, "ends", "ended")
        node = table["node"].to_numpy()[row]
        other = node != end
        node, end, ended = node[other], end[other], ended[other]
        order = np.lexsort((end, -ended, node))
        first = order[np.flatnonzero(np.diff(node[order], prepend=-1))]
        tables.append((node[first], end[first]))
    return _by_source(tables)


def read_truth(mined: MinedRewrites, turns: SealedSet, settings: RewriteSettings) -> Truth:
    """Return what is true of the nodes of turns with the columns of :data:`gristmill.shards.schema.TRUTH_FIELDS`.

    Turns of one ``meaning`` mean the same; where that is not known, those of one true interpretation.
    """
    found = [np.zeros((0, 4), np.int64)]
    for table in turns.tables(_READ):
        own = interpretations(table)
        true = true_interpretations(table)
        failed = pc.coalesce(table["failed"].combine_chunks(), pc.not_equal(own, true))
        if settings.interpret.nodes == "utterance":
            own = pc.binary_join_element_wise(own, utterances(table), "\t")
        meaning = pc.coalesce(table["meaning"].combine_chunks(), true)
        known = np.asarray(meaning.is_valid()) & ~np.asarray(pc.fill_null(table["rewritten"], False))
        wrong = np.asarray(pc.fill_null(failed, False)).astype(np.int64)
        rows = np.stack([numbers(own), numbers(meaning), np.ones(len(own), np.int64), wrong], 1)
        found.append(_distinct(rows[known]))
    pairs = _distinct(np.concatenate(found))
    nodes = np.concatenate([table["node"].to_numpy() for table in mined.nodes.tables(["node"])])
    return Truth(pairs[np.isin(pairs[:, 0], nodes)])


def judged(rewrites: Rewrites, truth: Truth) -> np.ndarray:
    """Return of each rewrite whether its target is right and means what its source does, 1 or 0, and -1 where what its
    source means is not known, (rewrites,) int64."""
    gold = truth.of(rewrites.source)
    right = truth.of(rewrites.target, right=True) == gold
    return np.where(gold < 0, -1, right.astype(np.int64))


def precision(rewrites: Rewrites, truth: Truth) -> SourceCounts:
    """Return of each rewrite whose truth is known whether it is right (:func:`judged`)."""
    found = judged(rewrites, truth)
    known = found[found >= 0]
    return SourceCounts(known, np.ones_like(known))


def precision_by_traffic(rewrites: Rewrites, truth: Truth) -> SourceCounts:
    """Return of each source how many of its turns mean what it is rewritten to, and of how many that is known."""
    target = rewrites.found(truth.pairs[:, 0])
    inside = target >= 0
    node, meaning, count, _ = truth.pairs[inside].T
    right = count * (truth.of(target[inside], right=True) == meaning)
    place = np.searchsorted(rewrites.source, node)
    return SourceCounts(*(np.bincount(place, one).astype(np.int64) for one in (right, count)))


def recall(rewrites: Rewrites, truth: Truth, nodes: SealedSet, support: int) -> SourceCounts:
    """Return whether each interpretation that could be put right is: most of its turns have failed, and chains of at
    least ``support`` users came from it to success at one that is right and means the same."""
    wanted = []
    for table in nodes.tables(["node", "ends", "support"]):
        row, end, users = _pairs(table, "ends", "support")
        node = table["node"].to_numpy()[row]
        same = truth.of(end, right=True) == truth.of(node)
        some = same & (users >= support) & (truth.of(node) >= 0) & (truth.of(node, right=True) < 0)
        wanted.append(np.unique(node[some]))
    sources = np.unique(np.concatenate(wanted))
    right = truth.of(rewrites.found(sources), right=True) == truth.of(sources)
    return SourceCounts(right.astype(np.int64), np.ones(len(sources), np.int64))


def wins_losses(rewrites: Rewrites, nodes: SealedSet) -> SourceCounts:
    """Return the wins and losses of each source in the sessions of ``nodes`` (of :func:`count_nodes`): its chains that
    succeeded at its target without it, and its turns that succeeded at once and would have been changed."""
    wins, losses = [], []
    for table in nodes.tables(["node", "succeeded", "ends", "won"]):
        target = rewrites.found(table["node"].to_numpy())
        row, end, won = _pairs(table, "ends", "won")
        hit = target[row] == end
        own = np.zeros(table.num_rows, np.int64)
        own[row[hit]] = won[hit]
        wins.append(own[target >= 0])
        losses.append(table["succeeded"].to_numpy()[target >= 0])
    return SourceCounts(np.concatenate(wins), np.concatenate(losses))


def interval(runs: Mapping[int, SourceCounts], seed: int = 0) -> Interval:
    """Return the mean of the ratios of all seeds and its 95 % interval: seeds are drawn, and of each its sources."""
    rng = np.random.default_rng(seed)
    rates = np.stack([_resampled(one, rng) for one in runs.values()])
    drawn = rng.integers(0, len(rates), (len(rates), _REPLICATES))
    means = rates[drawn, np.arange(_REPLICATES)].mean(0)
    means = means[np.isfinite(means)]
    low, high = np.percentile(means, [2.5, 97.5]) if len(means) else (math.nan, math.nan)
    return Interval(float(np.mean([one.value for one in runs.values()])), float(low), float(high), "sources")


def metric_rows(system: str, scores: Mapping[str, Mapping[int, SourceCounts]]) -> list[MetricRow]:
    """Return the rows of a system by its scores by measure and seed; ``n`` is the number of sources of all seeds."""
    rows = []
    for name, runs in scores.items():
        found = interval(runs)
        value, low, high = (None if math.isnan(one) else one for one in (found.value, found.low, found.high))
        number = sum(len(one.of) for one in runs.values())
        rows.append(MetricRow(system, "rewrite", name, value, low, high, number, None))
    return rows


def score(
    rewrites: Rewrites, mined: MinedRewrites, truth: Truth | None, support: int, nodes: SealedSet | None = None
) -> dict[str, SourceCounts]:
    """Return the scores of rewrites by measure, of each source.

    Args:
        rewrites: Of :func:`emitted` or :func:`last_reformulations`.
        mined: What they are made of.
        truth: Of the turns that they are made of; without it there are wins and losses only.
        support: Users of a reformulation from which recall counts it.
        nodes: Of the sessions where wins and losses are counted; by default those that the rewrites are made of.
    """
    counted = {WIN_LOSS.name: wins_losses(rewrites, nodes or mined.nodes)}
    if truth is None:
        return counted
    return {
        PRECISION.name: precision(rewrites, truth),
        RECALL.name: recall(rewrites, truth, mined.nodes, support),
        BY_TRAFFIC.name: precision_by_traffic(rewrites, truth),
        **counted,
    }


def rewritten_table(mined: MinedRewrites | None, truth: Truth | None) -> NumberTable:
    """Return the rewrites that most users support; where the truth is known, wrong ones are marked, and more of them
    follow."""
    if mined is None:
        return NumberTable("Rewrites", [])
    columns = ["source", "source_text", "target_text", "support", "margin", "wins", "losses"]
    rows = [row for table in mined.rewrites.tables(columns) for row in table.to_pylist()]
    rows.sort(key=lambda row: (-row["support"], row["source_text"]))
    wrong: set[int] = set()
    if truth is not None:
        rewrites = emitted(mined.rewrites)
        wrong = set(rewrites.source[judged(rewrites, truth) == 0].tolist())
    more = [row for row in rows[_SHOWN:] if row["source"] in wrong][:_WRONG]
    shown = [
        {
            "is said": row["source_text"],
            "is rewritten": row["target_text"],
            **({} if truth is None else {"truth": "wrong" if row["source"] in wrong else ""}),
            "users": row["support"],
            "margin": round(row["margin"], 3),
            "wins": row["wins"],
            "losses": row["losses"],
        }
        for row in [*rows[:_SHOWN], *more]
    ]
    told = "" if truth is None else f"; wrong: {len(wrong)}, the first of which end the table"
    return NumberTable("Rewrites that most users support", shown, f"{len(rows)} in all{told}.")


def _resampled(shares: SourceCounts, rng: np.random.Generator) -> np.ndarray:
    size = len(shares.of)
    found = np.full(_REPLICATES, math.nan)
    each = max(1, _DRAWS // max(1, size))
    for first in range(0, _REPLICATES if size else 0, each):
        weights = rng.poisson(1.0, (min(each, _REPLICATES - first), size))
        found[first : first + len(weights)] = _ratio(weights @ shares.counts, weights @ shares.of)
    return found


def _ratio(counts: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return ratios; where there is nothing to divide by, such as wins without a loss, it is by one."""
    return np.where((counts > 0) | (of > 0), counts / np.maximum(of, 1), math.nan)


def _pairs(table: pa.Table, other: str, count: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, other node and count of each pair in the lists of a table."""
    lists = [table[name].combine_chunks() for name in (other, count)]
    rows = np.repeat(np.arange(table.num_rows), pc.list_value_length(lists[0]).to_numpy())
    return rows, lists[0].flatten().to_numpy(), lists[1].flatten().to_numpy()


def _by_source(tables: list[tuple[np.ndarray, np.ndarray]]) -> Rewrites:
    source, target = (np.concatenate([np.zeros(0, np.int64), *one]) for one in zip(*tables, strict=True))
    order = np.argsort(source)
    return Rewrites(source[order], target[order])


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Return the distinct pairs of the first two columns, in order, with the sums of the others."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    first = np.flatnonzero((np.diff(rows[:, 0], prepend=-1) != 0) | (np.diff(rows[:, 1], prepend=-1) != 0))
    sums = np.add.reduceat(rows[:, 2:], first) if len(first) else rows[:, 2:]
    return np.column_stack([rows[first, :2], sums])
