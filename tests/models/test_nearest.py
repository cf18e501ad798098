"""Histograms of parts find the nearest of the whole."""

from __future__ import annotations

import numpy as np

from gristmill.models.nearest import border, histogram, places


def test_histograms_find_the_border() -> None:
    rng = np.random.default_rng(0)
    given = np.concatenate([rng.normal(size=500), [0.0, -0.0, 1e-30, -1e-30, 1e30]]).astype(np.float32)
    order = np.sort(given)
    assert (np.diff(places(order)) >= 0).all()
    assert places(np.float32([0.0]))[0] == places(np.float32([-0.0]))[0]
    counts = histogram(given[:200]) + histogram(given[200:])
    for number in (1, 17, 250, len(given)):
        place, rest = border(counts, number)
        inside = order[places(order) == place]
        assert np.sum(places(order) < place) + rest == number
        assert inside[rest - 1] == order[number - 1]
