"""The text a recipe starts from: pairs of a text and its translation, and text of one language."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, Wanted, list_texts
from gristmill.actors.text import near_duplicates, parsing
from gristmill.pipelines.inputs import Places, digest_of, place_names, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step


class _Settings(Settings):
    """What text of one language and of two have in common.

    ``near``: how alike a record is to an earlier one (of their 4-letter sequences, the share that both have) to be
    turned down; ``null``: equal ones alone are. ``interface``: whether text is that of a program's windows, whose
    markup and accelerators are taken out (``null``: in gettext catalogues it is); ``formats``: what is done about
    ``%s`` and ``{name}`` in such text.
    """

    places: Places
    max_words: int = Field(100, ge=1)  # of a side
    least_script: float = Field(0.5, ge=0, le=1)  # of its letters, in a script of its language
    near: float | None = Field(0.8, ge=0.5, le=1)
    interface: bool | None = None
    formats: Literal["keep", "remove", "reject"] = "remove"
    label_source: str = "gold"
    memory: int = Field(1 << 30, gt=0)  # bytes that a part of the search for duplicates may take
    shard: Cut = Cut(rows=20000)

    @property
    def urls(self) -> tuple[str, ...]:
        """The places, in order."""
        return (self.places,) if isinstance(self.places, str) else self.places


class PairSettings(_Settings):
    """Where pairs come from: TSV, CSV, JSONL, Parquet, TMX, gettext catalogues, or files that go line by line.

    The last are named by one of them or by what their names begin with (``train`` for ``train.en`` and ``train.hi``).
    ``source`` and ``target`` are columns of tables, by number from 1 or by name.
    """

    source_lang: str = "en"
    target_lang: str = "hi"
    source: str | int | None = None
    target: str | int | None = None
    max_ratio: float = Field(3.0, ge=1)  # of the sides' numbers of words; two more are free

    @property
    def wanted(self) -> Wanted:
        """What is read of each record."""
        return Wanted(PAIR_SIDES, (self.source_lang, self.target_lang), (self.source, self.target))


class TextSettings(_Settings):
    """Where text of one language comes from: plain lines or, of any kind of pairs, the side of its language."""

    lang: str = "hi"
    text: str | int | None = None  # the column of tables, by number from 1 or by name

    @property
    def wanted(self) -> Wanted:
        """What is read of each record."""
        return Wanted(TEXT_SIDES, (self.lang,), (self.text,))


def check_pairs(settings: PairSettings) -> None:
    """Refuse pairs that are missing, of no known kind, or of one language."""
    if settings.source_lang == settings.target_lang:
        raise UserError(f"target_lang: {settings.target_lang!r}, as the source's; expected another language")
    _check(settings, settings.wanted)


def check_texts(settings: TextSettings) -> None:
    """Refuse text that is missing or of no known kind."""
    _check(settings, settings.wanted)


def prepare_pairs(run: Run, settings: PairSettings, name: str = "pairs", without: SealedSet | None = None) -> SealedSet:
    """Make the pairs that the settings name (``shards.schema.PAIRS``), without those of which others are copies.

    ``without``: a set of test text; pairs whose target has the words of one of its texts are turned down.
    """
    check_pairs(settings)
    return _prepare(run, settings, settings.wanted, name, without, max_ratio=settings.max_ratio)


def prepare_texts(run: Run, settings: TextSettings, name: str = "texts", without: SealedSet | None = None) -> SealedSet:
    """Make the text that the settings name (``gristmill.shards.schema.TEXTS``), as :func:`prepare_pairs` does."""
    check_texts(settings)
    return _prepare(run, settings, settings.wanted, name, without)


def _check(settings: _Settings, wanted: Wanted) -> None:
    if not settings.urls:
        raise UserError("places: none given; expected the URL of text, or several")
    for url in settings.urls:
        # Refuses what it cannot list when it is called, and with the first rows what is broken there.
        if next(list_texts(url, "corpus", wanted), None) is None:
            raise UserError(f"{url}: holds no record; expected text in {' and '.join(wanted.langs)}")


def _prepare(
    run: Run, settings: _Settings, wanted: Wanted, name: str, without: SealedSet | None, **more: Any
) -> SealedSet:
    names = place_names(settings.urls)

    def tables() -> Iterator[pa.Table]:
        return chain.from_iterable(
            list_texts(url, corpus, wanted) for url, corpus in zip(settings.urls, names, strict=True)
        )

    # A listing that changed is another source; it is read twice, so that it need not be held.
    listing = run.source(f"listed_{name}", tables, {"rows": digest_of(tables())})
    refuse_empty(listing, name)
    parse = parsing.stage(
        wanted.sides,
        wanted.langs,
        [wanted.names(place) for place in range(len(wanted.sides))],
        test=without,
        max_words=settings.max_words,
        least_script=settings.least_script,
        interface=settings.interface,
        formats=settings.formats,
        label_source=settings.label_source,
        signature=settings.near is not None,
        **more,
    )
    parsed = run.step(Step(f"parsed_{name}", (parse,), listing, cut=settings.shard))
    refuse_empty(parsed, name)
    return unique(run, parsed, name, settings.near, settings.memory)


def unique(run: Run, parsed: SealedSet, name: str, near: float | None, memory: int = 1 << 30) -> SealedSet:
    """Keep the first of equal records (``key``) and of those that are nearly equal (``signature``), in two passes."""
    number = near_duplicates.parts(parsed.records, near is not None, memory)

    def parts() -> Iterator[pa.Table]:
        for part in range(number):
            yield pa.Table.from_pylist([{"id": f"{part:05d}", "part": part}], schema=near_duplicates.PARTS)

    listed = run.source(f"parts_{name}", parts, {"parts": number})
    search = near_duplicates.search_stage(parsed, number, near)
    found = run.step(Step(f"repeated_{name}", (search,), listed))
    return run.step(Step(name, (near_duplicates.turn_down_stage(found, near is not None),), parsed))
