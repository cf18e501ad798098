"""Measures of audio quality on utterances whose noise, clipping and bandwidth are known.

    python -m benchmarks.quality SPEECH NOISE [--utterances 60]

``SPEECH`` is a folder of clean utterances, of which the silence at both ends is cut off by their own level, but for
0.1 s; ``NOISE`` is a recording. Utterances are mixed with it and with white noise, clipped (as they are, resampled from
44.1 kHz, and through mp3), and brought to the telephone's band and back. Printed as JSON lines: the error of the SNR
estimate (dB, median and the 10 and 90 % of utterances) by the ratio that was set (active speech level over the noise);
share found and median value of clipped and of untouched utterances; bandwidths, Hz; and times real time of one core,
decoding included.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

from gristmill.actors.audio import audio_array, decode, encode, resample
from gristmill.actors.speech.quality import Quality, QualitySettings
from gristmill.models.speech.mixing import active_level, power_level
from gristmill.models.speech.quality import Spectra, clipped_share
from gristmill.shards.process import prepare

import numpy as np
import pyarrow as pa
import soundfile

RATE = 16000


def mono(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples.mean(axis=1), rate, RATE)


def trimmed(samples: np.ndarray) -> np.ndarray:
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 0.02 * np.abs(samples).max())
    return samples[max(0, loud[0] * 160 - 1600) : (loud[-1] + 11) * 160]


def through(samples: np.ndarray, form: str, subtype: str) -> np.ndarray:
    out = io.BytesIO()
    soundfile.write(out, samples.clip(-1, 1), RATE, format=form, subtype=subtype)
    return soundfile.read(io.BytesIO(out.getvalue()), dtype="float32")[0]


def said(measure: str, **values: object) -> None:
    print(json.dumps({"measure": measure, **values}), flush=True)


def spread(values: list[float], digits: int) -> list[float]:
    return [round(float(value), digits) for value in np.quantile(values, [0.1, 0.5, 0.9])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--utterances", type=int, default=60)
    given = parser.parse_args()
    prepare()  # one thread, as in a worker
    rng = np.random.default_rng(0)
    paths = sorted(given.speech.rglob("*.flac"))
    chosen = [paths[place] for place in rng.permutation(len(paths))[: given.utterances]]
    clean = [trimmed(mono(path)) for path in chosen]
    kitchen = mono(given.noise)
    for name, noise in ((given.noise.stem, kitchen), ("white", rng.standard_normal(60 * RATE).astype(np.float32))):
        for seconds in (None, 2.0, 1.0):
            for snr in (30, 20, 15, 10, 5, 0):
                errors = []
                for whole in clean:
                    speech = whole if seconds is None else whole[: round(seconds * RATE)]
                    start = rng.integers(len(noise) - len(speech))
                    part = noise[start : start + len(speech)]
                    part = part * 10 ** ((active_level(speech, RATE) - snr - power_level(part)) / 20)
                    errors.append(Spectra((speech + part).astype(np.float32), RATE).snr() - snr)
                said("snr", noise=name, seconds=seconds or "all", snr=snr, error=spread(errors, 1))
    for share in (0.0, 0.002, 0.01, 0.05):
        found: dict[str, list[float]] = {"as it is": [], "resampled": [], "mp3": []}
        for speech in clean:
            limit = np.quantile(np.abs(speech), 1 - share)
            cut = speech.clip(-limit, limit) * (0.7 / limit)
            found["as it is"].append(clipped_share(decode(encode(cut, RATE))[0]))
            fine = resample(speech, RATE, 44100)
            limit = np.quantile(np.abs(fine), 1 - share)
            found["resampled"].append(clipped_share(resample(fine.clip(-limit, limit) * (0.7 / limit), 44100, RATE)))
            found["mp3"].append(clipped_share(through(cut, "MP3", "MPEG_LAYER_III")))
        for name, values in found.items():
            said(
                "clipping",
                clipped=share,
                kept=name,
                found=float(np.mean(np.array(values) > 0)),
                share=spread(values, 4),
            )
    widths = {"16 kHz": clean, "8 kHz": [resample(resample(x, RATE, 8000), 8000, RATE) for x in clean]}
    widths["8 kHz, mp3"] = [through(x, "MP3", "MPEG_LAYER_III") for x in widths["8 kHz"]]
    for name, sounds in widths.items():
        said("bandwidth", speech=name, hz=spread([Spectra(x, RATE).bandwidth() for x in sounds], 0))
    batch = pa.table({"id": [path.name for path in chosen], "audio": audio_array([encode(x, RATE) for x in clean])})
    actor = Quality(QualitySettings())
    actor(batch)
    begin = time.process_time()
    actor(batch)
    said("speed", times_real_time=round(sum(map(len, clean)) / RATE / (time.process_time() - begin)))


if __name__ == "__main__":
    main()
