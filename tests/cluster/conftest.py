"""One Ray for all tests of the runner."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(ROOT))]
)


@pytest.fixture(scope="session")
def ray_session() -> None:
    """A local Ray of four CPUs; a runner with fewer workers uses only so many of them."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    from cluster import session

    session.start(4)


@pytest.fixture(scope="session")
def watched_cluster() -> Iterator[object]:
    """A Ray of its own on loopback with metrics and dashboard, where a small recipe was run."""
    from tests.cluster.watched import watched

    with watched() as cluster:
        yield cluster
