"""What a run is expected to make: by its plan, or by an earlier run with the same settings."""

from __future__ import annotations

import contextlib

from gristmill.pipelines.agenda import Agenda
from gristmill.pipelines.command.launch import read_plan
from gristmill.pipelines.config import Loaded, same_as_saved, saved_digest
from gristmill.pipelines.run import read_ledger
from gristmill.shards.errors import Damaged


def expected(loaded: Loaded) -> Agenda:
    """Return the agenda of a run: empty without a plan of it and without an earlier run, since its recipe's lines are
    run in order, and what a later one makes may depend on data."""
    out = loaded.common.out
    with contextlib.suppress(Damaged):  # as if it were not there; `gristmill audit` tells
        plan = read_plan(out)
        if plan is not None and plan.get("settings") == loaded.digest:
            results = [(str(name), float(seconds)) for name, seconds in plan["results"]]
            return Agenda(results, max(0.0, plan["estimate"]["seconds"] - sum(seconds for _, seconds in results)))
    with contextlib.suppress(Damaged):
        ledger = read_ledger(out)
        if ledger is not None and ledger["settings"] == saved_digest(out) and same_as_saved(loaded):
            made = {entry["path"]: entry["name"] for entry in ledger["made"]}  # one that is used twice is there twice
            return Agenda([(name, None) for name in made.values()])
    return Agenda()
