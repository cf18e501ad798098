"""Whether parts of a recipe's input hold the same records: what a system is tested on may not be trained on.

Files are compared by what they are, not by their names: a link, another spelling of a path, a folder in a folder or a
manifest that names the same recordings is no other place.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gristmill.shards.errors import UserError
from gristmill.shards.store import bare, filesystem, is_local

_EDGE = 0.05  # s, by which segments may meet: times are rounded
_SAME = {"s3a": "s3", "gcs": "gs"}  # other names of a protocol


class Item(NamedTuple):
    """A record of a part: a file, or what lies at a place in it."""

    file: str
    inner: str = ""  # a member of a tar, a row of Parquet
    start: float = 0.0  # s, of a segment
    end: float = 1e12
    channel: int = -1  # all


Place = Callable[[], Iterable[Item]]


class Held:
    """The records of one part, on disk so that they take no memory, to find those of others among them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # SQLite's temporary file
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE held (key INTEGER, start REAL, end REAL, channel INTEGER, place INTEGER)")
        self._database.execute("CREATE INDEX by_key ON held (key)")

    def add(self, item: Item, place: int) -> None:
        """Add a record of the part's place of that number."""
        row = (_key(item), item.start, item.end, item.channel, place)
        self._database.execute("INSERT INTO held VALUES (?, ?, ?, ?, ?)", row)

    def has(self, item: Item, place: int = -1) -> bool:
        """Return whether a record, or a part of its audio, is in another place than that of a number."""
        found = self._database.execute(
            "SELECT 1 FROM held WHERE key = ? AND place != ? AND start < ? AND end > ? "
            "AND (channel = ? OR channel < 0 OR ? < 0)",
            (_key(item), place, item.end - _EDGE, item.start + _EDGE, item.channel, item.channel),
        )
        return found.fetchone() is not None


def refuse_shared(parts: Mapping[str, Sequence[Place]], why: str, expected: str, *, divided: bool = False) -> None:
    """Check that the first part shares no record with any other; if it is ``divided``, nor have two of its places one.

    ``parts`` are the places of each, by the name of its setting; ``why`` and ``expected`` end the sentence.

    Raises:
        UserError: one does.
    """
    apart, *others = parts
    held = Held()
    twice = _Found()
    for number, place in enumerate(parts[apart]):
        for item in place():
            if divided and number and held.has(item, number):
                twice.add(item)
            held.add(item, number)
    twice.refuse(f"{apart}: two of its places hold", why, expected)
    for name in others:
        found = _Found()
        for place in parts[name]:
            for item in place():
                if held.has(item):
                    found.add(item)
        found.refuse(f"{apart} and {name} both hold", why, expected)


class _Found:
    def __init__(self) -> None:
        self.first, self.count = "", 0

    def add(self, item: Item) -> None:
        self.first, self.count = self.first or item.file, self.count + 1

    def refuse(self, said: str, why: str, expected: str) -> None:
        if self.count:
            more = f" and {self.count - 1} more" if self.count > 1 else ""
            raise UserError(f"{said} {self.first}{more}: {why}; expected {expected}")


def _key(item: Item) -> int:
    digest = hashlib.blake2b(f"{_file(item.file)}\n{item.inner}".encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


def _file(url: str) -> str:
    """Return what a file is, whatever its name: on this machine its number on its disk, elsewhere its URL, plain."""
    if is_local(url):
        path = filesystem(url)[1]
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # it is missing, and will be a reject
            return os.path.normpath(path)
        return f"{found.st_dev}:{found.st_ino}"
    protocol, sign, path = bare(url).partition("://")
    return f"{_SAME.get(protocol, protocol)}{sign}{posixpath.normpath(path)}"
