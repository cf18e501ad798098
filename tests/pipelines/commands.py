"""The command, called as a user does."""

from __future__ import annotations

from typer.testing import CliRunner, Result


def call(*arguments: object) -> Result:
    """Call the command; the result has ``exit_code``, ``stdout`` and ``stderr``. A bug keeps its traceback."""
    from gristmill.pipelines.command.cli import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
