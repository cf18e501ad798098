"""Teaching: spans of requests that a catalogue does not know, found by taggers that were trained with masked values.

To measure it, values of catalogue slots are drawn and hidden: no request that has one is trained on, and in these
requests the spans whose value no training request has are to be found, with exact boundaries. Beside the taggers are
those of the same requests without masks, and the rule that words never seen are unknown spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from gristmill.actors.sessions import teaching_trainer
from gristmill.actors.sessions.teaching import (
    AsTaught,
    KeepHeld,
    TaughtSettings,
    UnknownSettings,
    UnknownSpans,
    read_teaching,
)
from gristmill.actors.sessions.teaching_trainer import HoldOutSettings, HoldOutValues, TeachingTraining
from gristmill.models.measures.significance import Ratio, wer_interval
from gristmill.models.measures.wer import UNKNOWN as ALONE
from gristmill.models.sessions.teaching import MaskSettings, value_of
from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

SYSTEMS = ("masked", "plain", "new_words")
TEST_SET = "teaching"


class TeachingSettings(Settings):
    """The finder of unknown spans, and how it is measured."""

    training: TeachingTraining = TeachingTraining()
    """The taggers."""
    share: float = Field(0.2, gt=0, lt=1)
    """Share of the values of catalogue slots that are hidden to measure."""
    taught: TaughtSettings = TaughtSettings()
    """Which spans that are found become training data."""


@dataclass(frozen=True)
class TaughtSpans:
    """The model of training without hidden values, and the requests with these, as each system tags them."""

    model: Artifact
    tested: SealedSet


def learn_teaching(
    run: Run, settings: TeachingSettings, requests: SealedSet, suffix: str = "", seed: int = 0
) -> TaughtSpans:
    """Declare taggers that are trained without the values that draw ``seed`` hides, and the test of them.

    ``requests`` are annotated (``shards.schema.REQUEST_FIELDS``).

    Raises:
        UserError: at work: no request has a slot, or none is left without a hidden value.
    """
    given = settings.training.catalogue
    catalogue = run.train(TrainJob("catalogue", teaching_trainer.collect, given, {"data": requests}, stepwise=False))
    hidden = HoldOutValues.stage(HoldOutSettings(share=settings.share, draw=seed), catalogue=catalogue.ref)
    divided = run.step(Step(f"hidden_values{suffix}", (hidden,), requests))
    training = settings.training.but(seed=seed)
    unmasked = training.but(mask=MaskSettings(copies=0))
    models = {
        name: run.train(
            TrainJob(f"teaching_{name}{suffix}", teaching_trainer.train, own, {"data": divided}, stepwise=False)
        )
        for name, own in (("masked", training), ("plain", unmasked))
    }
    stages = [KeepHeld.stage()]
    for name in SYSTEMS:
        own = UnknownSettings(column=f"unknown_{name}", words=name == "new_words")
        stages.append(UnknownSpans.stage(own, name=f"find_{name}", teaching=models.get(name, models["plain"]).ref))
    return TaughtSpans(models["masked"], run.step(Step(f"teaching_tested{suffix}", tuple(stages), divided)))


def teach(run: Run, settings: TeachingSettings, model: Artifact, turns: SealedSet, suffix: str = "") -> SealedSet:
    """Declare training data of taggers, of the turns or requests in which the model finds unknown spans.

    The others are rejected. The rows have ``label_source`` projected and a ``confidence``.
    """
    stages = (UnknownSpans.stage(teaching=model.ref), AsTaught.stage(settings.taught))
    return run.step(Step(f"taught{suffix}", stages, turns))


@dataclass(frozen=True)
class SpanCounts:
    """The unknown spans of each request (requests,): those to be found, those found, and those found rightly."""

    ids: tuple[str, ...]
    wanted: np.ndarray
    found: np.ndarray
    right: np.ndarray

    def f1(self) -> Ratio:
        """Return what F1 is the ratio of, by request."""
        return Ratio(2 * self.right, self.wanted + self.found, self._blocks())

    def precision(self) -> Ratio:
        """Return what precision is the ratio of."""
        return Ratio(self.right, self.found, self._blocks())

    def recall(self) -> Ratio:
        """Return what recall is the ratio of."""
        return Ratio(self.right, self.wanted, self._blocks())

    def _blocks(self) -> tuple[str, ...]:
        return tuple(ALONE + name for name in self.ids)


def score_teaching(made: TaughtSpans, systems: Sequence[str] = SYSTEMS) -> dict[str, SpanCounts]:
    """Return the counts of each system on the requests with hidden values.

    To be found are the slots whose value no training request has, with exact boundaries.
    """
    model = read_teaching(made.model.url)
    columns = [f"unknown_{name}" for name in systems]
    ids: list[str] = []
    counts: dict[str, list[tuple[int, int, int]]] = {name: [] for name in systems}
    for table in made.tested.tables(["id", "tokens", "slots", *columns]):
        for row in table.to_pylist():
            ids.append(row["id"])
            placed = {(slot["start"], slot["end"]) for slot in row["slots"] if slot["start"] is not None}
            wanted = {span for span in placed if not model.knows(value_of(row["tokens"], *span))}
            for name, column in zip(systems, columns, strict=True):
                found = {(span["start"], span["end"]) for span in row[column]}
                counts[name].append((len(wanted), len(found), len(wanted & found)))
    made_of = {name: np.array(rows, np.int64).reshape(-1, 3).T for name, rows in counts.items()}
    return {name: SpanCounts(tuple(ids), *columns_of) for name, columns_of in made_of.items()}


def teaching_metrics(scores: Mapping[int, Mapping[str, SpanCounts]], test_set: str = TEST_SET) -> list[MetricRow]:
    """Return ``span_f1``, ``precision`` and ``recall`` of each system, of the seeds' draws and over all of them.

    Draws have requests of their own, so those of all are one set, and the interval is over its requests.
    """
    rows: list[MetricRow] = []
    scores = {seed: own for seed, own in scores.items() if any(len(one.ids) for one in own.values())}
    for system in next(iter(scores.values()), {}):
        by_seed: dict[int | None, SpanCounts] = {seed: own[system] for seed, own in scores.items()}
        for seed, counts in {**by_seed, None: together(list(by_seed.values()))}.items():
            for name, ratio in (
                ("span_f1", counts.f1()),
                ("precision", counts.precision()),
                ("recall", counts.recall()),
            ):
                one = wer_interval({0: ratio})
                size = int(ratio.words.sum())
                rows.append(MetricRow(system, test_set, name, one.value, one.low, one.high, size, seed))
    return rows


def together(counts: Sequence[SpanCounts]) -> SpanCounts:
    """Return the counts of several draws as those of one set."""
    ids = tuple(f"{draw}/{name}" for draw, one in enumerate(counts) for name in one.ids)
    parts = ((one.wanted, one.found, one.right) for one in counts)
    return SpanCounts(ids, *(np.concatenate(column) for column in zip(*parts, strict=True)))
