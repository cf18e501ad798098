import numpy as np
import pytest

from gristmill.models.text.confusions import ChannelSettings, Confusions

WORDS = ["बत्ती", "बत्तियाँ", "भत्ती", "लाइट", "नाइट", "पंखा", "पंखे", "का", "की", "को", "खिड़की"]


@pytest.fixture
def channel() -> Confusions:
    return made()


def made(**settings: float) -> Confusions:
    return Confusions(WORDS, ChannelSettings(**{"candidates": 4, "width": 0.5, **settings}))


def test_a_word_is_nearest_to_itself_and_then_to_similar_sounds(channel: Confusions) -> None:
    names, distances = channel.near("बत्ती")
    assert names[:2] == ["बत्ती", "भत्ती"]  # an aspirated letter for its like
    assert distances[0] == 0.0
    assert distances[1] == 0.5
    assert names[-1] == ""
    assert len(names) == 5
    assert channel.near("का")[0][1] == "की"


def test_distances_are_those_of_the_weighted_edit_distance(channel: Confusions) -> None:
    found = dict(zip(WORDS, channel._distances("लाइट"), strict=True))
    assert found["लाइट"] == 0.0
    assert found["नाइट"] == 1.0  # one letter of another class
    assert found["का"] == pytest.approx(3.0)  # ल/क, and two letters too many


def test_an_unknown_word_has_candidates(channel: Confusions) -> None:
    names, _ = channel.near("झूमर")
    assert names[0] == "झूमर"


def test_lists_are_sorted_distinct_and_hold_probabilities() -> None:
    best = made(noise=1.0, n=60).hear(["पंखा", "का", "लाइट"], np.random.default_rng(0))
    scores = np.array([score for _, score in best])
    assert (np.diff(scores) <= 1e-12).all()
    assert np.exp(scores).sum() <= 1 + 1e-9
    assert len(best) == 60
    every = made(noise=1.0, n=1000).hear(["पंखा", "का"], np.random.default_rng(0))
    assert len(every) == 25
    assert np.exp([score for _, score in every]).sum() == pytest.approx(1.0)


def test_without_noise_the_reference_is_best_and_noise_makes_errors() -> None:
    text = ["पंखा", "का", "लाइट"]
    assert made(noise=0.0, n=3).hear(text, np.random.default_rng(0))[0][0] == "पंखा का लाइट"
    noisy = made(noise=3.0, n=1)
    wrong = sum(noisy.hear(text, np.random.default_rng(n))[0][0] != "पंखा का लाइट" for n in range(40))
    assert wrong > 20
