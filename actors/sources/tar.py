"""Listing of tar shards in WebDataset's layout.

The headers are read here and not by ``tarfile``, which ends at a damaged header without an error, allocates the sizes
that headers declare, and follows sizes below zero for ever.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from gristmill.actors.sources.encoding import refuse_packed
from gristmill.actors.sources.files import AUDIO_SUFFIXES, Say, base_of, files_of, key_of
from gristmill.actors.sources.pointers import DUPLICATE, NAMES, version_of
from gristmill.actors.sources.reading import SourceFile, opened
from gristmill.actors.sources.unlisted import (
    MISSING,
    TOO_LARGE,
    TRUNCATED,
    UNREADABLE,
    FileFault,
    guarded,
    printable,
)
from gristmill.shards.walking import FileInfo

_BLOCK = 512
_END = bytes(_BLOCK)
_HEADER_BYTES = 1 << 20  # of a long name or of extended headers
_PADDING = 64 << 10  # looked at after the end mark
_LONG_NAME, _LONG_LINK, _SPARSE, _EXTENDED, _GLOBAL = b"L", b"K", b"S", (b"x", b"X"), b"g"
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)

_TEXTS = (*NAMES["text"], "normalized")  # before the last dot of a text, as in u1.transcript.txt
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)


class Member(NamedTuple):
    """A file of a tar; a link has a target, and after :func:`_followed` the place of that."""

    name: str
    offset: int
    size: int
    target: str | None = None  # the member that a link names
    problem: str | None = None


def list_tar(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each audio member; of a damaged tar, for those before the damage."""
    base = base_of(url)
    for file in files_of(url, "tar"):
        key = f"{corpus}/{key_of(file.url, base)}"
        yield from guarded(file.url, key, partial(_listed, file, key))


def _listed(file: FileInfo, key: str) -> Iterator[dict[str, Any]]:
    found: list[Member] = []
    fault = None
    try:
        with opened(file.url) as raw:
            found.extend(_members(raw))
    except FileFault as error:
        fault = error
    yield from _tar_pointers(file, key, found)
    if fault is not None:
        raise fault


def members_of(url: str) -> list[Member]:
    """Return the plain files of a tar; raises :class:`FileFault` if it is damaged."""
    with opened(url) as raw:
        return [member for member in _members(raw) if member.target is None and member.problem is None]


