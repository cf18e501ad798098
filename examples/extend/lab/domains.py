"""A recipe: whether rare words should count more where the domain of a request is found by its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.models.measures.significance import relative_interval, wer_interval
from gristmill.pipelines.report.measures import PERCENT, Measure
from gristmill.pipelines.report.report import MetricRow, Report, TestSet
from gristmill.pipelines.requests.corpora import RequestCorpusSettings, prepare_requests, split_requests
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

import numpy as np
import pyarrow.compute as pc

from lab.classify import Classify, ClassifySettings
from lab.linear import LinearTraining, train
from lab.vectors import Vectors, VectorSettings, WordSettings, fit

SYSTEMS = ("binary", "idf")  # the weightings of words
ERROR = Measure("error", "Domain error", PERCENT, 1, interval=True, counts="errors")


class Config(Settings):
    """The recipe's settings."""

    corpus: RequestCorpusSettings = RequestCorpusSettings()
    """The requests: where they come from, and the filters applied to them."""
    words: WordSettings = WordSettings()
    training: LinearTraining = LinearTraining()


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    requests = split_requests(run, config.corpus, prepare_requests(run, config.corpus))

    # A fit is done in one go (stepwise=False); it and the trainings lie in folders by what they depend on.
    (words,) = run.train([TrainJob("words", fit, config.words, {"data": requests}, stepwise=False)])
    weigh = [Vectors.stage(VectorSettings(weighting=one, column=one), name=one, words=words.ref) for one in SYSTEMS]
    vectors = run.step(Step("vectors", tuple(weigh), requests))

    # All trainings are given at once, so that they run in parallel.
    wanted = [(system, seed) for system in SYSTEMS for seed in run.seeds]
    jobs = [
        TrainJob(system, train, config.training.but(vector=system, seed=seed), {"data": vectors})
        for system, seed in wanted
    ]
    read = []
    for (system, seed), model in zip(wanted, run.train(jobs), strict=True):
        settings = ClassifySettings(vector=system, column=f"{system}_{seed}")
        read.append(Classify.stage(settings, name=settings.column, model=model.ref))
    made = run.step(Step("classified", tuple(read), vectors))
    return _report(config, {system: _scores(made, system, run.seeds) for system in SYSTEMS})


@dataclass(frozen=True)
class Scores:
    """Errors of one model on the test part, counted by request: what intervals are resampled from."""

    errors: np.ndarray
    words: np.ndarray  # what errors are divided by: 1 for each request
    speakers: tuple[str, ...]  # the ids of requests: each is drawn by itself


def _scores(made: SealedSet, system: str, seeds: list[int]) -> dict[int, Scores]:
    tests = [table.filter(pc.field("fold") == -1) for table in made.tables()]
    ids = tuple(one for table in tests for one in table["id"].to_pylist())
    wrong = {
        seed: np.concatenate([pc.not_equal(table["domain"], table[f"{system}_{seed}"]).to_numpy() for table in tests])
        for seed in seeds
    }
    return {seed: Scores(found.astype(np.int64), np.ones(len(ids), np.int64), ids) for seed, found in wrong.items()}


def _report(config: Config, scores: Mapping[str, Mapping[int, Scores]]) -> Report:
    rows = []
    baseline = scores["binary"]
    size = len(baseline[min(baseline)].words)
    for system, by_seed in scores.items():
        found = {ERROR.name: wer_interval(by_seed)}
        if system != "binary" and any(one.errors.any() for one in baseline.values()):
            found[ERROR.relative().name] = relative_interval(by_seed, baseline)
        rows += [MetricRow(system, "test", name, x.value, x.low, x.high, size, None) for name, x in found.items()]
    return Report(
        title="Domains by words",
        recipe={"name": "domains", **config.model_dump(mode="json")},
        measures=(ERROR, ERROR.relative()),
        baseline="binary",
        headline=("idf", "test"),
        labels={"binary": "Equal weights", "idf": "Inverse document frequency"},
        tested="requests",
        metrics=rows,
        test_sets={"test": TestSet({"requests": size}, "requests")},
    )
