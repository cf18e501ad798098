"""docs/formats.md names the kinds of corpora and reject reasons that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from gristmill.actors.nlu.folds import SMALL_DOMAIN
from gristmill.actors.sources import catalogues, encoding, files, lists, objects, pointers, reading, tmx
from gristmill.actors.sources.speech import KINDS
from gristmill.actors.speech import align

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_kinds_of_corpora_are_all_there() -> None:
    names = {"lhotse": "Lhotse cuts", "kaldi": "Kaldi data folder", "parquet": "Parquet, Arrow"}
    for kind in KINDS:
        assert f"| {names.get(kind, kind)} |" in section("Corpora of speech")


def test_the_reasons_are_those_of_the_code() -> None:
    own = {SMALL_DOMAIN, tmx.BAD_UNIT, catalogues.MALFORMED, catalogues.NOT_UTF8, lists.MALFORMED, lists.NO_ID}
    own |= {files.NOT_UTF8, objects.OTHER_CELLS, reading.LONG_LINE, encoding.TEXT_ENCODING, *pointers.REASONS}
    rows = re.findall(r"^\| (`.*?) \| [^|]* \|", section("What one record costs"), re.M)
    told = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    assert told
    assert told <= own


def test_the_reasons_of_long_recordings_are_those_of_the_code() -> None:
    own = {align.UNSURE, align.UNHEARD, align.UNWRITTEN, pointers.NO_TEXT, pointers.NO_SPEECH}
    rows = re.findall(r"^\| (`.*?) \| [^|]* \|", section("Long recordings"), re.M)
    assert {name for row in rows for name in re.findall(r"`(.+?)`", row)} == own
