"""Listing: turns a corpus of speech into rows that point at its audio, without reading any audio.

Folders, NeMo manifests, Parquet and tar shards. Memory does not grow with the corpus (but for what the names of one
folder, or the members of one tar, take).
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import posixpath
import re
import sqlite3
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from actors.pointers import (
    DUPLICATE,
    MALFORMED,
    POINTERS,
    UNREADABLE,
    declared,
    named,
    open_container,
    resolve,
    seconds,
    version_of,
)
from shards.errors import RejectRecord, UserError
from shards.store import FileInfo, exists, filesystem, is_local, list_names, open_read, read_bytes, walk

Kind = Literal["auto", "folder", "manifest", "parquet", "tar"]
KINDS = ("folder", "manifest", "parquet", "tar")

# Formats that cannot be decoded here (m4a, ...) are listed too, to be rejected and counted instead of passed over.
_DECODED = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
AUDIO_SUFFIXES = (*_DECODED, ".m4a", ".aac", ".wma", ".webm", ".amr", ".sph")
_SUFFIXES = {"manifest": (".jsonl", ".json"), "parquet": (".parquet",), "tar": (".tar",), "folder": AUDIO_SUFFIXES}
_EXPECTED = (
    "expected a folder of audio (.wav, .flac, .ogg, .mp3), a JSONL manifest with audio_filepath, Parquet with an audio "
    "column, or .tar shards"
)
_SIDECARS = (".txt", ".lab", ".normalized.txt")
_LOOKED_AT = 100  # lines of a file in which at least one must be a manifest's


def list_sources(
    url: str,
    kind: Kind = "auto",
    *,
    corpus: str | None = None,
    fields: Mapping[str, str] | None = None,
    rows: int = 2000,
) -> Iterator[pa.Table]:
    """Give the records of a corpus as tables of ``actors.pointers.POINTERS``, at most ``rows`` rows each, in order.

    ``url``: a file, a folder or a pattern with ``*``. ``corpus``: the first part of every id; by default the name of
    the folder or file. ``fields``: what the source calls ``audio``, ``text``, ``speaker``, ``lang``, ``duration`` or
    ``rate``, where it is not one of the usual names. A missing path, a corpus without audio and a file of no known
    kind raise :class:`UserError` here, not at the first table; a malformed line becomes a row of kind "bad".

    ``version`` is another one when a file was written anew, also with as many bytes: of the audio and the text beside
    it in a folder, of the Parquet or tar file itself. Of what a manifest or a Parquet of paths names it is theirs, as
    asking for each audio file costs a request each: where such audio changed in place, write the manifest anew.
    """
    url = _whole(url)
    unknown = sorted(set(fields or {}) - {"audio", "text", "speaker", "lang", "duration", "rate"})
    if unknown:
        raise UserError(
            f"fields: {unknown[0]} is no value of a record; expected audio, text, speaker, lang, duration, rate"
        )
    if "*" not in url and not exists(url):
        raise UserError(f"{url}: no such file or folder; {_EXPECTED}")
    chosen = _detect(url) if kind == "auto" else kind
    if chosen not in KINDS:
        raise UserError(f"{url}: unknown kind of corpus {chosen!r}; expected auto, {', '.join(KINDS)}")
    name = corpus or corpus_name(url)
    listing = {"folder": _folder, "manifest": _manifest, "parquet": _parquet, "tar": _tar}[chosen]
    pointers = listing(url, name, fields)
    first = next(pointers, None)
    if first is None:
        raise UserError(f"{url}: no audio found; {_EXPECTED}")
    return _tables(itertools.chain([first], pointers), rows)


def _tables(pointers: Iterable[dict[str, Any]], rows: int) -> Iterator[pa.Table]:
    rest = iter(pointers)
    while batch := list(itertools.islice(rest, rows)):
        yield pa.Table.from_pylist(batch, schema=POINTERS)


def _whole(url: str) -> str:
    url = url.rstrip("/") or url
    return filesystem(url)[1] if is_local(url) else url  # absolute: a worker may have another working folder


def corpus_name(url: str) -> str:
    """Return the name a corpus has where it is not given one: of its file, or of its folder."""
    parts = [p for p in _whole(url).split("/") if p and "*" not in p]
    stem = re.sub(r"\.(jsonl|json|parquet|tar)$", "", parts[-1]) if parts else "corpus"
    return parts[-2] if stem == "manifest" and len(parts) > 1 else stem


def _detect(url: str) -> str:
    """Return the kind of a corpus: by the file's name; in a folder a manifest goes first, then what is met first."""
    for kind, suffixes in _SUFFIXES.items():
        if url.lower().endswith(suffixes):
            return kind
    if "*" not in url:
        if _manifests(url):
            return "manifest"
        for info in walk(url):
            for kind in ("parquet", "tar", "folder"):
                if _visible(info.url) and info.url.lower().endswith(_SUFFIXES[kind]):
                    return kind
    raise UserError(f"{url}: no audio found; {_EXPECTED}")


