"""The Conformer without positions: padding, layers, and its checkpoints beside those of the other network."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import load_acoustic, save_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.plain_conformer import PlainConformer, PlainConformerSettings
from gristmill.models.speech.units import characters
from gristmill.models.weights import read_metadata
from gristmill.shards.errors import SettingsError, UserError

UNITS, FEATURES = characters(["ab"]), FeatureSettings(n_mels=20, style="slaney")


def network() -> PlainConformer:
    torch.manual_seed(0)
    sizes = PlainConformerSettings(dim=32, layers=3, heads=2, kernel=7)
    return PlainConformer(sizes, FEATURES.n_mels, len(UNITS)).eval()


@torch.no_grad()
def test_output_does_not_depend_on_padding_or_neighbours() -> None:
    model, lengths = network(), torch.tensor([41, 50, 13, 1])
    features = torch.randn(4, 64, 20)  # beyond each length: noise, which must not be seen
    together, frames = model(features, lengths)
    hidden, same = model.layers(features, lengths)
    assert frames.tolist() == same.tolist() == model.output_lengths(lengths).tolist() == [21, 25, 7, 1]
    for i, n in enumerate(lengths.tolist()):
        alone, _ = model(features[i : i + 1, :n], lengths[i : i + 1])
        inner, _ = model.layers(features[i : i + 1, :n], lengths[i : i + 1])
        torch.testing.assert_close(together[i, : frames[i]], alone[0], atol=2e-5, rtol=1e-4)
        for one, other in zip(hidden, inner, strict=True):
            torch.testing.assert_close(one[i, : frames[i]], other[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(together.shape[:2]))


@torch.no_grad()
def test_the_last_layer_is_what_the_head_reads() -> None:
    model, lengths = network(), torch.tensor([30, 21])
    features = torch.randn(2, 30, 20)
    hidden, frames = model.layers(features, lengths)
    log_probs, same = model(features, lengths)
    assert [tuple(one.shape) for one in hidden] == [(2, 15, 32)] * 3
    assert torch.equal(frames, same)
    assert torch.equal(model.classify(hidden[-1]), log_probs)
    torch.testing.assert_close(model.head(hidden[-1]).log_softmax(-1), log_probs)
    assert not torch.allclose(model.classify(hidden[-2]), log_probs, atol=0.1)


def test_a_checkpoint_names_its_network_and_goes_round() -> None:
    model = network()
    data = save_acoustic(model, UNITS, FEATURES)
    assert json.loads(read_metadata(data)["gristmill"])["config"] == {
        **{"kind": "plain_conformer", "n_mels": 20, "vocab": 4},
        **{"dim": 32, "layers": 3, "heads": 2, "ff_factor": 4, "kernel": 7},
    }
    loaded, units, features = load_acoustic(data)
    assert isinstance(loaded, PlainConformer)
    assert (units, features, loaded.sizes, loaded.training) == (UNITS, FEATURES, model.sizes, False)
    assert save_acoustic(loaded, units, features) == data
    given = torch.randn(1, 9, 20), torch.tensor([9])
    with torch.no_grad():
        assert torch.equal(loaded(*given)[0], model(*given)[0])


def test_a_checkpoint_without_a_kind_is_of_the_first_network() -> None:
    model = AcousticModel(AcousticSettings(dim=16, layers=1, heads=2, channels=4), 20, len(UNITS))
    data = save_acoustic(model, UNITS, FEATURES)
    assert "kind" not in json.loads(read_metadata(data)["gristmill"])["config"]
    assert isinstance(load_acoustic(data)[0], AcousticModel)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("whisper", "kind 'whisper'; expected one of plain_conformer"), (None, "do not match"), ([], "do not match")],
)
def test_a_checkpoint_of_another_kind_is_refused(kind: object, problem: str) -> None:
    data = save_acoustic(network(), UNITS, FEATURES)
    described = json.loads(read_metadata(data)["gristmill"])
    described["config"]["kind"] = kind
    with pytest.raises(UserError, match=problem):
        load_acoustic(save(load(data), metadata={"gristmill": json.dumps(described)}))


@pytest.mark.parametrize("sizes", [{"heads": 5}, {"kernel": 4}, {"layers": 0}])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(sizes))):
        PlainConformerSettings(**sizes)
