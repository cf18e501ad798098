"""The text that a recipe starts from: pairs of a text and its translation, and monolingual text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import pyarrow as pa
from pydantic import model_validator

from gristmill.actors.near_duplicates import DuplicateSettings
from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, Wanted, list_texts, text_files
from gristmill.actors.text.parsing import CleaningSettings, PairCleaningSettings, ParseText, TextParsingSettings
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
from gristmill.pipelines.run import Run
from gristmill.pipelines.unique import unique
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step


class _Settings(CleaningSettings, DuplicateSettings):
    """The common settings of monolingual text and pairs."""

    places: Places
    """One URL, or several."""
    shard: Cut = Cut(rows=20000)
    """Maximum size of a shard."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs, in order."""
        return urls_of(self.places)


class PairSettings(_Settings, PairCleaningSettings):
    """The sources of pairs: TSV, CSV, JSONL, Parquet, TMX, gettext catalogues, or line-aligned files.

    Line-aligned files are given by one of them or by their common prefix (``train`` for ``train.en`` and ``train.hi``).
    """

    source_lang: str = "en"
    """The language of the first side."""
    target_lang: str = "hi"
    """The language of the second side."""
    source: str | int | None = None
    """The column of tables, by name or by number from 1."""
    target: str | int | None = None
    """The column of tables, by name or by number from 1."""

    @model_validator(mode="after")
    def _translates(self) -> PairSettings:
        if self.source_lang == self.target_lang:
            raise ValueError(f"target_lang: {self.target_lang!r}, as the source's; expected another language")
        return self

    @property
    def wanted(self) -> Wanted:
        """The fields to read of each record."""
        return Wanted(PAIR_SIDES, (self.source_lang, self.target_lang), (self.source, self.target))

    @property
    def cleaning(self) -> CleaningSettings:
        """The settings of cleaning."""
        return self.part(PairCleaningSettings)


class TextSettings(_Settings):
    """The sources of monolingual text: plain lines, or the side of its language in any kind of pairs."""

    lang: str = "hi"
    """Its language."""
    text: str | int | None = None
    """The column of tables, by name or by number from 1."""

    @property
    def wanted(self) -> Wanted:
        """The fields to read of each record."""
        return Wanted(TEXT_SIDES, (self.lang,), (self.text,))

    @property
    def cleaning(self) -> CleaningSettings:
        """The settings of cleaning."""
        return self.part(CleaningSettings)


def check_places(settings: PairSettings | TextSettings) -> None:
    """Check that the text exists and is of a known format."""
    if not settings.urls:
        raise UserError("places: none given; expected the URL of text, or several")

    def listed(url: str) -> Iterator[pa.Table]:
        tables = list_texts(url, "corpus", settings.wanted)
        if next(tables, None) is None:
            raise UserError(f"{url}: no records; expected text in {' and '.join(settings.wanted.langs)}")
        return tables

    check_listed(partial(listed, url) for url in settings.urls)


def check_apart(parts: Mapping[str, PairSettings | TextSettings], why: str) -> None:
    """Check that the text of the first part, by the name of its setting, is in no file of the others.

    Raises:
        UserError: it is; ``why`` that cannot be.
    """

    def files(settings: PairSettings | TextSettings) -> list[Place]:
        return [partial(_items, url, settings.wanted) for url in settings.urls]

    refuse_shared({name: files(settings) for name, settings in parts.items()}, why, "other text in one of them")


def _items(url: str, wanted: Wanted) -> Iterator[Item]:
    return map(Item, text_files(url, wanted))


def prepare_text(
    run: Run, settings: PairSettings | TextSettings, name: str | None = None, without: SealedSet | None = None
) -> SealedSet:
    """Read, clean and deduplicate the pairs or texts of the settings.

    Their schema is ``gristmill.shards.schema.PAIRS`` or ``TEXTS``, their default name ``pairs`` or ``texts``.
    ``without``: a set of test text (``text``, or else ``target``); records with the words of one of its texts on the
    target side are rejected.

    Raises:
        UserError: the text does not exist or cannot be read, or no record is left.
    """
    check_places(settings)
    name = name or ("pairs" if isinstance(settings, PairSettings) else "texts")
    names, wanted = place_names(settings.urls), settings.wanted

    def tables() -> Iterator[pa.Table]:
        places = zip(settings.urls, names, strict=True)
        return list_places(partial(list_texts, url, corpus, wanted) for url, corpus in places)

    listing = list_source(run, f"listed_{name}", tables, name)
    refuse_empty(listing, name)
    parsed = run.step(Step(f"parsed_{name}", (_parse(settings, without),), listing, cut=settings.shard))
    refuse_empty(parsed, name)
    return unique(run, parsed, name, settings.part(DuplicateSettings))


def _parse(settings: PairSettings | TextSettings, without: SealedSet | None) -> Stage:
    wanted = settings.wanted
    test = {} if without is None else {"test_column": _text_column(without)}
    parse = TextParsingSettings(
        sides=wanted.sides,
        langs=wanted.langs,
        names=tuple(tuple(wanted.names(place)) for place in range(len(wanted.sides))),
        signature=settings.near is not None,
        **test,
        **dict(settings.cleaning),
    )
    return ParseText.stage(parse, test=None if without is None else without.ref)


def _text_column(test: SealedSet) -> str:
    column = next((column for column in ("text", "target") if column in test.schema.names), None)
    if column is None:
        raise UserError(f"{test.url}: no text among {test.schema.names}; expected a column text or target")
    return column
