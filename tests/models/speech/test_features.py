"""Feature settings: their JSON, the band, and the corpus's sampling rate."""

import json

import numpy as np
import pytest
import torch

from gristmill.models.speech.features import FeatureSettings, FilterBankSettings, filters, log_mel
from gristmill.shards.errors import SettingsError, UserError


def test_the_json_of_the_settings_is_unchanged():
    text = FilterBankSettings(n_mels=40, normalise="none").at(8000).to_json()
    assert text == (
        '{"floor": 1e-06, "high_hz": null, "hop_s": 0.01, "low_hz": 60.0, "n_mels": 40, "normalise": "none", '
        '"preemphasis": 0.97, "sampling_rate": 8000, "window_s": 0.025}'
    )
    assert FeatureSettings.from_json(text) == FeatureSettings(sampling_rate=8000, n_mels=40, normalise="none")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not readable"),
        ("[1]", "not readable"),
        ('{"n_mels": 2}', "n_mels"),
        ('{"mels": 40}', "mels: there is no such setting, did you mean 'n_mels'"),
    ],
)
def test_other_texts_are_refused_in_a_sentence(text, problem):
    with pytest.raises(UserError, match=problem) as refused:
        FeatureSettings.from_json(text)
    assert "\n" not in str(refused.value)


def test_a_band_must_fit_the_rate_of_the_corpus():
    settings = FilterBankSettings(high_hz=7600)
    assert settings.at(16000).high_hz == 7600
    with pytest.raises(UserError, match=r"band 60.0 to 7600.0 Hz does not fit a sampling rate of 8000 Hz"):
        settings.at(8000)


def test_the_sampling_rate_is_no_setting_of_the_filter_bank():
    with pytest.raises(SettingsError, match="sampling_rate"):
        FilterBankSettings(**json.loads('{"sampling_rate": 8000}'))


def test_settings_that_came_later_are_written_where_they_are_used():
    settings = FeatureSettings(style="slaney", whole_bins=True)
    assert json.loads(settings.to_json()).keys() - json.loads(FeatureSettings().to_json()).keys() == {
        "style",
        "whole_bins",
    }
    assert FeatureSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("count", [1, 2, 150, 159, 160, 161, 400, 4000])
@pytest.mark.parametrize("window", [400, 401])
def test_frames_of_the_style_slaney_are_those_of_torch(count, window):
    settings = FeatureSettings(style="slaney", window_s=window / 16000, preemphasis=0.0, normalise="none", n_mels=40)
    samples = np.random.default_rng(0).normal(size=count).astype(np.float32) * 0.1
    found = log_mel(samples, settings)
    assert found.shape == (settings.frames(count), 40)
    if count <= window // 2:  # which torch refuses to reflect
        assert np.isfinite(found).all()
        return
    hann = torch.hann_window(window)
    spectrum = torch.stft(torch.from_numpy(samples), window, 160, window=hann, center=True, return_complex=True)
    power = spectrum.abs().square().T.numpy()
    np.testing.assert_allclose(found, np.log(np.maximum(power @ filters(settings), 1e-6)), atol=0.02)


def test_filters_of_the_style_slaney_are_those_of_other_packages():
    audio = pytest.importorskip("transformers.audio_utils")
    settings = FeatureSettings(n_mels=80, low_hz=0.0, style="slaney")
    theirs = audio.mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(filters(settings), theirs, atol=1e-7)
    tall = audio.mel_filter_bank(257, 40, 60.0, 8000.0, 16000, mel_scale="htk", triangularize_in_mel_space=True)
    np.testing.assert_allclose(filters(FeatureSettings(n_mels=40)), tall, atol=1e-4)


@pytest.mark.parametrize("style", ["htk", "slaney"])
def test_whole_bins_are_corners_of_the_filters(style):
    settings = FeatureSettings(style=style, whole_bins=True, low_hz=300.0, high_hz=7000.0, n_mels=30)
    bank = filters(settings)
    assert (bank.max(axis=0) > 0).all()  # also where filters are narrower than a bin
    if style == "htk":
        assert np.isin(1.0, bank)
        assert bank.max(axis=0).tolist() == [1.0] * 30
    low = int((settings.spectrum + 1) * 300.0 / 16000)
    assert not bank[: low + 1].any()
    assert bank[low + 1, 0] > 0
