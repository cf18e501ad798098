"""Vocabularies and n-gram models of any amount of text; large ones are counted and estimated in parts, by all workers.

The ARPA text is byte-identical to that of :func:`gristmill.pipelines.text.ngrams.ngram_job`, whatever the numbers of
workers and parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from gristmill.actors.text import ngram_parts, ngram_trainer
from gristmill.actors.text.ngram_parts import (
    WORD_BYTES,
    CountUnit,
    MergeCounts,
    PartedNgramSettings,
    SumContexts,
    UnitCountSettings,
    WriteLines,
)
from gristmill.actors.text.ngram_texts import UnitTextSettings, check_columns
from gristmill.actors.text.ngram_trainer import VocabularySettings
from gristmill.actors.text.ngram_words import CollectWords
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import LanguageModelSettings, Texts, check_texts, ngram_job
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import MOST_PARTS, Deal, DealSettings, merge
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import expect, make
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step

ROW_BYTES = 1024  # assumed maximum of text per record, as a shard's size includes other columns
PART_BYTES = 192  # memory of a part per byte of its compressed text
UNIT_BYTES = 256  # the same of a unit while it is counted


@dataclass(frozen=True)
class _Slice:
    texts: int
    shard: int
    start: int
    stop: int


def build_vocabulary(
    run: Run,
    name: str,
    texts: Texts,
    min_count: int = 1,
    words: Sequence[str] = (),
    only: str | None = None,
    settings: LanguageModelSettings | None = None,
) -> Artifact:
    """Return ``vocabulary.txt``: the words that occur at least ``min_count`` times in the texts, and those given.

    Text beyond ``settings.memory`` is counted by all workers, with the same result; one process holds the distinct
    words.
    """
    check_texts(texts, only)
    settings = settings or LanguageModelSettings()
    wanted = VocabularySettings(min_count=min_count, words=tuple(sorted(set(words))), only=only)
    if _is_large(texts, settings.memory):
        stage = _reading(CollectWords.stage(UnitTextSettings(columns=_columns(texts), only=only)), texts)
        given = _given_units(run, name, texts, settings.memory)
        inputs = {"units": _whole(run.step(Step(f"{name}_words", (stage,), given, cut=Cut(rows=1))))}
        job = TrainJob(name, loop=ngram_trainer.collect, settings=wanted, inputs=inputs, stepwise=False)
    else:
        job = TrainJob(name, loop=ngram_trainer.collect, settings=wanted, inputs={"texts": texts}, stepwise=False)
    return run.train(job)


def train_ngrams(
    run: Run,
    name: str,
    many: Sequence[Texts],
    vocabulary: Artifact,
    settings: LanguageModelSettings | None = None,
) -> list[Artifact]:
    """Return a model, ``lm.arpa``, of each of several texts over one vocabulary.

    Those whose counts fit into ``settings.memory`` are trained in parallel, each in one process, larger ones one after
    the other by all workers; the bytes are the same.
    """
    settings = settings or LanguageModelSettings()
    make(many)  # their sizes are read one by one
    return [
        train_ngrams_distributed(run, name, texts, vocabulary, settings)
        if _is_large(texts, settings.memory)
        else run.train(ngram_job(name, texts, vocabulary, settings))
        for texts in many
    ]


def train_ngrams_distributed(
    run: Run,
    name: str,
    texts: Texts,
    vocabulary: Artifact,
    settings: LanguageModelSettings | None = None,
    only: str | None = None,
    parts: int | None = None,
) -> Artifact:
    """Return the model of texts, ``lm.arpa``, as :func:`gristmill.pipelines.text.ngrams.ngram_job` would train it.

    ``settings.memory`` bounds the memory of a worker's n-grams, in bytes, and so determines the number of ``parts``
    unless it is given.

    Raises:
        UserError: a column is missing, there is no text, or a part failed.
    """
    check_texts(texts, only)
    settings = settings or LanguageModelSettings()
    size = sum(_bytes(data) for data, _ in texts)
    parts = parts or min(MOST_PARTS, max(1, math.ceil(size * PART_BYTES / settings.memory)))
    resources = Resources(memory=settings.memory)
    model = settings.part(NgramSettings)
    split = PartedNgramSettings(order=model.order, prune=model.prune, parts=parts)
    words = vocabulary.ref

    def merged_by(stage: Stage, dealt: SealedSet, *then: Stage) -> SealedSet:
        return _whole(run.step(merge(f"{name}_{stage.name}", dealt, stage, *then, max_quarantine=1.0)))

    given = _given_units(run, name, texts, settings.memory)
    wanted = UnitCountSettings(
        order=model.order,
        prune=model.prune,
        parts=parts,
        columns=_columns(texts),
        only=only,
        at_once=max(1, settings.memory // (2 * WORD_BYTES)),
    )
    counting = _reading(CountUnit.stage(wanted, resources=resources, vocabulary=words), texts)
    dealing = DealSettings(key=(ngram_parts.TO.name,), parts=parts, hashed=False)
    deal = Deal.stage(dealing, resources=resources)
    counts = _whole(run.step(Step(f"{name}_counts", (counting, deal), given, cut=Cut(rows=1))))
    merged = merged_by(MergeCounts.stage(split, resources=resources, vocabulary=words), counts, deal)
    read = {"merged": merged, "vocabulary": vocabulary}
    job = TrainJob(f"{name}_totals", loop=ngram_parts.totals, settings=model, inputs=read, stepwise=False)
    totals = run.train(job)
    summing = SumContexts.stage(model, resources=resources, merged=merged.ref, totals=totals.ref)
    contexts = merged_by(summing, merged, deal)
    refs = {"merged": merged.ref, "totals": totals.ref, "contexts": contexts.ref, "vocabulary": words}
    lines = merged_by(replace(WriteLines.stage(model, resources=resources), artifacts=refs), contexts)
    read = {"lines": lines, "totals": totals, "vocabulary": vocabulary}
    return run.train(TrainJob(name, loop=ngram_parts.join, settings=model, inputs=read, stepwise=False))


def _whole(made: SealedSet) -> SealedSet:
    """Return a set of which no part may be missing, as that would change the model."""
    expect(made, _refuse_failed)
    return made


def _refuse_failed(made: SealedSet) -> None:
    failed = sum(file.rows for file in made.side("quarantine"))
    if failed:
        why = ", ".join(made.seal["errors"])
        raise UserError(
            f"{made.name}: {failed} of its units or parts failed ({why}); "
            "give n-grams more memory, or run `gristmill requeue` once the cause is fixed"
        )


def _columns(texts: Texts) -> tuple[str, ...]:
    return tuple(column for _, column in texts)


def _reading(stage: Stage, texts: Texts) -> Stage:
    """Return a stage whose actor reads units of texts (:class:`gristmill.actors.text.ngram_texts.UnitTexts`)."""
    refs = {f"texts_{place}": data.ref for place, (data, _) in enumerate(texts)}
    return replace(stage, artifacts={**stage.artifacts, **refs})


def _is_large(texts: Texts, memory: int) -> bool:
    return sum(_bytes(data) for data, _ in texts) * PART_BYTES > memory


def _given_units(run: Run, name: str, texts: Texts, memory: int) -> SealedSet:
    """Return the units of texts, each small enough that a worker can hold its counts."""
    size = max(1, memory // UNIT_BYTES)
    units = list(_units(texts, size))
    if not units:
        raise UserError(f"{name}: the text is empty; expected at least one sentence")
    identity = {"texts": [data for data, _ in texts], "size": size}
    return run.source(f"{name}_units", lambda: _unit_tables(units), identity)


def _bytes(data: SealedSet) -> int:
    return sum(min(shard.bytes, shard.rows * ROW_BYTES) for shard in data.shards)


def _units(texts: Texts, size: int) -> Iterator[list[_Slice]]:
    """Yield the units: slices of shards, in order, with about ``size`` bytes of compressed text in total each."""
    held: list[_Slice] = []
    filled = 0.0
    for place, (data, column) in enumerate(texts):
        check_columns(data, column)
        for number, shard in enumerate(data.shards):
            weight = min(shard.bytes, shard.rows * ROW_BYTES)
            pieces = max(1, math.ceil(weight / size))
            for piece in range(pieces if shard.rows else 0):
                if held and filled + weight / pieces > size:
                    yield held
                    held, filled = [], 0.0
                start, stop = (shard.rows * at // pieces for at in (piece, piece + 1))
                held.append(_Slice(place, number, start, stop))
                filled += weight / pieces
    if held:
        yield held


def _unit_tables(units: list[list[_Slice]]) -> Iterator[pa.Table]:
    rows = [{"id": f"unit-{n:06d}", "slices": [vars(one) for one in unit]} for n, unit in enumerate(units)]
    yield pa.Table.from_pylist(rows, pa.schema(ngram_parts.UNIT_FIELDS))
