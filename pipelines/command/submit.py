"""Submission of a recipe to a cluster, whose log is followed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.cluster.submission import JobServer, check_variables, packed
from gristmill.pipelines.config import find, load, read
from gristmill.shards import processor, store
from gristmill.shards.errors import UserError
from gristmill.shards.safe_text import escaped

STOPPED_FOLLOWING = 130


def submit(
    config: str,
    overrides: Sequence[str],
    address: str,
    name: str | None = None,
    variables: Sequence[str] = (),
    wait: bool = True,
) -> int:
    """Check a recipe, submit it and follow its log; return the exit code of its run.

    Raises:
        UserError: the recipe is invalid, its output would not outlive the job, or the cluster rejects it.
    """
    loaded = load(config, overrides)  # loads, and so registers, the user's modules that it names
    config = find(config)
    check_out(config, read(config, overrides, "recipe file", "a YAML file"))
    text = store.read_bytes(config)
    given = dict(_variable(item) for item in variables)
    check_variables(given)
    level = loaded.common.processor or given.get(processor.VARIABLE) or processor.asked()
    cluster = JobServer(address)
    with packed(config, text) as (folder, place):
        job = cluster.submit(folder, ["run", place, *overrides], processor.variables(level) | given, name)
    stop = f"`gristmill stop {shlex.quote(job)} --address {shlex.quote(address)}`"
    print(f"submitted {job} to {cluster.address}; {stop} ends it", flush=True)
    if not wait:
        return 0
    try:
        return cluster.follow(job, _print)
    except KeyboardInterrupt:
        print(f"gristmill: no longer following; {job} continues, {stop} ends it", file=sys.stderr)
        return STOPPED_FOLLOWING


def stop(job: str, address: str) -> None:
    """End a job of a cluster; its committed work is kept."""
    print(f"{job}: {JobServer(address).stop(job)}; committed work is kept, and the same submission resumes it")


def check_out(config: str, values: Mapping[str, Any]) -> None:
    """Check that the output is not below the job's working folder, which is deleted with the job."""
    out = str(values.get("out") or "")
    if "://" not in out and not Path(out).is_absolute():
        raise UserError(
            f"{config}: out={out or 'runs/...'}: a relative path would be in the job's copy of the code and be deleted "
            "with it; expected a URL such as s3://bucket/folder, or the full path of a folder that all nodes share"
        )


def _variable(item: str) -> tuple[str, str]:
    name, sign, value = item.partition("=")
    if not sign or not name:
        raise UserError(f"--env {item}: expected NAME=VALUE")
    return name, value


def _print(text: str) -> None:
    sys.stdout.write(escaped(text, keep="\n\t"))
    sys.stdout.flush()
