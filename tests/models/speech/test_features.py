"""Feature settings: their JSON, the band, and the corpus's sampling rate."""

import json

import pytest

from gristmill.models.speech.features import FeatureSettings, FilterBankSettings
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