def _members(tar: SourceFile) -> Iterator[Member]:
    """Yield the files of a tar, links among them; sparse ones have a problem.

    Raises:
        FileFault: a header is damaged, a member extends past the end of the file, or the end mark is missing.
    """
    place, name, link = 0, None, None
    extended: dict[str, str] = {}
    common: dict[str, str] = {}
    while (block := _read(tar, place, _BLOCK)) != _END:
        try:
            head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            size = int(extended.get("size") or common.get("size") or head.size)
        except (tarfile.TarError, ValueError) as error:
            if place == 0:
                refuse_packed(tar)
            raise FileFault(tar.url, UNREADABLE, f"damaged at byte {place} ({error}); expected a tar header") from None
        begin, place = place + _BLOCK, place + _BLOCK
        if head.type == _SPARSE:
            more = bool(block[482])
            while more:
                more, place = bool(_read(tar, place, _BLOCK)[504]), place + _BLOCK
        if head.type in tarfile.SUPPORTED_TYPES and head.type not in (*_FILES, _SPARSE, _LONG_NAME, _LONG_LINK):
            size = 0  # of links, folders and devices
        if head.type in (*_EXTENDED, _GLOBAL):
            size = head.size
        if size < 0 or place + size > tar.size:
            raise FileFault(tar.url, TRUNCATED, f"{size} bytes at byte {place} of {tar.size}; expected a complete tar")
        place += -(-size // _BLOCK) * _BLOCK
        if head.type == _LONG_NAME:
            name = _text(_header(tar, begin, size).partition(b"\0")[0])
        elif head.type in _EXTENDED:
            extended = _keywords(_header(tar, begin, size), tar)
        elif head.type == _GLOBAL:
            common |= _keywords(_header(tar, begin, size), tar)
        elif head.type == _LONG_LINK:
            link = _text(_header(tar, begin, size).partition(b"\0")[0])
        else:
            sparse = head.type == _SPARSE or any(key.startswith("GNU.sparse.") for key in extended)
            own = printable(extended.get("path") or name or common.get("path") or head.name)
            if sparse:  # it lies in pieces
                yield Member(printable(extended.get("GNU.sparse.name", own)), begin, 0, problem=UNREADABLE)
            elif head.type in _FILES:
                yield Member(own, begin, size)
            elif head.type in _LINKS:
                target = printable(extended.get("linkpath") or link or head.linkname)
                folder = posixpath.dirname(own) if head.type == tarfile.SYMTYPE else ""
                yield Member(own, begin, 0, posixpath.normpath(posixpath.join(folder, target)))
            name, link, extended = None, None, {}
    after = _read(tar, place + _BLOCK, min(_PADDING, tar.size - place - _BLOCK))
    if after.strip(b"\0"):
        raise FileFault(tar.url, UNREADABLE, f"more follows an end mark at byte {place}; expected one tar, whole")


def _read(tar: SourceFile, place: int, count: int) -> bytes:
    tar.seek(place)
    data = tar.read(max(0, count))
    if len(data) < count:
        raise FileFault(
            tar.url, TRUNCATED, f"it ends at byte {tar.size} without tar's end mark; expected a complete tar"
        )
    return data


def _header(tar: SourceFile, place: int, size: int) -> bytes:
    if size > _HEADER_BYTES:
        raise FileFault(
            tar.url, TOO_LARGE, f"a header of {size} bytes at byte {place}; expected at most {_HEADER_BYTES}"
        )
    return _read(tar, place, size)


def _keywords(data: bytes, tar: SourceFile) -> dict[str, str]:
    """Return the keywords of an extended header: lines of ``length keyword=value``."""
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or not len(length) + 2 < int(length[:9]) <= len(data):
            raise FileFault(tar.url, UNREADABLE, "an extended header is damaged; expected 'length keyword=value'")
        line, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = line.partition(b"=")
        found[_text(key)] = _text(value)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _followed(members: list[Member]) -> list[Member]:
    """Return the members with links as the files that they lead to; one that leads to none is missing."""
    files = {posixpath.normpath(member.name): member for member in members}

    def end(member: Member) -> Member:
        seen = set()
        found: Member | None = member
        while found is not None and found.target is not None and found.name not in seen:
            seen.add(found.name)
            found = files.get(found.target)
        if found is None or found.target is not None:
            return member._replace(problem=MISSING)
        return found._replace(name=member.name)

    return [member if member.target is None else end(member) for member in members]


def _tar_pointers(tar: FileInfo, key: str, members: list[Member]) -> Iterator[dict[str, Any]]:
    """Yield the audio members of a tar, with the labels of their samples.

    Members of a sample have equal names up to the last dot; a recording's may also end at the first one, as in
    WebDataset, and a text's before ``.transcript.txt`` and the like. A name that comes again is a duplicate: which
    labels are whose cannot be told.
    """
    url, version = tar.url, version_of(tar)
    members = _followed(members)
    beside: dict[str, dict[str, dict[str, Any]]] = {}
    transcripts: dict[str, dict[str, Any]] = {}
    for member in members:
        stem, suffix = posixpath.splitext(member.name)
        label = {".txt": "text", ".lab": "text", ".json": "json"}.get(suffix.lower())
        if label is not None and member.problem is None:
            place = {"url": url, "offset": member.offset, "size": member.size}
            beside.setdefault(posixpath.normpath(stem), {}).setdefault(label, place)
            own, kind = posixpath.splitext(posixpath.normpath(stem))
            if label == "text" and kind[1:].lower() in _TEXTS:
                transcripts.setdefault(own, place)
    for own, place in transcripts.items():
        beside.setdefault(own, {}).setdefault("text", place)
    times: dict[str, int] = {}
    for member in members:
        name = member.name
        if not name.lower().endswith(AUDIO_SUFFIXES) or posixpath.basename(name).startswith("."):
            continue
        plain = posixpath.normpath(name)
        times[plain] = times.get(plain, 0) + 1
        problem, again = member.problem, ""
        if times[plain] > 1:
            problem, again = DUPLICATE, f"#{times[plain]}"
        place = {"member": name, "offset": member.offset, "size": member.size, "version": version, "problem": problem}
        found = beside.get(posixpath.normpath(posixpath.splitext(name)[0])) or beside.get(_sample(name))
        labels = json.dumps(found, sort_keys=True) if found else None
        yield {
            "id": f"{key}/{name.removeprefix('./')}{again}",
            "kind": "member",
            "url": url,
            **place,
            "labels": labels,
        }


def _sample(name: str) -> str:
    """Return the key of a WebDataset sample: a name up to the first dot of its last part."""
    folder, _, last = posixpath.normpath(name).rpartition("/")
    stem = last.partition(".")[0]
    return f"{folder}/{stem}" if folder else stem
