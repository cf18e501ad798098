"""The choice of few diverse requests of a set, as a recipe declares it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gristmill.actors.nearest import ThresholdSettings
from gristmill.actors.requests import diversity
from gristmill.actors.requests.choice_scores import ChoiceScore, KeepScored
from gristmill.actors.requests.diversity import (
    EMBEDDING,
    TO,
    ChoosePart,
    Chosen,
    DiversityRound,
    Scatter,
    columns_of,
)
from gristmill.models.requests.diversity import SCORED, DiversitySettings, PairSimilarity
from gristmill.pipelines.nearest import nearest_limit
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import Deal, DealSettings, parts_of
from gristmill.shards.index import ByPart
from gristmill.shards.job import TrainJob
from gristmill.shards.names import name_of
from gristmill.shards.plan import expect, later
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step


def choose(
    run: Run,
    name: str,
    candidates: SealedSet,
    settings: DiversitySettings,
    seeds: SealedSet | None = None,
    *,
    load: Callable[..., PairSimilarity] | None = None,
    detector: Artifact | None = None,
) -> SealedSet:
    """Declare the choice of requests, and return the set of the chosen ones, with all their columns.

    The same is chosen whatever the order of the rows and the number of workers; nothing is made before it is needed. Of
    an empty set none is chosen.

    Args:
        run: The run.
        name: The name of the chosen set, and the beginning of the names of what is made on the way.
        candidates: The requests: ``id``, and what the selector needs of ``tokens`` or ``text``, ``embedding`` (a
            fixed-size list of float16, of unit length), ``confidence`` and ``distance``.
        settings: The selector and its budget.
        seeds: Requests that are there already: those chosen are to differ from them too.
        load: Of ``worst_paraphrase``: a function of a module that returns the similarity of pairs, a
            :data:`~gristmill.models.requests.diversity.PairSimilarity`; it is called on workers, with the URL of
            ``detector`` if that is given. By default it is the cosine.
        detector: The artifact that ``load`` loads.

    Raises:
        UserError: the set lacks what the selector needs, as soon as it is made.

    Example:
        >>> import pyarrow as pa
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> run = Run("made/chosen", InProcessRunner())
        >>> texts = ["wake me at six", "wake me at seven", "snooze", "stop the alarm"]
        >>> pool = run.table("pool", pa.table({"id": ["a", "b", "c", "d"], "text": texts}))
        >>> chosen = choose(run, "diverse", pool, DiversitySettings(selector="coverage", share=0.5))
        >>> chosen.read(0)["text"].to_pylist()
        ['wake me at six', 'stop the alarm']
    """
    if load is not None and settings.selector != "worst_paraphrase":
        raise UserError(f"{name}: a similarity of pairs is given for {settings.selector}; expected worst_paraphrase")
    if detector is not None and load is None:
        raise UserError(f"{name}: a detector is given; expected also the function that loads it")
    expect(candidates, partial(_check, name, settings, load is not None, False))
    if settings.selector in SCORED:
        return _by_score(run, name, candidates, settings)
    return run.step(
        Step(
            name, (Chosen.stage(chosen=order(run, name, candidates, settings, seeds, load, detector).ref),), candidates
        )
    )


def order(
    run: Run,
    name: str,
    candidates: SealedSet,
    settings: DiversitySettings,
    seeds: SealedSet | None = None,
    load: Callable[..., PairSimilarity] | None = None,
    detector: Artifact | None = None,
) -> Artifact:
    """Declare the choice one after the other of :func:`choose`, and return ``chosen.json``: ids in the order of choice.

    There is one plan whatever the size of the set: a small one is one part, which chooses alone.
    """
    if settings.selector in SCORED:
        raise UserError(f"{name}: {settings.selector} chooses no request after another; expected choose()")
    if seeds is not None:
        expect(seeds, partial(_check, name, settings, load is not None, True))
    wanted = later(partial(_round, name, settings, "" if load is None else name_of(load)), candidates)
    beside: dict[str, SealedSet | Artifact] = {"seeds": seeds} if seeds is not None else {}
    beside |= {"detector": detector} if detector is not None else {}
    if settings.has_ground:
        job = TrainJob(
            f"{name}_ground", diversity.sample_ground, settings=wanted, inputs={"data": candidates}, stepwise=False
        )
        beside["ground"] = run.train(job)
    dealt = run.step(Step(f"{name}_dealt", later(_dealing, wanted), candidates))
    stages = later(_choosing, wanted, beside)
    parts = run.step(Step(f"{name}_parts", stages, dealt, cut=later(_by_part, dealt)))
    expect(parts, _refuse_failed)
    job = TrainJob(f"{name}_order", diversity.merge, settings=wanted, inputs={"parts": parts, **beside}, stepwise=False)
    return run.train(job)


def _check(name: str, settings: DiversitySettings, pairs: bool, seeds: bool, given: SealedSet) -> None:
    columns_of(settings, given.schema.names, f"{name}: {given.name}", pairs=pairs, seeds=seeds)


def _round(name: str, settings: DiversitySettings, similarity: str, candidates: SealedSet) -> DiversityRound:
    """Return the settings with what is known of the set once it is made."""
    names = candidates.schema.names
    columns = columns_of(settings, names, f"{name}: {candidates.name}", pairs=bool(similarity))
    given = {key: getattr(settings, key) for key in DiversitySettings.model_fields}
    given["features"] = "embeddings" if settings.by_embeddings(EMBEDDING in names) else "ngrams"
    return DiversityRound(**given, records=candidates.records, columns=columns, similarity=similarity)


def _dealing(wanted: DiversityRound) -> tuple[Stage, ...]:
    dealing = DealSettings(key=(TO.name,), parts=wanted.parts, columns=wanted.columns, hashed=False)
    return Scatter.stage(wanted), Deal.stage(dealing)


def _choosing(wanted: DiversityRound, beside: dict[str, SealedSet | Artifact]) -> tuple[Stage, ...]:
    refs = {name: one.ref for name, one in beside.items()}
    return (replace(ChoosePart.stage(wanted), artifacts=refs),)


def _by_part(dealt: SealedSet) -> ByPart:
    return ByPart(parts=parts_of(dealt))


def _refuse_failed(parts: SealedSet) -> None:
    if parts.seal["quarantined"]:
        raise UserError(
            f"{parts.name}: {parts.seal['quarantined']} requests are of parts that failed "
            f"({', '.join(parts.seal['errors'])}); run `gristmill requeue` once the cause is fixed"
        )


def _by_score(run: Run, name: str, candidates: SealedSet, settings: DiversitySettings) -> SealedSet:
    """Declare the exact choice of what each request decides by itself."""
    scored = run.step(Step(f"{name}_scored", (ChoiceScore.stage(settings),), candidates))
    limit = nearest_limit(run, name, scored, later(partial(_limit, settings), candidates))
    return run.step(Step(name, (KeepScored.stage(settings, threshold=limit.ref),), candidates))


def _limit(settings: DiversitySettings, candidates: SealedSet) -> ThresholdSettings:
    return ThresholdSettings(count=settings.budget(candidates.records))
