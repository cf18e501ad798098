"""What the builder of a new function has: its seeds, other functions' requests, a pool and, to measure, a test.

They are the user's own, or parts of an annotated corpus of which some intents are taken for new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from gristmill.actors.embed import EmbedderSettings, embedder_stage
from gristmill.actors.near_duplicates import DuplicateSettings, Sign
from gristmill.actors.nlu.folds import Folds, FoldSettings
from gristmill.actors.nlu.parsing import AnnotationSettings, ParseRequest, RequestParsingSettings
from gristmill.actors.requests.functions import FunctionName, FunctionSettings, Part, PartSettings, TakePart, draw_seeds
from gristmill.actors.requests.own_function import OwnPart, OwnPartSettings, PoolSettings, PoolText
from gristmill.actors.sources.requests import list_requests
from gristmill.actors.sources.text import TEXT_SIDES, Wanted, list_texts
from gristmill.pipelines.inputs import (
    Places,
    check_listed,
    list_places,
    list_source,
    place_names,
    refuse_empty,
    urls_of,
)
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, prepare_requests, request_items
from gristmill.pipelines.overlap import Place, refuse_shared
from gristmill.pipelines.run import Run
from gristmill.pipelines.unique import unique
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.step import Step


class OwnFunctionSettings(AnnotationSettings):
    """A new function of the user's own."""

    name: FunctionName
    """Its name, which is that of its domain."""
    seeds: Places
    """Annotated requests of the function: corpora in any format that is read, with an intent for each request."""
    test: Places | None = None
    """Annotated requests, of it and others, to measure on; those of the function have its name as their domain."""


@dataclass(frozen=True)
class FunctionCell:
    """One function, as one random draw of its annotated requests finds it."""

    function: str
    draw: int
    count: int  # annotated requests; 0: as many as there are
    seeds: SealedSet
    others: SealedSet
    pool: SealedSet
    test: SealedSet | None
    embedded: bool = True  # whether the pool has embeddings

    @property
    def name(self) -> str:
        """The end of the names of its results."""
        return "_".join(str(one) for one in (self.function, self.count or "", self.draw) if one != "")


def study_cells(
    run: Run,
    corpus: RequestCorpusSettings,
    functions: Sequence[FunctionSettings],
    counts: Sequence[int],
    duplicates: DuplicateSettings,
    embedder: EmbedderSettings,
) -> list[FunctionCell]:
    """Return the cells of functions that an annotated corpus has: each with each number of requests, in each draw."""
    requests = prepared(run, "requests", prepare_requests(run, corpus), duplicates, embedder)
    cells = []
    for draw in run.seeds:
        folds = Folds.stage(FoldSettings(folds=2, test_share=corpus.test_share), name=f"folds_{draw}")
        split = run.step(Step(f"split_{draw}", (folds,), requests))
        identity = {"functions": [one.identity() for one in functions], "count": max(counts), "draw": draw}
        make = partial(_drawn, functions, max(counts), draw, split)
        drawn = run.artifact(f"drawn_{draw}", make, {**identity, "version": 1}, [split])
        for one in functions:
            take = partial(_part, run, split, drawn, one, draw)
            others, test = take("others", max(counts)), take("test", max(counts))  # the same for all numbers of seeds
            for count in counts:
                seeds, pool = take("seeds", count, f"_{count}"), take("pool", count, f"_{count}")
                cells.append(FunctionCell(one.name, draw, count, seeds, others, pool, test))
    return cells


def _part(
    run: Run,
    split: SealedSet,
    drawn: Artifact,
    function: FunctionSettings,
    draw: int,
    part: Part,
    count: int,
    end: str = "",
) -> SealedSet:
    stage = TakePart.stage(PartSettings(which=part, count=count, **dict(function)), drawn=drawn.ref)
    made = run.step(Step(f"{part}_{function.name}{end}_{draw}", (stage,), split))
    refuse_empty(made, f"{part} of {function.name}")
    return made


def _drawn(
    functions: Sequence[FunctionSettings], count: int, draw: int, split: SealedSet, url: str
) -> dict[str, bytes]:
    return draw_seeds(functions, count, draw, split.url)


