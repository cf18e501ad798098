"""Where the entries of a corpus may lie: an entry may not choose a protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import Field

from gristmill.actors.sources.pointers import FOREIGN
from gristmill.shards.settings import Settings

_SAME = {"local": "file", "s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}  # other names of a protocol


class PlaceSettings(Settings):
    """Where the entries of manifests, cuts and Parquet files may lie."""

    elsewhere: tuple[str, ...] = Field(())
    """URLs below which entries may lie that are not of their manifest's own kind, such as
    ``https://media.example.org/speech``. An entry is of that kind if it is a path, or a URL of the same protocol (for
    HTTP, of the same host); others are rejected unread."""


def is_foreign(url: str, home: str, elsewhere: Sequence[str] = ()) -> bool:
    """Return whether a URL is neither of the kind of ``home``, the file that names it, nor below one of ``elsewhere``.

    Example:
        >>> is_foreign("/data/a.wav", "/lists/m.jsonl"), is_foreign("http://127.0.0.1/a.wav", "/lists/m.jsonl")
        (False, True)
        >>> is_foreign("https://cdn.org/x/a.wav", "/lists/m.jsonl", ["https://cdn.org/x"])
        False
    """
    if _kind(url) == _kind(home):
        return False
    misleading = "::" in url or ".." in url.split("/")
    return misleading or not any(url.startswith(f"{place.rstrip('/')}/") for place in elsewhere)


def without_foreign(
    pointers: Iterable[dict[str, Any]], home: str, elsewhere: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield pointers; a foreign one has the reject reason as its problem, so that nobody opens it."""
    for pointer in pointers:
        if is_foreign(pointer["url"], home, elsewhere):
            pointer = {**pointer, "problem": FOREIGN}
        yield pointer


def _kind(url: str) -> tuple[str, ...]:
    """Return the protocols of a URL, which fsspec chains by ``::``, and the host of a web server."""
    if "://" not in url:
        return ("file",)
    kinds = []
    for part in url.split("::"):
        scheme, _, rest = part.partition("://")
        web = scheme in ("http", "https")
        kinds.append(f"{scheme}://{rest.partition('/')[0]}" if web else _SAME.get(scheme, scheme))
    return tuple(kinds)