def _visible(url: str) -> bool:
    return not posixpath.basename(url).startswith(".")


def _files(url: str, kind: str) -> Iterator[FileInfo]:
    """Give the files of one kind at a URL, in the order of their paths."""
    named_file = "*" not in url and filesystem(url)[0].isfile(filesystem(url)[1])
    for info in walk(_base(url) if "*" in url else url):
        if named_file or (
            _visible(info.url) and info.url.lower().endswith(_SUFFIXES[kind]) and _matches(info.url, url)
        ):
            yield info


def _matches(file: str, url: str) -> bool:
    return "*" not in url or fnmatch.fnmatchcase(posixpath.normpath(file), posixpath.normpath(url))


def _base(url: str) -> str:
    """Return the folder to which a corpus's keys are relative."""
    if "*" in url:
        return url[: url.index("*")].rpartition("/")[0] or "/"
    fs, path = filesystem(url)
    return posixpath.dirname(url) if fs.isfile(path) else url


def _key(url: str, base: str) -> str:
    """Return the part of a file's URL below the corpus's folder."""
    whole, folder = filesystem(url)[1], filesystem(base)[1].rstrip("/") if base else ""
    return whole[len(folder) + 1 :] if folder and whole.startswith(folder + "/") else posixpath.basename(whole)


# --- folders of audio


