"""The contextual adapter: what it hears of a list, what it leaves alone, and its files."""

import pytest
import torch

from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.adapter import (
    AdaptedModel,
    AdapterSettings,
    ContextualAdapter,
    load_adapter,
    of_entries,
    save_adapter,
)
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.units import characters
from gristmill.shards.errors import UserError

SMALL = AcousticSettings(channels=4, dim=32, layers=2, heads=2, kernel=7)
SPELLED = torch.tensor([[1, 2, 3], [4, 0, 0], [2, 5, 0]])


def made(**settings):
    torch.manual_seed(0)
    base = AcousticModel(SMALL, 20, 7).eval()
    adapter = ContextualAdapter(AdapterSettings(dim=8, **settings), base.vocab, base.width, base.depth)
    torch.nn.init.normal_(adapter.out.weight)
    return base, adapter.eval()


@pytest.mark.parametrize("keys", ["units", "entries"])
def test_an_entry_is_heard_alike_in_any_list_and_place(keys):
    """Padding, order and neighbours change no entry: only the softmax over the list joins them."""
    _, adapter = made(attend=keys)
    with torch.no_grad():
        alone = [adapter.context(SPELLED[i : i + 1, : (SPELLED[i] > 0).sum()]) for i in range(3)]
        context = adapter.context(SPELLED)
        for number, one in enumerate(alone, start=1):
            of_entry = context.entries == number
            torch.testing.assert_close(context.keys[of_entry], one.keys[1:])
            torch.testing.assert_close(context.values[of_entry], one.values[1:])
        states = [torch.randn(2, 9, 32) for _ in range(2)]
        hidden, attention = adapter(states, context)
        attention = of_entries(attention, context)
        order = [2, 0, 1]
        other = adapter.context(SPELLED[order])
        turned, turned_attention = adapter(states, other)
        turned_attention = of_entries(turned_attention, other)
    torch.testing.assert_close(hidden, turned)
    torch.testing.assert_close(attention[:, :, [0, *(1 + i for i in order)]], turned_attention)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 9))


def test_without_a_list_it_is_the_base_bit_for_bit():
    base, adapter = made()
    features, lengths = torch.randn(2, 40, 20), torch.tensor([40, 31])
    with torch.no_grad():
        expected = base(features, lengths)[0]
        states, _ = base.layers(features, lengths)
        nothing = adapter.context(SPELLED[:0])
        assert torch.equal(base.classify(adapter(states, nothing)[0]), expected)
        forbidden = torch.zeros(2, 3, dtype=torch.bool)
        assert torch.equal(AdaptedModel(base, adapter)(features, lengths, SPELLED, forbidden)[0], expected)
        assert not torch.allclose(AdaptedModel(base, adapter)(features, lengths, SPELLED, ~forbidden)[0], expected)


def test_only_the_adapter_is_trained_and_the_base_has_no_dropout():
    base, adapter = made()
    model = AdaptedModel(base, adapter).train()
    assert adapter.training
    assert not base.training
    assert {name.partition(".")[0] for name, one in model.named_parameters() if one.requires_grad} == {"adapter"}


def test_files_know_their_base():
    base, adapter = made(layers=(1,), attend="entries")
    data = save_adapter(adapter, "0123456789abcdef")
    loaded = load_adapter(data, base, "0123456789abcdef")
    assert loaded.settings == adapter.settings
    assert not loaded.training
    assert save_adapter(loaded, "0123456789abcdef") == data
    with pytest.raises(UserError, match="trained to the base 0123456789ab, and this one is fedcba987654"):
        load_adapter(data, base, "fedcba9876543210")
    other = save_acoustic(base, characters(["abcde"]), FeatureSettings(sampling_rate=8000, n_mels=20))
    with pytest.raises(UserError, match="not of a contextual adapter"):
        load_adapter(other, base, "0123456789abcdef")
    with pytest.raises(UserError, match=r"adapter.layers: 3, and the base has 2"):
        made(layers=(3,))
