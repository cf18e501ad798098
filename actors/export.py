"""Export: writes the records of a shard in formats of other tools, and returns the location of each record.

A file's name contains a digest of its content, so that writing is idempotent. The stage returns small rows (the
record's plain values, and its location below the destination); the manifest or card is written from them when all
shards are complete, and its absence marks an unfinished export.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.actors.sources.pointers import EMPTY, UNREADABLE
from gristmill.shards import canonical, store
from gristmill.shards.errors import GristmillError, RejectRecord, UserError, with_class
from gristmill.shards.interrupts import held
from gristmill.shards.parquet import encode_table
from gristmill.shards.schema import AUDIO, REJECT_REASON
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Stage

FORMATS = ("huggingface", "nemo", "lhotse", "webdataset")
PLACE_FIELDS = (
    pa.field("file_path", pa.string()),  # below the destination
    pa.field("file_place", pa.int64()),  # the row in a Parquet file, the byte of a tar at which the audio begins
    pa.field("file_bytes", pa.int64()),  # size of the file
    pa.field("file_sha256", pa.string()),
)
SOUND_FIELDS = (
    pa.field("file_rate", pa.int32()),  # Hz
    pa.field("file_samples", pa.int64()),
)
_OWN = {f.name for f in (*PLACE_FIELDS, *SOUND_FIELDS)}
_WHOLE_SHARD = BatchLimits(rows=1 << 31)
_AT_ONCE = 16  # concurrent uploads


class ExportSettings(Settings):
    """The columns of an export."""

    columns: tuple[str, ...]
    """Names of columns, the id first."""


class _Written(Actor):
    """Base of actors that write records below the URL ``dest``.

    ``dest`` is passed as an artifact, whose url no fingerprint covers: a moved export is still the same export.
    """

    name = "write"
    adds: ClassVar[tuple[pa.Field, ...]] = PLACE_FIELDS
    settings: ExportSettings

    def __init__(self, settings: ExportSettings, dest: str) -> None:
        super().__init__(settings)
        self._dest = dest


class ParquetFiles(_Written):
    """Writes a batch as ``data/<digest>.parquet`` for the ``datasets`` library, ``audio`` as ``Audio``."""

    batch = _WHOLE_SHARD

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with their locations, in the order of the file."""
        data = encode_table(batch.select(self.settings.columns))
        sha = canonical.sha256(data)
        path = f"data/{sha[:16]}.parquet"
        _put(self._dest, path, data)
        rows = [(path, row, len(data), sha) for row in range(batch.num_rows)]
        return _with(batch, PLACE_FIELDS, rows)


