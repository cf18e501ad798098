"""The annotated requests a recipe starts from: the user's own corpora, or requests generated from templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from gristmill.actors.requests.folds import Folds, FoldSettings
from gristmill.actors.requests.parsing import AnnotationSettings, Parse, ParseSettings
from gristmill.actors.sources.requests import list_requests
from gristmill.pipelines.filters import ActorSettings, filtered
from gristmill.pipelines.generated import ambiguous, assistant
from gristmill.pipelines.inputs import Places, digest_of, place_names, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.step import Step


class RequestCorpusSettings(AnnotationSettings, FoldSettings):
    """Where requests come from.

    Either they are generated (``kind: assistant``: to a home) or read from the user's corpora (``files``), to which
    ``domains``, ``parse`` and ``context`` apply.
    """

    kind: Literal["assistant", "files"] | None = None
    """``files`` where places are named, else ``assistant``."""
    places: Places | None = None
    """files: the URLs of corpora, whose requests are dealt to the test part and to folds."""
    test: Places | None = None
    """files: corpora all of whose requests are for test; ``test_share`` is 0 then if it is not given."""
    lang: str | tuple[str, ...] = "en"
    """assistant: the languages spoken; files: that of requests whose record does not name it."""
    records: int = Field(6000, ge=1)
    """assistant: how many."""
    ambiguous: int = Field(0, ge=0)
    """assistant: so many beside them whose words do not tell what is meant, all with device and hour."""
    shard: Cut = Cut()
    filters: tuple[ActorSettings, ...] = ()
    """The user's own, applied to the requests before they are split."""

    @model_validator(mode="before")
    @classmethod
    def _no_share_beside_a_test(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("test_share") is None:
            rest = {key: value for key, value in given.items() if key != "test_share"}
            return rest | ({"test_share": 0.0} if given.get("test") else {})
        return given

    @property
    def chosen(self) -> str:
        """The kind, worked out where it was not given."""
        return self.kind or ("files" if self.places or self.test else "assistant")

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in order."""
        return (self.lang,) if isinstance(self.lang, str) else self.lang

    @property
    def columns(self) -> dict[str, bool]:
        """The columns that requests have beside those of every request, and whether they hold truth values."""
        added = {field.name: pa.types.is_boolean(field.type) for field in ambiguous.ADDED} if self.ambiguous else {}
        return added | {name: kind == "boolean" for name, kind in self.context.items()}


def check_requests(settings: RequestCorpusSettings) -> None:
    """Refuse corpora that are missing or of no known kind, and settings that do not go together."""
    if settings.chosen == "assistant":
        assistant.check_languages(settings.languages)
        for name in ("places", "test", "context", "domains"):
            if getattr(settings, name):
                raise UserError(f"{name}: generated requests have none; expected kind: files with it")
        return
    if settings.ambiguous:
        raise UserError("ambiguous: these are generated beside a home's requests; expected kind: assistant with it")
    if settings.places is None:
        raise UserError("places: not given; expected the URL of a corpus of requests, or several")
    if len(settings.languages) != 1:
        raise UserError(f"lang: {list(settings.languages)}; expected one, of the corpora that do not tell their own")
    for url in (*_urls(settings.places), *_urls(settings.test)):
        list_requests(url, "corpus")  # refuses what it cannot list when it is called, before the first row


def prepare_requests(run: Run, settings: RequestCorpusSettings) -> SealedSet:
    """Make the typed requests that the settings name (``shards.schema.REQUEST_FIELDS``), with their context."""
    check_requests(settings)
    if settings.chosen == "files":
        reading = ParseSettings(**dict(settings.part(AnnotationSettings)), lang=settings.languages[0])
        made = run.step(Step("requests", (Parse.stage(reading),), _listed(run, settings), cut=settings.shard))
    else:
        made = _generated(run, settings)
    refuse_empty(made, "requests")
    return filtered(run, made, settings.filters)


def split_requests(run: Run, settings: RequestCorpusSettings, requests: SealedSet, split: int = 0) -> SealedSet:
    """Add ``fold`` to requests, by the random split of a number: each other number is another split."""
    drops = ("part",) if "part" in requests.schema.names else ()
    stage = replace(Folds.stage(settings.part(FoldSettings), name=f"folds_{split}"), drops=drops)
    cut = settings.shard if settings.chosen == "assistant" else None
    return run.step(Step(f"split_{split}", (stage,), requests, cut=cut))


def _generated(run: Run, settings: RequestCorpusSettings) -> SealedSet:
    """Requests to a home and, where they are asked for, those that the device alone tells apart."""
    languages, records, more = settings.languages, settings.records, settings.ambiguous

    def tables() -> Iterator[pa.Table]:
        home = assistant.requests(records, languages, run.seed)
        if not more:
            return home
        return chain(ambiguous.with_context(home, run.seed), ambiguous.requests(more, run.seed))

    identity = {"records": records, "languages": languages, "seed": run.seed, "made_by": assistant.identity()}
    identity |= {"ambiguous": more, "version": ambiguous.VERSION} if more else {}
    return run.source("requests", tables, identity)


def _listed(run: Run, settings: RequestCorpusSettings) -> SealedSet:
    """List the corpora, those for test last."""
    train, test = _urls(settings.places), _urls(settings.test)
    names = place_names([*train, *test])
    parts: Sequence[str | None] = [*[None] * len(train), *["test"] * len(test)]

    def tables() -> Iterator[pa.Table]:
        places = zip((*train, *test), names, parts, strict=True)
        return chain.from_iterable(list_requests(url, name, part=part) for url, name, part in places)

    # A listing that changed is another source; it is read twice, so that it need not be held.
    return run.source("listed_requests", tables, {"rows": digest_of(tables())})


def _urls(places: Places | None) -> tuple[str, ...]:
    if places is None:
        return ()
    return (places,) if isinstance(places, str) else places
