"""Requests to choose from, with words, vectors and a recogniser's confidence."""

from __future__ import annotations

import numpy as np

from gristmill.models.requests.grams import RequestRows

DIM = 12


def requests(number: int, seed: int = 0) -> RequestRows:
    """Requests of a few templates; some are equal in all but their ids."""
    rng = np.random.default_rng(seed)
    tokens = [[f"w{one}" for one in rng.integers(0, 12, rng.integers(0, 6))] for _ in range(number)]
    vectors = rng.normal(size=(number, DIM)) + 3 * rng.normal(size=(5, DIM))[rng.integers(0, 5, number)]
    for place in range(0, number - 1, 7):
        tokens[place + 1], vectors[place + 1] = tokens[place], vectors[place]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return RequestRows(
        [f"r{place:04d}" for place in range(number)],
        tokens,
        vectors.astype(np.float16),
        (np.floor(rng.random(number) * 20) / 20).astype(np.float32),
        rng.normal(size=number).astype(np.float32),
    )
