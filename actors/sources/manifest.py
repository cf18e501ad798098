"""Listing of JSONL manifests in NeMo's format: one JSON object per line, with ``audio_filepath``."""

from __future__ import annotations

import contextlib
import itertools
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from gristmill.actors.sources.encoding import refuse_wide
from gristmill.actors.sources.fields import expected_column, keys_in, own_id
from gristmill.actors.sources.files import LOOKED_AT, Say, Seen, named_or_found, pointers_of
from gristmill.actors.sources.keys import Keys, may_be_absolute
from gristmill.actors.sources.pointers import MALFORMED, declared, named, resolve, seconds
from gristmill.actors.sources.reading import lines
from gristmill.actors.sources.splits import corpus_of, of_splits
from gristmill.actors.sources.tarred import KEY, Tarred
from gristmill.actors.sources.unlisted import UNREADABLE, FileFault, guarded
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.store import bare, list_names

USUAL = ("manifest.jsonl", "metadata.jsonl")
_PACKED = tuple(f"{name}.gz" for name in USUAL)
_SHARDED = "sharded_manifests"  # NeMo's folder of manifests, one for each tar
_NUMBERED = re.compile(r"(^|.*[_.-])manifest_?\d+\.jsonl?")


def manifests_in(folder: str) -> list[str]:
    """Return the manifest of a folder, or those of NeMo's shards, if it has any."""
    there = list_names(folder)
    names = [n for n in there if _is_manifest(n)] or [n for n in there if n in _PACKED]
    numbered = [n for n in there if _NUMBERED.fullmatch(n)]
    names = [n for n in names if n not in numbered]
    if len(names) > 1:
        usual = [n for n in names if n.removesuffix(".gz") in USUAL]
        if len(usual) != 1:
            raise UserError(
                f"{folder}: holds several manifests ({', '.join(names[:5])}); name one of them, or all: "
                f"{folder}/*.jsonl"
            )
        names = usual
    if not names and not numbered and _SHARDED in there:
        return manifests_in(f"{folder}/{_SHARDED}")
    return [f"{folder}/{n}" for n in names or numbered]


def begins_as_manifest(file: str, fields: Mapping[str, str] | None) -> bool:
    """Return whether a file's first line is one of a manifest: its name may also be that of cuts."""
    try:
        return any(_parse(line, fields) for _, line in itertools.islice(lines(file), 1))
    except (FileFault, RejectRecord):
        return False


def _is_manifest(name: str) -> bool:
    """Return whether a file of a folder is a manifest by its name: ``.jsonl``, or ``manifest.json`` as NeMo has it."""
    return not name.startswith(".") and (name.endswith(".jsonl") or bool(re.search(r"(^|[_.-])manifest\.json$", name)))


def _files(url: str, say: Say) -> list[str]:
    return named_or_found(url, "manifest", lambda folder: manifests_in(folder) or of_splits(folder, "manifest", say))


def manifest_keys(url: str, fields: Mapping[str, str] | None) -> Iterator[list[str]]:
    """Yield the keys of each line of each manifest, as far as it can be read."""
    for file in _files(url, lambda sentence: None):
        with contextlib.suppress(FileFault):
            yield from (keys_in(line) for _, line in lines(file))


def list_manifest(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each line; a malformed line becomes a row of kind "bad"."""
    seen = Seen()
    for manifest in _files(url, say):
        own = corpus_of(manifest, url, corpus)
        key = f"{own}/{posixpath.basename(bare(manifest))}"
        yield from guarded(manifest, key, partial(_listed, manifest, own, fields, seen))


def _listed(manifest: str, corpus: str, fields: Mapping[str, str] | None, seen: Seen) -> Iterator[dict[str, Any]]:
    _check_manifest(manifest, fields)
    tarred = Tarred(manifest)
    keys = Keys(posixpath.dirname(bare(manifest)), _places(manifest, fields))
    read = partial(_manifest_pointer, manifest=manifest, corpus=corpus, fields=fields, tarred=tarred, keys=keys)
    return pointers_of(manifest, corpus, lines(manifest), read, seen)


def _places(manifest: str, fields: Mapping[str, str] | None) -> Iterator[str]:
    """Yield the places of a manifest's entries, "" for relative ones."""
    for _, line in lines(manifest):
        place = ""
        if may_be_absolute(line):
            with contextlib.suppress(RejectRecord):
                place = _parse(line, fields)[0]
        yield place


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
    empty, found = True, dict[str, None]()
    for _, line in itertools.islice(lines(url), LOOKED_AT):
        empty = False
        try:
            _parse(line, fields)
            return
        except RejectRecord:
            found |= dict.fromkeys(keys_in(line))
    if not empty:
        refuse_wide(url)
        said = "not a JSONL manifest; expected one JSON object per line, with the key " + named(fields, "audio")[0]
        if found:
            said = f"no key of audio among {', '.join(found)[:200]}" + expected_column("audio", fields, found)
        raise FileFault(url, UNREADABLE, said)


def _manifest_pointer(
    line: bytes, manifest: str, corpus: str, fields: Mapping[str, str] | None, tarred: Tarred, keys: Keys
) -> dict[str, Any]:
    path, values = _parse(line, fields)
    pointer = declared(values, fields)
    own = own_id(values, fields)
    place = resolve(posixpath.dirname(bare(manifest)), path)
    pointer |= {"id": f"{corpus}/{own or keys(path)}", "kind": "file", "url": place}
    if KEY in values and tarred.numbers:
        return pointer | tarred.place(values, path)  # an offset is that of the cut into the original
    if values.get("offset") is not None:  # NeMo: the line is a segment that starts there and has its duration
        start, length = seconds(values["offset"]), pointer["declared_duration"]
        end = "" if length is None else f"{start + length:.3f}"
        pointer |= {"start": start, "length": length}
        pointer |= {} if own else {"id": f"{pointer['id']}@{start:.3f}-{end}"}
    return pointer
