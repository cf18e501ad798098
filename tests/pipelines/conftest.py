"""The command, called as a user does, on a tiny recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.pipelines.commands import call

Command = Callable[..., Result]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(f"recipe: tests.pipelines.tiny\nout: {tmp_path}/out\nrunner: inprocess\n")
    return path


@pytest.fixture
def gristmill() -> Command:
    """Call the command; the result has ``exit_code``, ``stdout`` and ``stderr``."""
    return call
