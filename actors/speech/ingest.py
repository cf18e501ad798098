"""Ingest: from pointers to records. The probe reads labels and lengths, the loader decodes and writes FLAC.

Both reject unusable audio, for the reasons in :mod:`gristmill.actors.sources.pointers`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from gristmill.actors.audio import RateSettings, audio_array, encode, resample
from gristmill.actors.sources.decoders import MOST_SECONDS, Header, open_sound, read_header
from gristmill.actors.sources.fields import check_fields
from gristmill.actors.sources.places import PlaceSettings, is_foreign
from gristmill.actors.sources.pointers import (
    EMPTY,
    MALFORMED,
    NAMES,
    NO_CHANNEL,
    NO_TEXT,
    OVERSIZED,
    POINTER_FIELDS,
    SILENT,
    TOO_LONG,
    TOO_SHORT,
    UNREADABLE,
    WRONG_DURATION,
    WRONG_RATE,
    Reader,
    declared,
    named,
    read_label,
    read_many,
)
from gristmill.actors.sources.reading import read_json
from gristmill.actors.sources.sounds import Sound
from gristmill.actors.sources.unlisted import UNLISTED
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import REJECT_REASON, SPEECH_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

PROBE_ADDS = (
    pa.field("sampling_rate", pa.int32()),  # Hz, of the source
    pa.field("duration", pa.float64()),  # seconds, of the segment where there is one
    pa.field("channels", pa.int32()),
)
_POINTER_ONLY = tuple(f.name for f in POINTER_FIELDS if f.name not in {s.name for s in SPEECH_FIELDS})
LOAD_DROPS = (*_POINTER_ONLY, "channels")
_LOAD_ADDS = SPEECH_FIELDS[1:]
_HEADER_BLOCK = 1 << 16  # bytes per request: a header seldom needs more
_TIMIT_OFF = 0.02  # of the audio, by which its length in TIMIT's text may differ
_SEGMENT_BLOCK = 1 << 20
_TOLERANCE, _TOLERANCE_S = 0.05, 0.1  # share of a duration, seconds: the larger applies
_BEYOND_AUDIO = 64 << 20  # bytes of a file beside its samples (pictures, tags); uncompressed, a sample has 8 at most
_SILENCE_PEAK = 1e-3  # the largest sample value of a recording that counts as silent
_LOUD_SHARE = 1e-3  # of the samples of a recording beyond full scale, that are not silent beside its largest


class DurationSettings(Settings):
    """Limits on the duration of recordings."""

    max_duration: float = Field(30.0, gt=0)
    """Seconds; longer recordings are rejected."""
    min_duration: float = Field(0.1, ge=0)
    """Seconds; shorter recordings are rejected."""

    @model_validator(mode="after")
    def _leave_some(self) -> Self:
        if self.min_duration > self.max_duration:
            raise ValueError(f"min_duration={self.min_duration:g} is more than max_duration={self.max_duration:g}")
        return self

    def check(self, duration: float) -> None:
        """Raise :class:`RejectRecord` for a duration (s) that is too long or too short."""
        if duration > self.max_duration:
            raise RejectRecord(TOO_LONG)
        if duration < self.min_duration:
            raise RejectRecord(TOO_SHORT)


class RecordingSettings(DurationSettings, RateSettings):
    """Limits on recordings, and their sampling rate."""


class FieldSettings(Settings):
    """The names of columns."""

    fields: dict[str, str] = Field(default_factory=dict)
    """The corpus's own names of columns (of tables and Parquet) or keys (of manifests and JSON), by what they hold:
    ``audio``, ``text``, ``speaker``, ``lang``, ``duration``, ``rate``, or ``id``, if records have one of their own. By
    default the usual names are tried, and a record is identified by the place of its audio."""

    @field_validator("fields")
    @classmethod
    def _are_known(cls, fields: dict[str, str]) -> dict[str, str]:
        return check_fields(fields, NAMES)


class ProbeSettings(DurationSettings, PlaceSettings, FieldSettings):
    """Settings of the listing of recordings."""


class LoadSettings(RecordingSettings):
    """Settings of the loading of recordings as records."""

    annotated: bool = True
    """Whether records have a text: recordings without one are rejected; if false, no record gets a text."""


class Probe(Actor):
    """Reads the header of each pointer's audio, and the labels stored beside it.

    Where a header does not prove the length (:mod:`gristmill.actors.sources.decoders`), the audio is decoded for it.
    Adds ``sampling_rate`` (Hz), ``duration`` (s) and ``channels``, and fills in ``size`` and the declared values.
    """

    name = "probe"
    reads_input = True
    version = 2  # lengths that headers do not prove are found by decoding
    adds = PROBE_ADDS
    batch = BatchLimits(256)
    settings: ProbeSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the pointers with the values of their headers and labels, or with the reject reason."""
        rows = batch.to_pylist()
        reader = Reader(_HEADER_BLOCK, partial(is_foreign, elsewhere=self.settings.elsewhere))
        self._known: tuple[tuple[Any, ...], Header] | None = None  # of the last file: many segments may be of one
        # In storage order, so that a file is opened, and a row group read, once.
        for row in sorted(rows, key=place_of):
            row.update(sampling_rate=None, duration=None, channels=None, reject_reason=None)
            try:
                self._probe(row, reader)
            except RejectRecord as reject:
                row["reject_reason"] = reject.reason
        reader.close()
        return _table(batch, rows, [*POINTER_FIELDS, *PROBE_ADDS])

    def _probe(self, row: dict[str, Any], reader: Reader) -> None:
        if row["kind"] in ("bad", UNLISTED) or row["problem"]:
            raise RejectRecord(row["problem"] or MALFORMED)
        has_text = row["text"] is not None
        self._label(row, reader)
        is_whole = row["start"] is None and row["length"] is None  # and so is held in memory to be decoded
        header = self._header(row, reader, self.settings.max_duration if is_whole else MOST_SECONDS)
        row["sampling_rate"], row["channels"] = header.rate, header.channels
        if row["text"] is not None and not has_text:
            row["text"] = _without_times(row["text"], header.frames)
        if row["channel"] is not None and not 0 <= row["channel"] < header.channels:
            raise RejectRecord(NO_CHANNEL)
        row["duration"] = self._duration(row, header)
        if row["declared_rate"] is not None and row["declared_rate"] != header.rate:
            raise RejectRecord(WRONG_RATE)
        self.settings.check(row["duration"])
        if is_whole and row["size"] > _BEYOND_AUDIO + 8 * header.frames * header.channels:
            raise RejectRecord(OVERSIZED)

    def _header(self, row: dict[str, Any], reader: Reader, most: float) -> Header:
        file, row["size"] = reader.open(row)
        place = (*place_of(row), most)
        if self._known is None or self._known[0] != place:
            self._known = place, read_header(file, row["size"], most)
        return self._known[1]

    def _duration(self, row: dict[str, Any], header: Header) -> float:
        start, length = row["start"] or 0.0, row["length"]
        left = header.duration - start
        allowed = _tolerated(header.duration)
        if row["start"] is not None or length is not None:
            if left <= 0 or (length is not None and length > left + _tolerated(length)):
                raise RejectRecord(WRONG_DURATION)
            return left if length is None else min(length, left)
        if row["declared_duration"] is not None and abs(row["declared_duration"] - header.duration) > allowed:
            raise RejectRecord(WRONG_DURATION)
        return header.duration

    def _label(self, row: dict[str, Any], reader: Reader) -> None:
        """Read the labels stored beside the audio: text files, members of the tar, columns of the row."""
        fields = self.settings.fields
        places = json.loads(row["labels"]) if row["labels"] else {}
        if row["kind"] == "row":
            names = [n for n in places.get("columns", []) if n != row["member"]]
            values = reader.row(row, names) if names else {}
            _fill(row, declared(values, {key: name for key, name in fields.items() if key != "audio"}))
        for kind, place in sorted(places.items()):
            if kind == "columns":
                continue
            try:
                text = read_label(place["url"], place.get("offset"), place.get("size"))
                values = read_json(text) if kind == "json" else {named(fields, "text")[0]: text}
            except (ValueError, RecursionError):  # neither UTF-8 nor JSON
                raise RejectRecord(MALFORMED) from None
            if not isinstance(values, dict):
                raise RejectRecord(MALFORMED)
            _fill(row, declared(values, fields))


