"""Listing of tar shards in WebDataset's layout."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.actors.sources.files import AUDIO_SUFFIXES, base_of, files_of, key_of
from gristmill.actors.sources.pointers import UNREADABLE, open_container, version_of
from gristmill.shards.errors import RejectRecord
from gristmill.shards.store import FileInfo


def list_tar(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each audio member; a truncated tar ends in a row of kind "bad"."""
    base = base_of(url)
    for file in files_of(url, "tar"):
        key = f"{corpus}/{key_of(file.url, base)}"
        members, whole = _members(file.url)
        yield from _tar_pointers(file, key, members)
        if not whole:
            yield {"id": f"{key}#rest", "kind": "bad", "url": file.url, "size": file.size, "problem": UNREADABLE}


def _members(url: str) -> tuple[list[tuple[str, int, int]], bool]:
    """Return (name, offset, size) of a tar's files, and whether the tar is complete."""
    found: list[tuple[str, int, int]] = []
    try:
        with open_container(url) as handle, tarfile.open(fileobj=handle, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                if member.isfile() and not member.issparse():
                    found.append((member.name, member.offset_data, member.size))
    except (tarfile.TarError, RejectRecord):
        return found, False
    return found, True


def _tar_pointers(tar: FileInfo, key: str, members: list[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
    """Yield the audio members of a tar. In WebDataset, members with equal names up to the first dot are one sample."""
    url, version = tar.url, version_of(tar)
    beside: dict[str, dict[str, dict[str, Any]]] = {}
    for name, offset, size in members:
        stem, suffix = _sample(name)
        label = {".txt": "text", ".lab": "text", ".json": "json"}.get(suffix)
        if label is not None:
            beside.setdefault(stem, {})[label] = {"url": url, "offset": offset, "size": size}
    times: dict[str, int] = {}
    for name, offset, size in members:
        stem, suffix = _sample(name)
        if not suffix.endswith(AUDIO_SUFFIXES) or posixpath.basename(name).startswith("."):
            continue
        times[name] = times.get(name, 0) + 1
        again = f"#{times[name]}" if times[name] > 1 else ""
        pointer = {"kind": "member", "url": url, "member": name, "offset": offset, "size": size, "version": version}
        labels = json.dumps(beside[stem], sort_keys=True) if stem in beside else None
        yield {"id": f"{key}/{name.removeprefix('./')}{again}", **pointer, "labels": labels}


def _sample(name: str) -> tuple[str, str]:
    folder, _, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}/{stem}", (dot + suffix).lower()
