"""Labels on a graph: they reach those that are connected, and equal what the equations say."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.requests.propagation import propagate


def cosines(points: np.ndarray) -> np.ndarray:
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit @ unit.T


def test_labels_follow_a_chain_to_what_no_label_is_near_of() -> None:
    """Two arcs: the far end of each is nearer to its own arc than to the other one's labelled beginning."""
    angles = np.linspace(0, 1.2, 25)
    points = np.concatenate(
        [np.stack([np.cos(a + shift), np.sin(a + shift)], 1) for shift, a in ((0, angles), (1.6, angles))]
    )
    labels = np.zeros(50)
    labels[0], labels[49] = 1, -1
    found = propagate(cosines(points), labels, neighbours=3)
    assert (found[:25] > 0).all()
    assert (found[25:] < 0).all()


def test_it_is_the_iteration_of_the_paper() -> None:
    """F(t + 1) = a S F(t) + (1 - a) Y comes to the same order of classes."""
    rng = np.random.default_rng(0)
    similarity = cosines(rng.normal(size=(12, 4)))
    labels = np.array([1, 1, -1, -1, -1, *[0] * 7])
    found = propagate(similarity, labels, neighbours=4, alpha=0.8, power=2.0)
    near = similarity.copy()
    np.fill_diagonal(near, -np.inf)
    weights = np.zeros((12, 12))
    for row in range(12):
        for column in np.argsort(-near[row], kind="stable")[:4]:
            weights[row, column] = max(near[row, column], 0) ** 2
    weights = np.maximum(weights, weights.T)
    degrees = weights.sum(1) + 1e-9
    spread = weights / np.sqrt(np.outer(degrees, degrees))
    start = np.stack([(labels > 0) / 2, (labels < 0) / 3], 1)
    state = start
    for _ in range(400):
        state = 0.8 * spread @ state + 0.2 * start
    state = state / 0.2 + 1e-9
    np.testing.assert_allclose(found, np.log(state[:, 0] / state[:, 1]), rtol=1e-6, atol=1e-6)


def test_many_of_others_do_not_drown_few_of_the_function() -> None:
    points = np.concatenate([np.tile([1.0, 0.05], (3, 1)), np.tile([0.05, 1.0], (60, 1))])
    points += np.random.default_rng(0).normal(0, 0.01, points.shape)
    labels = np.array([1, 0, 0, *[-1] * 60])
    assert (propagate(cosines(points), labels, neighbours=2)[:3] > 0).all()


def test_one_kind_of_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 labels of the function and 0 of others"):
        propagate(np.eye(3), np.array([1, 0, 0]))
