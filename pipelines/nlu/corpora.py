"""Input requests of a recipe: the user's own annotated corpora, or requests generated from templates."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from gristmill.actors.nlu.folds import TEST, Folds, FoldSettings, RejectSmallDomains, SmallDomainSettings
from gristmill.actors.nlu.parsing import AnnotationSettings, ParseRequest, RequestParsingSettings
from gristmill.actors.sources.requests import list_requests, request_files
from gristmill.pipelines.filters import ActorSettings, check_filters, filtered
from gristmill.pipelines.generated import ambiguous, assistant
from gristmill.pipelines.inputs import (
    Places,
    check_listed,
    list_places,
    list_source,
    place_names,
    refuse_empty,
    urls_of,
)
from gristmill.pipelines.overlap import Item, Place, refuse_shared
from gristmill.pipelines.progress import plural
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.schema import REQUEST_FIELDS
from gristmill.shards.step import Step


class RequestCorpusSettings(AnnotationSettings, FoldSettings):
    """Source of the requests.

    They are generated (``kind: assistant``: home automation) or read from the user's corpora (``files``), to which
    ``domains``, ``parse`` and ``context`` apply.
    """

    kind: Literal["assistant", "files"] | None = None
    """By default ``files`` if ``places`` is set, else ``assistant``."""
    places: Places | None = None
    """files: the URLs of corpora, whose requests are split into the test part and folds."""
    test: Places | None = None
    """files: corpora for test only; ``test_share`` then defaults to 0."""
    lang: str | tuple[str, ...] = "en"
    """assistant: the languages; files: the language of requests whose record does not name it."""
    records: int = Field(6000, ge=1)
    """assistant: number of requests."""
    ambiguous: int = Field(0, ge=0)
    """assistant: number of additional requests with ambiguous words, which gives all requests a device and an hour."""
    shard: Cut = Cut()
    filters: tuple[ActorSettings, ...] = ()
    """The user's own filters, applied to the requests before they are split."""

    @model_validator(mode="before")
    @classmethod
    def _no_share_beside_a_test(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("test_share") is None:
            rest = {key: value for key, value in given.items() if key != "test_share"}
            return rest | ({"test_share": 0.0} if given.get("test") else {})
        return given

    @property
    def chosen(self) -> str:
        """The kind, as set or derived."""
        return self.kind or ("files" if self.places or self.test else "assistant")

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in order."""
        return (self.lang,) if isinstance(self.lang, str) else self.lang

    @property
    def columns(self) -> dict[str, bool]:
        """The additional columns of the requests, and whether each is boolean."""
        added = {field.name: pa.types.is_boolean(field.type) for field in ambiguous.ADDED} if self.ambiguous else {}
        return added | {name: kind == "boolean" for name, kind in self.context.items()}


def check_requests(settings: RequestCorpusSettings) -> None:
    """Raise a ``UserError`` for corpora that are missing or of an unknown kind, and for contradictory settings."""
    check_filters(
        settings.filters, pa.schema([*REQUEST_FIELDS, *(pa.field(name, pa.null()) for name in settings.columns)])
    )
    if settings.chosen == "assistant":
        assistant.check_languages(settings.languages)
        for name in ("places", "test", "context", "domains", "fields"):
            if getattr(settings, name):
                raise UserError(f"{name}: generated requests have none; expected kind: files with it")
        return
    if settings.ambiguous:
        raise UserError("ambiguous: these are added to generated requests; expected kind: assistant with it")
    if settings.places is None:
        raise UserError("places: not given; expected the URL of a corpus of requests, or several")
    if len(settings.languages) != 1:
        raise UserError(f"lang: {list(settings.languages)}; expected one, for the corpora that do not name their own")
    for places in filter(None, (urls_of(settings.places), urls_of(settings.test))):
        check_listed(partial(list_requests, url, "corpus", fields=settings.fields) for url in places)
    _check_apart(settings)


def check_columns(settings: RequestCorpusSettings, named: Mapping[str, Sequence[str]]) -> None:
    """Raise a ``UserError`` for settings that name additional columns which the requests will not have: ``named`` has
    the columns of each. All are told at once, with the way to get what they name."""
    known, added = settings.columns, [field.name for field in ambiguous.ADDED]
    wrong = []
    for where, columns in named.items():
        missing = [one for one in columns if one not in known]
        if not missing:
            continue
        one, is_single = missing[0], len(missing) == 1
        told = f"{', '.join(map(repr, missing))} {'is not a context column' if is_single else 'are no context columns'}"
        choice = f"one of {', '.join(known)}"
        if settings.chosen == "assistant":
            adds = f"corpus.ambiguous=N, which adds N requests that have {', '.join(added[:-1])} and {added[-1]}"
            expected = adds if one in added or not known else choice
        else:
            adds = f"corpus.context={{{one}: KIND}} if the corpora have it (KIND: string, number or boolean)"
            expected = f"{choice}, or {adds}" if known else adds
        without = f"{where}={'null' if where == 'slice' else '[]'}"
        wrong.append(f"{where}: {told} of the requests; expected {expected}; or {without}, without any")
    if wrong:
        raise UserError(*wrong)


def _check_apart(settings: RequestCorpusSettings) -> None:
    """Raise a ``UserError`` for requests of the test, or of a fold, that models would be trained on."""

    def files(places: Places | None) -> list[Place]:
        return [partial(request_items, url, settings.fields) for url in urls_of(places)]

    parts = {"corpus.places": files(settings.places), "corpus.test": files(settings.test)}
    why = "requests would be read by models that were trained on them"
    refuse_shared(parts, why, "each file in one place", divided=True)


def request_items(url: str, fields: Mapping[str, str]) -> Iterator[Item]:
    """Yield the files of a corpus, by which parts are compared."""
    return map(Item, request_files(url, fields))


def prepare_requests(run: Run, settings: RequestCorpusSettings) -> SealedSet:
    """Make the typed requests (``shards.schema.REQUEST_FIELDS``) with their context."""
    check_requests(settings)
    if settings.chosen == "files":
        reading = RequestParsingSettings(**dict(settings.part(AnnotationSettings)), lang=settings.languages[0])
        made = run.step(Step("requests", (ParseRequest.stage(reading),), _listed(run, settings), cut=settings.shard))
    else:
        made = _generated(run, settings)
    refuse_empty(made, "requests")
    return filtered(run, made, settings.filters)


def split_requests(run: Run, settings: RequestCorpusSettings, requests: SealedSet, split: int = 0) -> SealedSet:
    """Add ``fold`` to requests, by the random split of number ``split``."""
    drops = ("part",) if "part" in requests.schema.names else ()
    stage = replace(Folds.stage(settings.part(FoldSettings), name=f"folds_{split}"), drops=drops)
    cut = settings.shard if settings.chosen == "assistant" else None
    return run.step(Step(f"split_{split}", (stage,), requests, cut=cut))


def without_small_domains(
    run: Run, splits: Mapping[int, SealedSet], sliced: str | None = None
) -> tuple[dict[int, SealedSet], set[str]]:
    """Return splits without the requests of domains that are too small in one of them, and the names of those domains.

    A domain is trained without each of the folds in turn, so its requests outside the test part are of two at least.

    Raises:
        UserError: all domains are too small, or of the others a split has no request in the test, or none there for
            which the boolean column ``sliced`` is true.
    """
    folds: dict[str, list[set[int]]] = {}
    tested: list[set[str]] = [set() for _ in splits]
    in_slice: list[set[str]] = [set() for _ in splits]
    columns = ["domain", "fold", *([sliced] if sliced else [])]
    for place, split in enumerate(splits.values()):
        for table in split.tables(columns):
            for row in table.group_by(columns).aggregate([]).to_pylist():
                folds.setdefault(row["domain"], [set() for _ in splits])[place].add(row["fold"])
                if row["fold"] == TEST:
                    tested[place].add(row["domain"])
                    if sliced and row[sliced]:
                        in_slice[place].add(row["domain"])
    small = {name for name, found in folds.items() if min(len(own - {TEST}) for own in found) < 2}
    inspect = f"see `gristmill inspect {shlex.quote(run.out)} --rejects`"
    if len(small) == len(folds):
        raise UserError(
            f"requests: of {plural(len(small), 'domain')} there are too few to train on, and there is no other; "
            "expected more of them: a domain is trained without each fold in turn, so some are to be in two folds; "
            f"{inspect}"
        )
    for place, seed in enumerate(splits):
        if not tested[place] - small:
            raise UserError(
                f"requests: no record is left for the test of the split of seed {seed}; expected more of them, another "
                f"corpus.test_share, or some in corpus.test that can be used; {inspect}"
            )
        if sliced and not in_slice[place] - small:
            raise UserError(
                f"slice: {sliced!r} is true of no request in the test of the split of seed {seed}; expected some: more "
                f"of them, a larger corpus.test_share, or slice: null; {inspect}"
            )
    if not small:
        return dict(splits), small
    run.progress.say(
        f"requests: of {plural(len(small), 'domain')} there are too few to train on, and they are rejected: "
        f"{', '.join(sorted(small))[:200]}; {inspect}"
    )
    stage = RejectSmallDomains.stage(SmallDomainSettings(domains=tuple(sorted(small))))
    return {seed: run.step(Step(f"split_{seed}_kept", (stage,), split)) for seed, split in splits.items()}, small


def _generated(run: Run, settings: RequestCorpusSettings) -> SealedSet:
    """Generate requests and, if set, ambiguous ones whose meaning depends on the device."""
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
    train, test = urls_of(settings.places), urls_of(settings.test)
    names = place_names([*train, *test])
    parts: Sequence[str | None] = [*[None] * len(train), *["test"] * len(test)]

    def tables() -> Iterator[pa.Table]:
        places = zip((*train, *test), names, parts, strict=True)
        return list_places(
            partial(list_requests, url, name, part=part, fields=settings.fields) for url, name, part in places
        )

    return list_source(run, "listed_requests", tables, "requests")
