"""What stands for the place of an entry in its id: never where the corpus lies on a machine.

A relative path is its own key. Of an absolute one it is the part below the folder of the list that names it; of those
that lie elsewhere, the part below the folder that they have in common. So a corpus has the same ids wherever it lies.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable

from gristmill.shards.store import bare

_ABSOLUTE = re.compile(rb'(^|["\',;|\t ])(\\?/|[A-Za-z][A-Za-z0-9+.-]*:\\?/)')


def may_be_absolute(line: bytes) -> bool:
    """Return whether a line of a list may name an absolute path or a URL: only such lines need to be parsed first."""
    return _ABSOLUTE.search(line) is not None


class Keys:
    """The keys of the entries of one list, in a folder.

    ``places`` are all of its entries, or "" for one that is known to be relative; they are gone through once.

    Example:
        >>> inside = Keys("/data/en", ["clips/a.wav", "/data/en/clips/b.wav"])
        >>> inside("clips/a.wav"), inside("/data/en/clips/b.wav")
        ('clips/a.wav', 'clips/b.wav')
        >>> elsewhere = Keys("/home/me", ["/raw/en/1/a.wav", "/raw/en/2/a.wav"])
        >>> elsewhere("/raw/en/1/a.wav"), elsewhere("/raw/en/2/a.wav")
        ('1/a.wav', '2/a.wav')
        >>> apart = Keys("/home/me", ["s3://raw/a.wav", "https://raw.org/a.wav"])
        >>> apart("s3://raw/a.wav"), apart("https://raw.org/a.wav")
        ('s3/a.wav', 'https/a.wav')
    """

    def __init__(self, folder: str, places: Iterable[str]) -> None:
        self._folder = _parts(folder)
        self._common: dict[str, list[str]] = {}  # of the folders of absolute places, by protocol
        self._mixed = False  # of places in the folder and elsewhere
        here = False
        for place in places:
            protocol, parts = _parts(place)
            if not is_absolute(place) or self._below(protocol, parts) is not None:
                here = True
                continue
            held = self._common.setdefault(protocol, parts[:-1])
            if parts[: len(held)] != held:
                pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(held, parts[:-1], strict=False))
                self._common[protocol] = [part for part, _ in pairs]
        self._mixed = here and bool(self._common)

    def __call__(self, place: str) -> str:
        """Return the key of an entry."""
        if not is_absolute(place):
            return bare(place)
        protocol, parts = _parts(place)
        below = self._below(protocol, parts)
        if below is None:
            common = self._common.get(protocol, parts[:-1])
            below = parts[len(common) :]
            if self._mixed:  # with the name of that folder, or it might be the key of one in the list's own
                below = [*common[-1:], *below]
            if len(self._common) > 1:  # folders of two protocols may hold a file of one name each
                below = [protocol or "file", *below]
        return "/".join(below)

    def _below(self, protocol: str, parts: list[str]) -> list[str] | None:
        kind, folder = self._folder
        return parts[len(folder) :] if protocol == kind and parts[: len(folder)] == folder else None


def is_absolute(place: str) -> bool:
    """Return whether a place is a URL or an absolute path."""
    return "://" in place or place.startswith("/")


def _parts(place: str) -> tuple[str, list[str]]:
    """Return the protocol of a place, "" for a path, and the names in its path."""
    protocol, _, path = bare(place).rpartition("://")
    return protocol.removeprefix("file").removeprefix("local"), [
        part for part in posixpath.normpath(path).split("/") if part
    ]
