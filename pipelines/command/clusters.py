"""The commands about where runs work: this machine, a Ray cluster, fleets that are yet to start."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.pipelines.command.arguments import Address, Config, Overrides
from gristmill.shards.errors import UserError


def doctor(
    out: Annotated[str, typer.Argument(metavar="[OUT]", help="Where a run would write.")] = "runs",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Check each node as well; implied if RAY_ADDRESS is set.")
    ] = False,
) -> None:
    """Check that this machine, and each node of the cluster, is ready for a run."""
    from gristmill.pipelines.command.doctor import show_checks
    from gristmill.shards.store import absolute

    if not show_checks(absolute(out), cluster):
        raise typer.Exit(1)


def submit(
    config: Config,
    overrides: Overrides = None,
    address: Address = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the job's log to its end.")] = False,
    submission_id: Annotated[str | None, typer.Option(metavar="ID", help="A name for the job.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for the job.")] = None,
) -> None:
    """Run or resume a recipe as a job of a Ray cluster; the exit code is the run's."""
    from gristmill.pipelines.command.submit import submit

    code = submit(config, overrides or [], _address(address), submission_id, env or [], wait=not no_wait)
    if code:
        raise typer.Exit(code)


def stop(
    job: Annotated[str, typer.Argument(metavar="ID", help="The job's id, as printed by submit.")],
    address: Address = None,
) -> None:
    """End a submitted job; its committed work is kept."""
    from gristmill.pipelines.command.submit import stop

    stop(job, _address(address))


def _address(given: str | None) -> str:
    if given is None:
        raise UserError(
            "--address: not given; expected the address of the cluster's dashboard, such as http://127.0.0.1:8265"
        )
    return given


def manifest(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="kuberay, ray-up or slurm.")],
    fleet: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FLEET] [KEY=VALUE]...", help="A fleet file [configs/fleet.yaml], and settings."),
    ] = None,
) -> None:
    """Print the manifest that starts a fleet on Kubernetes, on a cloud or under Slurm."""
    from gristmill.pipelines.command.manifest import render

    print(render(kind, fleet or []), end="")


VERBS = (doctor, submit, stop, manifest)
PLAIN = {verb.__name__ for verb in VERBS}  # they commit no work, so that one that was interrupted has nothing to resume
