"""One Ray for all tests of the runner."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> None:
    """A local Ray of four CPUs; a runner with fewer workers uses only so many of them."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    from gristmill.cluster import session

    session.start(4)


@pytest.fixture(scope="session")
def watched_cluster() -> Iterator[object]:
    """A Ray of its own on loopback with metrics and dashboard, where a small recipe was run."""
    from tests.cluster.watched import watched

    with watched() as cluster:
        yield cluster
