"""``gristmill repair``: moves damaged work aside, under the lease of the output."""

from __future__ import annotations

import sys

from gristmill.pipelines.command.audit import damaged_files
from gristmill.pipelines.progress import plural
from gristmill.shards.errors import UserError
from gristmill.shards.finding import find_below
from gristmill.shards.lease import Lease
from gristmill.shards.repair import Mover, repair


def repair_output(out: str) -> int:
    """Move all that is damaged below an output aside, print each file and what is wrong with it, and return how many.

    Raises:
        UserError: there is no run.
    """
    found = find_below(out)
    if not (found.sealed or found.unsealed or found.artifacts or found.training or found.unreadable):
        raise UserError(f"{out}: there is no run here; expected the output of `gristmill run`")
    lease = Lease(out)
    lease.take(lambda sentence: print(f"gristmill: {sentence}", file=sys.stderr))
    try:
        mover = Mover(out)
        for fault in damaged_files(out):
            mover.move(fault.url, fault.fault)
        for _ in repair(out, mover):
            lease.check()
    finally:
        lease.release()
    for moved in mover.moved:
        print(f"{moved.url.removeprefix(out).lstrip('/')}: {moved.fault}")
    if mover.moved:
        print(
            f"moved {plural(len(mover.moved), 'file')} to {mover.folder}; run the recipe again to make what "
            "is missing, and what depended on it if it comes out otherwise"
        )
    else:
        print("nothing is damaged")
    return len(mover.moved)
