"""Evaluation of bootstrapped language models.

Perplexity and unseen words of in-domain text, word errors of rescored n-best lists, and translation quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
import pyarrow as pa

from gristmill.actors.text.parts import DEV, TEST
from gristmill.models.measures import significance
from gristmill.models.measures.significance import Interval
from gristmill.models.measures.wer import UNKNOWN, WerResult
from gristmill.models.measures.wer import score as word_errors
from gristmill.pipelines.report.report import MetricRow
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.parquet import read_table

LM_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # of the language model, relative to the channel
WORD_BONUSES = (0.0, 0.5, 1.0, 2.0)  # per word, against the bias towards short texts


@dataclass(frozen=True)
class Losses:
    """A language model's loss on each text."""

    errors: np.ndarray  # (texts,) nats, or numbers of unseen words
    words: np.ndarray  # (texts,) numbers of words, with the end of the text where it is predicted
    ids: tuple[str, ...]

    @property
    def speakers(self) -> tuple[str, ...]:
        """Unknown ones: each text is drawn by itself."""
        return tuple(UNKNOWN + name for name in self.ids)


@dataclass(frozen=True)
class Scored:
    """One part of a set whose texts and n-best lists each system's language model has scored."""

    texts: list[str]
    ids: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    offsets: np.ndarray  # text i has the candidates offsets[i] to offsets[i + 1]
    candidates: list[str]
    channel: np.ndarray  # log-probabilities
    language: Mapping[str, np.ndarray]  # by system


def read(scored: SealedSet, systems: Sequence[str], part: str) -> Scored:
    """Return the texts of a part and each system's scores."""
    own = [f"{system}_{name}" for system in systems for name in ("logprob", "words", "oov", "oov_logprob", "unseen")]
    lists = [f"{system}_logprobs" for system in systems]
    table = pa.concat_tables(scored.tables(["id", "text", "part", "nbest", *own, *lists]))
    table = table.filter(pa.compute.equal(table["part"], part)).sort_by("id")
    nbest = table["nbest"].to_pylist()
    return Scored(
        table["text"].to_pylist(),
        tuple(table["id"].to_pylist()),
        {name: table[name].to_numpy().astype(float) for name in own},
        np.cumsum([0, *map(len, nbest)]),
        [one["text"] for some in nbest for one in some],
        np.array([one["logprob"] for some in nbest for one in some], float),
        {s: np.concatenate(table[f"{s}_logprobs"].to_numpy()).astype(float) for s in systems},
    )


def rescored(scored: Scored, system: str, weight: float, bonus: float) -> WerResult:
    """Return the word errors of each list's best candidate."""
    lengths = np.array([len(text.split()) for text in scored.candidates])
    total = scored.channel + weight * scored.language[system] + bonus * lengths
    spans = zip(scored.offsets[:-1], scored.offsets[1:], strict=True)
    chosen = [scored.candidates[start + int(np.argmax(total[start:end]))] for start, end in spans]
    return word_errors(scored.texts, chosen, normalise="none", ids=scored.ids)


def tuned(dev: Scored, system: str) -> tuple[float, float]:
    """Return the weight and bonus with the fewest word errors on development lists, the smallest of equals."""
    grid = list(product(LM_WEIGHTS, WORD_BONUSES))
    return min(grid, key=lambda some: (int(rescored(dev, system, *some).errors.sum()), some))


def losses(scored: Scored, system: str, *, known: bool = False) -> Losses:
    """Return the model's loss on each text; ``known``: without out-of-vocabulary words."""
    get = {name: scored.columns[f"{system}_{name}"] for name in ("logprob", "words", "oov", "oov_logprob")}
    less = (get["oov_logprob"], get["oov"]) if known else (0.0, 0.0)
    return Losses(-(get["logprob"] - less[0]), get["words"] - less[1], scored.ids)


def unseen(scored: Scored, system: str) -> Losses:
    """Return the number of words of each text that do not occur in the system's own texts."""
    return Losses(scored.columns[f"{system}_unseen"], scored.columns[f"{system}_words"] - 1, scored.ids)


def text_metrics(
    sets: Mapping[int, SealedSet], systems: Sequence[str], test_set: str, baselines: Sequence[str]
) -> tuple[list[MetricRow], dict[str, dict[int, WerResult]], dict[str, dict[int, Losses]]]:
    """Return the rows of perplexity and unseen words, and by system and seed the word errors of rescored lists and the
    losses of the texts.

    ``perplexity`` includes out-of-vocabulary words, with the probability of the unknown word; ``perplexity_known``
    leaves them out; ``perplexity_relative`` and ``perplexity_p`` are against the first baseline on the same texts, and
    with ``:X`` appended against each other one.
    """
    tests = {seed: read(made, systems, TEST) for seed, made in sets.items()}
    devs = {seed: read(made, systems, DEV) for seed, made in sets.items()}
    errors = {
        system: {seed: rescored(tests[seed], system, *tuned(devs[seed], system)) for seed in sets} for system in systems
    }
    rows: list[MetricRow] = []
    mine = {system: {seed: losses(scored, system) for seed, scored in tests.items()} for system in systems}
    for system in systems:
        known = {seed: losses(scored, system, known=True) for seed, scored in tests.items()}
        new = {seed: unseen(scored, system) for seed, scored in tests.items()}
        rows += _rows(system, test_set, "perplexity", mine[system], math.exp)
        rows += _rows(system, test_set, "perplexity_known", known, math.exp)
        rows += _rows(system, test_set, "oov", new)
        for other in baselines:
            if other != system:
                suffix = "" if other == baselines[0] else f":{other}"
                rows += _changes(system, test_set, mine[system], mine[other], suffix)
    return rows, errors, mine