def own_cells(
    run: Run,
    corpus: RequestCorpusSettings,
    functions: Sequence[OwnFunctionSettings],
    pool: Places,
    lang: str,
    duplicates: DuplicateSettings,
    embedder: EmbedderSettings,
) -> list[FunctionCell]:
    """Return the cell of each of the user's own functions; they share the pool and the others' requests.

    The pool is of any size: only what the filter's first cut leaves of it is embedded.
    """
    _check_own(pool, functions, lang)
    annotated = prepared(run, "annotated", prepare_requests(run, corpus), duplicates, embedder)
    wanted = Wanted(TEXT_SIDES, (lang,), (None,))
    urls = urls_of(pool)
    names = place_names(urls)

    def tables() -> Iterator[pa.Table]:
        return list_places(partial(list_texts, url, name, wanted) for url, name in zip(urls, names, strict=True))

    listed = list_source(run, "listed_pool", tables, "pool")
    read = run.step(Step("pool_read", (PoolText.stage(PoolSettings(lang=lang, names=tuple(wanted.names(0)))),), listed))
    refuse_empty(read, "pool")
    whole = _distinct(run, "pool", read, duplicates)
    cells = []
    for one in functions:

        def part(name: Part, made: SealedSet, one: OwnFunctionSettings = one) -> SealedSet:
            stage = OwnPart.stage(OwnPartSettings(name=one.name, which=name))
            return run.step(Step(f"{name}_{one.name}", (stage,), made))

        seeds = part("seeds", embedded(run, f"read_seeds_{one.name}", _read(run, one, "seeds", lang), embedder))
        refuse_empty(seeds, f"seeds of {one.name}")
        test = None
        if one.test is not None:
            test = part("test", embedded(run, f"read_test_{one.name}", _read(run, one, "test", lang), embedder))
        others = part("others", annotated)
        refuse_empty(others, f"annotated requests of other functions than {one.name}")
        cells.append(FunctionCell(one.name, 0, 0, seeds, others, whole, test, embedded=False))
    return cells


def _check_own(pool: Places, functions: Sequence[OwnFunctionSettings], lang: str) -> None:
    """Raise a :class:`UserError` for places that are missing, and for requests of a function that are of another too,
    or are those of its test."""
    wanted = Wanted(TEXT_SIDES, (lang,), (None,))
    check_listed(partial(list_texts, url, "pool", wanted) for url in urls_of(pool))
    parts: dict[str, list[Place]] = {}
    for one in functions:
        for which, places in (("seeds", one.seeds), ("test", one.test)):
            urls = urls_of(places)
            if urls:
                check_listed(partial(list_requests, url, which, fields=one.fields) for url in urls)
                parts[f"{which} of {one.name}"] = [partial(request_items, url, one.fields) for url in urls]
    names = list(parts)
    for place, name in enumerate(names):
        # Two functions may be tested on the same requests, which have their domains.
        others = [other for other in names[place + 1 :] if name.startswith("seeds") or other.startswith("seeds")]
        why = "a request would be of two functions, or tested on after training"
        refuse_shared({one: parts[one] for one in (name, *others)}, why, "each file in one place")


def _read(run: Run, function: OwnFunctionSettings, which: str, lang: str) -> SealedSet:
    """Return the user's annotated requests of a function, or those to measure on."""
    urls = urls_of(getattr(function, which))
    names = place_names(urls)
    name = f"{which}_{function.name}"

    def tables() -> Iterator[pa.Table]:
        places = zip(urls, names, strict=True)
        return list_places(partial(list_requests, url, own, fields=function.fields) for url, own in places)

    reading = RequestParsingSettings(**dict(function.part(AnnotationSettings)), lang=lang, domain=function.name)
    listed = list_source(run, f"listed_{name}", tables, name)
    made = run.step(Step(f"parsed_{name}", (ParseRequest.stage(reading),), listed))
    refuse_empty(made, name)
    return made


def prepared(
    run: Run, name: str, made: SealedSet, duplicates: DuplicateSettings, embedder: EmbedderSettings
) -> SealedSet:
    """Return requests with embeddings, of which near duplicates count once."""
    return embedded(run, f"{name}_embedded", _distinct(run, name, made, duplicates), embedder)


def _distinct(run: Run, name: str, made: SealedSet, duplicates: DuplicateSettings) -> SealedSet:
    signed = run.step(Step(f"{name}_signed", (Sign.stage(),), made))
    return unique(run, signed, f"{name}_unique", duplicates)


def embedded(run: Run, name: str, made: SealedSet, embedder: EmbedderSettings) -> SealedSet:
    """Return a set with an embedding of each text."""
    return run.step(Step(name, (embedder_stage(embedder),), made))
