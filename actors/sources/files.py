"""Helpers of all listings: the files that belong to a URL, their keys, and the tables of their records."""

from __future__ import annotations

import fnmatch
import hashlib
import posixpath
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.pointers import DUPLICATE, MALFORMED, NOT_UTF8, version_of
from gristmill.actors.sources.reading import LINE_BYTES, LONG_LINE
from gristmill.actors.sources.unlisted import printable
from gristmill.shards.errors import RejectRecord
from gristmill.shards.store import bare, filesystem, is_local
from gristmill.shards.walking import FileInfo, walk

_SNDFILE_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")
_FFMPEG_SUFFIXES = (".m4a", ".m4b", ".m4r", ".aac", ".adts", ".wma", ".asf", ".webm", ".mka", ".amr", ".mp2", ".spx")
_RARE_SUFFIXES = (".wave", ".rf64", ".bw64", ".bwf", ".rifx", ".snd", ".mpga", ".sph", ".nist")
_READ_VIDEO = (".mp4", ".m4v", ".mov", ".qt", ".mkv", ".avi", ".3gp", ".3g2", ".wmv", ".ogv")
_UNREAD_VIDEO = (".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".rm", ".rmvb", ".mxf")
_UNREAD_AUDIO = (".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".shn", ".ra", ".voc", ".gsm", ".pcm", ".dsf")
VIDEO_SUFFIXES = (*_READ_VIDEO, *_UNREAD_VIDEO)
AUDIO_SUFFIXES = (*_SNDFILE_SUFFIXES, *_FFMPEG_SUFFIXES, *_RARE_SUFFIXES, *VIDEO_SUFFIXES, *_UNREAD_AUDIO)
"""Of the files that are listed; what they hold is told by their bytes (:mod:`gristmill.actors.sources.decoders`).

Those that no decoder reads are listed too: each is a reject, and none is passed over without a word.
"""
SUFFIXES = {
    "manifest": (".jsonl", ".json"),
    "lhotse": (".jsonl", ".jsonl.gz"),
    "table": (".tsv", ".csv"),
    "parquet": (".parquet", ".arrow"),
    "tar": (".tar",),
    "folder": AUDIO_SUFFIXES,
}
Say = Callable[[str], None]  # tells the user a sentence
LOOKED_AT = 100  # first lines of a file, of which at least one must be valid
_TABLE_LETTERS = 32 << 20  # of a table's texts: longer ones make smaller tables


def visible(url: str, base: str) -> bool:
    """Return whether neither a file nor any folder above it, up to the corpus's, is hidden."""
    return not any(part.startswith(".") for part in key_of(url, base).split("/"))


def files_of(url: str, kind: str) -> Iterator[FileInfo]:
    """Yield the files of one kind at a URL, in the order of paths."""
    named_file = "*" not in url and filesystem(url)[0].isfile(filesystem(url)[1])
    base = base_of(url)
    for info in walk(base if "*" in url else url):
        fits = bare(info.url).lower().endswith(SUFFIXES[kind]) and matches(info.url, url) and visible(info.url, base)
        if named_file or fits:
            yield info


def named_or_found(url: str, kind: str, found_in: Callable[[str], list[str]]) -> list[str]:
    """Return the files of a kind: those that match a pattern, the file named, or those found in a folder."""
    if "*" in url:
        return [info.url for info in files_of(url, kind)]
    fs, path = filesystem(url)
    return [url] if fs.isfile(path) else found_in(url)


def matches(file: str, url: str) -> bool:
    """Return whether a file matches a URL, if that is a pattern; a relative one is of the current folder."""
    if "*" not in url:
        return True
    names = [filesystem(one)[1] if is_local(url) else one for one in (file, url)]
    return fnmatch.fnmatchcase(*map(posixpath.normpath, names))


def base_of(url: str) -> str:
    """Return the folder to which a corpus's keys are relative."""
    if "*" in url:
        return url[: url.index("*")].rpartition("/")[0] or "/"
    fs, path = filesystem(url)
    return posixpath.dirname(url) if fs.isfile(path) else url


def key_of(url: str, base: str) -> str:
    """Return the part of a file's URL below the corpus's folder."""
    whole, folder = bare(filesystem(url)[1]), filesystem(base)[1].rstrip("/") if base else ""
    return whole[len(folder) + 1 :] if folder and whole.startswith(folder + "/") else posixpath.basename(whole)


def pointers_of(
    file: str, corpus: str, numbered: Iterable[tuple[int, bytes]], read: Callable[[bytes], dict[str, Any]], seen: Seen
) -> Iterator[dict[str, Any]]:
    """Yield ``read(line)`` for each line of a file; a rejected line or a duplicate id is a row of kind "bad"."""
    version = version_of(*walk(file))
    for number, line in numbered:
        try:
            pointer = {"version": version} | _read(line, read)
            if seen.before(pointer["id"]):
                raise RejectRecord(DUPLICATE)
        except RejectRecord as reject:
            key = f"{corpus}/{posixpath.basename(bare(file))}#line{number}"
            pointer = {"id": key, "kind": "bad", "url": file, "row": number, "problem": reject.reason}
        yield pointer


def _read(line: bytes, read: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        raise RejectRecord(LONG_LINE)
    try:
        line.decode()
    except UnicodeDecodeError:
        raise RejectRecord(NOT_UTF8) from None
    try:
        return read(line)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        # JSON may hold any type, or any number, in any place.
        raise RejectRecord(MALFORMED) from None


def in_tables(records: Iterable[dict[str, Any]], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Yield records as tables of at most ``rows`` rows, and of fewer if their texts are long.

    A record that no table can hold (half of a surrogate pair, a number too large) keeps its id, with a problem.
    """
    batch: list[dict[str, Any]] = []
    letters = 0
    for record in records:
        batch.append(record)
        letters += sum(len(value) for value in record.values() if type(value) is str)
        if len(batch) == rows or letters > _TABLE_LETTERS:
            yield _table(batch, schema)
            batch, letters = [], 0
    if batch:
        yield _table(batch, schema)


_UNSTORABLE = (pa.ArrowException, ValueError, OverflowError, TypeError)


def _table(batch: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_pylist(batch, schema=schema)
    except _UNSTORABLE:
        return pa.concat_tables(_one(record, schema) for record in batch)


def _one(record: dict[str, Any], schema: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_pylist([record], schema=schema)
    except _UNSTORABLE:
        kept: dict[str, Any] = {name: printable(record[name]) for name in ("id", "url") if name in record}
        kept |= {"kind": "bad", "format": record.get("format"), "problem": NOT_UTF8}
        return pa.Table.from_pylist([kept], schema=schema)


class Seen:
    """The set of ids seen so far, on disk so that it takes no memory."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # SQLite's temporary file
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY)")

    def before(self, key: str) -> bool:
        """Add a key; return whether it was there before."""
        digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
        row = (int.from_bytes(digest, "big", signed=True),)
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", row).rowcount == 0
