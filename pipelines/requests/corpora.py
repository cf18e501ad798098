"""The annotated requests a recipe starts from: the user's own corpora, or requests generated from templates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import pyarrow as pa
from pydantic import Field

from gristmill.actors.requests import parsing
from gristmill.actors.requests.folds import Folds, FoldSettings
from gristmill.actors.requests.parsing import ContextKind
from gristmill.actors.sources.requests import list_requests
from gristmill.pipelines.filters import ActorSettings, filtered
from gristmill.pipelines.generated import ambiguous, assistant
from gristmill.pipelines.inputs import Places, digest_of, place_names, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step


class RequestCorpusSettings(Settings):
    """Where requests come from.

    ``kind`` ``assistant`` generates ``records`` requests to a home; ``files`` reads ``places`` and, if given, ``test``,
    all of whose records are for test (naming ``places`` is enough to mean it). ``test_share`` of the texts of
    ``places`` are for test, 0 where ``test`` is given; the others go into ``folds``.
    """

    kind: Literal["assistant", "files"] | None = None
    places: Places | None = None
    test: Places | None = None
    lang: str | tuple[str, ...] = "en"  # assistant: the languages spoken; files: that of what does not tell its own
    records: int = Field(6000, ge=1)  # assistant
    ambiguous: int = Field(
        0, ge=0
    )  # assistant: so many beside them, with device and hour (gristmill.pipelines.generated.ambiguous)
    domains: dict[str, str] | None = None  # files: the domain of each intent of SNIPS and ATIS
    parse: Literal["en_parse", "cs_parse"] = "en_parse"  # files: the column of TOP parses that is read
    context: dict[str, ContextKind] = Field(default_factory=dict)  # files: columns to carry through
    folds: int = Field(5, ge=2)
    test_share: float | None = Field(None, ge=0, lt=1)  # 0.2, or 0 where `test` is given
    shard: Cut = Cut()
    filters: tuple[ActorSettings, ...] = ()
    """The user's own, applied to the requests before they are split."""

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

    @property
    def held_out(self) -> float:
        """The share of the texts that is for test."""
        if self.test_share is None:
            return 0.0 if self.test else 0.2
        return self.test_share


def check_requests(settings: RequestCorpusSettings) -> None:
    """Refuse corpora that are missing or of no known kind, and settings that do not go together."""
    parsing.context_fields(settings.context)
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
        parse = parsing.stage(
            lang=settings.languages[0], domains=settings.domains, parse=settings.parse, context=settings.context
        )
        made = run.step(Step("requests", (parse,), _listed(run, settings), cut=settings.shard))
    else:
        made = _generated(run, settings)
    refuse_empty(made, "requests")
    return filtered(run, made, settings.filters)


def split_requests(run: Run, settings: RequestCorpusSettings, requests: SealedSet, split: int = 0) -> SealedSet:
    """Add ``fold`` to requests, by the random split of a number: each other number is another split."""
    drops = ("part",) if "part" in requests.schema.names else ()
    given = FoldSettings(folds=settings.folds, test_share=settings.held_out)
    stage = replace(Folds.stage(given, name=f"folds_{split}"), drops=drops)
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