def _without_times(text: str, frames: int) -> str:
    """Return a text without its first and last sample before it, as TIMIT has them: 0 and the length of the audio."""
    found = re.match(r"0 (\d+) ", text)
    is_length = found is not None and abs(int(found[1][:12]) - frames) <= _TIMIT_OFF * frames
    return text[found.end() :] if found is not None and is_length else text


class Load(Actor):
    """Decodes each pointer's audio to one channel and encodes it as 16-bit FLAC, in the columns of a record.

    Runs after :class:`Probe`. Samples above full scale are scaled to it. Texts are of ``label_source`` "gold".
    """

    name = "load"
    reads_input = True
    version = 3  # decodes what headers do not prove; texts without a letter are none; a constant is silent
    adds = _LOAD_ADDS
    drops = LOAD_DROPS
    settings: LoadSettings

    def __init__(self, settings: LoadSettings) -> None:
        super().__init__(settings)
        self._recordings = Recordings()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return probed pointers as records."""
        rows = batch.to_pylist()
        encoded: list[bytes | None] = []
        audio = iter(read_audio([row for row in rows if self._is_wanted(row)], self._recordings))
        for row in rows:
            data = None
            try:
                data = self._load(row, next(audio) if self._is_wanted(row) else NO_TEXT)
                row["reject_reason"] = None
            except RejectRecord as reject:
                row["reject_reason"] = reject.reason
            encoded.append(data)
            row["parent_id"] = row.get("parent_id")
            row["text"] = row["text"] if self.settings.annotated else None
            row["label_source"] = None if row["text"] is None else "gold"
            row["confidence"] = row.get("confidence")  # of an alignment
        out = _table(batch.drop_columns([*LOAD_DROPS]), rows, [f for f in SPEECH_FIELDS if f.name != "audio"])
        return out.append_column("audio", audio_array(encoded))

    def _is_wanted(self, row: Mapping[str, Any]) -> bool:
        return not self.settings.annotated or any(map(str.isalnum, row["text"] or ""))

    def _load(self, row: dict[str, Any], found: tuple[np.ndarray, int] | str) -> bytes:
        if isinstance(found, str):
            raise RejectRecord(found)
        samples, rate = found
        check_samples(samples, _SILENCE_PEAK)
        samples, rate = resample(samples, rate, self.settings.sampling_rate), self.settings.sampling_rate
        peak = float(np.abs(samples).max(initial=0.0))
        row["sampling_rate"], row["duration"] = rate, len(samples) / rate
        self.settings.check(row["duration"])
        return encode(samples / peak if peak > 1.0 else samples, rate)


def check_samples(samples: np.ndarray, silence_peak: float) -> None:
    """Raise :class:`RejectRecord` if samples (n,) cannot be used.

    They may be empty, not finite, nowhere further than ``silence_peak`` from their middle, or beyond full scale so far
    that nothing but a few of them would be left once they are scaled to it.
    """
    if not len(samples):
        raise RejectRecord(EMPTY)
    low, high = float(samples.min()), float(samples.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RejectRecord(UNREADABLE)
    if (high - low) / 2 <= silence_peak:
        raise RejectRecord(SILENT)
    peak = max(-low, high)
    if peak > 1.0 and np.quantile(np.abs(samples), 1.0 - _LOUD_SHARE) <= _SILENCE_PEAK * peak:
        raise RejectRecord(UNREADABLE)


def read_audio(
    pointers: list[dict[str, Any]], recordings: Recordings | None = None
) -> list[tuple[np.ndarray, int] | str]:
    """Return for each pointer its samples (n,) of one channel and their rate (Hz), or the reject reason.

    Whole files and members are requested together; of a long recording only the segments needed are read.
    ``recordings`` keeps the last one open for the next call: its segments may follow in their order.
    """
    out: list[tuple[np.ndarray, int] | str] = [UNREADABLE] * len(pointers)
    whole: list[int] = []
    by_file: dict[str, list[int]] = defaultdict(list)
    for i, pointer in enumerate(pointers):
        segment = pointer["start"] is not None or pointer["length"] is not None
        if segment or pointer["kind"] == "row":
            by_file[pointer["url"]].append(i)
        else:
            whole.append(i)
    for i, data in zip(whole, read_many([pointers[i] for i in whole]), strict=True):
        out[i] = data if isinstance(data, str) else _decoded(pointers[i], partial(_whole, data, pointers[i]["channel"]))
    used = recordings or Recordings()
    with used.kept():
        for places in by_file.values():
            for i in sorted(places, key=lambda i: order_of(pointers[i])):
                out[i] = _decoded(pointers[i], partial(used.open, pointers[i]))
    if recordings is None:
        used.close()
    return out


class Recordings:
    """Opens the recordings of pointers. The last one stays open, since its segments follow in their order."""

    def __init__(self) -> None:
        self._reader = Reader(_SEGMENT_BLOCK)
        self._last: tuple[tuple[Any, ...], Sound] | None = None
        self._version: str | None = None

    def open(self, pointer: Mapping[str, Any]) -> Sound:
        """Return a pointer's recording."""
        place = (*place_of(pointer), pointer["channel"])
        if self._version != pointer["version"]:
            self.close()  # it may have been written anew
            self._version = pointer["version"]
        if self._last is None or self._last[0] != place:
            self._last = None
            self._last = place, open_sound(*self._reader.open(pointer), pointer["channel"])
        return self._last[1]

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the last recording open, unless reading failed: it is opened again then."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the open file."""
        self._last = None
        self._reader.close()