def _changes(
    system: str, test_set: str, mine: Mapping[int, Losses], theirs: Mapping[int, Losses], suffix: str
) -> list[MetricRow]:
    """Return the rows of a perplexity's relative change, and its p-value, over all seeds and of each."""
    rows = []
    for seed in (None, *mine):
        one, other = ({seed: runs[seed]} if seed is not None else runs for runs in (mine, theirs))
        found = significance.paired_change(one, other)
        words = int(next(iter(one.values())).words.sum())
        value, low, high = map(math.expm1, (found.difference.value, found.difference.low, found.difference.high))
        rows.append(MetricRow(system, test_set, f"perplexity_relative{suffix}", value, low, high, words, seed))
        rows.append(MetricRow(system, test_set, f"perplexity_p{suffix}", found.p, None, None, words, seed))
    return rows


def _rows(
    system: str, test_set: str, metric: str, runs: Mapping[int, Losses], shown: Callable[[float], float] = float
) -> list[MetricRow]:
    """Return a measure's rows, over all seeds and of each; ``shown`` maps a rate per word to the measure."""
    keyed: list[tuple[int | None, Mapping[int, Losses]]] = [
        (None, runs),
        *((seed, {seed: runs[seed]}) for seed in runs),
    ]
    rows = []
    for seed, some in keyed:
        got: Interval = significance.wer_interval(some)
        words = int(next(iter(some.values())).words.sum())
        values = (shown(got.value), shown(got.low), shown(got.high))
        rows.append(MetricRow(system, test_set, metric, *values, words, seed))
    return rows


@dataclass(frozen=True)
class Translations:
    """A translator's translations of the reference texts, and the references of each."""

    hypotheses: list[str]
    references: list[list[str]]


def read_references(asked: SealedSet) -> dict[str, list[str]]:
    """Return the references of each test text, in the order of the texts' ids."""
    table = pa.concat_tables(asked.tables(["id", "references"])).sort_by("id")
    return dict(zip(table["id"].to_pylist(), table["references"].to_pylist(), strict=True))


def read_translations(made: SealedSet, references: Mapping[str, list[str]]) -> Translations:
    """Return the translations (column ``target``) of the texts that have references, in their order.

    A missing translation counts as empty, so that all systems are compared on the same texts.
    """
    found = {row["id"]: row["target"] for table in made.tables(["id", "target"]) for row in table.to_pylist()}
    return Translations([found.get(name, "") for name in references], list(references.values()))


def translation_metrics(
    system: str, test_set: str, made: Mapping[int, Translations], replicates: int = 1000
) -> tuple[list[MetricRow], dict[str, str]]:
    """Return the rows of BLEU and chrF (0 to 100), and sacrebleu's signature of each."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    class PlainCHRF(CHRF):
        # Resamples are numpy sums, and sacrebleu cannot average their scores with a plain 0.
        def _compute_score_from_stats(self, stats: list[int]) -> Any:
            return super()._compute_score_from_stats([int(value) for value in stats])

    rows: list[MetricRow] = []
    signatures = {}
    for metric, make in (("bleu", BLEU), ("chrf", PlainCHRF)):
        intervals = {}
        for seed, some in made.items():
            most = max(map(len, some.references))
            streams = [[refs[n] if n < len(refs) else None for refs in some.references] for n in range(most)]
            scorer = make()
            # Texts have different numbers of references; sacrebleu accepts None for the missing ones, undeclared.
            got = scorer.corpus_score(some.hypotheses, cast(Any, streams), n_bootstrap=replicates)
            signatures[metric] = str(scorer.get_signature())
            intervals[seed] = (got.score, got._mean - got._ci, got._mean + got._ci)
        sizes = {seed: len(some.hypotheses) for seed, some in made.items()}
        keyed: list[tuple[int | None, tuple[float, float, float]]] = [(None, _together(list(intervals.values())))]
        keyed += intervals.items()
        for key, each in keyed:
            n = sum(sizes.values()) if key is None else sizes[key]
            rows.append(MetricRow(system, test_set, metric, *each, n, key))
    return rows, signatures


def filtered_examples(kept: SealedSet, number: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Return examples of kept and of rejected translations, from the first shard."""
    sides = {
        "kept": kept.read(0, ["id", "source", "target"]).slice(0, number).to_pylist(),
        "dropped": [
            {"id": row["id"], "reason": row["reason"]}
            for file in kept.side("rejects")[:1]
            for row in read_table(kept.url, file).slice(0, number).to_pylist()
        ],
    }
    return sides


def available() -> None:
    """Check that sacrebleu is installed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise UserError("sacrebleu is not installed: run `pip install '.[translation]'`") from None


def _together(parts: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Return the mean over seeds; its interval covers the variance of texts and of trainings."""
    value, low, high = np.array(parts).T
    mean = float(value.mean())
    spread = value.var(ddof=1) if len(value) > 1 else 0.0
    below, above = (float(np.sqrt(((value - end) ** 2).mean() + 1.96**2 * spread / len(value))) for end in (low, high))
    return mean, mean - below, mean + above
