"""Network, units, features and checkpoints."""

import io
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from gristmill.models.speech.acoustic import STRIDES, AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import load_acoustic, read_phones, save_acoustic
from gristmill.models.speech.features import FeatureSettings, log_mel
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.units import Units, characters, phonemes, sentencepiece
from gristmill.shards.errors import SettingsError, UserError

SMALL = {"channels": 4, "dim": 32, "layers": 2, "heads": 2, "kernel": 7}
TEXTS = ["Play the Beatles", "don't stop", "set an alarm for seven", "what's the time"]


@pytest.mark.parametrize("encoder", ["conformer", "lstm", "gru"])
@pytest.mark.parametrize("subsampling", sorted(STRIDES))
def test_output_does_not_depend_on_padding_or_neighbours(encoder, subsampling):
    torch.manual_seed(0)
    model = AcousticModel(AcousticSettings(encoder=encoder, subsampling=subsampling, **SMALL), 20, 11).eval()
    lengths = torch.tensor([41, 50, 13])
    features = torch.randn(3, 64, 20)  # beyond each length: noise, which must not be seen
    with torch.no_grad():
        together, frames = model(features, lengths)
        assert frames.tolist() == [-(-n // subsampling) for n in lengths.tolist()]
        assert torch.equal(frames, model.output_lengths(lengths))
        for i, n in enumerate(lengths.tolist()):
            alone, _ = model(features[i : i + 1, :n], lengths[i : i + 1])
            torch.testing.assert_close(together[i, : frames[i]], alone[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(together.shape[:2]))


def test_checkpoint_goes_round_and_is_the_same_bytes():
    torch.manual_seed(0)
    units, settings = characters(TEXTS), FeatureSettings(sampling_rate=8000, n_mels=20)
    model = AcousticModel(AcousticSettings(**SMALL), 20, len(units))
    data = save_acoustic(model, units, settings)
    loaded, same_units, same_settings = load_acoustic(data)
    assert (same_units, same_settings, loaded.sizes) == (units, settings, model.sizes)
    assert not loaded.training
    assert save_acoustic(loaded, same_units, same_settings) == data


def test_other_files_are_refused():
    out = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, out)
    with pytest.raises(UserError, match="pickle"):
        load_acoustic(out.getvalue())
    for data in (b"", b"RIFF....", b"\x02\0\0\0\0\0\0\0{}"):
        with pytest.raises(UserError, match="checkpoint"):
            load_acoustic(data)


def test_a_checkpoint_describes_the_network_in_one_object():
    """The bytes are the same in every version: sizes with both ends, units and features, keys in order."""
    from gristmill.models.weights import read_metadata

    units = characters(["ab"])
    data = save_acoustic(
        AcousticModel(AcousticSettings(**SMALL), 20, len(units)), units, FeatureSettings(sampling_rate=8000, n_mels=20)
    )
    written = json.loads(read_metadata(data)["gristmill"])
    assert written["config"] == {
        **{"n_mels": 20, "vocab": 4, "subsampling": 4, "encoder": "conformer", "bidirectional": True},
        **{"ff_factor": 4, "dropout": 0.1},
        **SMALL,
    }
    changed = {**written, "config": {**written["config"], "dim": 33}}
    tensors = load(data)
    with pytest.raises(UserError, match="do not match"):
        load_acoustic(save(tensors, metadata={"gristmill": json.dumps(changed)}))


@pytest.mark.parametrize("sizes", [{"subsampling": 5}, {"encoder": "x"}, {"kernel": 4}, {"encoder": "gru", "dim": 33}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(SettingsError, match=list(sizes)[-1]):
        AcousticSettings(**sizes)


def test_units_go_round():
    pieces = sentencepiece(TEXTS, 30)
    for units in (characters(TEXTS), pieces):
        assert Units.from_json(units.to_json()) == units
        assert units.decode([0, *units.encode("Don't  STOP the time"), 0]) == "don't stop the time"
        assert 0 not in units.encode(" ".join(TEXTS))
    assert characters(TEXTS).digest != pieces.digest
    spoken = phonemes(["aa", "b", "k"])
    assert spoken.decode(spoken.encode("k aa zz b")) == "k aa b"


def test_frames_are_a_function_of_the_sample_count():
    settings = FeatureSettings(sampling_rate=8000, n_mels=40)
    rng = np.random.default_rng(0)
    for count in (1, 79, 80, 81, 3999, 4000):
        features = log_mel(rng.normal(size=count) * 0.1, settings)
        assert features.shape == (settings.frames(count), 40)
        assert features.dtype == np.float16
        assert np.isfinite(features).all()
    assert np.isfinite(log_mel(np.zeros(4000), settings)).all()


def test_a_tone_lights_its_band_and_its_frame():
    settings = FeatureSettings(sampling_rate=8000, n_mels=40, normalise="none")
    samples = np.zeros(8000, np.float32)
    samples[4000:] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    features = log_mel(samples, settings).astype(float)
    mel = 2595 * np.log10(1 + np.array([60, 1000, 4000]) / 700)
    assert abs(features[75].argmax() - ((mel[1] - mel[0]) / (mel[2] - mel[0]) * 41 - 1)) < 1
    assert features[75].max() - features[48].max() > 5
    louder = FeatureSettings(sampling_rate=8000, n_mels=40, normalise="mean", floor=1e-12)
    noise = np.random.default_rng(0).normal(size=8000) * 0.1
    np.testing.assert_allclose(log_mel(noise, louder), log_mel(noise * 0.1, louder), atol=0.02)


def test_masks_stay_within_the_utterance_and_repeat():
    features, lengths = torch.ones(2, 50, 20), torch.tensor([50, 20])
    mask = SpecAugment(band_masks=1, bands=5, time_masks=2, frames=8, time_share=0.2)
    one = mask(features, lengths, torch.Generator().manual_seed(1))
    assert torch.equal(one, mask(features, lengths, torch.Generator().manual_seed(1)))
    assert 0 < (one == 0).float().mean() < 0.6
    assert (one[1].sum(1) == 0).sum() <= 8


def test_inner_heads_hear_their_layer_and_condition_the_next_one():
    torch.manual_seed(0)
    phones = phonemes(["a", "b", "c"])
    inner = ({"layer": 1, "of": "phones"}, {"layer": 2, "condition": True})
    settings = AcousticSettings(**{**SMALL, "layers": 3}, inner=inner)
    model = AcousticModel(settings, 20, 7, len(phones)).eval()
    features, lengths = torch.randn(2, 40, 20), torch.tensor([40, 23])
    with torch.no_grad():
        log_probs, _, *of_heads = model(features, lengths, inner=True)
        states, _ = model.layers(features, lengths)
        assert [tuple(one.shape) for one in of_heads] == [(2, 10, 4), (2, 10, 7)]
        torch.testing.assert_close(model.classify(states[-1]), log_probs)
        torch.testing.assert_close(model(features, lengths)[0], log_probs)
        for of_head in of_heads:
            torch.testing.assert_close(of_head.exp().sum(-1), torch.ones(2, 10))
        model.back["1"].weight.zero_(), model.back["1"].bias.zero_()
        assert not torch.allclose(model(features, lengths)[0], log_probs), (
            "the last layer does not hear the second head"
        )
        assert torch.equal(model(features, lengths, inner=True)[3], of_heads[1])
    data = save_acoustic(model, characters(["abcdef"]), FeatureSettings(sampling_rate=8000, n_mels=20), phones)
    assert load_acoustic(data)[0].sizes == model.sizes
    assert read_phones(data) == phones


def test_an_inner_head_of_the_last_layer_is_refused():
    with pytest.raises(SettingsError, match="below the last, 2"):
        AcousticSettings(**SMALL, inner=({"layer": 2},))
