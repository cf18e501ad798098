"""Recordings to transcribe, as pointers: files, standard input, and anything that a corpus is read from."""

from __future__ import annotations

import itertools
import os
import posixpath
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.files import SUFFIXES
from gristmill.actors.sources.pointers import POINTERS, version_of
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.unlisted import FILES
from gristmill.pipelines.inline import STDIN
from gristmill.pipelines.inputs import list_places, place_names
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.scratch import scratch
from gristmill.shards.walking import walk

AT_ONCE = 32  # recordings of a table
GIVEN = pa.field("audio_filepath", pa.string())  # a recording as it was given, which its records keep
_LISTS = tuple(suffix for kind, suffixes in SUFFIXES.items() if kind != "folder" for suffix in suffixes)


def list_recordings(
    places: Sequence[str], elsewhere: Sequence[str] = (), say: Callable[[str], None] = lambda sentence: None
) -> Iterator[pa.Table]:
    """Yield the pointers of recordings in their order, with ``audio_filepath``, and the files that cannot be listed.

    A place is a file of audio, a folder, manifest or anything else that :func:`list_sources` reads, or ``-``: audio
    from standard input, which is kept in a temporary file meanwhile.

    Raises:
        UserError: a place does not exist, or has no audio.
    """
    for place in places:
        if place != STDIN and "*" not in place and not store.exists(store.absolute(place)):
            raise UserError(
                f"{place}: no such file or folder; expected audio, a folder of it, or a list (manifest, ...)"
            )
    if places.count(STDIN) > 1:
        raise UserError("-: given twice; standard input can be read once")
    listed = [place for place in places if is_listed(place)]
    names = dict(zip(listed, place_names([store.absolute(place) for place in listed]), strict=True))
    taken: dict[str, int] = {}
    with scratch() as folder:
        for listed_ones, group in itertools.groupby(places, key=names.__contains__):
            if not listed_ones:
                while some := list(itertools.islice(group, AT_ONCE)):
                    pointers = [_pointer(place, folder, taken) for place in some]
                    yield pa.Table.from_pylist(pointers, schema=POINTERS).append_column(GIVEN, pa.array(some))
                continue
            for place in group:
                sources = partial(list_sources, store.absolute(place), corpus=names[place], rows=AT_ONCE)
                for table in list_places([partial(sources, elsewhere=elsewhere, say=say)]):
                    yield table if table.schema.equals(FILES) else _shown(table, place)


def is_listed(place: str) -> bool:
    """Return whether a place is a list or a folder, which may have several recordings, and not a file of audio."""
    if place == STDIN:
        return False
    fs, path = store.filesystem(store.absolute(place))
    return "*" in place or store.bare(place).lower().endswith(_LISTS) or not fs.isfile(path)


def _pointer(place: str, folder: Path, taken: dict[str, int]) -> dict[str, Any]:
    """Return the pointer of one file; its id is its name, numbered from the second of that name on."""
    if place == STDIN:
        with (folder / "stdin").open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
    url = str(folder / "stdin") if place == STDIN else store.absolute(place)
    (info,) = walk(url)
    name = posixpath.basename(store.bare(url))
    taken[name] = taken.get(name, 0) + 1
    key = name if taken[name] == 1 else f"{name}#{taken[name]}"
    return {"id": key, "kind": "file", "url": url, "size": info.size, "version": version_of(info)}


def _shown(table: pa.Table, place: str) -> pa.Table:
    """Return a table of pointers with the recordings as they were given."""
    rows = table.select(["url", "kind", "member", "row_group", "row"]).to_pylist()
    return table.append_column(GIVEN, pa.array([_name(row, place) for row in rows], GIVEN.type))


def _name(row: Mapping[str, Any], place: str) -> str:
    url = row["url"] or place
    if "://" not in url and not os.path.isabs(os.path.expanduser(place)):
        below = os.path.relpath(url)
        url = url if below.startswith("..") and not place.startswith("..") else below
    if row["kind"] == "member":
        return f"{url}:{row['member']}"
    return f"{url}:{row['row_group']}.{row['row']}" if row["kind"] == "row" else url
