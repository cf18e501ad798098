"""Listings of an output's folders that follow no link, so that nothing outside of it is counted or deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fsspec.implementations.local import LocalFileSystem

from gristmill.shards import store


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file, folder or link; ``name`` is the name in its folder, or of :func:`walk_entries` the path below the URL."""

    name: str
    kind: Literal["file", "folder", "link"]  # a device or a pipe counts as a link: it is no file of a run either
    size: int = 0  # bytes of a file


def list_entries(url: str) -> list[FolderEntry]:
    """Return what lies directly in a folder, by name; nothing if there is no such folder."""
    fs, path = store.filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return sorted(store.patiently(url, lambda: _scan(path)), key=lambda entry: entry.name)
    fs.invalidate_cache(path)
    try:
        found = store.patiently(url, lambda: fs.ls(path, detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return []
    finally:
        fs.invalidate_cache(path)
    inner = [info for info in found if info["name"].rstrip("/") != path.rstrip("/")]  # a marker of the folder itself
    made = [
        FolderEntry(
            store.last_name(info["name"]),
            "folder" if info["type"] == "directory" else "file",
            int(info.get("size") or 0),
        )
        for info in inner
    ]
    return sorted(made, key=lambda entry: entry.name)


def _scan(path: str) -> list[FolderEntry]:
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    found.append(FolderEntry(entry.name, "link"))
                elif entry.is_dir(follow_symlinks=False):
                    found.append(FolderEntry(entry.name, "folder"))
                elif entry.is_file(follow_symlinks=False):
                    found.append(FolderEntry(entry.name, "file", entry.stat(follow_symlinks=False).st_size))
                else:
                    found.append(FolderEntry(entry.name, "link"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return found


def walk_entries(url: str) -> Iterator[FolderEntry]:
    """Yield the files and links below a folder with their paths, folder by folder.

    Example:
        >>> from gristmill.shards.store import write_bytes
        >>> write_bytes("made/walked/in/a.txt", b"12")
        >>> [(entry.name, entry.size) for entry in walk_entries("made/walked")]
        [('in/a.txt', 2)]
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in list_entries(store.join(url, folder) if folder else url):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.kind == "folder":
                folders.append(path)
            else:
                yield FolderEntry(path, entry.kind, entry.size)


def remove_empty(url: str) -> None:
    """Remove the empty folders below a folder of this machine, and itself if it is empty then; elsewhere a folder is
    there as long as a file is in it."""
    fs, path = store.filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        return
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:  # it has something in it
            continue
