"""A recipe: whether rare words should count more where the domain of a request is found by its words."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from gristmill.models.measures.significance import paired_change, wer_interval
from gristmill.models.measures.wer import UNKNOWN
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, prepare_requests, split_requests
from gristmill.pipelines.record_scores import RecordScores, keep_scores
from gristmill.pipelines.report.measures import PERCENT, Measure
from gristmill.pipelines.report.report import MetricRow, Report, TestSet
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
    words = run.train(TrainJob("words", fit, config.words, {"data": requests}, stepwise=False))
    weigh = [Vectors.stage(VectorSettings(weighting=one, column=one), name=one, words=words.ref) for one in SYSTEMS]
    vectors = run.step(Step("vectors", tuple(weigh), requests))

    # Each result is a handle, made when it is needed, or all by `finish`: what is ready runs side by side.
    read = []
    for system, seed in product(SYSTEMS, run.seeds):
        training = config.training.but(vector=system, seed=seed)
        model = run.train(TrainJob(system, train, training, {"data": vectors}))
        settings = ClassifySettings(vector=system, column=f"{system}_{seed}")
        read.append(Classify.stage(settings, name=settings.column, model=model.ref))
    made = run.step(Step("classified", tuple(read), vectors))
    run.finish()
    scores = {system: _scores(made, system, run.seeds) for system in SYSTEMS}
    by_test = {system: {"test": by_seed} for system, by_seed in scores.items()}
    keep_scores(run, ERROR.name, by_test, {"sets": [made]})
    return _report(config, scores)


def _scores(made: SealedSet, system: str, seeds: list[int]) -> dict[int, RecordScores]:
    """Return the errors of each model on the test part, by request: what intervals are resampled from."""
    tests = [table.filter(pc.field("fold") == -1) for table in made.tables()]
    ids = tuple(one for table in tests for one in table["id"].to_pylist())
    wrong = {
        seed: np.concatenate([pc.not_equal(table["domain"], table[f"{system}_{seed}"]).to_numpy() for table in tests])
        for seed in seeds
    }
    ones = np.ones(len(ids), np.int64)  # what errors are divided by
    speakers = tuple(UNKNOWN + one for one in ids)  # each request is drawn by itself
    return {seed: RecordScores(found.astype(np.int64), ones, speakers, ids) for seed, found in wrong.items()}


def _report(config: Config, scores: Mapping[str, Mapping[int, RecordScores]]) -> Report:
    rows = []
    baseline = scores["binary"]
    size = len(baseline[min(baseline)].words)
    for system, by_seed in scores.items():
        found = wer_interval(by_seed)
        rows.append(MetricRow(system, "test", ERROR.name, found.value, found.low, found.high, size, None))
        if system == "binary":
            continue
        change = paired_change(by_seed, baseline)
        rows.append(MetricRow(system, "test", f"{ERROR.name}_p", change.p, None, None, size, None))
        if (moved := change.relative) is not None:
            name = ERROR.relative().name
            rows.append(MetricRow(system, "test", name, moved.value, moved.low, moved.high, size, None))
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
