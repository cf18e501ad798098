"""Listing of Kaldi data folders: ``wav.scp``, and ``segments``, ``text``, ``utt2spk`` and ``utt2lang`` beside it.

Kaldi sorts its files by their keys, so labels are read beside the utterances; one that is not sorted is held in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from gristmill.actors.sources.bases import base_of_entries, folders_of_recipe
from gristmill.actors.sources.encoding import TEXT_ENCODING
from gristmill.actors.sources.files import LOOKED_AT, Say, Seen, pointers_of
from gristmill.actors.sources.pointers import MALFORMED, NOT_IN_FILE, resolve, seconds
from gristmill.actors.sources.reading import lines
from gristmill.actors.sources.unlisted import MISSING, TOO_LARGE, FileFault, guarded
from gristmill.shards import store
from gristmill.shards.errors import RejectRecord

SCRIPT = "wav.scp"
_TABLE_BYTES = 256 << 20  # of a file that is held in memory
_NOT_UTF8 = ""  # stands for a value, of which none is empty
_LABELS = {"text": "text", "speaker": "utt2spk", "lang": "utt2lang"}


def is_data_folder(url: str) -> bool:
    """Return whether a URL is a Kaldi data folder, or its ``wav.scp``."""
    return posixpath.basename(url) == SCRIPT or ("*" not in url and store.exists(f"{url}/{SCRIPT}"))


def list_kaldi(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each utterance. ``fields`` is ignored: Kaldi's files have fixed names.

    Recordings that are the output of a command, or lie in an archive, become rows of kind "bad".
    """
    folder = posixpath.dirname(url) if posixpath.basename(url) == SCRIPT else url
    yield from guarded(f"{folder}/{SCRIPT}", f"{corpus}/{SCRIPT}", partial(_listed, folder, corpus))


def _listed(folder: str, corpus: str) -> Iterator[dict[str, Any]]:
    script, segments = f"{folder}/{SCRIPT}", f"{folder}/segments"
    base = base_of_entries(_places(script), folders_of_recipe(folder))
    read: Callable[[bytes], tuple[Any, ...]]
    if store.exists(segments):
        file, read = segments, partial(_segment, recordings=_table(script))
    else:
        file, read = script, _split
    in_order = _is_sorted(file)
    labels = {name: _labels(f"{folder}/{beside}", in_order) for name, beside in _LABELS.items()}

    def pointer(line: bytes) -> dict[str, Any]:
        name, place, *more = read(line)
        if _is_made(place):
            raise RejectRecord(NOT_IN_FILE)
        found = {key: table.get(name) for key, table in labels.items()}
        if _NOT_UTF8 in found.values():
            raise RejectRecord(TEXT_ENCODING)
        where = {"id": f"{corpus}/{name}", "kind": "file", "url": resolve(base, place)}
        return {**found, **where, **dict(zip(("start", "length", "channel"), more, strict=False))}

    return pointers_of(file, corpus, lines(file), pointer, Seen())


def _places(script: str) -> Iterator[str]:
    """Yield the paths of the first recordings that are files."""
    for _, line in itertools.islice(lines(script), LOOKED_AT):
        with contextlib.suppress(RejectRecord, UnicodeDecodeError):
            if not _is_made(place := _split(line)[1]):
                yield place


def _segment(line: bytes, recordings: Mapping[str, str]) -> tuple[str, str, float, float | None, int | None]:
    """Return the name of a segment, the place of its recording, its start and its length (s), and its channel.

    A segment to the end has a length of ``None``; the channel is one that ``extract-segments`` takes, from 0.
    """
    name, rest = _split(line)
    recording, start, end, *channel = rest.split()[:4]
    if recording not in recordings:
        raise RejectRecord(MISSING)
    begin = seconds(start)
    length = None if float(end) < 0 else seconds(end) - begin
    if length is not None and length <= 0:
        raise RejectRecord(MALFORMED)
    return name, recordings[recording], begin, length, int(channel[0]) if channel and int(channel[0]) >= 0 else None


def _split(line: bytes) -> tuple[str, str]:
    """Return the key of a line and the rest of it."""
    name, _, rest = line.decode("utf-8-sig").strip().replace("\t", " ").partition(" ")
    if not rest.strip():
        raise RejectRecord(MALFORMED)
    return name, rest.strip()


def _is_made(place: str) -> bool:
    """Return whether a recording is the output of a command, or a part of an archive."""
    return place.endswith("|") or place.startswith("|") or bool(re.search(r"\.ark:\d+$", place))


class _Labels(Protocol):
    def get(self, name: str) -> str | None: ...


class _Beside:
    """The values of a file whose keys ascend, for keys that do."""

    def __init__(self, pairs: Iterator[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._at = next(pairs, None)

    def get(self, name: str) -> str | None:
        """Return the value of a key, which is not before the one that was asked for last."""
        while self._at is not None and self._at[0] < name:
            self._at = next(self._pairs, None)
        return self._at[1] if self._at is not None and self._at[0] == name else None


def _labels(file: str, in_order: bool) -> _Labels:
    """Return the values of a file, as far as it is there."""
    return _Beside(_pairs(file)) if in_order and _is_sorted(file) else _table(file)


def _is_sorted(file: str) -> bool:
    last = ""
    for name, _ in _pairs(file):
        if name <= last:
            return False
        last = name
    return True


def _pairs(file: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of a file, if it is there; a line that is neither is left out."""
    for _, line in lines(file) if store.exists(file) else ():
        try:
            yield _split(line)
        except UnicodeDecodeError:
            yield line.split()[0].decode("utf-8", "replace"), _NOT_UTF8
        except RejectRecord:
            continue  # the utterance has no such label


def _table(file: str) -> dict[str, str]:
    """Return a file of keys and values in memory.

    Raises:
        FileFault: it is too large.
    """
    found: dict[str, str] = {}
    size = 0
    for name, value in _pairs(file):
        size += len(name) + len(value)
        if size > _TABLE_BYTES:
            said = (
                f"more than {_TABLE_BYTES} bytes to be held; expected smaller data folders, sorted as by LC_ALL=C sort"
            )
            raise FileFault(file, TOO_LARGE, said)
        found.setdefault(name, value)  # of a name given twice, the second record is the duplicate
    return found
