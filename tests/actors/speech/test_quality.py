"""Noise, clipping, bandwidth and speech of utterances are measured, and those beyond a limit rejected."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import scipy.signal
import soundfile

from gristmill.actors.audio import audio_array, encode, resample
from gristmill.actors.speech import segment
from gristmill.actors.speech.quality import Quality, QualitySettings
from gristmill.models.speech.quality import Spectra, clipped_share
from gristmill.shards.errors import UserError

RATE = 16000


def spoken(seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    """Syllables of a buzz in moving formants, with pauses: what speech is to these measures."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * RATE:
        size = round(rng.uniform(0.1, 0.3) * RATE)
        source = np.zeros(size)
        source[:: round(RATE / rng.uniform(90, 200))] = 1.0
        source += 0.05 * rng.standard_normal(size)
        for centre in (rng.uniform(300, 900), rng.uniform(1000, 2500), rng.uniform(3000, 6500)):
            radius = np.exp(-np.pi * 150 / RATE)
            poles = [1.0, -2 * radius * np.cos(2 * np.pi * centre / RATE), radius**2]
            source = scipy.signal.lfilter([1 - radius], poles, source)
        parts += [source / np.abs(source).max() * np.hanning(size), np.zeros(round(rng.uniform(0.02, 0.15) * RATE))]
    return (0.3 * np.concatenate(parts)[: round(seconds * RATE)]).astype(np.float32)


def noisy(snr: float, seed: int = 0) -> np.ndarray:
    speech, noise = spoken(seed=seed), np.random.default_rng(seed + 100).standard_normal(4 * RATE)
    return (speech + noise * np.sqrt(np.mean(speech**2)) * 10 ** (-snr / 20)).astype(np.float32)


@pytest.mark.parametrize("snr", [0, 5, 10, 20])
def test_the_ratio_of_a_mixture_is_found(snr: float) -> None:
    found = [Spectra(noisy(snr, seed), RATE).snr() for seed in range(5)]
    assert found == pytest.approx([snr] * 5, abs=3.0)


def test_gain_and_digital_silence_are_no_noise() -> None:
    samples = noisy(15)
    wanted = Spectra(samples, RATE).snr()
    assert Spectra(samples / 8, RATE).snr() == pytest.approx(wanted, abs=0.1)
    gated = np.concatenate([np.zeros(RATE, np.float32), samples])
    assert Spectra(gated, RATE).snr() == pytest.approx(wanted, abs=0.5)
    assert Spectra(np.zeros(RATE, np.float32), RATE).snr() == -20.0
    assert Spectra(np.zeros(10, np.float32), RATE).bandwidth() == 0.0


def compressed(samples: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return soundfile.read(io.BytesIO(out.getvalue()), dtype="float32")[0]


def test_clipping_is_found_after_resampling_and_compression() -> None:
    voice = noisy(30)
    limit = np.quantile(np.abs(voice), 0.97)
    clipped = voice.clip(-limit, limit)
    assert clipped_share(voice) == clipped_share(resample(voice, RATE, 8000)) == 0.0
    for made in (clipped, 0.1 * clipped, resample(clipped, RATE, 44100), compressed(clipped)):
        assert clipped_share(made) == pytest.approx(0.035, abs=0.01)


def test_bandwidth_is_that_of_the_sound_and_not_of_its_file() -> None:
    wide = noisy(30)
    assert Spectra(wide, RATE).bandwidth() > 7700
    narrow = resample(resample(wide, RATE, 8000), 8000, RATE)
    assert 3600 < Spectra(narrow, RATE).bandwidth() < 4000
    whine = narrow + 0.01 * np.sin(2 * np.pi * 6500 * np.arange(len(narrow)) / RATE).astype(np.float32)
    assert Spectra(whine, RATE).bandwidth() < 4000  # one line is no bandwidth


def measured(settings: QualitySettings, **given: list) -> pa.Table:
    voice = spoken()
    loud = np.quantile(np.abs(voice), 0.95)
    rest = np.concatenate([spoken(0.3), 1e-4 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)])
    sounds = {
        "good": noisy(25),
        "noise": noisy(0),
        "cut": voice.clip(-loud, loud),
        "telephone": resample(resample(noisy(25), RATE, 8000), 8000, RATE),
        "pause": rest,
    }
    batch = pa.table({"id": list(sounds), "audio": audio_array([encode(x, RATE) for x in sounds.values()]), **given})
    return Quality(settings)(batch)


LIMITS = QualitySettings(least_snr=10, most_clipping=0.02, least_bandwidth=5000, least_speech=0.3)


def test_each_limit_has_its_reason() -> None:
    found = measured(LIMITS)
    reasons = dict(zip(found["id"].to_pylist(), found["reject_reason"].to_pylist(), strict=True))
    assert reasons == {
        "good": None,
        "noise": "too noisy",
        "cut": "clipped",
        "telephone": "narrow band",
        "pause": "too little speech",
    }
    assert measured(LIMITS.unlimited()).drop_columns("reject_reason") == found.drop_columns("reject_reason")
    assert measured(LIMITS.unlimited())["reject_reason"].null_count == 5
    batch = found.select(["id", "audio"])
    assert set(Quality.stage(LIMITS).output_schema(batch.schema)) == set(found.drop_columns("reject_reason").schema)


def test_a_share_of_speech_that_segmentation_found_is_kept() -> None:
    given = pa.array([0.1, None, 1.0, 1.0, 1.0], pa.float32())
    found = measured(QualitySettings(least_speech=0.2), speech_share=given)
    assert found["reject_reason"].to_pylist()[0] == "too little speech"
    assert found["speech_share"].to_pylist()[1] == measured(LIMITS)["speech_share"].to_pylist()[1]


def test_the_noise_of_less_than_a_second_is_not_judged() -> None:
    batch = pa.table({"id": ["a"], "audio": audio_array([encode(noisy(0)[: RATE // 2], RATE)])})
    found = Quality(QualitySettings(least_snr=50))(batch).to_pylist()[0]
    assert found["snr_estimate"] is found["reject_reason"] is None


def test_a_detector_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"detector=silero: silero-vad is missing; pip install '\.\[vad\]'"):
        Quality(QualitySettings(detector="silero"))
