"""Selection of records similar to in-domain text: by distance from its centroid, by cross-entropy, or at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gristmill.actors import nearest
from gristmill.actors.embed import EMBEDDING, EmbedderSettings, embedder_stage
from gristmill.actors.nearest import DrawSettings, ThresholdSettings
from gristmill.actors.text import language_model, select
from gristmill.actors.text.language_model import ScoreText, TextScoreSettings
from gristmill.actors.text.select import CentroidSettings, SampleSettings
from gristmill.pipelines.inputs import refuse_empty
from gristmill.pipelines.nearest import nearest_limit
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import LanguageModelSettings, ngram_job
from gristmill.pipelines.text.ngrams_distributed import build_vocabulary
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import expect, later
from gristmill.shards.step import Step

Method = Literal["centroid", "moore_lewis", "random"]

SHARE = 0.3  # if neither share nor radius is given
_LOOKED_AT = 3  # shards to take examples from


class SelectionSettings(CentroidSettings, EmbedderSettings):
    """The records to keep: the ``share`` nearest to the in-domain text, or those within a ``radius``.

    Embedder and metric are those of ``centroid``; distances by ``moore_lewis`` are in nats per word.
    """

    method: Method = "centroid"
    """The distance of a record: by embeddings, by language models, or at random."""
    share: float | None = Field(None, gt=0, le=1)
    """The share of the records to keep; 0.3, unless a radius is given."""
    radius: float | None = None
    """The maximum distance of records to keep."""
    ngrams: LanguageModelSettings = LanguageModelSettings()
    """The models of ``moore_lewis``."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.share is not None and self.radius is not None:
            raise ValueError("radius and share: expected one of them")
        if self.radius is not None and self.method == "random":
            raise ValueError("radius: undefined for random selection; expected share")
        return self


def check_selection(settings: SelectionSettings) -> None:
    """Check that the embedder is installed, if the method needs it."""
    if settings.method == "centroid":
        embedder_stage(settings)


def embed(run: Run, name: str, texts: SealedSet, column: str, settings: SelectionSettings) -> SealedSet:
    """Return a set with the ``embedding`` of a text column added."""
    return run.step(Step(name, (embedder_stage(settings, column),), texts))


def select_pairs(
    run: Run,
    name: str,
    pairs: SealedSet,
    in_domain: SealedSet,
    settings: SelectionSettings,
    *,
    seed: int = 0,
    count: int | None = None,
) -> SealedSet:
    """Return the records of a set that are most similar to an in-domain set, with ``distance`` and without
    ``embedding``.

    ``centroid`` needs both sets embedded by the same model; the other methods read ``target`` or, if absent, ``text``.
    Exactly the share of the settings is kept, ties broken by smaller id; or ``count`` records, for sets of equal size.
    ``seed`` is that of ``random``.

    Raises:
        UserError: a set is empty, or no record is within the threshold.
    """
    method = settings.method
    refuse_empty(pairs, pairs.name)
    if method != "random":
        expect(in_domain, partial(_refuse_no_text, name))
    if method == "centroid":
        scored = _by_centroid(run, name, pairs, in_domain, settings)
    elif method == "moore_lewis":
        scored = _by_entropy(run, name, pairs, in_domain, settings)
    else:
        draw = replace(nearest.DrawnDistance.stage(DrawSettings(seed=seed)), drops=_embedding(pairs))
        scored = run.step(Step(f"{name}_distance", (draw,), pairs))
    if count is not None:
        limit = ThresholdSettings(count=count)
    elif settings.radius is not None:
        limit = ThresholdSettings(radius=settings.radius)
    else:
        limit = later(partial(_nearest, settings.share or SHARE), pairs)
    keep = nearest.Keep.stage(threshold=nearest_limit(run, name, scored, limit).ref)
    return run.step(Step(name, (keep,), scored))


def _refuse_no_text(name: str, in_domain: SealedSet) -> None:
    if not in_domain.records:
        raise UserError(f"{name}: the in-domain set {in_domain.name} is empty; expected text to compare with")


def _nearest(share: float, pairs: SealedSet) -> ThresholdSettings:
    return ThresholdSettings(count=round(share * pairs.records))


