"""One Ray for all tests of the runner."""

from __future__ import annotations

import importlib.util

import pytest

from tests.shared import SHARED


@pytest.fixture(scope="session")
def ray_session() -> None:
    """A local Ray of four CPUs; a runner with fewer workers uses only so many of them."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    from gristmill.cluster import session

    session.start(4)
    SHARED.callback(session.stop)


@pytest.fixture(scope="session")
def watched_cluster() -> object:
    """A Ray of its own on loopback with metrics and dashboard, where a small recipe was run."""
    from tests.cluster.watched import watched

    return SHARED.enter_context(watched())
