"""Files below a URL, with what their listings say of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import fsspec

from gristmill.shards.store import filesystem, patiently


@dataclass(frozen=True)
class FileInfo:
    """A file below a URL."""

    url: str
    size: int  # bytes
    version: str = ""  # a checksum, an ETag or a time, which changes when the content is rewritten; "" if unknown


def walk(url: str) -> Iterator[FileInfo]:
    """Yield every file below a folder, or the file itself, in the order of paths; links to folders are followed."""
    fs, path = filesystem(url)
    for info in _file_or_below(url, fs, path):
        inner = info["name"]
        whole = fs.unstrip_protocol(inner) if "://" in url else inner
        yield FileInfo(whole, int(info.get("size") or 0), _version(info))


def _file_or_below(url: str, fs: fsspec.AbstractFileSystem, path: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        # Not `isfile`, which returns False on any error.
        info = patiently(url, lambda: fs.info(path))
        if info["type"] == "file":
            yield info
            return
    yield from _below(url, fs, path, (path,))


def _below(
    url: str, fs: fsspec.AbstractFileSystem, folder: str, linked: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the listing of each file below a folder: its own files, then folder by folder.

    ``linked`` are the folder that is walked and those to which links led: none of them is walked again.

    Unlike fsspec's walk, which skips folders that cannot be listed and so would silently miss files.
    """
    try:
        listed = patiently(url, lambda: fs.ls(folder, detail=True))
    except FileNotFoundError:
        return
    # Object stores may list a folder's marker object as a file in it.
    inner = sorted((i for i in listed if i["name"].rstrip("/") != folder.rstrip("/")), key=lambda info: info["name"])
    folders: list[tuple[str, tuple[str, ...]]] = []
    for info in inner:
        if info["type"] == "directory":
            folders.append((info["name"].rstrip("/"), linked))
        elif info.get("islink") and os.path.isdir(info["name"]):
            to, here = os.path.realpath(info["name"]), os.path.realpath(os.path.dirname(info["name"]))
            if to not in map(os.path.realpath, linked) and os.path.commonpath([to, here]) != to:  # else a circle
                folders.append((info["name"], (*linked, to)))
        else:
            yield info
    for name, links in folders:
        yield from _below(url, fs, name, links)


# Keys of a file's version in the listings of each storage: checksums of the content first, then times of writing.
_VERSIONS = ("md5Hash", "ETag", "blob_id", "etag", "mtime", "LastModified", "last_modified", "modified", "created")


def _version(info: Mapping[str, Any]) -> str:
    """Return a file's version from its listing, without another request."""
    if info.get("islink"):  # the listing has the link's own time; links are local, so stat is cheap
        with contextlib.suppress(OSError):
            return f"mtime:{os.stat(info['name']).st_mtime}"
    for key in _VERSIONS:
        if info.get(key):
            value = info[key]
            return f"{key}:{value.timestamp() if isinstance(value, datetime) else value}"
    return ""