def _by_centroid(run: Run, name: str, pairs: SealedSet, in_domain: SealedSet, settings: SelectionSettings) -> SealedSet:
    for given in (pairs, in_domain):
        if EMBEDDING not in given.schema.names:
            raise UserError(f"{name}: {given.name} is not embedded; expected a column {EMBEDDING}")
    job = TrainJob(
        f"{name}_centroid",
        loop=select.centroid,
        settings=settings.part(CentroidSettings),
        inputs={"data": in_domain},
        stepwise=False,
    )
    distance = select.Distance.stage(centroid=run.train(job).ref)
    return run.step(Step(f"{name}_distance", (distance,), pairs))


def _by_entropy(run: Run, name: str, pairs: SealedSet, in_domain: SealedSet, settings: SelectionSettings) -> SealedSet:
    """Score with language models of the in-domain text and of two samples of the set of about the same size.

    Their vocabulary is the union: a word that only the set has must cost the in-domain model more.
    """
    share = min(0.5, in_domain.records / pairs.records)
    sampled = run.step(Step(f"{name}_sampled", (select.Sampled.stage(SampleSettings(share=share)),), pairs))
    inside, whole = (in_domain, text_column(in_domain)), (sampled, text_column(sampled))
    vocabulary = build_vocabulary(run, f"{name}_vocabulary", [inside, whole], settings=settings.ngrams)
    jobs = [ngram_job(f"{name}_in_lm", [inside], vocabulary, settings.ngrams)]
    samples = [field.name for field in select.SAMPLES]
    jobs += [ngram_job(f"{name}_{only}_lm", [whole], vocabulary, settings.ngrams, only=only) for only in samples]
    stages, drops = [], samples[:]
    for prefix, job in zip(("in", *samples), jobs, strict=True):
        score = TextScoreSettings(column=whole[1], prefix=prefix)
        stages.append(ScoreText.stage(score, name=f"{prefix}_lm", model=run.train(job).ref))
        drops += [field.name for field in language_model.fields(prefix)]
    compare = replace(select.EntropyDistance.stage(), drops=(*drops, *_embedding(pairs)))
    return run.step(Step(f"{name}_distance", (*stages, compare), sampled))


def _embedding(given: SealedSet) -> tuple[str, ...]:
    """Return the columns of vectors of a set, which are dropped once its distances are computed."""
    return (EMBEDDING,) if EMBEDDING in given.schema.names else ()


def text_column(given: SealedSet) -> str:
    """Return the column of a set's text: ``target`` of pairs, else ``text``."""
    found = next((name for name in ("target", "text") if name in given.schema.names), None)
    if found is None:
        raise UserError(f"{given.name}: no text among {given.schema.names}; expected a column target or text")
    return found


def examples(kept: SealedSet, number: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Return examples of records that :func:`select_pairs` kept and dropped, from nearest to farthest.

    They come from the first shards, so that little is read whatever the size of the set.
    """
    scored = open_sealed(kept.seal["inputs"][0])
    sides: dict[str, list[dict[str, Any]]] = {"kept": [], "dropped": []}
    ids: set[str] = set()
    for table in (kept.read(place, ["id"]) for place in range(min(_LOOKED_AT, len(kept.shards)))):
        ids.update(table["id"].to_pylist())
    columns = [name for name in ("id", "source", "target", "text", "distance") if name in scored.schema.names]
    for place in range(min(_LOOKED_AT, len(scored.shards))):
        for row in scored.read(place, columns).to_pylist():
            sides["kept" if row["id"] in ids else "dropped"].append(row)
    return {side: _spread(rows, number) for side, rows in sides.items()}


def _spread(rows: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Return rows at even steps from the nearest to the farthest."""
    order = sorted(rows, key=lambda row: (row["distance"], row["id"]))
    if len(order) <= number:
        return order
    return [order[round(place * (len(order) - 1) / max(1, number - 1))] for place in range(number)]


def summary(kept: SealedSet) -> dict[str, Any]:
    """Return the numbers of kept and dropped records, and the least and greatest distance of the kept ones."""
    nearest, farthest = float("inf"), float("-inf")
    for table in kept.tables(["distance"]):
        far = table["distance"].to_numpy()
        if len(far):
            nearest, farthest = min(nearest, float(far.min())), max(farthest, float(far.max()))
    dropped = kept.seal["rejected"]
    return {"kept": kept.records, "dropped": dropped, "nearest": nearest, "farthest": farthest}
