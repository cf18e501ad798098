"""Actors that mix speech and noises in one room: training data, and the re-recorded test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypedDict

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from gristmill.actors import audio
from gristmill.actors.speech.banks import BankRoom, NoiseBank, RoomBank
from gristmill.models.speech import mixing, rerecord
from gristmill.models.speech.rooms import LEAD
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Ordered, Range, Settings, Size
from gristmill.shards.stage import Actor

AUGMENT_FIELDS = (
    pa.field("noise_ids", pa.list_(pa.string())),
    pa.field("noise_offsets", pa.list_(pa.float64())),  # s into the noise
    pa.field("noise_snrs", pa.list_(pa.float32())),  # dB, active speech level over each noise
    pa.field("snr", pa.float32()),  # dB, over the sum of the noises
    pa.field("room_id", pa.string()),
    pa.field("rt60", pa.float32()),  # s
    pa.field("drr", pa.float32()),  # dB, of the speech
    pa.field("gain", pa.float32()),  # factor on the mixture, below 1 where it would have clipped
)
RERECORD_FIELDS = (
    *AUGMENT_FIELDS,
    pa.field("band_low", pa.float32()),  # Hz, of the speech's loudspeaker
    pa.field("band_high", pa.float32()),  # Hz
    pa.field("drive", pa.float32()),  # dB into the loudspeaker's soft clipping
    pa.field("microphone_snr", pa.float32()),  # dB
)
_TRIES = 4  # to draw an offset at which the noise is not silent


class Draw(TypedDict, total=False):
    """The values of the columns of ``RERECORD_FIELDS`` for one copy."""

    noise_ids: list[str]
    noise_offsets: list[float]
    noise_snrs: list[float]
    snr: float
    room_id: str
    rt60: float
    drr: float
    gain: float
    band_low: float
    band_high: float
    drive: float
    microphone_snr: float


class MixSettings(Settings):
    """Number of noises, their signal-to-noise ratios, and the number of copies."""

    snr: Range = (0.0, 20.0)
    """Signal-to-noise ratio of each noise, dB: drawn uniformly between the minimum and the maximum."""
    noises: Annotated[tuple[PositiveInt, PositiveInt], Ordered] = (1, 3)
    """Minimum and maximum number of noises per utterance."""
    copies: Size = Field(1, ge=1)
    """Per utterance. A single copy keeps the id; of several, copy ``n`` is ``<id>~<n>`` and ``parent_id`` is the id."""


class AugmentSettings(MixSettings):
    """Settings of the augmentation."""

    split: Literal["train", "test"] = "train"
    """Split of the noise bank."""


class Augment(Actor):
    """Places each utterance in a room of the bank with noises, at its own rate and exact length."""

    name = "augment"
    adds: ClassVar[tuple[pa.Field, ...]] = AUGMENT_FIELDS
    seeded = True
    measures = ("snr",)
    settings: AugmentSettings

    @classmethod
    def contract(cls, settings: AugmentSettings) -> Mapping[str, Any]:
        """Return whether a row becomes several."""
        return {"fan_out": settings.copies > 1}

    def __init__(self, settings: AugmentSettings, noise: str, rooms: str, rng: RecordRandom) -> None:
        super().__init__(settings)
        self._noise, self._rooms, self._rng = NoiseBank(noise, settings.split), RoomBank(rooms), rng
        self._buffer = np.empty(0, dtype=np.float32)
        if self._noise.rate != self._rooms.rate:
            raise UserError(
                f"noise bank at {self._noise.rate} Hz, room bank at {self._rooms.rate} Hz; expected one rate"
            )
        if settings.noises[1] >= self._rooms.sources:
            held = self._rooms.sources - 1
            raise UserError(f"noises: up to {settings.noises[1]} requested, the rooms of {rooms} have {held}")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch, ``copies`` rows per input row, with noisy ``audio`` and the draws as columns."""
        ids, given = batch.column("id").to_pylist(), audio.audio_bytes(batch)
        copies = self.settings.copies
        rows, names, encoded, draws, reasons = [], [], [], [], []
        for row, (record, data) in enumerate(zip(ids, given, strict=True)):
            speech, reason = self._speech(data)
            for copy in range(copies if reason is None else 1):
                name = f"{record}~{copy}" if copies > 1 else record
                draw: Draw = {}
                out = data
                if reason is None:
                    samples, draw = self.work(speech, self._rng(name))
                    out = audio.encode(samples, self._noise.rate)
                rows.append(row)
                names.append(name)
                encoded.append(out)
                draws.append(draw)
                reasons.append(reason)
        result = batch
        if copies > 1:
            result = batch.take(pa.array(rows, pa.int64()))
            result = audio.set_column(result, "parent_id", result.column("id").combine_chunks())
            id_field = batch.schema.field("id")
            place = batch.schema.get_field_index("id")
            result = result.set_column(place, id_field, pa.array(names, id_field.type))
        result = audio.set_column(result, "audio", audio.audio_array(encoded))
        for column in self.adds:
            result = audio.set_column(result, column.name, pa.array([d.get(column.name) for d in draws], column.type))
        return audio.set_column(result, "reject_reason", pa.array(reasons, pa.string()))

    def work(self, speech: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Draw]:
        """Return one noisy copy of speech (n,) and the values of its columns."""
        room, draw, signals = self._scene(speech, rng)
        heard = mixing.reverberate(signals, room.responses[: len(signals)], len(speech))
        mixture = mixing.mix(heard, draw["noise_snrs"], self._noise.rate)
        return mixture.samples, draw | {"snr": mixture.snr, "gain": mixture.gain}

    def _speech(self, data: bytes | None) -> tuple[np.ndarray, str | None]:
        """Return (samples (n,), reject reason); a reason where the audio has no speech to mix."""
        nothing = np.zeros(0, dtype=np.float32)
        if not data:
            return nothing, "no audio" if data is None else "empty audio"
        samples, rate = audio.decode(data)
        if rate != self._noise.rate:
            raise UserError(
                f"speech at {rate} Hz, banks at {self._noise.rate} Hz: build the banks at the corpus's rate"
            )
        if not len(samples):
            return nothing, "empty audio"
        if mixing.active_level(samples, rate) < mixing.SILENCE:
            return nothing, "silent speech"
        return samples, None

    def _scene(self, speech: np.ndarray, rng: np.random.Generator) -> tuple[BankRoom, Draw, np.ndarray]:
        """Draw a room and noises; return them and the signals (sources, n + taps - 1) of the sources in the room.

        The signals are in a buffer that the next call overwrites.
        """
        room = self._rooms[int(rng.integers(len(self._rooms)))]
        taps = room.responses.shape[1]
        past = mixing.history(taps, LEAD)
        count = int(rng.integers(self.settings.noises[0], self.settings.noises[1] + 1))
        width = len(speech) + taps - 1
        # One buffer for all records: allocating pages for each costs more than filling them.
        if len(self._buffer) < (1 + count) * width:
            self._buffer = np.empty((1 + count) * width, dtype=np.float32)
        signals = self._buffer[: (1 + count) * width].reshape(1 + count, width)
        signals[0, :past] = 0.0
        signals[0, past : past + len(speech)] = speech
        signals[0, past + len(speech) :] = 0.0
        ids: list[str] = []
        offsets: list[float] = []
        snrs: list[float] = []
        for _ in range(count):
            number = int(rng.integers(len(self._noise)))
            snr = float(rng.uniform(*self.settings.snr))
            for _attempt in range(_TRIES):
                offset = int(rng.integers(round(self._noise.seconds(number) * self._noise.rate)))
                cut = self._noise.take(number, offset - past, width, signals[1 + len(ids)])
                if mixing.power_level(cut[past : past + len(speech)]) > mixing.SILENCE:
                    break
            else:
                continue  # silent at all offsets drawn: this utterance has one noise fewer
            ids.append(self._noise.ids[number])
            offsets.append(offset / self._noise.rate)
            snrs.append(snr)
        draw: Draw = {"noise_ids": ids, "noise_offsets": offsets, "noise_snrs": snrs}
        draw |= {"room_id": room.id, "rt60": room.rt60, "drr": room.drr}
        return room, draw, signals[: 1 + len(ids)]


class Rerecord(Augment):
    """Plays speech and noises through loudspeakers in a room and records them with a noisy microphone."""

    name = "rerecord"
    adds = RERECORD_FIELDS

    def work(self, speech: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Draw]:
        """Return the recording of speech (n,) and the values of its columns."""
        room, draw, signals = self._scene(speech, rng)
        rate = self._noise.rate
        speakers = [rerecord.draw_loudspeaker(rng, rate) for _ in signals]
        played = np.stack([rerecord.play(s, rate, by) for s, by in zip(signals, speakers, strict=True)])
        heard = mixing.reverberate(played, room.responses[: len(played)], len(speech))
        mixture = mixing.mix(heard, draw["noise_snrs"], rate)
        samples, microphone_snr = rerecord.record(mixture.samples, rate, rng)
        samples, gain = mixing.guard(samples)
        draw |= {"snr": mixture.snr, "gain": mixture.gain * gain, "microphone_snr": microphone_snr}
        by = speakers[0]
        return samples, draw | {"band_low": by.low, "band_high": by.high, "drive": by.drive}
