"""Vocabularies and n-gram models of any amount of text: of much, counted and estimated in parts, over all workers.

The ARPA text is that of :func:`gristmill.pipelines.text.ngrams.ngram_job`, to the byte, whatever the workers and the
parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.actors.text import ngram_parts
from gristmill.actors.text.ngram_texts import check_columns
from gristmill.actors.text.ngram_words import FIELDS
from gristmill.models.text.ngram import check_settings
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import NgramSettings, Texts, ngram_job, text_config
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.stage import ArtifactRef, BatchLimits, Resources, Stage
from gristmill.shards.step import Step

ROW_BYTES = 1024  # of text in a record at most, where a shard's size also tells of other columns
PART_BYTES = 192  # of memory that a part takes for each byte of compressed text that goes into it
UNIT_BYTES = 256  # the same of a unit that is counted
MOST_PARTS = 4096
_ONE = BatchLimits(rows=1)


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
    settings: NgramSettings | None = None,
) -> Artifact:
    """Return the words that are in the texts at least ``min_count`` times, and those given, as ``vocabulary.txt``.

    Text beyond ``settings.memory`` is read over all workers, to the same bytes; one process holds the different words.
    """
    memory = (settings or NgramSettings()).memory
    config = text_config(texts, only)
    if _is_large(texts, memory):
        params, read = _read_by(texts, only)
        stage = Stage(
            "words", "gristmill.actors.text.ngram_words:CollectWords", FIELDS, params=params, artifacts=read, batch=_ONE
        )
        given = _given_units(run, name, texts, memory)
        config = {"units": _whole(run.step(Step(f"{name}_words", (stage,), given, cut=Cut(rows=1))))}
    config |= {"min_count": min_count, "words": sorted(set(words))}
    return run.train([TrainJob(name, config, loop="gristmill.actors.text.ngram_trainer:collect", stepwise=False)])[0]


def train_ngrams(
    run: Run, name: str, many: Sequence[Texts], vocabulary: Artifact, settings: NgramSettings | None = None
) -> list[Artifact]:
    """Return a model, ``lm.arpa``, of each of many texts on one vocabulary.

    Those whose counts fit into ``settings.memory`` are trained side by side, each in one process, larger ones one after
    the other over all workers; the bytes are the same.
    """
    settings = settings or NgramSettings()
    large = [_is_large(texts, settings.memory) for texts in many]
    jobs = [ngram_job(name, texts, vocabulary, settings) for texts, big in zip(many, large, strict=True) if not big]
    small = iter(run.train(jobs))
    return [
        train_ngrams_distributed(run, name, texts, vocabulary, settings) if big else next(small)
        for texts, big in zip(many, large, strict=True)
    ]


def train_ngrams_distributed(
    run: Run,
    name: str,
    texts: Texts,
    vocabulary: Artifact,
    settings: NgramSettings | None = None,
    only: str | None = None,
    parts: int | None = None,
) -> Artifact:
    """Return the model of texts, ``lm.arpa``, as :func:`gristmill.pipelines.text.ngrams.ngram_job` would train it.

    ``settings.memory`` bounds what the n-grams at a worker take, in bytes, and so decides how many ``parts`` there are
    unless they are given.

    Raises:
        UserError: a setting is out of its range, a column is missing, there is no text, or a part of it broke.
    """
    settings = settings or NgramSettings()
    text_config(texts, only)  # refuses what is wrong with them
    order, prune = settings.order, list(check_settings(settings.order, settings.prune))
    size = sum(_bytes(data) for data, _ in texts)
    parts = parts or min(MOST_PARTS, max(1, math.ceil(size * PART_BYTES / settings.memory)))
    resources = Resources(memory=settings.memory)
    words = {"vocabulary": vocabulary.ref}

    def stage(what: str, actor: str, adds: tuple[pa.Field, ...], params: dict, artifacts: dict) -> Stage:
        path = f"gristmill.actors.text.ngram_parts:{actor}"
        return Stage(what, path, adds, params=params, artifacts=artifacts, batch=_ONE, resources=resources)

    def each_part(what: str, actor: str, adds: tuple[pa.Field, ...], params: dict, artifacts: dict) -> SealedSet:
        made = stage(what, actor, adds, params, artifacts)
        return _whole(run.step(Step(f"{name}_{what}", (made,), listed, cut=Cut(rows=1))))

    given = _given_units(run, name, texts, settings.memory)
    params, read = _read_by(texts, only)
    params |= {"order": order, "parts": parts, "memory": settings.memory}
    counting = stage("count", "CountUnit", ngram_parts.unit_fields(parts), params, words | read)
    counts = _whole(run.step(Step(f"{name}_counts", (counting,), given, cut=Cut(rows=1))))
    listed = run.source(f"{name}_parts", lambda: _part_tables(parts), {"parts": parts})
    fields = ngram_parts.merged_fields(order, parts)
    adjusting = {"order": order, "prune": prune, "parts": parts}
    merged = each_part("merged", "MergeCounts", fields, adjusting, {"counts": _ref(counts)} | words)
    config = {"merged": merged, "vocabulary": vocabulary, "order": order}
    totals = run.train(
        [TrainJob(f"{name}_totals", config, loop="gristmill.actors.text.ngram_parts:totals", stepwise=False)]
    )[0]
    whole = {"merged": _ref(merged), "totals": totals.ref}
    contexts = each_part("contexts", "SumContexts", ngram_parts.context_fields(order, parts), {"order": order}, whole)
    refs = whole | {"contexts": _ref(contexts)} | words
    lines = each_part("lines", "WriteLines", ngram_parts.line_fields(order), {"order": order}, refs)
    config = {"lines": lines, "totals": totals, "vocabulary": vocabulary, "order": order}
    return run.train([TrainJob(name, config, loop="gristmill.actors.text.ngram_parts:join", stepwise=False)])[0]


def _ref(data: SealedSet) -> ArtifactRef:
    return ArtifactRef(data.url, data.digest)


def _whole(made: SealedSet) -> SealedSet:
    """Refuse a set that lacks a part: its model would be another."""
    if made.seal["quarantined"]:
        why = ", ".join(made.seal["errors"])
        raise UserError(
            f"{made.name}: {made.seal['quarantined']} of {made.seal['records_in']} parts broke ({why}); "
            "give n-grams more memory, or run `gristmill requeue` when the cause is gone"
        )
    return made


def _read_by(texts: Texts, only: str | None) -> tuple[dict[str, Any], dict[str, ArtifactRef]]:
    """Return the parameters and artifacts by which an actor reads units of texts (:class:`UnitTexts`)."""
    refs = {f"texts_{place}": _ref(data) for place, (data, _) in enumerate(texts)}
    return {"columns": [column for _, column in texts], "only": only}, refs


def _is_large(texts: Texts, memory: int) -> bool:
    return sum(_bytes(data) for data, _ in texts) * PART_BYTES > memory


def _given_units(run: Run, name: str, texts: Texts, memory: int) -> SealedSet:
    """Return the units of texts, each with a number of bytes that a worker may hold the counts of."""
    units = list(_units(texts, max(1, memory // UNIT_BYTES)))
    if not units:
        raise UserError(f"{name}: the text is empty; expected at least one sentence")
    return run.source(f"{name}_units", lambda: _unit_tables(units), _identity(texts, memory))


def _bytes(data: SealedSet) -> int:
    return sum(min(shard.bytes, shard.rows * ROW_BYTES) for shard in data.shards)


def _identity(texts: Texts, memory: int) -> dict[str, object]:
    return {"texts": [data.digest for data, _ in texts], "memory": memory}


def _units(texts: Texts, size: int) -> Iterator[list[_Slice]]:
    """Give the units: slices of shards, in order, of about ``size`` bytes of compressed text together."""
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


def _part_tables(parts: int) -> Iterator[pa.Table]:
    rows = [{"id": f"part-{part:04d}", "part": part} for part in range(parts)]
    yield pa.Table.from_pylist(rows, pa.schema(ngram_parts.PART_FIELDS))
