"""At the end of a run it is told what of the user's input was left out, each time, and what is not input is not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from gristmill.actors.records import filter_records
from gristmill.actors.sources.lists import RejectListed
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command.left_out import left_out
from gristmill.pipelines.run import Run
from gristmill.shards.schema import PARENT_ID
from gristmill.shards.stage import Actor
from gristmill.shards.step import Step

PROBLEMS = [None, "no text", None, "line 4 is no JSON", "no text", None, "no text", "a reason of its own"]


@filter_records
def odd(id: str) -> str | None:
    """Reject every second record, and fail on the seventh."""
    if id == "6":
        raise ValueError("six")
    return "odd" if int(id) % 2 else None


def made(out: Path, *stages) -> list[str]:
    """Return what is told of a run of one step."""
    run = Run(str(out), InProcessRunner())
    rows = pa.table({"id": [str(n) for n in range(8)], "problem": pa.array(PROBLEMS, pa.string())})
    source = run.source("listed", lambda: iter([rows]), {"rows": 8})
    run.step(Step("read", stages, source, max_quarantine=1.0))
    run.finish()
    return list(left_out("my out", run.trace))


def test_rejected_input_is_told_each_time(tmp_path: Path) -> None:
    told = [
        "read: 5 of 8 records of the input rejected (no text: 3; a reason of its own: 1; ...); "
        "`gristmill inspect 'my out/read' --rejects` shows them"
    ]
    assert made(tmp_path, RejectListed.stage(), odd.stage()) == told
    assert made(tmp_path, RejectListed.stage(), odd.stage()) == told


class TwoOfEach(Actor):
    reads_input = True
    adds = (PARENT_ID,)
    keeps = ()
    fan_out = True

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["id"].to_pylist()
        firsts = [{"id": f"{one}~0", "parent_id": one, "reject_reason": None} for one in ids]
        seconds = [{"id": f"{one}~1", "parent_id": one, "reject_reason": "one is enough"} for one in ids]
        return pa.Table.from_pylist([*firsts, *seconds])


def test_of_records_that_become_several_none_are_called_their_share(tmp_path: Path) -> None:
    (told,) = made(tmp_path, TwoOfEach.stage())
    assert told.startswith("read: 8 of the input rejected (one is enough: 8); ")


def test_what_a_filter_rejects_is_not_told_and_what_fails_is(tmp_path: Path) -> None:
    assert made(tmp_path, odd.stage()) == [
        "read: 1 record of 8 made a stage fail; `gristmill inspect 'my out/read' --quarantine` shows them, "
        "`gristmill requeue 'my out'` tries them again"
    ]
