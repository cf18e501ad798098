"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real corpora: ``$GRISTMILL_DATA``, or ``../shared/data`` beside the project."""
    path = Path(os.environ.get("GRISTMILL_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"real data is absent: set GRISTMILL_DATA ({path} is no folder)")
    return path
