"""The command, called as a user does, on a tiny recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

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
    from pipelines.cli import app

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