class AudioFiles(_Written):
    """Writes each record's audio as ``audio/<xx>/<id>-<digest>.flac``, with one channel."""

    adds = (*PLACE_FIELDS, *SOUND_FIELDS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with the locations of their audio; records without any are rejected."""
        rows: list[tuple[Any, ...]] = []
        files: list[tuple[str, bytes]] = []
        for record, audio in zip(batch["id"].to_pylist(), batch["audio"].to_pylist(), strict=True):
            try:
                data, rate, samples = as_flac(audio and audio["bytes"])
            except RejectRecord as reject:
                rows.append((None,) * 6 + (reject.reason,))
                continue
            # The digest covers the id: records with equal audio need distinct files, as readers use the path as a key.
            name = hashlib.sha256(record.encode() + b"\0" + data).hexdigest()
            path = f"audio/{name[:2]}/{_plain(record)}-{name[:16]}.flac"
            files.append((path, data))
            rows.append((path, 0, len(data), canonical.sha256(data), rate, samples, None))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda file: _put(self._dest, *file), files))
        return _with(batch, (*PLACE_FIELDS, *SOUND_FIELDS, REJECT_REASON), rows)


class TarFiles(_Written):
    """Writes a batch as ``shard-<digest>.tar``: a sample is ``.flac``, ``.json`` (its values) and ``.txt`` (its text).

    The bytes depend on the records alone: no times, no owners, samples in the order of the records.
    """

    batch = _WHOLE_SHARD

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with their locations; records without audio are rejected."""
        rows: list[tuple[Any, ...]] = []
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for record in batch.select([*self.settings.columns, "audio"]).to_pylist():
                audio = record.pop("audio")
                try:
                    data, rate, samples = as_flac(audio and audio["bytes"])
                except RejectRecord as reject:
                    rows.append((None, None, None, None, reject.reason))
                    continue
                # Readers cut a sample's key at its first dot.
                key = f"{_plain(record['id'])}-{canonical.sha256(record['id'].encode())[:12]}"
                place = _add(tar, f"{key}.flac", data)
                values = json_values(record) | {"sampling_rate": rate, "duration": samples / rate}
                _add(tar, f"{key}.json", json.dumps(values, sort_keys=True, ensure_ascii=False).encode())
                if values.get("text") is not None:
                    _add(tar, f"{key}.txt", str(values["text"]).encode())
                rows.append((None, place, None, None, None))
        tar_bytes = out.getvalue()
        sha = canonical.sha256(tar_bytes)
        path = f"shard-{sha[:16]}.tar"
        if any(row[-1] is None for row in rows):
            _put(self._dest, path, tar_bytes)
        rows = [row if row[-1] else (path, row[1], len(tar_bytes), sha, None) for row in rows]
        return _with(batch, (*PLACE_FIELDS, REJECT_REASON), rows)


def writer(form: str, dest: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> Stage:
    """Return the stage that writes the records of a set of ``schema`` at the URL ``dest`` in one of ``FORMATS``.

    ``columns`` are exported in addition to the id; by default all columns, in manifests and tars all plain values.

    Raises:
        UserError: an unknown format or column, an unsuitable column, or a format of audio for a set without audio.
    """
    if form not in FORMATS:
        raise UserError(f"{form}: there is no such format; expected one of {', '.join(FORMATS)}")
    kept = _chosen(form, schema, columns)
    actor: type[Actor] = {"huggingface": ParquetFiles, "webdataset": TarFiles}.get(form, AudioFiles)
    # The values are in the Parquet files and tars themselves: rows of the manifest have locations only.
    stays = {"id", *(kept if actor is AudioFiles else ())} - _OWN
    made = actor.stage(ExportSettings(columns=kept), dest=ArtifactRef(dest, form))
    return replace(made, drops=tuple(name for name in schema.names if name not in stays))


def _chosen(form: str, schema: pa.Schema, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns to export, the id first."""
    unknown = [name for name in asked or () if name not in schema.names]
    if unknown:
        raise UserError(f"--columns {unknown[0]}: there is no such column; expected some of {', '.join(schema.names)}")
    has_audio = "audio" in schema.names and schema.field("audio").type == AUDIO
    if form == "huggingface":
        # The features in the files' metadata cannot express structs other than audio.
        fit = {f.name for f in schema if f.type == AUDIO or not (has_audio and _holds_struct(f.type))}
        default = fit
    elif not has_audio:
        raise UserError(
            f"{form}: the set has no audio (its columns: {', '.join(schema.names)}); expected a set of speech, or the "
            "format huggingface, which supports any set"
        )
    else:
        default = {f.name for f in schema if is_plain(f.type)} - _OWN
        fit = default | {
            f.name for f in schema if f.name == "audio" or (_is_list(f.type) and is_plain(f.type.value_type))
        }
    unfit = [name for name in asked or () if name not in fit]
    if unfit:
        kind = schema.field(unfit[0]).type
        raise UserError(f"--columns {unfit[0]}: {form} does not support {kind}; expected columns of plain values")
    wanted = default if asked is None else set(asked)
    dropped = set() if form == "huggingface" else {"audio"}
    return ("id", *(name for name in schema.names if name in wanted - dropped and name != "id"))


def is_plain(kind: pa.DataType) -> bool:
    """Return whether a column's values can be written as JSON."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _holds_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) or (_is_list(kind) and _holds_struct(kind.value_type)))


def json_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's values without nulls and without numbers that are not finite, which JSON does not have."""

    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: found for key, value in record.items() if (found := clean(value)) is not None}


def as_flac(data: bytes | None) -> tuple[bytes, int, int]:
    """Return audio as FLAC of one channel, its rate (Hz) and its number of samples.

    FLAC of one channel is kept as is; all else is decoded, averaged over its channels and encoded at 16 bits. Missing
    or invalid audio raises :class:`RejectRecord`.
    """
    import soundfile

    from gristmill.actors.audio import decode, encode

    if not data:
        raise RejectRecord(EMPTY)
    try:
        with held():
            info = soundfile.info(io.BytesIO(data))
        if info.format != "FLAC" or info.channels != 1:
            samples, rate = decode(data)
            data = encode(samples, rate)
            with held():
                info = soundfile.info(io.BytesIO(data))
    except (soundfile.LibsndfileError, ValueError):
        raise RejectRecord(UNREADABLE) from None
    if info.frames <= 0:
        raise RejectRecord(EMPTY)
    return data, int(info.samplerate), int(info.frames)


def _plain(record: str) -> str:
    """Return the end of an id, made safe as part of a file name: it may contain slashes and ".."."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", record)[-60:]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file to a tar; return the byte offset of its content."""
    info = tarfile.TarInfo(name)  # mode 0644, no time, no owner
    info.size = len(data)
    place = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return place


def _put(dest: str, path: str, data: bytes) -> None:
    try:
        store.write_bytes(store.join(dest, path), data)
    except GristmillError:
        raise
    except Exception as error:
        # The storage has failed, not the record, which must not be quarantined for it.
        raise GristmillError(f"{dest}: cannot be written: {with_class(error)}") from error


def _with(batch: pa.Table, fields: Sequence[pa.Field], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return the batch with columns set from rows of their values."""
    for place, field in enumerate(fields):
        values = pa.array([row[place] for row in rows], field.type)
        at = batch.schema.get_field_index(field.name)
        batch = batch.append_column(field, values) if at < 0 else batch.set_column(at, field, values)
    return batch
