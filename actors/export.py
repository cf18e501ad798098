"""Export: writes the records of a shard in a form that other tools read, and reports where each of them lies.

A file's name carries a digest of what is in it, so that writing it twice is the same as writing it once. What a stage
gives back are small rows (the record's plain values, and its place below the destination) from which the manifest or
card is written when all shards are there: without it nobody takes what lies at the destination for a finished export.
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
_AT_ONCE = 16  # files on their way to the storage


class ExportSettings(Settings):
    """The columns of an export."""

    columns: tuple[str, ...]
    """Names of columns, the id first."""


class _Written(Actor):
    """Base of what writes records below the URL ``dest``.

    It is given like an artifact, whose url no fingerprint covers: an export that was moved is still that export.
    """

    name = "write"
    adds: ClassVar[tuple[pa.Field, ...]] = PLACE_FIELDS
    settings: ExportSettings

    def __init__(self, settings: ExportSettings, dest: str) -> None:
        super().__init__(settings)
        self._dest = dest


class ParquetFiles(_Written):
    """Writes a batch as ``data/<digest>.parquet``, which the ``datasets`` library reads, ``audio`` as ``Audio``."""

    batch = _WHOLE_SHARD

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with their places, which are those of the file, in order."""
        data = encode_table(batch.select(self.settings.columns))
        sha = canonical.sha256(data)
        path = f"data/{sha[:16]}.parquet"
        _put(self._dest, path, data)
        rows = [(path, row, len(data), sha) for row in range(batch.num_rows)]
        return _with(batch, PLACE_FIELDS, rows)


class AudioFiles(_Written):
    """Writes each record's audio as ``audio/<xx>/<id>-<digest>.flac``, of one channel."""

    adds = (*PLACE_FIELDS, *SOUND_FIELDS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with the places of their audio; records without any are rejected."""
        rows: list[tuple[Any, ...]] = []
        files: list[tuple[str, bytes]] = []
        for record, audio in zip(batch["id"].to_pylist(), batch["audio"].to_pylist(), strict=True):
            try:
                data, rate, samples = as_flac(audio and audio["bytes"])
            except RejectRecord as reject:
                rows.append((None,) * 6 + (reject.reason,))
                continue
            # The id is in the digest: two records of equal audio are two files, as readers take the path for a key.
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
        """Return the rows with their places; records without audio are rejected."""
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
                # Readers end a sample's key at its first dot.
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

    ``columns`` names what goes along beside the id; by default all columns, in manifests and tars all plain values.

    Raises:
        UserError: a format or column that is not there or not fit, or a format of audio for a set without.
    """
    if form not in FORMATS:
        raise UserError(f"{form}: there is no such format; expected one of {', '.join(FORMATS)}")
    kept = _chosen(form, schema, columns)
    actor: type[Actor] = {"huggingface": ParquetFiles, "webdataset": TarFiles}.get(form, AudioFiles)
    # Of what lies in Parquet and tars the manifest tells nothing: its rows are the places alone.
    stays = {"id", *(kept if actor is AudioFiles else ())} - _OWN
    made = actor.stage(ExportSettings(columns=kept), dest=ArtifactRef(dest, form))
    return replace(made, drops=tuple(name for name in schema.names if name not in stays))


def _chosen(form: str, schema: pa.Schema, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns that go along, the id first."""
    unknown = [name for name in asked or () if name not in schema.names]
    if unknown:
        raise UserError(f"--columns {unknown[0]}: there is no such column; expected some of {', '.join(schema.names)}")
    has_audio = "audio" in schema.names and schema.field("audio").type == AUDIO
    if form == "huggingface":
        # Beside audio, the features in the files' metadata have no spelling for other structs.
        fit = {f.name for f in schema if f.type == AUDIO or not (has_audio and _holds_struct(f.type))}
        default = fit
    elif not has_audio:
        raise UserError(
            f"{form}: the set has no audio (its columns: {', '.join(schema.names)}); expected a set of speech, or the "
            "format huggingface, which holds any"
        )
    else:
        default = {f.name for f in schema if is_plain(f.type)} - _OWN
        fit = default | {
            f.name for f in schema if f.name == "audio" or (_is_list(f.type) and is_plain(f.type.value_type))
        }
    unfit = [name for name in asked or () if name not in fit]
    if unfit:
        kind = schema.field(unfit[0]).type
        raise UserError(f"--columns {unfit[0]}: {form} cannot hold {kind}; expected columns of plain values")
    wanted = default if asked is None else set(asked)
    dropped = set() if form == "huggingface" else {"audio"}
    return ("id", *(name for name in schema.names if name in wanted - dropped and name != "id"))


def is_plain(kind: pa.DataType) -> bool:
    """Return whether a column holds values that JSON holds too."""
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
    """Return a record's values without those that are null, or a number that is not finite: JSON has none."""

    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: found for key, value in record.items() if (found := clean(value)) is not None}


def as_flac(data: bytes | None) -> tuple[bytes, int, int]:
    """Return audio as FLAC of one channel, its rate (Hz) and its samples; raise :class:`RejectRecord` if it is none.

    FLAC of one channel is passed on as it is; all else is decoded, averaged over its channels and coded at 16 bits.
    """
    import soundfile

    from gristmill.actors.audio import decode, encode

    if not data:
        raise RejectRecord(EMPTY)
    try:
        info = soundfile.info(io.BytesIO(data))
        if info.format != "FLAC" or info.channels != 1:
            samples, rate = decode(data)
            data = encode(samples, rate)
            info = soundfile.info(io.BytesIO(data))
    except (soundfile.LibsndfileError, ValueError):
        raise RejectRecord(UNREADABLE) from None
    if info.frames <= 0:
        raise RejectRecord(EMPTY)
    return data, int(info.samplerate), int(info.frames)


def _plain(record: str) -> str:
    """Return the end of an id as part of a name: it may hold slashes and "..", which must not lead anywhere."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", record)[-60:]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file to a tar; return the byte at which its content begins."""
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
        # No record is to blame: it must not end in quarantine for a storage that fails.
        raise GristmillError(f"{dest}: cannot be written: {with_class(error)}") from error


def _with(batch: pa.Table, fields: Sequence[pa.Field], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Return the batch with columns set from rows of their values."""
    for place, field in enumerate(fields):
        values = pa.array([row[place] for row in rows], field.type)
        at = batch.schema.get_field_index(field.name)
        batch = batch.append_column(field, values) if at < 0 else batch.set_column(at, field, values)
    return batch
