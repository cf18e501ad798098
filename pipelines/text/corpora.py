"""The text a recipe starts from: pairs of a text and its translation, and text of one language."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa
from pydantic import model_validator

from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, Wanted, list_texts
from gristmill.actors.text.near_duplicates import PARTS, DuplicateSettings, RejectFound, Search, SearchSettings
from gristmill.actors.text.parsing import CleaningSettings, PairCleaningSettings, Parse, ParseSettings
from gristmill.pipelines.inputs import Places, digest_of, place_names, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.stage import ArtifactRef, Stage
from gristmill.shards.step import Step


class _Settings(CleaningSettings, DuplicateSettings):
    """What text of one language and of two have in common."""

    places: Places
    """One URL, or several."""
    shard: Cut = Cut(rows=20000)
    """The most that a shard holds."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The places, in order."""
        return (self.places,) if isinstance(self.places, str) else self.places


class PairSettings(_Settings, PairCleaningSettings):
    """Where pairs come from: TSV, CSV, JSONL, Parquet, TMX, gettext catalogues, or files that go line by line.

    The last are named by one of them or by what their names begin with (``train`` for ``train.en`` and ``train.hi``).
    """

    source_lang: str = "en"
    """The language of the first side."""
    target_lang: str = "hi"
    """The language of the other one."""
    source: str | int | None = None
    """The column of tables, by number from 1 or by name."""
    target: str | int | None = None
    """The column of tables, by number from 1 or by name."""

    @model_validator(mode="after")
    def _translates(self) -> PairSettings:
        if self.source_lang == self.target_lang:
            raise ValueError(f"target_lang: {self.target_lang!r}, as the source's; expected another language")
        return self

    @property
    def wanted(self) -> Wanted:
        """What is read of each record."""
        return Wanted(PAIR_SIDES, (self.source_lang, self.target_lang), (self.source, self.target))

    @property
    def cleaning(self) -> CleaningSettings:
        """How it is cleaned."""
        return self.part(PairCleaningSettings)


class TextSettings(_Settings):
    """Where text of one language comes from: plain lines or, of any kind of pairs, the side of its language."""

    lang: str = "hi"
    """Its language."""
    text: str | int | None = None
    """The column of tables, by number from 1 or by name."""

    @property
    def wanted(self) -> Wanted:
        """What is read of each record."""
        return Wanted(TEXT_SIDES, (self.lang,), (self.text,))

    @property
    def cleaning(self) -> CleaningSettings:
        """How it is cleaned."""
        return self.part(CleaningSettings)


def check_places(settings: PairSettings | TextSettings) -> None:
    """Refuse text that is missing or of no known kind."""
    if not settings.urls:
        raise UserError("places: none given; expected the URL of text, or several")
    wanted = settings.wanted
    for url in settings.urls:
        # Refuses what it cannot list when it is called, and with the first rows what is broken there.
        if next(list_texts(url, "corpus", wanted), None) is None:
            raise UserError(f"{url}: holds no record; expected text in {' and '.join(wanted.langs)}")


def prepare_text(
    run: Run, settings: PairSettings | TextSettings, name: str | None = None, without: SealedSet | None = None
) -> SealedSet:
    """Make the pairs or texts that the settings name, without those of which others are copies.

    They are of ``gristmill.shards.schema.PAIRS`` or ``TEXTS``; ``pairs`` or ``texts`` is their name by default.
    ``without``: a set of test text (``text``, or else ``target``); what has the words of one of its texts, on the side
    of the target, is rejected.

    Raises:
        UserError: nothing is there, it cannot be read, or no record is left.
    """
    check_places(settings)
    name = name or ("pairs" if isinstance(settings, PairSettings) else "texts")
    names, wanted = place_names(settings.urls), settings.wanted

    def tables() -> Iterator[pa.Table]:
        return chain.from_iterable(
            list_texts(url, corpus, wanted) for url, corpus in zip(settings.urls, names, strict=True)
        )

    # A listing that changed is another source; it is read twice, so that it need not be held.
    listing = run.source(f"listed_{name}", tables, {"rows": digest_of(tables())})
    refuse_empty(listing, name)
    parsed = run.step(Step(f"parsed_{name}", (_parse(settings, without),), listing, cut=settings.shard))
    refuse_empty(parsed, name)
    return unique(run, parsed, name, settings.part(DuplicateSettings))


def _parse(settings: PairSettings | TextSettings, without: SealedSet | None) -> Stage:
    wanted = settings.wanted
    test = {} if without is None else {"test_column": _text_column(without)}
    parse = ParseSettings(
        sides=wanted.sides,
        langs=wanted.langs,
        names=tuple(tuple(wanted.names(place)) for place in range(len(wanted.sides))),
        signature=settings.near is not None,
        **test,
        **dict(settings.cleaning),
    )
    return Parse.stage(parse, test=None if without is None else ArtifactRef(without.url, without.digest))


def _text_column(test: SealedSet) -> str:
    column = next((column for column in ("text", "target") if column in test.schema.names), None)
    if column is None:
        raise UserError(f"{test.url}: no text among {test.schema.names}; expected a column text or target")
    return column


def unique(run: Run, parsed: SealedSet, name: str, settings: DuplicateSettings) -> SealedSet:
    """Keep the first of equal records (``key``) and of those that are nearly equal (``signature``), in two passes."""
    number = settings.parts(parsed.records)

    def parts() -> Iterator[pa.Table]:
        for part in range(number):
            yield pa.Table.from_pylist([{"id": f"{part:05d}", "part": part}], schema=PARTS)

    listed = run.source(f"parts_{name}", parts, {"parts": number})
    search = SearchSettings(number=number, **dict(settings))
    records = ArtifactRef(parsed.url, parsed.digest)
    found = run.step(Step(f"repeated_{name}", (Search.stage(search, records=records),), listed))
    reject = RejectFound.stage(settings, found=ArtifactRef(found.url, found.digest))
    return run.step(Step(name, (reject,), parsed))