def _whole(data: bytes, channel: int | None) -> Sound:
    return open_sound(io.BytesIO(data), len(data), channel)


def _decoded(pointer: Mapping[str, Any], sound_of: Callable[[], Sound]) -> tuple[np.ndarray, int] | str:
    """Return the samples of a pointer and their rate (Hz), or the reject reason."""
    try:
        sound = sound_of()
        count = None if pointer["length"] is None else round(pointer["length"] * sound.rate)
        if pointer["start"] is not None or count is not None:
            first = round((pointer["start"] or 0.0) * sound.rate)
            if count == 0 or (sound.frames is not None and first >= sound.frames):
                return WRONG_DURATION
            sound.seek(first)
        samples = sound.read(count)
    except RejectRecord as reject:
        return reject.reason
    return (samples, sound.rate) if len(samples) else WRONG_DURATION


def _tolerated(duration: float) -> float:
    """Return the tolerance of a declared duration, s: values rounded to a tenth of a second pass."""
    return max(_TOLERANCE_S, _TOLERANCE * duration)


def place_of(row: Mapping[str, Any]) -> tuple[str, int, int, int]:
    """Return where a pointer's recording is stored: rows in this order read each file once."""
    return (row["url"] or "", row["row_group"] or 0, row["row"] or 0, row["offset"] or 0)


def order_of(row: Mapping[str, Any]) -> tuple[str, int, int, int, int, float]:
    """Return what to sort segments by: those of a channel of a recording follow one another, from its begin."""
    return (*place_of(row), -1 if row["channel"] is None else row["channel"], row["start"] or 0.0)


def _fill(row: dict[str, Any], found: Mapping[str, Any]) -> None:
    for key, value in found.items():
        if row[key] is None:
            row[key] = value


def _table(given: pa.Table, rows: list[dict[str, Any]], fields: list[pa.Field]) -> pa.Table:
    """Return the columns ``fields`` of the rows, then ``reject_reason``, then the other columns of ``given``."""
    schema = {f.name: f for f in [*fields, REJECT_REASON]}
    columns = {name: pa.array([row[name] for row in rows], field.type) for name, field in schema.items()}
    rest = [name for name in given.column_names if name not in columns]
    columns |= {name: given.column(name) for name in rest}
    return pa.table(columns, schema=pa.schema([*schema.values(), *(given.schema.field(name) for name in rest)]))
