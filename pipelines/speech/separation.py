"""What is tested on is not trained on: the parts of a speech corpus, and the noises, share no recording."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.pointers import Reader, column_file, resolve
from gristmill.actors.sources.reading import opened
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.unlisted import NothingListed
from gristmill.actors.speech.banks import list_noises
from gristmill.pipelines.overlap import Item, Place, refuse_shared
from gristmill.pipelines.speech.corpora import CorpusSettings
from gristmill.shards.errors import RejectRecord
from gristmill.shards.store import bare

_COLUMNS = ["kind", "url", "member", "row_group", "row", "start", "length", "channel", "problem"]
_BLOCK = 1 << 16  # bytes per request


def check_separation(settings: CorpusSettings, noise: str | None) -> None:
    """Check that no recording of the test is trained on, and that none of speech is among the noises of a folder.

    Raises:
        UserError: one is.
    """
    places = settings.places()
    parts: dict[str, list[Place]] = {
        f"corpus.{part}": [partial(_recordings, settings, url) for url in urls] for part, urls in places.items()
    }
    tested = next((f"corpus.{part}" for part in ("test", "labelled", "digits") if part in places), "")
    divided = tested != "corpus.test"
    if tested and (len(parts) > 1 or (divided and len(parts[tested]) > 1)):
        ordered = {tested: parts[tested], **parts}
        if divided:
            why = f"a share of {tested} is held out for the test, and would be trained on all the same"
            refuse_shared(ordered, why, "other recordings there, or corpus.test", divided=True)
        else:
            refuse_shared(ordered, "speech of the test would be trained on", "other recordings in one of them")
    if noise is not None and parts:
        why = "speech would be the noise of speech"
        refuse_shared({"noise": [partial(_noises, noise)], **parts}, why, "a folder of nothing but noises")


def _noises(folder: str) -> Iterator[Item]:
    return (Item(file.url) for file in list_noises(folder))


def _recordings(settings: CorpusSettings, url: str) -> Iterator[Item]:
    """Yield the recordings of a place, and the segments of recordings."""
    try:
        tables = list_sources(url, fields=settings.fields, elsewhere=settings.elsewhere)
    except NothingListed:
        return
    paths = _Paths()
    for table in tables:
        for row in table.select(_COLUMNS).to_pylist():
            if row["problem"] or row["kind"] not in ("file", "member", "row"):
                continue
            file, inner = row["url"], ""
            if row["kind"] == "member":
                inner = row["member"]
            elif row["kind"] == "row":
                named = paths.of(row)
                file, inner = (named, "") if named else (file, f"{row['row_group']}/{row['row']}")
            start = row["start"] or 0.0
            span = {} if row["length"] is None else {"end": start + row["length"]}
            channel = {} if row["channel"] is None else {"channel": row["channel"]}
            yield Item(file, inner, start, **span, **channel)


class _Paths:
    """The paths in the rows of Parquet files, where these hold paths and not audio."""

    def __init__(self) -> None:
        self._reader = Reader(_BLOCK)
        self._known: tuple[str, str] = "", ""
        self._are_paths = False

    def of(self, row: dict[str, Any]) -> str | None:
        """Return the file that a row names; ``None`` if its audio is in the row."""
        if self._known != (row["url"], row["member"]):
            self._known = row["url"], row["member"]
            with opened(row["url"], _BLOCK) as raw:
                kind = column_file(raw).schema.field(row["member"]).type
            self._are_paths = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not self._are_paths:
            return None
        with contextlib.suppress(RejectRecord):
            path = self._reader.row(row, [row["member"]])[row["member"]]
            if isinstance(path, str):
                return resolve(posixpath.dirname(bare(row["url"])), path)
        return None
