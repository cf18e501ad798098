"""Labels spread over a graph of similar requests: those near annotated ones take theirs.

Zhou, Bousquet, Lal, Weston and Schölkopf, "Learning with local and global consistency" (NIPS 2003): with the
normalised similarities S of each request and its nearest ones, F = (I - a S)^-1 Y. Each class of Y is scaled to the
same mass, as the few annotated requests of a new function stand beside many of others.
"""

from __future__ import annotations

import numpy as np

_LEAST = 1e-9  # mass: of a request that no annotated one reaches


def propagate(
    similarity: np.ndarray, labels: np.ndarray, neighbours: int = 12, alpha: float = 0.9, power: float = 4.0
) -> np.ndarray:
    """Return the log-odds (N,) that each request is of the function, by the labels of those that it is connected to.

    Args:
        similarity: Cosines of requests, (N, N).
        labels: (N,): 1 of the function, -1 of others, 0 unknown. There are some of both.
        neighbours: The nearest requests that each is connected to.
        alpha: How far labels spread, from 0 to 1.
        power: Of cosines, as weights of the graph: the larger, the more the nearest count.

    Raises:
        ValueError: there are no labels of one kind.

    Example:
        >>> near = np.array([[1, 0.9, 0.1, 0], [0.9, 1, 0.2, 0], [0.1, 0.2, 1, 0.8], [0, 0, 0.8, 1]])
        >>> (propagate(near, np.array([1, 0, 0, -1]), neighbours=2) > 0).tolist()
        [True, True, False, False]
    """
    own, others = labels > 0, labels < 0
    if not own.any() or not others.any():
        raise ValueError(f"{int(own.sum())} labels of the function and {int(others.sum())} of others; expected both")
    count = len(labels)
    cosines = np.array(similarity, np.float64)
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(neighbours, count - 1)]
    weights = np.zeros((count, count))
    rows = np.arange(count)[:, None]
    weights[rows, nearest] = np.maximum(cosines[rows, nearest], 0.0) ** power
    weights = np.maximum(weights, weights.T)
    root = np.sqrt(weights.sum(1) + _LEAST)
    spread = weights / root[:, None] / root[None]
    mass = np.stack([own / own.sum(), others / others.sum()], axis=1)
    found = np.linalg.solve(np.eye(count) - alpha * spread, mass) + _LEAST
    return np.log(found[:, 0]) - np.log(found[:, 1])
