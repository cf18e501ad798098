"""Top-k labels: the largest values are kept, in order, with the right remaining mass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gristmill.models.speech.topk import (
    MAX_K,
    TAIL_FLOOR,
    TopK,
    TopKInfo,
    TopKSettings,
    confidence,
    select,
    unflatten,
)
from gristmill.shards.errors import SettingsError, UserError


def posteriors(frames: int, size: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(frames, size, generator=torch.Generator().manual_seed(seed)) * 4
    return torch.log_softmax(logits, -1)


@pytest.mark.parametrize(("size", "k"), [(191, 20), (29, 5), (5000, 40), (60000, 3), (12, 1)])
def test_keeps_the_largest_against_a_plain_sort(size: int, k: int) -> None:
    log_probs = posteriors(50, size)
    found = select(log_probs, k)
    stored = log_probs.numpy().astype(np.float16)
    for frame in range(50):
        order = np.lexsort((np.arange(size), -stored[frame].astype(np.float64)))[:k]
        assert found.ids[frame].tolist() == order.tolist()
        assert found.logprobs[frame].tolist() == stored[frame, order].tolist()
    assert found.ids.dtype == np.uint16
    assert found.logprobs.dtype == found.tail.dtype == np.float16


def test_tail_is_the_mass_that_is_left() -> None:
    log_probs = posteriors(400, 191)
    found = select(log_probs, 20)
    exact = log_probs.double().exp().numpy()
    for frame in range(400):
        rest = 1.0 - exact[frame, found.ids[frame].astype(int)].sum()
        assert np.isclose(float(found.tail[frame]), max(np.log(rest), TAIL_FLOOR), atol=0.01)


def test_tail_is_finite_when_all_is_kept() -> None:
    found = select(posteriors(7, 10), 40)
    assert found.ids.shape == (7, 10)
    assert (found.tail == np.float16(TAIL_FLOOR)).all()
    sure = torch.log_softmax(torch.tensor([[1e5, 0.0, -1e5]]), -1)
    certain = select(sure, 2)
    assert np.isfinite(certain.logprobs).all()
    assert np.isfinite(certain.tail).all()
    assert certain.logprobs[0, 0] == 0
    assert not np.signbit(certain.logprobs[0, 0])


@pytest.mark.parametrize(("size", "k"), [(50, 5), (6, 6)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_show(size: int, k: int, bad: float) -> None:
    logits = torch.randn(3, 4, size, generator=torch.Generator().manual_seed(0))
    logits[1, 2, 3] = bad
    logits[2, 0, 1] = float("-inf")  # a unit of probability 0 is valid
    found = select(torch.log_softmax(logits, -1), k)
    assert [TopK(*(part[i] for part in found)).finite for i in range(3)] == [True, False, True]


def test_equal_values_come_in_the_order_of_their_ids() -> None:
    log_probs = torch.log_softmax(torch.zeros(3, 50), -1)
    assert (select(log_probs, 8).ids == np.arange(8)).all()
    tilted = torch.zeros(1, 50)
    tilted[0, 30:] = 1.0
    assert select(torch.log_softmax(tilted, -1), 22).ids[0].tolist() == [*range(30, 50), 0, 1]


def test_a_batch_has_the_shape_of_its_frames() -> None:
    log_probs = posteriors(12, 40).reshape(3, 4, 40)
    found = select(log_probs, 6)
    assert found.ids.shape == (3, 4, 6)
    assert found.tail.shape == (3, 4)
    alone = select(log_probs[1], 6)
    assert (found.ids[1] == alone.ids).all()
    assert (found.tail[1] == alone.tail).all()


def test_a_coarser_grid_keeps_within_half_a_step() -> None:
    log_probs = posteriors(200, 191)
    found = select(log_probs, 20, step=1 / 32)
    exact = np.take_along_axis(log_probs.numpy(), found.ids.astype(int), 1)
    assert np.abs(found.logprobs.astype(np.float32) - exact).max() <= 1 / 64 + 1e-5
    assert (np.diff(found.logprobs.astype(np.float32), axis=1) <= 0).all()


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(SettingsError, match="than or equal to"):
        TopKSettings(k=k)


def test_flat_columns_come_back_or_are_refused() -> None:
    found = select(posteriors(9, 30), 4)
    back = unflatten(found.ids.ravel(), found.logprobs.ravel(), found.tail, 4)
    assert (back.ids == found.ids).all()
    assert (back.logprobs == found.logprobs).all()
    with pytest.raises(UserError, match="k = 5"):
        unflatten(found.ids.ravel(), found.logprobs.ravel(), found.tail, 5)


def test_a_trainer_refuses_labels_that_are_not_its_own() -> None:
    info = TopKInfo(20, 50.0, "abc", "t", {"hop_s": 0.01})
    assert TopKInfo.from_json(info.to_json()) == info
    assert TopKInfo.from_metadata({b"gristmill.topk": info.to_json().encode()}) == info
    info.check("data.x", frame_rate=50.0, vocabulary="abc", k=20)
    with pytest.raises(UserError, match=r"^data\.x: 50 frames per second, the model has 25"):
        info.check("data.x", frame_rate=25.0, vocabulary="abc")
    with pytest.raises(UserError, match="vocabulary"):
        info.check("data.x", frame_rate=50.0, vocabulary="abd")
    with pytest.raises(UserError, match="only 20"):
        info.check("data.x", frame_rate=50.0, vocabulary="abc", k=21)
    with pytest.raises(UserError, match="has none"):
        TopKInfo.from_metadata(None)
    with pytest.raises(UserError, match="not readable"):
        TopKInfo.from_json('{"k": 3}')


def test_confidence_is_a_geometric_mean() -> None:
    assert np.isclose(confidence(np.log(np.array([0.5, 0.125]))), 0.25)
