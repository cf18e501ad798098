"""Scores of a chain are those of the dense inverse, whichever way a component is solved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from gristmill.models.sessions import absorbing
from gristmill.models.sessions.absorbing import best_targets, probabilities


def chain(sizes: list[int], seed: int) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Return Q, r+ and components of random counts."""
    rng = np.random.default_rng(seed)
    blocks = [rng.poisson(0.7 * (rng.random((n, n)) < min(1, 4 / n))) + np.diag(np.ones(n - 1), 1) for n in sizes]
    steps = sparse.csr_array(sparse.block_diag(blocks).astype(float))
    succeeded = rng.integers(0, 4, sum(sizes))
    total = np.asarray(steps.sum(1)).ravel() + succeeded + rng.integers(0, 3, sum(sizes))
    q, success = probabilities(steps, succeeded, total, 0.1)
    return q, success, np.repeat(np.arange(len(sizes)), sizes)


def dense(q: sparse.csr_array, success: np.ndarray) -> np.ndarray:
    return np.linalg.inv(np.eye(q.shape[0]) - q.toarray()) * success


@pytest.mark.parametrize("exact", [1000, 0], ids=["factorised", "followed"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_dense_inverse(seed: int, exact: int) -> None:
    q, success, components = chain([2, 5, 40, 2, 5, 70, 3], seed)
    sources = np.flatnonzero(np.arange(len(components)) % 3)
    found = best_targets(q, success, components, sources, exact, pruned=1e-8)
    wanted = dense(q, success)
    assert np.abs(found.own - wanted[sources, sources]).max() < 1e-8 + found.dropped.max()
    wanted[np.arange(len(wanted)), np.arange(len(wanted))] = -1
    assert np.abs(found.score - wanted[sources].max(1)).max() < 1e-8 + found.dropped.max()
    some = found.target >= 0
    assert some.sum() > len(some) / 2
    assert np.abs(wanted[sources[some], found.target[some]] - wanted[sources[some]].max(1)).max() < 1e-8
    assert found.dropped.max() < 1e-5
    assert (found.dropped.max() > 0) == (exact == 0)


def test_nodes_from_which_no_chain_ends_are_smoothed() -> None:
    steps = sparse.csr_array([[0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    given = np.array([0, 0, 4]), np.array([3, 3, 5])
    q, success = probabilities(steps, *given, 0.01)
    assert q.sum(1)[:2].max() < 1
    assert q[2, 0] == pytest.approx(0.2)  # where chains end nothing is added
    found = best_targets(q, success, np.zeros(3, int), np.array([0, 2]))
    assert found.target.tolist() == [-1, -1]
    assert found.own.tolist() == [0.0, pytest.approx(0.8)]
    q, _ = probabilities(steps, np.array([0, 1, 4]), np.array([3, 4, 5]), 0.01)
    assert q.sum(1)[0] == 1  # of a node that goes on to one where chains end neither


def test_scores_do_not_depend_on_the_components_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    q, success, components = chain([3, 6, 40, 6, 3, 50], 0)
    sources = np.arange(len(components))
    whole = best_targets(q, success, components, sources)
    monkeypatch.setattr(absorbing, "_STACK", 1)
    for one in range(6):
        inside = np.flatnonzero(components == one)
        part = sparse.csr_array(q[inside][:, inside])
        found = best_targets(part, success[inside], np.zeros(len(inside), int), np.arange(len(inside)))
        assert found.score.tobytes() == whole.score[inside].tobytes()
        assert (np.where(found.target >= 0, found.target + inside[0], -1) == whole.target[inside]).all()


def test_no_target_where_nothing_else_succeeds() -> None:
    q, success = probabilities(sparse.csr_array([[0.0, 2.0], [0.0, 0.0]]), np.array([1, 0]), np.array([3, 2]), 0.1)
    found = best_targets(q, success, np.zeros(2, int), np.array([0, 1]))
    assert found.target.tolist() == [-1, -1]
    assert found.own.tolist() == [pytest.approx(1 / 3), 0.0]