def _folder(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    base = _base(url)
    files = (f for f in walk(base if "*" in url else url) if _visible(f.url))
    for folder, group in itertools.groupby(files, key=lambda f: posixpath.dirname(f.url)):
        listed = list(group)
        names = {posixpath.basename(f.url): f for f in listed}
        texts = _transcripts(folder, names)
        for file in listed:
            name = posixpath.basename(file.url)
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() not in AUDIO_SUFFIXES or not _matches(file.url, url):
                continue
            pointer = {"id": f"{corpus}/{_key(file.url, base)}", "kind": "file", "url": file.url, "size": file.size}
            made_from = [file]
            if stem in texts:
                pointer["text"] = texts[stem]
                if re.fullmatch(r"\d+-\d+-\d+", stem):  # LibriSpeech: speaker-chapter-utterance
                    pointer["speaker"] = stem.split("-")[0]
            else:
                beside = next((stem + s for s in _SIDECARS if stem + s in names), None)
                if beside is not None:
                    pointer["labels"] = json.dumps({"text": {"url": f"{folder}/{beside}"}})
                    made_from.append(names[beside])
            yield pointer | {"version": version_of(*made_from)}


def _transcripts(folder: str, names: Iterable[str]) -> dict[str, str]:
    """Return the texts of the ``*.trans.txt`` files of one folder, by utterance."""
    texts: dict[str, str] = {}
    for name in sorted(n for n in names if n.endswith(".trans.txt")):
        for line in read_bytes(f"{folder}/{name}").decode("utf-8", "replace").splitlines():
            utterance, _, text = line.strip().partition(" ")
            if utterance and text.strip():
                texts[utterance] = text.strip()
    return texts


# --- manifests


def _manifests(folder: str) -> list[str]:
    """Return the manifest of a folder, if it has one."""
    names = [n for n in list_names(folder) if n.endswith(".jsonl") and not n.startswith(".")]
    if len(names) > 1:
        usual = [n for n in names if n in ("manifest.jsonl", "metadata.jsonl")]
        if len(usual) != 1:
            raise UserError(f"{folder}: holds several manifests ({', '.join(names[:5])}); name the one that is meant")
        names = usual
    return [f"{folder}/{n}" for n in names]


def _manifest(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    if "*" in url:
        urls = [f.url for f in _files(url, "manifest")]
    else:
        fs, path = filesystem(url)
        urls = [url] if fs.isfile(path) else _manifests(url)
    seen = _Seen()
    for manifest in urls:
        _check_manifest(manifest, fields)
        version = version_of(*walk(manifest))
        for number, line in _lines(manifest):
            try:
                pointer = _manifest_pointer(line, manifest, corpus, fields) | {"version": version}
                if seen.before(pointer["id"]):
                    raise RejectRecord(DUPLICATE)
            except RejectRecord as reject:
                key = f"{corpus}/{posixpath.basename(manifest)}#line{number}"
                pointer = {"id": key, "kind": "bad", "url": manifest, "row": number, "problem": reject.reason}
            yield pointer


def _lines(url: str) -> Iterator[tuple[int, bytes]]:
    with open_read(url) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


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
    looked = list(itertools.islice(_lines(url), _LOOKED_AT))
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


class _Seen:
    """Which ids came before. On disk, so that it costs no memory."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file of SQLite's own
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY)")

    def before(self, key: str) -> bool:
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        row = (int.from_bytes(digest, "big", signed=True),)
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", row).rowcount == 0


# --- Parquet


def _parquet(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    base = _base(url)
    for file in _files(url, "parquet"):
        key = f"{corpus}/{_key(file.url, base)}"
        try:
            with open_container(file.url) as handle:
                meta = pq.read_metadata(handle)
        except (pa.ArrowInvalid, OSError, RejectRecord):
            yield {"id": key, "kind": "bad", "url": file.url, "size": file.size, "problem": UNREADABLE}
            continue
        schema = meta.schema.to_arrow_schema()
        audio = _audio_column(schema, fields)
        if audio is None:
            wanted = " or ".join(named(fields, "audio")[:3])
            raise UserError(f"{file.url}: no audio column among {schema.names}; expected {wanted} of bytes or of paths")
        plain = [f.name for f in schema if f.name != audio and _is_plain(f.type)]
        labels = json.dumps({"columns": plain})
        version, row = version_of(file), 0
        for group in range(meta.num_row_groups):
            for place in range(meta.row_group(group).num_rows):
                yield {
                    "id": f"{key}#{row:08d}",
                    "kind": "row",
                    "url": file.url,
                    "member": audio,
                    "row_group": group,
                    "row": place,
                    "version": version,
                    "labels": labels,
                }
                row += 1


def _audio_column(schema: pa.Schema, fields: Mapping[str, str] | None) -> str | None:
    def holds(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_string(kind)

    for name in named(fields, "audio"):
        if name in schema.names and holds(schema.field(name).type):
            return name
    if fields and "audio" in fields:
        return None
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and holds(f.type)]
    return structs[0] if structs else None


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return _is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


# --- tar shards


def _tar(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    base = _base(url)
    for file in _files(url, "tar"):
        key = f"{corpus}/{_key(file.url, base)}"
        members, whole = _members(file.url)
        yield from _tar_pointers(file, key, members)
        if not whole:
            yield {"id": f"{key}#rest", "kind": "bad", "url": file.url, "size": file.size, "problem": UNREADABLE}


def _members(url: str) -> tuple[list[tuple[str, int, int]], bool]:
    """Return (name, offset, size) of a tar's files, and whether the tar could be read to its end."""
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
    """Give the audio members of a tar. WebDataset: what has the same name up to the first dot is one sample."""
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
        if not suffix.endswith(AUDIO_SUFFIXES) or not _visible(name):
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
