"""Recordings to transcribe, as pointers: files, pipes, samples, and anything that a corpus is read from."""

from __future__ import annotations

import contextlib
import itertools
import os
import posixpath
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import encode
from gristmill.actors.sources.files import SUFFIXES
from gristmill.actors.sources.pointers import POINTERS, version_of
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.unlisted import FILES
from gristmill.pipelines.inline import STDIN, is_pipe, one_by_one
from gristmill.pipelines.inputs import list_places, place_names
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.scratch import scratch
from gristmill.shards.walking import walk

AT_ONCE = 32  # recordings of a table
GIVEN = pa.field("audio_filepath", pa.string())  # a recording as it was given, which its records keep
Samples = tuple[np.ndarray, float]  # of one channel (n,) in [-1, 1], and their rate, Hz
Audio = str | Samples
Heard = store.Place | Samples
_SCHEMA = POINTERS.append(GIVEN)
_LOUDEST = 2.0  # of samples in [-1, 1] that a filter made somewhat louder; those of integers are far above
_LISTS = tuple(suffix for kind, suffixes in SUFFIXES.items() if kind != "folder" for suffix in suffixes)


def audio_of(given: Iterable[Heard | Iterable[Heard]]) -> list[Audio]:
    """Return places and samples that are given alone or in iterables.

    Raises:
        TypeError: something else is given.
        UserError: samples are not of one channel, are no numbers in [-1, 1], or have no rate.
    """
    expected = "paths, URLs and (samples, rate), or an iterable of them"
    found: list[Audio] = []
    for one in one_by_one(given, lambda one: isinstance(one, str | os.PathLike) or is_samples(one), expected):
        if is_samples(one):
            check_samples(*one)
        found.append(one if is_samples(one) else os.fspath(one))
    return found


def is_samples(one: Any) -> bool:
    """Return whether something is ``(samples, rate)``, and no place."""
    return isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], np.ndarray)


def check_samples(samples: np.ndarray, rate: float) -> None:
    """Check that samples can be heard.

    Raises:
        UserError: they are not of one channel, are no numbers in [-1, 1], or have no rate.
    """
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise UserError(
            f"samples: {samples.dtype} of the shape {samples.shape}; expected floats of one channel, of the shape (n,)"
        )
    if not np.all(np.abs(samples) <= _LOUDEST):  # false for NaN too
        raise UserError(f"samples: up to {np.abs(samples).max():g}; expected numbers in [-1, 1]")
    if not (rate >= 1 and rate == int(rate)):
        raise UserError(f"samples: a rate of {rate} Hz; expected a whole number")


def list_recordings(
    places: Sequence[Audio], elsewhere: Sequence[str] = (), say: Callable[[str], None] = lambda sentence: None
) -> Iterator[pa.Table]:
    """Yield the pointers of recordings in their order, with ``audio_filepath``, and the files that cannot be listed.

    A place is a file of audio, a folder, manifest or anything else that :func:`list_sources` reads. Audio of standard
    input (``-``), of pipes and of samples is kept in temporary files meanwhile; samples are named by their number among
    the places, from 1.

    Raises:
        UserError: a place does not exist, or has no audio.
    """
    named = [place for place in places if isinstance(place, str)]
    for place in named:
        if place != STDIN and "*" not in place and not store.exists(store.absolute(place)):
            raise UserError(
                f"{place}: no such file or folder; expected audio, a folder of it, or a list (manifest, ...)"
            )
    for place in named:
        if named.count(place) > 1 and (place == STDIN or is_pipe(place)):
            what = "standard input" if place == STDIN else "a pipe"
            raise UserError(f"{place}: given twice; {what} can be read once")
    listed = [place for place in named if is_listed(place)]
    names = dict(zip(listed, place_names([store.absolute(place) for place in listed]), strict=True))
    taken: dict[str, int] = {}
    numbered = enumerate(places, 1)
    for listed_ones, group in itertools.groupby(numbered, key=lambda one: isinstance(one[1], str) and one[1] in names):
        if not listed_ones:
            while some := list(itertools.islice(group, AT_ONCE)):
                with scratch() as folder:
                    pointers = [_pointer(one, number, folder, taken) for number, one in some]
                    yield pa.Table.from_pylist(pointers, schema=_SCHEMA)
            continue
        for place in (one for _, one in group if isinstance(one, str)):
            sources = partial(list_sources, store.absolute(place), corpus=names[place], rows=AT_ONCE)
            for table in list_places([partial(sources, elsewhere=elsewhere, say=say)]):
                yield table if table.schema.equals(FILES) else _shown(table, place)


def given_once(place: Audio) -> bool:
    """Return whether a place can be read once only: standard input, a pipe, or samples in memory."""
    return not isinstance(place, str) or place == STDIN or is_pipe(place)


def is_listed(place: str) -> bool:
    """Return whether a place is a list or a folder, which may have several recordings, and not a file of audio."""
    if place == STDIN or is_pipe(place):
        return False
    fs, path = store.filesystem(store.absolute(place))
    return "*" in place or store.bare(place).lower().endswith(_LISTS) or not fs.isfile(path)


def _pointer(place: Audio, number: int, folder: Path, taken: dict[str, int]) -> dict[str, Any]:
    """Return the pointer of one file; its id is its name, numbered from the second of that name on."""
    if isinstance(place, str) and not given_once(place):
        url, given = store.absolute(place), place
        name = posixpath.basename(store.bare(url))
    else:
        url, given, name = str(folder / str(number)), *_kept(place, number, folder / str(number))
    taken[name] = taken.get(name, 0) + 1
    key = name if taken[name] == 1 else f"{name}#{taken[name]}"
    (info,) = walk(url)
    return {"id": key, "kind": "file", "url": url, "size": info.size, "version": version_of(info), GIVEN.name: given}


def _kept(place: Audio, number: int, copy: Path) -> tuple[str, str]:
    """Write what can be read once to a file; return how it is called in results, and the name in its id."""
    if not isinstance(place, str):
        samples, rate = place
        copy.write_bytes(encode(samples, int(rate)))
        return f"samples {number}", f"samples {number}"
    with contextlib.ExitStack() as opened, copy.open("wb") as file:
        pipe = sys.stdin.buffer if place == STDIN else opened.enter_context(open(store.absolute(place), "rb"))
        shutil.copyfileobj(pipe, file)
    return place, "stdin" if place == STDIN else posixpath.basename(place)


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
