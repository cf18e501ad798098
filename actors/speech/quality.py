"""The actor that measures the audio of utterances, and rejects those below limits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import audio_bytes, decode, resample, set_column
from gristmill.actors.speech.segment import SPEECH_SHARE, Detector, load_detector
from gristmill.models.speech.quality import Spectra, clipped_share
from gristmill.models.speech.vad import FRAME, RATE, UtteranceSettings
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor

NOISY, CLIPPED = "too noisy", "clipped"
NARROW, LITTLE_SPEECH = "narrow band", "too little speech"

_SHORTEST = 1.0  # s, of which the noise can be told from the speech
_FIELDS = (
    pa.field("snr_estimate", pa.float32()),  # dB; null of less than a second
    pa.field("clipped_share", pa.float32()),  # of its samples
    pa.field("bandwidth", pa.float32()),  # Hz
)


class QualitySettings(Settings):
    """Limits on the quality of utterances; without one, that quality is measured only."""

    least_snr: float | None = None
    """Speech over noise, dB, by an estimate that is right to about 3 dB up to 20 dB, and too low above; utterances of
    less than a second are not judged."""
    most_clipping: float | None = Field(None, ge=0, lt=1)
    """Share of the samples that are clipped."""
    least_bandwidth: float | None = Field(None, gt=0)
    """Highest frequency with energy, Hz: 3,900 of telephone speech at any sampling rate."""
    least_speech: float | None = Field(None, ge=0, le=1)
    """Share of the frames that are speech."""
    detector: Detector = "energy"
    """What finds speech, where segmentation has not told its share: ``energy``, or ``silero``
    (``pip install '.[vad]'``)."""

    def unlimited(self) -> QualitySettings:
        """Return settings that measure the same and reject nothing."""
        return QualitySettings(detector=self.detector)


class Quality(Actor):
    """Adds ``snr_estimate`` (dB), ``clipped_share``, ``bandwidth`` (Hz) and ``speech_share`` of each utterance's audio.

    Utterances beyond a limit are rejected, with the first reason of "too noisy", "clipped", "narrow band" and "too
    little speech" that holds.
    """

    name = "quality"
    version = 2  # energy: the floor of pauses of digital silence
    columns = ("audio",)
    adds = (*_FIELDS, SPEECH_SHARE)
    settings: QualitySettings

    def __init__(self, settings: QualitySettings) -> None:
        super().__init__(settings)
        self._detect = load_detector(settings.detector, "detector")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the measures."""
        names = batch.column_names
        given = batch[SPEECH_SHARE.name].to_pylist() if SPEECH_SHARE.name in names else [None] * len(batch)
        audio = [decode(data or b"") for data in audio_bytes(batch)]
        rows = [self._measured(*sound, share) for sound, share in zip(audio, given, strict=True)]
        for field in self.adds:
            batch = set_column(batch, field.name, pa.array([row[field.name] for row in rows], field.type))
        return batch.append_column("reject_reason", pa.array([self._reason(row) for row in rows], pa.string()))

    def _measured(self, samples: np.ndarray, rate: int, share: float | None) -> dict[str, float | None]:
        spectra = Spectra(samples, rate)
        return {
            "snr_estimate": spectra.snr() if len(samples) >= _SHORTEST * rate else None,
            "clipped_share": clipped_share(samples),
            "bandwidth": spectra.bandwidth(),
            SPEECH_SHARE.name: self._speech_share(samples, rate) if share is None else share,
        }

    def _speech_share(self, samples: np.ndarray, rate: int) -> float:
        samples = resample(samples, rate, RATE)
        samples = np.pad(samples, (0, -len(samples) % FRAME))
        return float((self._detect(samples) >= UtteranceSettings().threshold).mean())

    def _reason(self, row: dict[str, float | None]) -> str | None:
        limits = self.settings
        judged = (
            (NOISY, row["snr_estimate"], limits.least_snr, 1),
            (CLIPPED, row["clipped_share"], limits.most_clipping, -1),
            (NARROW, row["bandwidth"], limits.least_bandwidth, 1),
            (LITTLE_SPEECH, row[SPEECH_SHARE.name], limits.least_speech, 1),
        )
        for reason, value, limit, sign in judged:
            if value is not None and limit is not None and sign * value < sign * limit:
                return reason
        return None
