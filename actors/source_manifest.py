"""Listing of JSONL manifests as NeMo writes them: one JSON object a line, with ``audio_filepath``."""

from __future__ import annotations

import itertools
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from actors.pointers import DUPLICATE, MALFORMED, declared, named, resolve, seconds, version_of
from actors.source_files import LOOKED_AT, Seen, files_of, lines
from shards.errors import RejectRecord, UserError
from shards.store import filesystem, list_names, walk

USUAL = ("manifest.jsonl", "metadata.jsonl")


def manifests_in(folder: str) -> list[str]:
    """Return the manifest of a folder, if it has one."""
    names = [n for n in list_names(folder) if n.endswith(".jsonl") and not n.startswith(".")]
    if len(names) > 1:
        usual = [n for n in names if n in USUAL]
        if len(usual) != 1:
            raise UserError(f"{folder}: holds several manifests ({', '.join(names[:5])}); name the one that is meant")
        names = usual
    return [f"{folder}/{n}" for n in names]


def list_manifest(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    """Give a pointer for each line; a malformed one becomes a row of kind "bad"."""
    if "*" in url:
        urls = [f.url for f in files_of(url, "manifest")]
    else:
        fs, path = filesystem(url)
        urls = [url] if fs.isfile(path) else manifests_in(url)
    seen = Seen()
    for manifest in urls:
        _check_manifest(manifest, fields)
        version = version_of(*walk(manifest))
        for number, line in lines(manifest):
            try:
                pointer = _manifest_pointer(line, manifest, corpus, fields) | {"version": version}
                if seen.before(pointer["id"]):
                    raise RejectRecord(DUPLICATE)
            except RejectRecord as reject:
                key = f"{corpus}/{posixpath.basename(manifest)}#line{number}"
                pointer = {"id": key, "kind": "bad", "url": manifest, "row": number, "problem": reject.reason}
            yield pointer


def _parse(line: bytes, fields: Mapping[str, str] | None) -> tuple[str, dict[str, Any]]:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise RejectRecord(MALFORMED) from None
    if isinstance(values, dict):
        for key in named(fields, "audio"):
            if isinstance(values.get(key), str) and values[key]:
                return values[key], values
    raise RejectRecord(MALFORMED)


def _check_manifest(url: str, fields: Mapping[str, str] | None) -> None:
    looked = list(itertools.islice(lines(url), LOOKED_AT))
    for _, line in looked:
        try:
            _parse(line, fields)
            return
        except RejectRecord:
            continue
    if looked:
        key = named(fields, "audio")[0]
        raise UserError(f"{url}: not a JSONL manifest; expected one JSON object a line, with the key {key}")


def _manifest_pointer(line: bytes, manifest: str, corpus: str, fields: Mapping[str, str] | None) -> dict[str, Any]:
    path, values = _parse(line, fields)
    pointer = declared(values, fields)
    pointer |= {"id": f"{corpus}/{path}", "kind": "file", "url": resolve(posixpath.dirname(manifest), path)}
    if values.get("offset") is not None:  # NeMo: the line means the segment from there, as long as its duration
        start, length = seconds(values["offset"]), pointer["declared_duration"]
        end = "" if length is None else f"{start + length:.3f}"
        pointer |= {"start": start, "length": length, "id": f"{pointer['id']}@{start:.3f}-{end}"}
    return pointer
